"""A factory for stores: a ViT, random or pre-trained, on digits, an image data set of TFDS, or images of a user's own.

Of text, `experiments.exact.sources.text` makes the source.

python -m s3t train --store DIR --factory experiments.exact.factory:make ...
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.machines import switches
from experiments.core.sections import StreamedData
from experiments.data import datasets
from experiments.data.ids import short
from experiments.data.images import DECODE_AT_ONCE
from experiments.data.text import loading
from experiments.exact.sources import building, hypers, placement, text, text_models
from experiments.exact.sources.hypers import (
    FLAG,
    SHARE,
    TEXT,
    TRAINING,
    TRAINING_RULES,
    Rule,
    above,
    is_number,
    list_of,
    whole,
)
from experiments.models import vits
from s3t.training.source import Fetch, Source

Split = Callable[[str], tuple[np.ndarray, Fetch]]

# What decides bytes. Images are scaled by constants: moments of the data would carry what is deleted.
HYPER: dict[str, Any] = {
    "dataset": "digits",
    "classes": [],  # labels to keep, renumbered in this order; all if empty
    "train_size": 0,  # 0: all
    "validation_fraction": 0.1,
    "range": 255.0,  # of a pixel; 16.0 for digits
    "mean": [0.5],  # of each channel of a pixel / range, or one for all
    "std": [0.5],
    "model": "digits",  # one of experiments.models.vits.VITS
    "seed": 0,  # of a random backbone
    **TRAINING,
}

# Columns of a csv as they are called in `experiments.data`: part of hyper only where a data set has them, so that
# manifests of others are what they were.
COLUMNS = ("label", "id_column")

# "dataset" may also be a function of a user's own, whose images are taken as they are: "factory:module:function".
FACTORY = "factory:"
AS_THEY_ARE: dict[str, Any] = {"range": 1.0, "mean": [0.0], "std": [1.0]}

# What each value must be, and how to say so.
RULES: dict[str, Rule] = {
    "dataset": TEXT,
    "classes": list_of(whole(0), 0),
    "train_size": whole(0),
    "validation_fraction": SHARE,
    "range": above(0),
    "mean": list_of((is_number, "a number")),
    "std": list_of(above(0)),
    "model": TEXT,
    "seed": whole(0, 1 << 32),
    **TRAINING_RULES,
}


# The same of make's keyword arguments.
ARGUMENTS: dict[str, Rule] = {
    **dict.fromkeys(("data_dir", "data_path", "cache_dir", "checkpoint", "tokeniser", "groups", "risks"), TEXT),
    "edges": list_of((is_number, "a number"), 0),
    "band_slices": list_of(whole(1), 0),
    "stream": FLAG,
    "most_lanes": whole(1),
    "lane_bytes": whole(0, 1 << 63),
    "cache_bytes": whole(0, 1 << 63),
}


def make(
    hyper: Mapping[str, Any],
    *,
    data_dir: str = "",
    data_path: str = "",
    cache_dir: str = "",
    stream: bool = False,
    checkpoint: str = "",
    tokeniser: str = "",
    groups: str = "",
    risks: str = "",
    edges: Sequence[float] = (),
    band_slices: Sequence[int] = (),
    most_lanes: int = 64,
    lane_bytes: int = 0,
    cache_bytes: int = 1 << 30,
) -> Source:
    """The source of a store.

    Args:
      hyper: see HYPER and COLUMNS, of a data set of text those of `experiments.exact.sources.text`; what is left out has
        the value there.
      data_dir, cache_dir: see `experiments.data.datasets.load`. The cache is written: a store's manifest may hold a
        cache_dir, but only one that the command itself gives has an effect.
      data_path: of texts of one's own, where they now are; '' is the path in the data set's name.
      stream: leave the images on disk and decode those that are asked for.
      checkpoint: the backbone, an .npz file of the published layout (`experiments.pretrain.run` writes one), of text a
        Hugging Face folder; random if ''.
      tokeniser: of text, a tokenizer.json; '' is the model's own.
      groups, risks, edges, band_slices: how examples are placed when the store is made, see `placement.make`.
      most_lanes: nodes to train at once on an accelerator.
      lane_bytes: device memory for their training beside the data and the backbone; 0 is no limit.
      cache_bytes: device memory for the activations of one depth.

    Raises:
      ValueError: a switch of JAX; a name in hyper that does not exist; a value or an argument out of its range; data, a
        model or a checkpoint that will not do.
    """
    switches.settle()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of what is not the user's to mend
    dataset, model = hyper.get("dataset", HYPER["dataset"]), hyper.get("model")
    of_text = loading.is_text(str(dataset))
    if not of_text and model in text_models.MODELS:
        raise ValueError(f"model {model!r} reads text, and {dataset!r} is none: choose another data set, or a ViT")
    hyper = dict(hyper) if of_text else _complete(hyper)
    places = {"data_dir": data_dir, "cache_dir": cache_dir, "stream": stream}
    limits = {"most_lanes": most_lanes, "lane_bytes": lane_bytes, "cache_bytes": cache_bytes}
    placing = {"groups": groups, "risks": risks, "edges": edges, "band_slices": band_slices}
    files = {"checkpoint": checkpoint, "tokeniser": tokeniser, "data_path": data_path}
    hypers.check("the factory's", {**places, **files, **placing, **limits}, ARGUMENTS)
    if of_text:
        _refuse("images", hyper, {"cache_dir": cache_dir, "stream": stream})
        return text.make(hyper, data_dir, data_path, checkpoint, tokeniser, placing, limits)
    _refuse("text", hyper, {"tokeniser": tokeniser, "data_path": data_path})
    return _of_images(hyper, places, checkpoint, placing, limits)


def _of_images(
    hyper: dict[str, Any],
    places: Mapping[str, Any],
    checkpoint: str,
    placing: Mapping[str, Any],
    limits: Mapping[str, Any],
) -> Source:
    """The source of images, and what `make` took, checked."""
    split, known, classes, called = _data(hyper, places)
    ids, fetch = split("train")
    name_of = {id_: name for name, id_ in called.items()}
    module = vits.vit(hyper["model"], classes)
    return Source(
        backbone=vits.as_backbone(module),
        frozen=_frozen(module, fetch(ids[:1])[0], checkpoint, hyper["seed"]),
        recipe=hypers.recipe(hyper),
        ids=ids,
        names=[name_of.get(id_) for id_ in ids.tolist()] if called else None,
        fetch=fetch,
        hyper=hyper,
        devices=jax.local_device_count(),
        place=building.spread,
        split=split,
        placing=functools.partial(placement.make, ids, known, **placing, called=called),
        **{**limits, "most_lanes": building.lanes_for("vit", limits["most_lanes"])},
    )


def _refuse(kind: str, hyper: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are for data of another kind."""
    for name, value in arguments.items():
        if value:
            raise ValueError(f"the factory's {name!r} is for {kind}, and the data are {hyper['dataset']!r}: leave it out")


