"""Pre-train the small ViTs that s3t fine-tunes.

    python -m experiments.main --config=experiments/configs/pretrain.py:digits --workdir=runs/pretrain_digits

`digits` needs no download. The others need `--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import ml_collections
from pydantic import Field

from experiments.core import sections, trackers, values
from experiments.core.config import Section, as_config


class Pretrain(Section):
    """One pre-training."""

    # What version 0.1 wrote into config.json beside these keys; no other values were taken.
    retired: ClassVar[Mapping[str, Any]] = {"data.stream": False}

    runner: Literal["pretrain"] = Field("pretrain", description="What runs this config.")
    name: str = Field("digits", description="Of the experiment.")
    seed: values.Seed = Field(0, description="Of initial parameters and batches.")
    checkpoint_seconds: float = Field(30.0, ge=0, le=10**7, description="Between checkpoints.")
    tracker: trackers.Names = trackers.JSONL
    classes: values.Classes = Field(
        (0, 1, 2, 3, 4), description="Labels to train on, all if empty; s3t must not be given these examples."
    )
    share: float = Field(
        0.0, ge=0, lt=1, description="Of text, the share of the documents, or of their groups, to train on; 0 takes all."
    )
    model: sections.Backbone = Field(
        "digits", description="The ViT: mini, digits, small, Ti/16, S/16, B/16 or L/16; of text gpt2."
    )
    data: sections.PretrainData = sections.PretrainData()
    train: sections.Train = sections.Train(
        steps=600, optimizer="adamw", learning_rate=2e-3, momentum=0.0, weight_decay=0.01
    )


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config pretrain.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = as_config(Pretrain(name=arg))
    EXPERIMENTS[arg](config)
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """Digits 0 to 4 (about 600 training images); s3t fine-tunes on 5 to 9."""


def pydoc(config: ml_collections.ConfigDict) -> None:
    """A small decoder on the documents of half of the topics of Python's manual; s3t has the other half."""
    config.model, config.classes, config.share = "gpt2", (), 0.5
    config.data.name, config.data.length, config.data.tokeniser = "pydoc", 512, "bpe:512"
    config.train.steps, config.train.batch_size, config.train.learning_rate = 1200, 8, 3e-3


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """All of fashion_mnist, for s3t on another set of 28x28 grey images."""
    config.model, config.classes = "small", ()
    config.data.name = "fashion_mnist"
    config.train.steps, config.train.batch_size, config.train.learning_rate = 3000, 128, 1e-3


def cifar10(config: ml_collections.ConfigDict) -> None:
    """Half of cifar10's classes; s3t fine-tunes on the other half."""
    config.model = "small"
    config.data.name = "cifar10"
    config.train.steps, config.train.batch_size, config.train.learning_rate = 4000, 128, 1e-3


EXPERIMENTS = {f.__name__: f for f in (digits, pydoc, fashion_mnist, cifar10)}
