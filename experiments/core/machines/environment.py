"""What a run was made with, and what it took: versions and devices, seconds without compilation, what XLA counts."""

from __future__ import annotations

import math
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


def program_flops(traced: Any, compiled: Any) -> float:
    """Floating-point operations of a program: as XLA counts them, or those of its matrix products if they stand in a loop.

    XLA counts the body of a loop once, however often it runs.

    Args:
      traced, compiled: `jax.jit(fn).trace(...)`, and what it was compiled to.
    """
    jaxpr = traced.jaxpr.jaxpr
    return products(jaxpr) if _has_loop(jaxpr) else flops(compiled)


def products(jaxpr: Any) -> float:
    """Floating-point operations of the matrix products of a trace, 2 m n k of each; in a loop, of each of its trips.

    Example:
      >>> import jax.numpy as jnp
      >>> thrice = lambda x: jax.lax.scan(lambda h, _: (h @ x, None), x, None, length=3)[0]
      >>> products(jax.make_jaxpr(thrice)(jnp.ones((2, 2))).jaxpr)
      48.0
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * depth * math.prod(equation.outvars[0].aval.shape)
        total += _trips(equation) * sum(products(inner) for inner in _inner(equation))
    return total


def _has_loop(jaxpr: Any) -> bool:
    """Whether a matrix product stands in a loop of several trips."""
    return any(
        (_trips(equation) > 1 and products(inner) > 0) or _has_loop(inner)
        for equation in jaxpr.eqns
        for inner in _inner(equation)
    )


def _trips(equation: Any) -> int:
    return int(equation.params["length"]) if equation.primitive.name == "scan" else 1


def _inner(equation: Any) -> Iterator[Any]:
    """The programs within an equation: bodies of loops, of calls and of branches."""
    for value in equation.params.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            entry = getattr(entry, "jaxpr", entry)
            if hasattr(entry, "eqns"):
                yield entry


def peak_bytes(compiled: Any) -> int:
    """Arguments, results and temporaries of a compiled program, in bytes."""
    memory = compiled.memory_analysis()
    return int(memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes)
