"""The flag `--smoke` of every benchmark: the same code at toy size, in seconds. Its numbers mean nothing."""

from __future__ import annotations

import argparse
import atexit
import shutil
import tempfile
from collections.abc import Callable
from typing import Any


def parse(parser: argparse.ArgumentParser, **small: Any) -> argparse.Namespace:
    """The arguments of the command line; with `--smoke`, options that were not given take the values of `small`.

    Args:
      parser: without `--smoke`.
      small: option -> value; a function is called for the value.
    """
    parser.add_argument("--smoke", action="store_true", help="a toy run that shows that the benchmark works, and no more")
    args = parser.parse_args()
    if not args.smoke:
        return args
    parser.set_defaults(**{name: value() if isinstance(value, Callable) else value for name, value in small.items()})  # type: ignore[arg-type]
    return parser.parse_args()


def folder() -> str:
    """An empty folder that is removed when the process ends."""
    made = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
