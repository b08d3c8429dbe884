"""Experiments: real data, honest rivals, oracles, reports. `experiments.load(workdir)` reads what a run left behind."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "load":  # imported when it is asked for: it brings JAX and all models
        from experiments.loading import load

        return load
    raise AttributeError(f"module 'experiments' has no attribute {name!r}")
