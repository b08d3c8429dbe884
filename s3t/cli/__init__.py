"""Arguments and printed answers of `python -m s3t`."""
