"""Sections that configs share: data, model and training."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from experiments.core.config import Section, Wrong, shown
from experiments.core.values import (
    MOST,
    BatchSize,
    Names,
    Norm,
    Option,
    Rate,
    Scored,
    Seed,
    Share,
    Steps,
    Weight,
)

OWN = ("folder", "npz", "csv")  # what a data set's name may begin with, before a colon and a path

TEXTS = ("texts", "jsonl", "tofu", "muse")  # the same of text; a test holds them equal to what is read
LENGTH = 256  # tokens in a row of text, unless a config says another
# Settings of data that nothing else heeds.
OF_TEXT = ("length", "rows", "tokeniser", "answers_only", "encoding", "group", "fields", "holdout")
FOLDER, SMOLLM2, MINILM = "folder", "smollm2", "minilm"  # pre-trained models
LEARNED = "bpe:"  # begins the name of a tokeniser that is learned of documents, as in bpe:512
PACKAGED = (SMOLLM2, MINILM)  # those whose weights and tokeniser are installed as a package
Backbone = str  # of experiments.models.vits.VITS, or of text; others are refused when the data are looked at


class Data(Section):
    """A data set and how it is split."""

    name: str = Field(
        "digits",
        description="digits, a TFDS name, or your own: folder:PATH, npz:PATH or csv:PATH. Of text pydoc, a TFDS name, "
        "texts:PATH, jsonl:PATH, tofu:PATH or muse:PATH.",
    )
    factory: str = Field("", description="module:function that makes the data set instead; see experiments.data.own.")
    label: str = Field(
        "", description="The column of labels in a csv, or the field in a jsonl that is classified; if empty, label."
    )
    id_column: str = Field("", description="The column of ids in a csv; if empty, id or, without one, a hash of values.")
    data_dir: str = Field("", description="Where TFDS prepared it; if empty, TFDS_DATA_DIR, or TFDS's default.")
    cache_dir: str = Field("", description="Keep decoded images here; if empty, nowhere.")
    train_size: int = Field(0, ge=0, le=MOST, description="Training examples that are kept, by id; 0 keeps all.")
    length: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description="Tokens in a row of text, longer documents take several or, to be classified, are cut; if 0, 256.",
    )
    rows: int = Field(0, ge=0, le=MOST, description="Rows that are kept of a text, its first; 0 keeps all.")
    tokeniser: str = Field(
        "",
        description="Of text, a tokenizer.json, bpe:512 to learn one of so many entries, smollm2 or minilm; if empty, "
        "that of a pre-trained model, or bytes.",
    )
    answers_only: bool = Field(False, description="Of questions and answers, learn the answers alone.")
    encoding: str = Field("", description="Of texts of your own; if empty, UTF-8.")
    group: str = Field(
        "", description="A regular expression that finds whose a file of texts:PATH is, in its one pair of brackets."
    )
    fields: dict[Literal["text", "prompt", "question", "id", "group", "label", "split"], str] = Field(
        {}, description="Names of the fields of jsonl:PATH, as in {'text': 'answer', 'question': 'q', 'group': 'author'}."
    )
    holdout: Names = Field(
        (),
        description="Groups of text that nothing is trained on: they are what is validated and tested on, all else is "
        "for training.",
    )
    validation_fraction: Share = Field(0.1, description="Share of the training examples that is held out to validate on.")

    @property
    def origin(self) -> tuple[str, str]:
        """Whose examples they are, however it is spelled: (factory, folder, npz, csv or named; which of them)."""
        kind, _, path = self.name.partition(":")
        if self.factory:
            return "factory", self.factory
        if kind in OWN:
            return kind, os.path.realpath(os.path.expanduser(path))
        return "named", kind.partition("/")[0]  # without TFDS's version and variant, which share examples


class ScoredData(Data):
    """A data set on which forgetting is scored."""

    validation_fraction: Share = Field(0.2, description="Share of the training examples that is held out to validate on.")
    score_examples: Scored = Field(10_000, description="Score on so many forget and so many retain examples; 0 is all.")


class Canaries(Section):
    """Documents with a random secret that are planted among the training documents of text to predict."""

    count: int = Field(0, ge=0, le=100, description="Canaries that are planted, each a document of its own; 0 plants none.")
    repeats: int = Field(1, ge=1, le=1000, description="Rows of a canary, all alike: how often an epoch shows it.")
    seed: Seed = Field(0, description="Of the secrets.")

    @model_validator(mode="after")
    def _there_are_some(self) -> Canaries:
        if not self.count and (self.repeats, self.seed) != (1, 0):
            raise Wrong((("count",), "is 0, so repeats and seed have no effect: set --config.data.canaries.count"))
        return self


class StreamedData(ScoredData):
    """A data set whose training images may stay on disk, and whose training texts may hold canaries."""

    stream: bool = Field(False, description="Leave the training images on disk and decode them as steps ask for them.")
    canaries: Canaries = Canaries()


class Scale(Section):
    """Constants to standardise images by: moments of the data would carry what is deleted."""

    range: float = Field(gt=0, le=10**6, description="The highest value of a pixel.")
    mean: tuple[Annotated[float, Field(ge=-1000, le=1000)], ...] = Field(
        min_length=1, description="Mean of pixel / range, for all channels or by channel."
    )
    std: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field(
        min_length=1, description="Standard deviation of pixel / range, for all channels or by channel."
    )


class PretrainData(Data):
    """A data set to pre-train on."""

    # Unset is an empty section, as configs have it.
    scale: Annotated[
        Scale | None, BeforeValidator(lambda scale: scale or None), PlainSerializer(lambda s: s.model_dump() if s else {})
    ] = Field(None, description="Constants to standardise by; if empty, the moments of the training images.")


class Lora(Section):
    """Low-rank adapters of pre-trained weights, which stay as they are."""

    rank: int = Field(0, ge=0, le=4096, description="Of the adapters, which alone are trained; 0 trains all weights.")
    alpha: float = Field(
        16.0, gt=0, le=10**4, description="Strength: what an adapter adds is scaled by alpha / sqrt(rank)."
    )
    targets: tuple[str, ...] = Field(
        ("query", "value"), min_length=1, description="Layers of each block that have one, as in ('attention', 'mlp/up')."
    )


class Model(Section):
    """A network."""

    name: Literal["mlp", "cnn", "resnet18", "vit", "whitened", "gpt2", "llama", "bert", "folder", "smollm2", "minilm"] = (
        Field(
            "mlp",
            description="The kind of network: of text, gpt2 and llama predict the next token, bert classifies documents. "
            "Pre-trained: folder, of Hugging Face, at model.params; smollm2, which predicts, and minilm, which classifies, "
            "are packages.",
        )
    )
    options: dict[str, Option] = Field({"widths": (128, 128)}, description="Options of that kind, as in {'widths': (64,)}.")
    factory: str = Field("", description="module:function that makes a model of your own; see experiments.models.own.")
    factory_options: dict[str, Option] = Field({}, description="Its keyword arguments.")
    params: str = Field(
        "", description="An .npz or .safetensors of parameters to begin with, or the folder; if empty, drawn by seed."
    )
    dtype: Literal["", "float32", "bfloat16"] = Field("", description="Of activations; if empty, float32.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of hidden units that a training step leaves out.")
    lora: Lora = Lora()

    @property
    def is_pretrained(self) -> bool:
        """Whether its sizes and its weights are those of a published model."""
        return self.name in (FOLDER, *PACKAGED)

    @property
    def tokeniser(self) -> str:
        """The tokeniser of pre-trained weights, as `data.tokeniser` takes it; '' of other models."""
        if self.name == FOLDER:
            return os.path.join(self.params, "tokenizer.json")
        return self.name if self.name in PACKAGED else ""

    @model_validator(mode="after")
    def _weights_are_somewhere(self) -> Model:
        if self.name == FOLDER and not self.params:
            raise Wrong((("params",), "is empty, but model.name is 'folder': set --config.model.params=FOLDER"))
        if self.name in PACKAGED and self.params:
            raise Wrong((("params",), f"is {self.params!r}, but {self.name} has weights of its own: leave it empty"))
        if self.lora.rank and not self.is_pretrained:
            sentence = f"is {self.lora.rank}, but {self.name!r} is not pre-trained: set 0, or --config.model.name=smollm2"
            raise Wrong((("lora", "rank"), sentence))
        return self


class Train(Section):
    """Ordinary training."""

    steps: Steps = Field(1500, description="Updates.")
    batch_size: BatchSize = Field(64, description="Examples in an update.")
    microbatches: BatchSize = Field(
        1,
        description="Parts that a batch is evaluated in, rehearsed ones too, so that activations of one part are held.",
    )
    optimizer: Literal["sgd", "nesterov", "adamw"] = Field(
        "sgd", description="sgd and adamw follow a cosine schedule, nesterov a triangular one."
    )
    learning_rate: Rate = Field(0.05, description="The highest of the schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd and nesterov.")
    weight_decay: Weight = Field(0.0, description="Of adamw.")
    clip: Weight = Field(1.0, description="Clip gradients to this global norm; 0 clips none.")

    @model_validator(mode="after")
    def _parts_have_examples(self) -> Train:
        if self.microbatches > self.batch_size:
            sentence = f"is {self.microbatches}, more than the {self.batch_size} examples of a batch: set fewer"
            raise Wrong((("microbatches",), sentence))
        return self


class Reweight(Section):
    """Down-weighting of what may be forgotten."""

    weight: Weight = Field(0.2, description="Of the loss of revocable examples.")


class Reweights(Reweight):
    """Down-weighting with several weights."""

    others: tuple[Weight, ...] = Field((0.1, 0.02), description="More weights, each trained beside the first.")

    @model_validator(mode="after")
    def _weights_differ(self) -> Reweights:
        names = [f"{weight:g}" for weight in (self.weight, *self.others)]  # as rows are named
        if len(set(names)) < len(names):
            raise Wrong(
                (("others",), f"is {shown(self.others)} beside weight {self.weight:g}: give other weights, each once")
            )
        return self


class DPSGD(Section):
    """Differentially private training."""

    clip: Norm = Field(1.0, description="Clip the gradient of each example to this norm.")
    noise: float = Field(0.5, ge=0, le=1000, description="Standard deviation of the noise, in units of the clip.")
    delta: float = Field(0.0, ge=0, lt=1, description="Of the (epsilon, delta) that is stated; 0 is examples^-1.1.")
    shuffled: bool = Field(False, description="Shuffle batches, as 0.1 did; no epsilon is then stated.")

    @model_validator(mode="after")
    def _delta_is_of_a_guarantee(self) -> DPSGD:
        if self.shuffled and self.delta:
            raise Wrong((("delta",), "is of a guarantee, and shuffled batches have none: set --config.dpsgd.delta=0"))
        if 0 < self.delta < 1e-8:
            raise Wrong((("delta",), f"is {self.delta:g}: give 0 or a number from 1e-08 up"))
        return self


class NEFTune(Section):
    """Training with noise on the embedded tokens of text."""

    alpha: float = Field(5.0, ge=0, le=1000, description="Noise is uniform within alpha / sqrt(tokens x width) of 0.")


# --- Forgetting -------------------------------------------------------------------------------------------------------
