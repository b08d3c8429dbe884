"""What the tests' own factories are trusted with; `service/trust_test.py` asks for trust as users do."""

import pytest

from s3t.service import factory
from tests.helpers import builds, sequences, servers, stores


@pytest.fixture(autouse=True)
def trusted(request, monkeypatch):
    """Factories of these helpers may be called, unless a test is marked `untrusting`."""
    if not request.node.get_closest_marker("untrusting"):
        names = builds.FACTORY, sequences.FACTORY, f"{servers.__name__}:source", f"{stores.__name__}:make"
        monkeypatch.setattr(factory, "OURS", (*factory.OURS, *names))
