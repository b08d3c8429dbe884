"""The factory's sources of text: documents that an encoder classifies, or whose tokens a decoder predicts.

An example is a document, whole in one row of tokens: a request that names it leaves nothing of it behind.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.core import files
from experiments.core.sections import TEXTS, Data
from experiments.data.ids import short
from experiments.data.splits import assign
from experiments.data.text import classes, loading, packing, parts
from experiments.data.text.sources import jsonl
from experiments.data.text.sources.documents import Documents, select
from experiments.data.text.tokenisers import Tokeniser
from experiments.exact.sources import building, hypers, placement, text_models
from experiments.exact.sources.hypers import FLAG, SHARE, TEXT, TRAINING, TRAINING_RULES, Rule, whole
from experiments.models.language import weights
from s3t.training.source import Fetch, Placing, Source

Tree = Any

# What decides bytes, of text.
HYPER: dict[str, Any] = {
    "dataset": "pydoc",
    "train_size": 0,  # 0: all
    "validation_fraction": 0.1,
    "seen": 0.0,  # the share of the documents that the backbone was pre-trained on: none of these is in the store
    "length": 256,  # tokens in a row
    "tokeniser": "",  # its digest, which the factory fills in
    "model": "gpt2",  # one of experiments.exact.sources.text_models.MODELS
    "seed": 0,  # of a random backbone
    **TRAINING,
}
COLUMNS = ("label", "encoding", "group", "fields", "answers_only")  # as of the factory for images: where they are set

FIELDS: Rule = (
    lambda value: (
        isinstance(value, Mapping)
        and value.keys() <= {*jsonl.Fields._fields}
        and all(isinstance(name, str) for name in value.values())
    ),
    f"the names of fields, by what they hold: {', '.join(jsonl.Fields._fields)}",
)
RULES: dict[str, Rule] = {
    "dataset": TEXT,
    "train_size": whole(0),
    "validation_fraction": SHARE,
    "seen": SHARE,
    "length": whole(1, 1 << 20),
    "tokeniser": TEXT,
    "model": TEXT,
    "seed": whole(0, 1 << 32),
    **TRAINING_RULES,
    **dict.fromkeys(COLUMNS, TEXT),
    "fields": FIELDS,
    "answers_only": FLAG,
}


def make(
    hyper: Mapping[str, Any],
    data_dir: str,
    data_path: str,
    checkpoint: str,
    tokeniser: str,
    placing: Mapping[str, Any],
    limits: Mapping[str, int],
) -> Source:
    """The source of a store of text; see `factory.make`.

    Raises:
      ValueError: a value out of its range; documents, weights or a tokeniser that will not do; one line.
    """
    data, model = (hyper.get(name, HYPER[name]) for name in ("dataset", "model"))
    if model not in text_models.MODELS:  # told first: what else is wrong follows from it
        raise ValueError(f"{data!r} is text, and model {model!r} reads none: choose one of {', '.join(text_models.MODELS)}")
    hyper = _complete(hyper)
    section, seen = _section(hyper, data_dir, data_path), hyper["seen"]
    learn = lambda: parts.tokeniser(loading.opened(section), seen, tokeniser)  # noqa: E731
    found = text_models.opened(hyper["model"], checkpoint, tokeniser, learn if seen else None)
    if hyper["tokeniser"] not in ("", found.tokeniser.digest):
        raise ValueError("the tokeniser is not the one that the store was made with: put the old tokenizer.json back")
    if found.loaded:
        weights.check_length(hyper["length"], found.loaded.config, checkpoint or hyper["model"])
    hyper = hyper | {"tokeniser": found.tokeniser.digest}
    documents = parts.unseen(loading.opened(classes.with_labels(section) if found.classifies else section), seen)
    if checkpoint and (known := Path(checkpoint).expanduser() / parts.SEEN).exists():
        parts.check_apart(documents, files.read_arrays(known)["documents"])
    if found.classifies and hyper.get("answers_only"):
        raise ValueError(f"answers_only is for text to predict, and the model {hyper['model']!r} classifies: leave it out")
    if found.classifies:
        backbone, frozen = text_models.classifier(found, len(documents.label_names))
    else:
        backbone, frozen = text_models.predictor(found, hyper["length"], hyper["seed"])
    splits = Splits(documents, found.tokeniser, found.classifies, hyper, section)
    ids, fetch = splits("train")
    name_of = {int(short(np.array(id_))): name for id_, name in documents.names.items()}
    called = {unicodedata.normalize("NFC", name): id_ for id_, name in name_of.items()}
    trained = set(ids.tolist())

    def place() -> Placing:
        here = {name: id_ if id_ in trained else None for name, id_ in called.items()}
        made = placement.make(ids, short(documents.ids), **placing, called=here)
        return made._replace(groups=splits.groups()) if made.groups is None else made

    return Source(
        backbone=backbone,
        frozen=frozen,
        recipe=hypers.recipe(hyper),
        ids=ids,
        names=[name_of.get(id_) for id_ in ids.tolist()] if called else None,
        fetch=fetch,
        hyper=hyper,
        most_lanes=building.lanes_for("vit", limits["most_lanes"]),
        cache_bytes=limits["cache_bytes"],
        lane_bytes=limits["lane_bytes"],
        devices=jax.local_device_count(),
        place=building.spread,
        split=splits,
        placing=place,
    )


class Splits:
    """The splits of some documents by name, tokenised at their first use: called, ids and what fetches them.

    Args:
      section: the data set, where it now lies.
    """

    def __init__(
        self, documents: Documents, tokeniser: Tokeniser, classifies: bool, hyper: Mapping[str, Any], section: Data
    ) -> None:
        self.documents, self.tokeniser, self.classifies, self.hyper = documents, tokeniser, classifies, hyper
        self.section = section
        fraction, size = hyper["validation_fraction"], hyper["train_size"]
        self.ids = assign(documents.ids, documents.test_ids, hyper["dataset"], fraction, size)
        self._kept: dict[str, tuple[Tree, Tree]] = {}

    def __call__(self, name: str) -> tuple[np.ndarray, Fetch]:
        if name not in self.ids:
            raise ValueError(f"{self.hyper['dataset']!r} has no split {name!r}: it has {', '.join(self.ids)}")
        stored, whole_ids = placement.stored(self.ids[name], self.hyper["dataset"])

        def fetch(asked: np.ndarray) -> tuple[Tree, Tree]:
            asked = np.asarray(asked)
            if lacking := np.setdiff1d(asked, stored).tolist():
                what = "training" if name == "train" else name
                raise ValueError(f"{self.hyper['dataset']!r} has no {what} example {lacking[0]}: check data_dir and hyper")
            rows = np.searchsorted(self.ids[name], whole_ids[np.searchsorted(stored, asked)])
            taken: tuple[Tree, Tree] = jax.tree.map(lambda leaf: leaf[rows], self._rows(name))
            return taken

        return stored, fetch

    def groups(self) -> list[str] | None:
        """The group of each training example, in the order of the store's ids; None: there are none."""
        documents = self.documents
        if documents.groups is None:
            return None
        _, whole_ids = placement.stored(self.ids["train"], self.hyper["dataset"])
        return [documents.group_names[group] for group in documents.groups[np.searchsorted(documents.ids, whole_ids)]]

    def _rows(self, name: str) -> tuple[Tree, Tree]:
        """(x, y) of a split in the order of its ids; a row is a function of its document alone."""
        if name not in self._kept:
            chosen, length = select(self.documents, self.ids[name]), self.hyper["length"]
            if self.classifies:
                classified = packing.classified(chosen, self.tokeniser, length)
                self._kept[name] = classified.x, classified.y
            else:
                self._kept[name] = predicted(chosen, self.tokeniser, length, self.hyper.get("answers_only", False))
        return self._kept[name]


