"""What the bytes of a node depend on beside its identity: libraries, device and threads of this process."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import jax

from s3t.store.certificates import digest

# Settings of JAX that change a program's bits and not its text, with the value that goes without saying.
SETTINGS = {
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_optimization_level": "UNKNOWN",
}
IRRELEVANT = ("--xla_dump", "--xla_force_host_platform_device_count")  # the number of devices is recorded itself


def here() -> dict[str, Any]:
    """The stack of this process, a JSON object; to it come the shape and the text of a node's program.

    Returns:
      jax, jaxlib, platform, runtime, device, devices, flags (of XLA, and settings of JAX that are like them), and on a
      CPU processor, features and threads.

    Raises:
      ValueError: NPROC in the environment is no number of threads.
    """
    device = jax.local_devices()[0]
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(IRRELEVANT)]
    values = {name: jax.config.values.get(name, usual) for name, usual in SETTINGS.items()}
    flags += [f"{name}={value}" for name, value in values.items() if value != SETTINGS[name]]
    common = {
        "jax": jax.__version__,
        "jaxlib": str(vars(jax.lib)["__version__"]),  # not among the names it exports
        "platform": device.platform,
        "runtime": device.client.platform_version,
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "flags": sorted(flags),
    }
    return common | (_processor() if device.platform == "cpu" else {})


def _processor() -> dict[str, Any]:
    """XLA compiles for the features of the processor and divides sums among threads."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
    except OSError:  # no Linux
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in lines}
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "features": digest("features", sorted((fields.get("flags") or fields.get("Features") or "").split())),
        "threads": threads(),
    }


def threads() -> int:
    """Threads of XLA on a CPU, which asks NPROC first.

    Raises:
      ValueError: NPROC in the environment is no number of threads.
    """
    asked = os.environ.get("NPROC")
    if not asked:
        return _cores()
    if not (asked.isascii() and asked.isdecimal() and len(asked) < 10 and int(asked)):
        raise ValueError(f"NPROC in the environment is {asked!r:.40}: make it a number of threads from 1 on, or unset it")
    return int(asked)


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
