"""Runs in processes of their own that are killed without warning, and what such runs end with."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax

from experiments.core.files import plain

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOLATILE = ("peak_bytes", "head")  # what two runs of one config differ in, beside seconds


def start(code, workdir):
    """A process that runs `code`, whose only argument is the workdir."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or str(workdir.parent / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    command = [sys.executable, "-c", code, str(workdir)]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "JAX_PLATFORMS": "cpu", **cache}
    )


def kill_when(code, workdir, moment):
    """Start a run and kill it once there is a file like `moment` in its workdir; fails if the run ends before."""
    process = start(code, workdir)
    while process.poll() is None and not any(workdir.glob(moment)):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -9 and not (workdir / "results.json").exists(), f"the run ended before {moment}"


def check_ends_the_same(code, folder, moments):
    """A run that is killed at each of the moments in turn ends with the rows of one that never was."""
    whole, broken = folder / "whole", folder / "broken"
    assert start(code, whole).wait() == 0
    for moment in moments:
        kill_when(code, broken, moment)
    assert start(code, broken).wait() == 0
    assert settled(broken) == settled(whole)


def settled(workdir):
    """The rows that a run ends with, without what differs from run to run."""
    return timeless(json.loads((workdir / "results.json").read_text())["rows"])


def timeless(value):
    """What JSON has of a value, without seconds and what is random in a ledger."""
    value = plain(value)
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "seconds" not in k and not k.endswith("_ms") and k not in VOLATILE}
        return {k: timeless(v) for k, v in kept.items()}
    return [timeless(v) for v in value] if isinstance(value, list) else value
