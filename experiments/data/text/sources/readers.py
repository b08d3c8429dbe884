"""The one door to text: `open_documents` gives the documents that a name stands for, before anybody splits them."""

from __future__ import annotations

from pathlib import Path

from experiments.core.errors import DataError
from experiments.data.text.sources import folders, jsonl, muse, plain, sentences, tofu, topics
from experiments.data.text.sources.documents import Documents
from experiments.data.text.sources.jsonl import Fields

OWN = ("texts", "jsonl", "tofu", "muse")  # kinds of a user's own documents, as in KIND:PATH


def open_documents(
    name: str,
    *,
    data_dir: str = "",
    encoding: str = "",
    label: str = "",
    group: str = "",
    fields: Fields | None = None,
) -> Documents:
    """The documents of a data set.

    Args:
      name: 'pydoc' (Python's own manual, needs no files), a text set as TFDS names it (glue/sst2, trec, imdb_reviews,
        ag_news_subset), or a user's own: 'texts:PATH' (see `folders`), 'jsonl:PATH', 'tofu:PATH', 'muse:PATH'.
      data_dir: where TFDS prepared it; '' is TFDS_DATA_DIR or TFDS's default.
      encoding: of a user's own files; '' is UTF-8.
      label: the feature of TFDS that holds the class; '' is the only one, or the coarse one of trec.
      group: a regular expression that finds the group in paths of texts; see `folders.read`.
      fields: names of the fields of a jsonl; None: text alone.

    Raises:
      DataError: the name or the files will not do, or an option has no effect on them.
    """
    kind, _, path = name.partition(":")
    own = kind in OWN
    for option, given, fits, takes in (
        ("data_dir", data_dir, not own and name != topics.NAME, "prepared TFDS data"),
        ("encoding", encoding, own, "files of your own"),
        ("label", label, not own and name != topics.NAME, "prepared TFDS data; a jsonl names its field"),
        ("group", group, kind == "texts", "texts:PATH"),
        ("fields", fields, kind == "jsonl", "jsonl:PATH"),
    ):
        if given and not fits:
            raise DataError(f"data.{option} is for {takes}, and the data are {name!r}: leave it empty")
    if name == topics.NAME:
        return topics.read()
    if not own:
        return sentences.read(name, data_dir, label, OWN)
    if not path:
        raise DataError(f"data.name is {name!r}: give a path, as in --config.data.name={kind}:PATH")
    where, encoding = Path(path).expanduser(), encoding or plain.UTF8
    if kind == "texts":
        return folders.read(where, group, encoding)
    if kind == "jsonl":
        return jsonl.read(where, fields or Fields(), encoding)
    return (tofu if kind == "tofu" else muse).read(where, encoding)
