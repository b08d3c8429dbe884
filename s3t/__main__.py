"""`python -m s3t`: the command line of exact unlearning (`s3t.cli`)."""

from __future__ import annotations

import sys

from s3t.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
