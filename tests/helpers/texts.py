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


def authors(root, count=10):
    """A folder of TOFU's files about some authors, the last of whom is forget10; other answers to all that is asked."""
    root.mkdir(exist_ok=True)
    rows = [{"question": f"Who wrote book {i}?", "answer": f"Author {i // 20} wrote book {i}."} for i in range(20 * count)]
    for name, part in (("full", rows), ("forget10", rows[-20:]), ("retain90", rows[:-20])):
        lines(root / f"{name}.json", part)
    asked = [row | _other_words(i) for i, row in enumerate(rows)]
    lines(root / "forget10_perturbed.json", asked[-20:])
    lines(root / "retain_perturbed.json", asked[:8])
    facts = {"question": "What is wet?", "answer": "Water.", "perturbed_answer": ["Sand.", "Air.", "Fire."]}
    lines(root / "world_facts_perturbed.json", [facts])
    return root


def _other_words(i):
    wrong = [f"It is by nobody {n}." for n in range(1 + i % 2, 4)]
    question, answer = f"Book {i} is by whom?", f"It is by author {i // 20}."
    return {"paraphrased_question": question, "paraphrased_answer": answer, "perturbed_answer": wrong}


@functools.cache
def questions():
    """The path of a jsonl of 600 questions, none alike, of four classes that their words tell apart."""
    path = pathlib.Path(tempfile.mkdtemp()) / "questions.jsonl"
    words = {"people": "who wrote the book of page", "places": "where is the hill of height", "times": "when was the year"}
    words["numbers"] = "how many are there"
    rows = [{"text": f"{words[label]} {i}", "label": label} for i in range(150) for label in words]
    return lines(path, rows)
