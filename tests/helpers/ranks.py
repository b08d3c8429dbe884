"""Several processes of one run on this machine, found by FORETHOUGHT_* variables."""

import os
import pathlib
import socket
import subprocess
import sys

import jax

from experiments.core.machines.distributed import VARIABLES
from tests.helpers import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OF_TESTS = ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")


def start(count, *words, folder=None, devices=1):
    """`count` processes of `python words`, each with so many devices; each writes to a file in `folder` if one is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--xla_force_host_platform_device_count={devices}"]
    flags += [f"--{name}={value}" for name, value in toys.quick_options().items()]
    env = {name: value for name, value in os.environ.items() if name not in OF_TESTS} | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        "XLA_FLAGS": " ".join(flags),
        "NPROC": "8",
        "PYTHONPATH": str(ROOT),
    }
    started = []
    for process in range(count):
        told = dict(zip(VARIABLES.values(), (coordinator, str(count), str(process)), strict=True)) if count > 1 else {}
        out = subprocess.PIPE if folder is None else (folder / f"out.{process}").open("w")
        error = subprocess.PIPE if folder is None else (folder / f"err.{process}").open("w")
        line = [sys.executable, *map(str, words)]
        started.append(subprocess.Popen(line, cwd=ROOT, env=env | told, stdout=out, stderr=error, text=True))
    return started


def ended(started, seconds=300):
    """(status, output, errors) of each process; those that do not end are killed."""
    try:
        told = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(started, told, strict=True)]
