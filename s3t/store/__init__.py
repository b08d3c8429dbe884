"""A trained ensemble on disk: ledger, certificates, files. Imports no jax: a process that only deletes starts at once."""
