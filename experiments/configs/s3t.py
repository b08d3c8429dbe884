"""Exact unlearning beside its peers: build a store, delete a stream of examples, heal, and study every planner.

    python -m experiments.main --config=experiments/configs/s3t.py:digits --workdir=runs/s3t_digits

`digits` needs no download and takes about ten minutes on two CPU cores. Text takes the extra `text`: `sst2` and `trec`
the real MiniLM (extra `weights`) and data prepared by TFDS, `pydoc` no more, `tofu` a folder (--config.data.name=tofu:PATH
and --config.pretrain.data.name=tofu:PATH). `fashion_mnist` (100 CPU-minutes) and `cifar10_gpu` (for an accelerator, not yet
run) need `--config.data.data_dir=DIR` (or TFDS_DATA_DIR) with the data set prepared.
Expected: accuracy falls more slowly with deletions for plans that keep more subsets of slices, a deletion takes
milliseconds, and the deepest node is near full LoRA; see docs/s3t.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import ml_collections
from pydantic import Field, model_validator

from experiments.configs import exact_text, pretrain
from experiments.configs.pretrain import Pretrain
from experiments.core import sections, values
from experiments.core.config import Section, Wrong, as_config

MOST_SLICES = 8  # of a study: 2^L answers of every shard are held at once

Planner = Literal["sisa", "cyclic", "bms", "conditional", "random", "full", "stumps", "lattice", "chains", "greedy"]
Bytes = Annotated[int, Field(ge=0, le=2**50)]
Deletions = Annotated[int, Field(ge=0, le=10**6)]


class Lora(Section):
    """Low-rank adapters."""

    rank: int = Field(8, ge=1, le=100_000, description="Of each adapter.")
    alpha: values.Norm = Field(8.0, description="The adapters' scale, over the rank or its root.")
    targets: tuple[str, ...] = Field(
        ("query", "key", "value", "out", "Dense_0", "Dense_1"), min_length=1, description="Layers that get an adapter."
    )
    rank_stabilised: bool = Field(True, description="Divide alpha by the root of the rank, not by the rank.")


class NodeTrain(Section):
    """Training of a node on its own examples."""

    epochs: int = Field(15, ge=1, le=100_000, description="Of each node over its own examples.")
    batch_size: values.BatchSize = Field(32, description="Examples in an update.")
    learning_rate: values.Rate = Field(1e-2, description="The highest of a cosine schedule.")
    weight_decay: values.Weight = Field(0.01, description="Of AdamW.")
    clip: values.Norm = Field(1.0, description="Clip gradients to this global norm.")


class FullLora(Section):
    """Training of one adapter on all blocks."""

    epochs: int = Field(15, ge=1, le=100_000, description="Over all examples.")
    learning_rate: values.Rate = Field(5e-3, description="The highest of a cosine schedule.")


class Exact(Section):
    """What is fine-tuned exactly: a backbone, data that it has not seen, and adapters."""

    # What version 0.1 wrote into config.json beside these keys; no other values were taken.
    retired: ClassVar[Mapping[str, Any]] = {f"pretrain.{key}": value for key, value in Pretrain.retired.items()}

    name: str = Field("digits", description="Of the experiment.")
    seed: values.Seed = Field(0, description="The first seed.")
    checkpoint: str = Field(
        "",
        description="A backbone (.npz, of text a Hugging Face folder); if empty, one is pre-trained as `pretrain` says.",
    )
    pretrain: Pretrain = Pretrain()
    model: sections.Backbone = Field(
        "digits",
        description="The ViT: mini, digits, small, Ti/16, S/16, B/16 or L/16. Of text minilm (of the extra weights), "
        "folder (a checkpoint), or gpt2 (small, pre-trained here).",
    )
    classes: values.Classes = Field((5, 6, 7, 8, 9), description="Labels to fine-tune on, all if empty.")
    data: sections.Data = sections.Data()
    scale: sections.Scale = sections.Scale(range=16.0, mean=(0.305,), std=(0.376,))  # in pre-training, too
    slices: int = Field(4, ge=1, le=MOST_SLICES, description="Parts of a shard that are trained one after another.")
    planner: Planner = Field("lattice", description="What chooses the nodes of S3T.")
    lora: Lora = Lora()
    train: NodeTrain = NodeTrain()
    full_lora: FullLora = FullLora()  # SISA's, too
    lanes: int = Field(16, ge=1, le=100_000, description="Nodes that an accelerator trains at once; a CPU takes two.")
    lane_bytes: Bytes = Field(
        0, description="Device memory for the training of nodes beside the data and the backbone; 0 is no limit."
    )
    cache_bytes: Bytes = Field(1 << 31, description="Device memory for frozen activations.")

    @model_validator(mode="after")
    def _backbone_has_not_seen_the_data(self) -> Self:
        seen = self.pretrain
        if self.given:
            return self
        if seen.model != self.model:
            raise Wrong((("pretrain", "model"), f"is {seen.model!r}, model {self.model!r}: set both to the same ViT"))
        if self.of_text:
            if wrong := list(exact_text.shared(self)):
                raise Wrong(*wrong)
            return self
        apart = seen.classes and self.classes and not set(seen.classes) & set(self.classes)
        if seen.data.origin == self.data.origin and not apart:
            sentence = "has examples that s3t is to unlearn: set --config.pretrain.classes apart from --config.classes"
            raise Wrong((("pretrain", "classes"), sentence))
        if seen.data.origin != self.data.origin and _nested(seen.data.origin, self.data.origin):
            sentence = "has examples that s3t is to unlearn: one folder lies in the other, give two apart"
            raise Wrong((("pretrain", "data", "name"), sentence))
        return self

    @model_validator(mode="after")
    def _settings_are_of_these_data(self) -> Self:
        found = exact_text.mistakes if self.of_text else exact_text.mistakes_of_others
        if wrong := list(found(self)):
            raise Wrong(*wrong)
        return self

    @model_validator(mode="after")
    def _scale_is_of_some_data(self) -> Self:
        if self.pretrain.data.scale not in (None, self.scale):
            sentence = "is another than --config.scale, which serves both: set that alone"
            raise Wrong((("pretrain", "data", "scale"), sentence))
        scaled = not self.of_text and (not self.data.factory or not (self.checkpoint or self.pretrain.data.factory))
        if not scaled and self.scale != type(self).model_fields["scale"].default:
            whose = "text has none" if self.of_text else "what a data.factory makes is taken as it is"
            raise Wrong((("scale",), f"is set, but {whose}: leave scale as it was"))
        return self

    @property
    def of_text(self) -> bool:
        """Whether the model reads text."""
        return self.model in exact_text.MODELS

    @property
    def given(self) -> bool:
        """Whether there is a backbone, so that none is pre-trained."""
        return bool(self.checkpoint) or self.model in exact_text.GIVEN

    def resolved(self) -> Self:
        """The config with the data's folders, if TFDS prepared the other's too, and scale handed on to pre-training.

        Of text the length of rows and the tokeniser are handed on.
        """
        seen = self.pretrain.data
        if self.of_text:
            data = seen.model_copy(update=exact_text.handed_on(self))
            return self.model_copy(update={"pretrain": self.pretrain.model_copy(update={"data": data})})
        names = ("data_dir", "cache_dir") if seen.origin[0] == "named" else ()
        folders = {name: getattr(seen, name) or getattr(self.data, name) for name in names}
        data = seen.model_copy(update=folders | {"scale": self.scale})
        return self.model_copy(update={"pretrain": self.pretrain.model_copy(update={"data": data})})

    def hyper(self) -> dict[str, Any]:
        """What the factory calls hyper-parameters: all that decides the bytes of nodes."""
        if self.of_text:
            return exact_text.hyper(self) | self._training()
        own = self.data.factory
        scale = {} if own else {"range": self.scale.range, "mean": list(self.scale.mean), "std": list(self.scale.std)}
        columns = {name: column for name in ("label", "id_column") if (column := getattr(self.data, name))}
        return {
            "dataset": f"factory:{own}" if own else self.data.name,
            **columns,
            "classes": list(self.classes),
            "train_size": self.data.train_size,
            "validation_fraction": self.data.validation_fraction,
            **scale,
            "model": self.model,
            **self._training(),
        }

    def _training(self) -> dict[str, Any]:
        return {
            "rank": self.lora.rank,
            "alpha": self.lora.alpha,
            "rank_stabilised": self.lora.rank_stabilised,
            "targets": list(self.lora.targets),
            **self.train.model_dump(),
        }

    def arguments(self) -> dict[str, Any]:
        """What the factory is called with beside them."""
        return {
            "data_dir": self.data.data_dir,
            "cache_dir": self.data.cache_dir,
            "checkpoint": self.checkpoint,
            **(exact_text.arguments(self) if self.of_text else {}),
            "most_lanes": self.lanes,
            "lane_bytes": self.lane_bytes,
            "cache_bytes": self.cache_bytes,
        }


def _nested(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two origins of data are folders, one of which lies in the other."""
    paths = [path for kind, path in (one, other) if kind == "folder"]
    return len(paths) == 2 and os.path.commonpath(paths) in paths


