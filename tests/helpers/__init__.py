"""What tests share: small models, stores, servers, kills."""
