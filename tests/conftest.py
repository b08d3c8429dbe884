"""Settings of every test.

JAX runs on the CPU unless JAX_PLATFORMS says otherwise: workers side by side would fight over one GPU. Compiled programs
are kept in pytest's own cache folder, which halves the time of a second run; `pytest --cache-clear` empties it.
"""

import gc
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from s3t.store import disk
from tests.helpers import stores


def pytest_configure(config):
    gc.set_threshold(200_000, 20, 100)  # tracing makes objects by the million: the usual 700 cost a tenth of the time
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A full store of 60 examples, 2 shards, 3 slices and 7 nodes per shard; a module may have a template of its own."""
    root = tmp_path_factory.mktemp("template") / "store"
    disk.close(stores.fill(stores.make(root)))
    return root


@pytest.fixture
def opened(tmp_path, template):
    """A copy of the template, open."""
    with stores.copied(template, tmp_path / "store") as made:
        yield made