def _complete(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """What is left out has its default; refused if a name does not exist or a value breaks its rule."""
    if unknown := sorted(hyper.keys() - {*HYPER, *COLUMNS}):
        raise ValueError(f"hyper has no {unknown[0]!r}: it takes {', '.join((*HYPER, *COLUMNS))}")
    hypers.check("hyper's", hyper, RULES | dict.fromkeys(COLUMNS, TEXT))
    dataset = hyper.get("dataset", HYPER["dataset"])
    scale = {"range": 16.0} if dataset == "digits" else AS_THEY_ARE if dataset.startswith(FACTORY) else {}
    return HYPER | scale | {name: value for name, value in hyper.items() if value or name not in COLUMNS}


def _frozen(module: vits.VisionTransformer, example: np.ndarray, checkpoint: str, seed: int) -> Any:
    """The backbone's parameters, from a file or random."""
    if checkpoint:
        frozen, _ = vits.load_npz(checkpoint, module, example.shape[1:])
    else:
        frozen, _ = vits.split_head(vits.init(module, keys.key(seed, Purpose.BACKBONE), example))
    return jax.tree.map(np.asarray, frozen)


def _data(hyper: Mapping[str, Any], places: Mapping[str, Any]) -> tuple[Split, np.ndarray, int, dict[str, int | None]]:
    """(name of a split -> its ids and fetch, ids of all splits and of what is left out, classes, ids by name)."""
    source, splits = datasets.raw(_section(hyper, places))
    number = np.arange(source.classes, dtype=np.int32)
    if classes := hyper["classes"]:
        if len(set(classes)) < len(classes) or not set(classes) <= set(range(source.classes)):
            raise ValueError(f"classes are {classes}: give distinct labels of 0..{source.classes - 1}")
        number = np.full(source.classes, -1, np.int32)
        number[classes] = np.arange(len(classes))
    scale = datasets.Moments(
        *(np.asarray(hyper[name], np.float32) * np.float32(hyper["range"]) for name in ("mean", "std"))
    )

    @functools.cache
    def members(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in splits:
            raise ValueError(f"{hyper['dataset']!r} has no split {name!r}: it has {', '.join(splits)}")
        whole = splits[name]
        if classes:
            parts = np.split(whole, range(DECODE_AT_ONCE, len(whole), DECODE_AT_ONCE))
            whole = whole[number[np.concatenate([source.read(part)[1] for part in parts])] >= 0]
        return placement.stored(whole, hyper["dataset"])

    def split(name: str) -> tuple[np.ndarray, Fetch]:
        stored, whole = members(name)

        def fetch(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            asked = np.asarray(asked)
            if lacking := np.setdiff1d(asked, stored).tolist():
                what = "training" if name == "train" else name
                raise ValueError(f"{hyper['dataset']!r} has no {what} example {lacking[0]}: check data_dir and hyper")
            images, labels = source.read(whole[np.searchsorted(stored, asked)])
            return datasets.standardise(images, scale), number[labels]

        return stored, fetch

    names = source.names or {}
    here = (
        {whole: stored for stored, whole in zip(*(ids.tolist() for ids in members("train")), strict=True)} if names else {}
    )
    called = {unicodedata.normalize("NFC", name): here.get(id_) for id_, name in names.items()}  # None: not for training
    return split, short(source.ids), len(hyper["classes"]) or source.classes, called


def _section(hyper: Mapping[str, Any], places: Mapping[str, Any]) -> StreamedData:
    """The data set as configs name it; its values have been checked."""
    own = hyper["dataset"].startswith(FACTORY)
    which = {"factory": hyper["dataset"].removeprefix(FACTORY)} if own else {"name": hyper["dataset"]}
    columns = {name: hyper[name] for name in COLUMNS if name in hyper}
    sizes = {name: hyper[name] for name in ("train_size", "validation_fraction")}
    return StreamedData.model_construct(**which, **columns, **sizes, **places)