class Study(Section):
    """Plans under streams of deletions."""

    planners: tuple[Planner, ...] = Field(
        ("sisa", "stumps", "cyclic", "bms", "conditional", "random", "greedy", "chains", "lattice"),
        min_length=1,
        description="What plans are compared.",
    )
    flops: float = Field(
        0.0, ge=0, le=1e18, description="FLOPs per epoch that planners with a budget come near to; 0 is the lattice's."
    )
    streams: int = Field(200, ge=2, le=10**6, description="Of deletions, drawn at random.")
    deletions: Deletions = Field(100, description="The longest look ahead.")


class S3TStudy(Exact):
    """One study of S3T: a store, every planner, and what else is exact."""

    runner: Literal["s3t"] = Field("s3t", description="What runs this config.")
    seeds: int = Field(2, ge=1, le=10_000, description="Each with a partition, nodes and streams of its own.")
    shards: int = Field(3, ge=1, le=10_000, description="Parts of the data that are served together.")
    budget: float = Field(0.0, ge=0, le=1e18, description="Of the store's planner; 0 is its default.")
    deletions: Deletions = Field(30, description="From the store, one after another.")
    study: Study = Study()
    retrain_after: tuple[Deletions, ...] = Field(
        (0, 10, 30), description="Deletions after which full LoRA and SISA are retrained and scored."
    )

    @model_validator(mode="after")
    def _seeds_stay_apart(self) -> S3TStudy:
        values.check_seeds(self.seed, self.seeds)
        return self


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one experiment, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config s3t.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = as_config(S3TStudy(name=arg))
    EXPERIMENTS[arg](config)
    return config


