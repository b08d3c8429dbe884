"""Pre-training of the small ViTs that S3T adapts."""
