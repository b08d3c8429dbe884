"""Small files of text, and the one line that a reader refuses them with."""

import functools
import json
import pathlib
import tempfile

import pytest

from experiments.core.errors import UserError


def refused(match, fn, *args, **kwargs):
    """The one-line message that `fn` refuses with."""
    with pytest.raises(UserError, match=match) as caught:
        fn(*args, **kwargs)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def texts(root, files):
    """The folder `root` with files of these names and contents."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def lines(path, rows):
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@functools.cache
def questions():
    """The path of a jsonl of 600 questions, none alike, of four classes that their words tell apart."""
    path = pathlib.Path(tempfile.mkdtemp()) / "questions.jsonl"
    words = {"people": "who wrote the book of page", "places": "where is the hill of height", "times": "when was the year"}
    words["numbers"] = "how many are there"
    rows = [{"text": f"{words[label]} {i}", "label": label} for i in range(150) for label in words]
    return lines(path, rows)
