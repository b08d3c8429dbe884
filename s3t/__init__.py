"""Exact unlearning by adapters that can be switched off (S3T, 2406.16257), with plans of our own.

`partition` puts each example into a shard and a slice by a keyed hash, `plan` says what is trained for a shard and what
of it survives a deletion, `planners` choose it, and `simulate` counts the deletions it survives. `adapters` are what a node
owns, `backbone` is what is needed of a model, `train` makes all nodes of a depth in one program, and `build` those of a
whole plan. `store` and `ledger` keep them, `heal` makes and remakes them, `verify` and `replay` prove what they are made
from; `serve` answers with what survives, and `serving` is a process that does. Nothing is
imported here: a process that only deletes must start at once.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """`__version__`, looked up only when asked for: a command must start at once."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import metadata

        try:
            return metadata.version("forethought")
        except metadata.PackageNotFoundError:  # a source tree that was not installed
            return "0+unknown"
