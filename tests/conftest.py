"""Settings of every test.

JAX runs on the CPU unless JAX_PLATFORMS says otherwise: workers side by side would fight over one GPU. Compiled programs
are kept in pytest's own cache folder, which halves the time of a second run; `pytest --cache-clear` empties it.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax


def pytest_configure(config):
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
