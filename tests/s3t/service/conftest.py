"""Stores that are really trained."""

import pytest

from tests.helpers import builds


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A trained store of the toy data: 2 shards of 2 slices, 3 nodes per shard; a module may have a template of its own."""
    return builds.trained(tmp_path_factory.mktemp("trained") / "store")
