"""Install forethought where it is missing, as in Colab, and leave the jax that is there alone.

Colab's jax fits its GPUs and TPUs. So pip is held to the versions that are there: jax and numpy are never upgraded.
"""

import importlib.util
import subprocess
import sys
from importlib import metadata


def kept() -> list[str]:
    """What must stay at its version: numpy, jax, jaxlib and jax's plugins."""
    names = {(part.metadata["Name"] or "").lower(): part.version for part in metadata.distributions()}
    return sorted(f"{name}=={version}" for name, version in names.items() if name == "numpy" or name.startswith("jax"))


def install(extras: str, *modules: str) -> None:
    """Install forethought with its extras, if one of the modules is missing."""
    if all(importlib.util.find_spec(module) for module in modules):
        return
    line = [sys.executable, "-m", "pip", "install", "-q", f"forethought[{extras}]", *kept()]
    if subprocess.run(line, check=False).returncode:
        raise RuntimeError(f"forethought cannot be installed beside {', '.join(kept())}: choose a newer runtime")
