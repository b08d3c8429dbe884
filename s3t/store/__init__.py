"""A trained ensemble on disk: ledger, certificates, files. Imports no jax: who only deletes starts at once."""