def digits(config: ml_collections.ConfigDict) -> None:
    """Pre-trained on digits 0 to 4, fine-tuned on 5 to 9 (about 600 training images)."""


def fashion_mnist(config: ml_collections.ConfigDict) -> None:
    """Pre-trained on five classes of fashion_mnist, fine-tuned on 4,000 images of the other five."""
    config.model, config.seeds = "small", 1
    config.pretrain = pretrain.get_config("fashion_mnist")
    config.pretrain.classes = (0, 1, 2, 3, 4)
    config.pretrain.data.train_size = 20_000
    config.pretrain.train.steps = 1500
    config.data.name, config.data.train_size = "fashion_mnist", 8000
    config.scale.update({"range": 255.0, "mean": (0.286,), "std": (0.353,)})
    config.shards = 2
    config.study.planners = ("sisa", "stumps", "cyclic", "greedy", "lattice")
    config.train.epochs = config.full_lora.epochs = 5
    config.train.batch_size = 64


def sst2(config: ml_collections.ConfigDict) -> None:
    """MiniLM's real weights, fine-tuned to tell the mood of 4,096 phrases (TFDS's glue/sst2)."""
    config.model, config.classes, config.seeds = "minilm", (), 1
    config.data.name, config.data.train_size, config.data.length = "glue/sst2", 4096, 32
    config.data.validation_fraction = 0.008  # some 500
    config.shards, config.slices = 3, 3
    config.study.planners, config.study.deletions = ("sisa", "stumps", "cyclic", "lattice"), 20
    config.deletions, config.retrain_after = 20, (0, 20)
    config.train.epochs = config.full_lora.epochs = 2
    config.train.batch_size = 16
    # Not tuned: three rates were looked at on validation data, and it is not the best of them.
    config.train.learning_rate = config.full_lora.learning_rate = 5e-3
    config.lora.targets = ("query", "value")


def trec(config: ml_collections.ConfigDict) -> None:
    """The same for the six kinds of questions of TFDS's trec."""
    sst2(config)
    config.data.name, config.data.validation_fraction = "trec", 0.1


def pydoc(config: ml_collections.ConfigDict) -> None:
    """A small decoder, pre-trained on half of the topics of Python's manual, fine-tuned on the passages of the other."""
    config.model, config.classes, config.seeds = "gpt2", (), 1
    config.pretrain = pretrain.get_config("pydoc")
    config.pretrain.data.update({"length": 0, "tokeniser": ""})  # as data's
    # Both take the tokeniser that is learned of the first half.
    config.data.name, config.data.length, config.data.tokeniser = "pydoc", 512, "bpe:512"
    config.shards, config.slices = 2, 3  # topics are slices' smallest parts, and large ones have 40 passages
    config.study.planners, config.study.deletions = ("sisa", "stumps", "cyclic", "lattice"), 40
    config.deletions, config.retrain_after = 20, (0, 20)
    config.train.epochs = config.full_lora.epochs = 4
    config.train.batch_size = 8
    config.train.learning_rate, config.full_lora.learning_rate = 5e-3, 5e-3
    config.lora.targets = ("attention", "mlp")


def tofu(config: ml_collections.ConfigDict) -> None:
    """The same on questions about made-up authors: 155 are pre-trained on, 45 fine-tuned; set data.name and pretrain's."""
    pydoc(config)
    config.data.name = config.pretrain.data.name = "tofu:"
    config.data.length, config.data.tokeniser, config.pretrain.share = 256, "bpe:1024", 0.75
    config.pretrain.train.steps = 2000


def cifar10_gpu(config: ml_collections.ConfigDict) -> None:
    """Pre-trained on half of cifar10's classes, fine-tuned on the other half (about 22,500 training images)."""
    config.model, config.shards, config.seeds = "small", 5, 3
    config.pretrain = pretrain.get_config("cifar10")
    config.data.name = "cifar10"
    config.scale.update({"range": 255.0, "mean": (0.491, 0.482, 0.447), "std": (0.247, 0.243, 0.262)})
    config.train.batch_size, config.cache_bytes = 128, 40 << 30
    config.lanes, config.lane_bytes = 75, 40 << 30
    config.deletions = 100
    config.study.streams, config.study.deletions = 1000, 200
    config.retrain_after = (0, 20, 100)


EXPERIMENTS = {f.__name__: f for f in (digits, fashion_mnist, sst2, trec, pydoc, tofu, cifar10_gpu)}
