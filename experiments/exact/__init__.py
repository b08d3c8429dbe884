"""The S3T study: build, delete, heal, verify, beside its baselines."""
