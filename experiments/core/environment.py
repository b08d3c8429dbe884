"""What a run was made with, and what it took: versions and devices, seconds without compilation, what XLA counts."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")
COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


def environment() -> dict[str, str | int | None]:
    """Versions and devices."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
    }


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Measure wall seconds without compilation: `with stopwatch() as seconds: ...; seconds()`."""
    compiling = [0.0]

    def listener(event: str, duration_secs: float, **_: str | int) -> None:
        if event in COMPILING:
            compiling[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listener)
    started = time.monotonic()
    try:
        yield lambda: max(time.monotonic() - started - compiling[0], 0.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def flops(compiled: Any) -> float:
    """Floating-point operations of a compiled program, as XLA counts them; NaN where it does not."""
    return float(compiled.cost_analysis().get("flops", float("nan")))


def peak_bytes(compiled: Any) -> int:
    """Arguments, results and temporaries of a compiled program, in bytes."""
    memory = compiled.memory_analysis()
    return int(memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes)
