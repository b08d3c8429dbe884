"""What configs of exact unlearning say of text: its models, the settings that it has or lacks, its hyper-parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from experiments.core import sections

if TYPE_CHECKING:
    from experiments.configs.s3t import Exact

GIVEN = ("minilm", "folder")  # models whose weights are real
MODELS = (*GIVEN, "gpt2")  # a test holds them equal to those of experiments.exact.sources.text_models
# Settings of data that hyper-parameters have where they are set.
COLUMNS = ("label", "encoding", "group", "fields", "answers_only")
OF_IMAGES = ("id_column", "cache_dir", "factory")  # settings of data that text does not heed
OF_COMPARISONS = ("rows", "holdout")  # and those of text that stores do not heed
HANDED_ON = ("length", "tokeniser")  # to pre-training
OF_DOCUMENTS = ("data_dir", "encoding", "group", "label", "fields")  # handed on, too, where both have the same documents

Mistake = tuple[tuple[str, ...], str]


def mistakes(config: Exact) -> Iterator[Mistake]:
    """Settings that text does not have, or that its model contradicts."""
    if config.classes:
        yield ("classes",), "is of images, text keeps all of its classes: set it to ()"
    for name in OF_IMAGES:
        if getattr(config.data, name):
            yield ("data", name), "is for images and tables: leave it unset"
    for name in OF_COMPARISONS:
        if getattr(config.data, name):
            yield ("data", name), "is for comparisons, and a store takes every document, whole: leave it unset"
    if config.model == "minilm" and config.data.answers_only:
        yield ("data", "answers_only"), "is for text to predict, and minilm classifies documents: leave it unset"
    if config.model == "minilm" and config.checkpoint:
        yield ("checkpoint",), "is set, but minilm has the weights of its package: set --config.model=folder"
    if config.model == "folder" and not config.checkpoint:
        yield ("checkpoint",), "is empty, and the model folder has its weights there: give a Hugging Face folder"
    if config.model in GIVEN and config.data.tokeniser.startswith(sections.LEARNED):
        yield (
            ("data", "tokeniser"),
            f"is learned, and the model {config.model} has the one it was trained with: set it to ''",
        )


def mistakes_of_others(config: Exact) -> Iterator[Mistake]:
    """Settings of text where a model looks at images."""
    for name in sections.OF_TEXT:
        if getattr(config.data, name):
            yield ("data", name), f"is for text, which takes a --config.model of {', '.join(MODELS)}: leave it unset"
    if config.pretrain.share:
        yield ("pretrain", "share"), "is for text: leave it 0"


def shared(config: Exact) -> Iterator[Mistake]:
    """Why a decoder that is pre-trained here would see documents that the store is to unlearn."""
    seen, own = config.pretrain, config.data
    if same_documents(config) and not seen.share:
        yield ("pretrain", "share"), "is 0, so that all documents are seen that s3t is to unlearn: set a share, as 0.5"
    if not same_documents(config) and (seen.share or _nested(seen.data.name, own.name)):
        mend = "give the same, and pretrain.share, or documents apart and a share of 0"
        yield ("pretrain", "data", "name"), f"is not data.name: {mend}"
    for name in handed_on(config):
        value = getattr(seen.data, name)
        if value and value != getattr(own, name):
            yield ("pretrain", "data", name), f"is another than --config.data.{name}: set that alone"


def same_documents(config: Exact) -> bool:
    """Whether pre-training and store share out one data set."""
    return config.pretrain.data.name == config.data.name


def handed_on(config: Exact) -> dict[str, Any]:
    """Settings of the data that hold for pre-training, too."""
    names = HANDED_ON + (OF_DOCUMENTS if same_documents(config) else ())
    return {name: getattr(config.data, name) for name in names}


def hyper(config: Exact) -> dict[str, Any]:
    """What the factory calls hyper-parameters, but for those of training."""
    parted = config.model not in GIVEN and same_documents(config)  # of a checkpoint, too, which saw the share
    return {
        "dataset": config.data.name,
        **{name: column for name in COLUMNS if (column := getattr(config.data, name))},
        "train_size": config.data.train_size,
        "validation_fraction": config.data.validation_fraction,
        "seen": config.pretrain.share if parted else 0.0,
        "length": config.data.length or sections.LENGTH,
        "model": config.model,
    }


def arguments(config: Exact) -> dict[str, str]:
    """What the factory is called with for text; a store finds texts of one's own from wherever it is opened."""
    kind, _, path = config.data.name.partition(":")
    where = os.path.abspath(os.path.expanduser(path)) if kind in sections.TEXTS and path else ""
    return {name: value for name, value in (("tokeniser", config.data.tokeniser), ("data_path", where)) if value}


def _nested(one: str, other: str) -> bool:
    """Whether two data sets may share documents: one set in two spellings, or one path within the other."""
    parted = [name.partition(":") for name in (one, other)]
    paths = [os.path.realpath(os.path.expanduser(path)) for kind, _, path in parted if path and kind in sections.TEXTS]
    if len(paths) == 2:
        return os.path.commonpath(paths) in paths
    return not paths and parted[0][0] == parted[1][0]
