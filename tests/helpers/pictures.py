"""Pages without the time that drawing takes."""

import pytest

from experiments.reporting import drawing
from experiments.reporting.document import Panel

SVG = '<svg viewBox="0 0 1 1"><path d="M0 0h1"/></svg>'


@pytest.fixture
def undrawn(monkeypatch):
    """Every figure is one and the same stroke; what it would show is collected all the same, but not drawn."""
    monkeypatch.setattr(drawing, "panel", lambda name, caption, *_, **__: Panel(name, caption, SVG, b"%PDF"))
