"""Exact unlearning by adapters that can be switched off (S3T, 2406.16257), with plans of our own.

`plans` puts each example into a shard and a slice by a keyed hash, chooses what is trained for a shard, and counts the
deletions it survives. `training` holds the adapters that a node owns, what is needed of a model (`training.backbone`), and
the programs that train all nodes of a depth at once. `store` keeps nodes on disk: ledger, certificates, files. `service`
makes a store, heals it after deletions, verifies it, replays its nodes, and serves the ensemble of survivors. `cli` is the
command line. Nothing is imported here: a process that only deletes must start at once.
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
