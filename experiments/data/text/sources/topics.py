"""The embedded data set: the topics of Python's own manual (`pydoc_data.topics`), cut into several hundred passages.

The text differs a little between versions of Python, so its digest does; passages that stayed keep their ids.
"""

from __future__ import annotations

from pydoc_data import topics

from experiments.data.text.sources.documents import Document, Documents, made
from experiments.data.text.sources.plain import joined, paragraphs

NAME = "pydoc"
REPEATED = 60  # characters from which on a paragraph is taken once


def read() -> Documents:
    """Passages of some 200 to 600 characters; the group of each is its topic, none is for testing by convention.

    The manual repeats itself: `compound` holds all of `if`. A document that is forgotten must not stay in another one, so
    each paragraph of 60 characters or more is taken once, in the shortest topic that has it.
    """
    seen: set[str] = set()
    documents: dict[str, Document] = {}
    for topic, text in sorted(topics.topics.items(), key=lambda item: (len(item[1]), item[0])):
        parts = []
        for part in paragraphs(text):
            if part not in seen:
                parts.append(part)
            if len(part) >= REPEATED:
                seen.add(part)
        for i, passage in enumerate(joined(parts)):
            documents.setdefault(passage, Document(f"passage {i} of {topic}", passage, group=topic))
    return made(NAME, list(documents.values()))
