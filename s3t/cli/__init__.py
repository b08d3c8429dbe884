"""The command line of exact unlearning: `python -m s3t COMMAND --help`, or `s3t` where it is installed."""

from s3t.cli.program import main

__all__ = ["main"]
