"""Models, data, devices, files, flags and reports; `run` runs a config from Python, `load` reads what a run left behind."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.loading import load as load
    from experiments.running import run as run

    __version__: str
else:

    def __getattr__(name: str) -> Any:
        """`load`, `run` and `__version__`, looked up only when asked for: a command must start at once."""
        if name == "load":  # brings JAX and all models
            from experiments.loading import load

            return load
        if name == "run":
            from experiments.running import run

            return run
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import metadata

        try:
            return metadata.version("forethought")
        except metadata.PackageNotFoundError:  # a source tree that was not installed
            return "0+unknown"