def predicted(documents: Documents, tokeniser: Tokeniser, length: int, answers_only: bool) -> tuple[Tree, Tree]:
    """Documents as rows to predict.

    Raises:
      ValueError: a document that is longer than a row; see `packing.rows`.
    """
    rows = packing.rows(documents, tokeniser, length, answers_only)
    _, first, chunks = np.unique(rows.document, return_index=True, return_counts=True)
    if (chunks > 1).any():
        filled = rows.token_weight[first + chunks - 1, ::-1].argmax(axis=1)  # pads at the end of each document
        raise ValueError(
            f"{int((chunks > 1).sum())} of {len(chunks)} documents are longer than {length} tokens, and an example is a "
            f"whole document: set --config.data.length to {int((chunks * length - filled).max())} or more"
        )
    return {"tokens": rows.x, "next": rows.y}, {"weight": rows.token_weight}


def _complete(hyper: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(hyper.keys() - {*HYPER, *COLUMNS}):
        raise ValueError(f"hyper has no {unknown[0]!r} of text: it takes {', '.join((*HYPER, *COLUMNS))}")
    hypers.check("hyper's", hyper, RULES)
    return HYPER | {name: value for name, value in hyper.items() if value or name not in COLUMNS}


def _section(hyper: Mapping[str, Any], data_dir: str, data_path: str) -> Data:
    """The data set as configs name it; its values have been checked.

    Raises:
      ValueError: texts of one's own that are not where they were.
    """
    columns = {name: hyper[name] for name in COLUMNS if name in hyper}
    kind, _, path = hyper["dataset"].partition(":")
    if kind not in TEXTS:
        if data_path:
            raise ValueError(
                f"the factory's 'data_path' is for {', '.join(f'{one}:' for one in TEXTS)}, not {kind!r}: leave it out"
            )
        return Data.model_construct(name=hyper["dataset"], data_dir=data_dir, **columns)
    path = data_path or path
    if not Path(path).expanduser().exists():
        raise ValueError(
            f"there is nothing at {path}: give data.name the path of the texts; for a store, --arguments with "
            f'{{"data_path": PATH}}'
        )
    return Data.model_construct(name=f"{kind}:{path}", data_dir=data_dir, **columns)
