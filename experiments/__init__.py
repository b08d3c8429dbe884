"""Models, data, devices, files, flags and reports: the only room that touches the world."""

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
