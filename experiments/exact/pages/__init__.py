"""What is shown of an s3t run: its page, figures, and sentences."""
