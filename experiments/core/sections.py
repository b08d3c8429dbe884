"""The sections that configs share: data, model, training, what is forgotten, rehearsed, asked and attacked.

Every number is bounded on both sides. Where nothing but sense bounds it, the bound is one that no sensible run meets.
"""

from __future__ import annotations

import itertools
import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from experiments.core.config import Says, Section, Wrong, either, shown

MOST = 2**31 - 1  # JAX counts in 32 bits
SEEDS = 2**32  # a key takes a seed of 32 bits
LEAST_SCORED = 5  # the folds of the membership attack; a test holds them equal
LONGEST_NAME = 100  # of what is part of file names, in bytes
OWN = ("folder", "npz", "csv")  # what a data set's name may begin with, before a colon and a path

TEXTS = ("texts", "jsonl", "tofu", "muse")  # the same of text; a test holds them equal to what is read
LENGTH = 256  # tokens in a row of text, unless a config says another
# Settings of data that nothing else heeds.
OF_TEXT = ("length", "rows", "tokeniser", "answers_only", "encoding", "group", "fields", "holdout")

# What a judge judges unless it is told, and the whole shelf; a test holds that equal to it.
JUDGED = ("level", "ascent", "graddiff", "neggrad_plus", "ascent_kl", "npo", "finetune", "random_label")
SHELF = (*JUDGED, "simnpo", "undial", "rmu", "wga", "dpo", "idk_dpo")
FOLDER, SMOLLM2 = "folder", "smollm2"  # pre-trained models
AT = "@"  # between an algorithm and where its requests end
Backbone = str  # of experiments.models.vits.VITS, or of text; others are refused when the data are looked at

Seed = Annotated[int, Field(ge=0, le=SEEDS - 1)]
Steps = Annotated[int, Field(ge=1, le=10**8)]
BatchSize = Annotated[int, Field(ge=1, le=10**6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Weight = Annotated[float, Field(ge=0, le=10**6)]
Norm = Annotated[float, Field(gt=0, le=10**6)]
Share = Annotated[float, Field(gt=0, lt=1)]


# --- Values with rules of their own -----------------------------------------------------------------------------------


def _scored(count: int) -> int:
    if 0 < count < LEAST_SCORED:
        raise ValueError
    return count


def each_once(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """The entries, refused if there are equal ones.

    Raises:
      ValueError: there are.
    """
    if len(set(entries)) < len(entries):
        raise ValueError("give each once")
    return entries


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError
    return pair


def _algorithm(name: str) -> str:
    if name not in SHELF and ":" not in name:
        raise ValueError
    return name


def _unlearner(name: str) -> str:
    """An algorithm, or NAME@level; `level` itself goes nowhere else."""
    base, at, aim = name.partition(AT)
    if at and (aim != "level" or base == "level"):
        raise ValueError
    _algorithm(base)
    return name


def short(name: str) -> str:
    """An algorithm's name on pages, in rows and among options: of a user's own, its function's."""
    return name.rpartition(":")[2]


def _cap(cap: str) -> str:
    """A cap is a number as a text, so that a flag may give a name as well."""
    try:
        works = cap in ("", "log_classes") or 0 < float(cap) <= 10**6
    except ValueError:
        works = False
    if not works:
        raise ValueError
    return cap


def _levels_of(where: str) -> str:
    """A level is a number as a text, so that a flag may give a name as well."""
    if where not in ("own", "proxy", "oracle") and not -1000 <= float(where) <= 1000:
        raise ValueError
    return where


def level_number(where: str) -> float | None:
    """The level that `ToLevel.levels` gives as a number; None if models tell it."""
    return None if where in ("own", "proxy", "oracle") else float(where)


def sound(value: Any) -> Any:
    """A value of any kind in which no number is nan, infinite or beyond 32 bits.

    Raises:
      ValueError: there is one.
    """
    numbers = [value]
    while numbers:
        entry = numbers.pop()
        if isinstance(entry, dict | tuple):
            numbers += entry.values() if isinstance(entry, dict) else entry
        elif isinstance(entry, int | float) and not abs(entry) <= MOST:  # nan is no less than anything
            raise ValueError(f"give finite numbers up to {MOST}")
    return value


def check_seeds(seed: int, count: int) -> None:
    """Refuse seeds that run over the last one.

    Raises:
      Wrong: they do.
    """
    if seed + count > SEEDS:
        raise Wrong((("seed",), f"is {seed}: give one from 0 to {SEEDS - count}, so that seeds stay apart"))


def check_name(what: str, name: Any, taken: str) -> None:
    """Refuse a name that cannot be part of the names of files, or that is taken.

    Raises:
      ValueError: what a name may be.
    """
    if not name.isprintable() or name in ("", taken) or "/" in name:
        raise ValueError(f"is no name of a {what}: choose one other than {taken!r}, printable and without '/'")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"is a long name of a {what}: choose one of at most {LONGEST_NAME} bytes")


Scored = Annotated[
    int,
    Field(ge=0, le=MOST),
    AfterValidator(_scored),
    Says(f"0 for all, or a whole number from {LEAST_SCORED} to {MOST}"),
]
StepSizes = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1000)], Annotated[float, Field(gt=0, le=1000)]],
    AfterValidator(_ordered),
    Says("(lowest, highest), numbers above 0 and up to 1000, as in (0.3, 0.5)"),
]
Cap = Annotated[str, AfterValidator(_cap), Says("log_classes, a text with a number above 0 and up to 1000000, or nothing")]
Algorithm = Annotated[str, AfterValidator(_algorithm), Says(f"{either((*SHELF, 'module:function of your own'))}")]
Unlearner = Annotated[
    str,
    AfterValidator(_unlearner),
    Says(f"{either((*SHELF, 'module:function of your own'))}; NAME@level goes on to the level of unseen examples"),
]
LevelsOf = Annotated[
    str, AfterValidator(_levels_of), Says("own, proxy, oracle, or a text with a number of nats from -1000 to 1000")
]
Option = Annotated[Any, AfterValidator(sound)]
AlgorithmOptions = dict[str, Weight]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(each_once), Says("none or more texts, as in ('a',)")
]
Classes = Annotated[tuple[Annotated[int, Field(ge=0, le=MOST)], ...], AfterValidator(each_once)]


# --- Data and models --------------------------------------------------------------------------------------------------


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
        description="Of text, a tokenizer.json, bpe:512 to learn one of so many entries, or smollm2; if empty, that of a "
        "pre-trained model, or bytes.",
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


class StreamedData(ScoredData):
    """A data set whose training images may stay on disk."""

    stream: bool = Field(False, description="Leave the training images on disk and decode them as steps ask for them.")


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

    name: Literal["mlp", "cnn", "resnet18", "vit", "whitened", "gpt2", "llama", "bert", "folder", "smollm2"] = Field(
        "mlp",
        description="The kind of network: of text, gpt2 and llama predict the next token, bert classifies documents. "
        "Pre-trained: folder, of Hugging Face, at model.params; smollm2, a package.",
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
        return self.name in (FOLDER, SMOLLM2)

    @property
    def tokeniser(self) -> str:
        """The tokeniser of pre-trained weights, as `data.tokeniser` takes it; '' of other models."""
        return {SMOLLM2: SMOLLM2, FOLDER: os.path.join(self.params, "tokenizer.json")}.get(self.name, "")

    @model_validator(mode="after")
    def _weights_are_somewhere(self) -> Model:
        if self.name == FOLDER and not self.params:
            raise Wrong((("params",), "is empty, but model.name is 'folder': set --config.model.params=FOLDER"))
        if self.name == SMOLLM2 and self.params:
            raise Wrong((("params",), f"is {self.params!r}, but smollm2 has weights of its own: leave it empty"))
        if self.lora.rank and not self.is_pretrained:
            sentence = f"is {self.lora.rank}, but {self.name!r} is not pre-trained: set 0, or --config.model.name=smollm2"
            raise Wrong((("lora", "rank"), sentence))
        return self

    @property
    def classifies_text(self) -> bool:
        """Whether it reads documents for their classes: the model alone says so, and the data are made to suit it."""
        return self.name == "bert" and not self.factory


class Train(Section):
    """Ordinary training."""

    steps: Steps = Field(1500, description="Updates.")
    batch_size: BatchSize = Field(64, description="Examples in an update.")
    optimizer: Literal["sgd", "nesterov", "adamw"] = Field(
        "sgd", description="sgd and adamw follow a cosine schedule, nesterov a triangular one."
    )
    learning_rate: Rate = Field(0.05, description="The highest of the schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd and nesterov.")
    weight_decay: Weight = Field(0.0, description="Of adamw.")
    clip: Weight = Field(1.0, description="Clip gradients to this global norm; 0 clips none.")


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


ClassNumber = Annotated[int, Field(ge=0, le=MOST)]


class ForgetSeed(Section):
    """The seed of what is forgotten."""

    seed: Seed = Field(0, description="Of every random choice of ids: the forget set, a wrong split, groups, parts.")


ASKED_BY = {"group": "groups", "documents": "documents", "partition": "partition"}  # settings of text, and their keys


class Forget(ForgetSeed):
    """Who is forgotten, and who training was told about."""

    setting: Literal["class", "random", "group", "documents", "partition"] = Field(
        "class",
        description="Forget a class, or random examples; of text also groups, named documents, or a part that came with "
        "the data.",
    )
    target: int = Field(3, ge=0, le=MOST, description="The class that is forgotten.")
    also: tuple[ClassNumber, ...] = Field((), description="Classes that are forgotten with it, in the same request.")
    fraction: Share = Field(0.1, description="Share of the training examples that is forgotten, if random ones are.")
    groups: Names = Field((), description="Speakers, authors or sources that are forgotten, all their documents.")
    documents: Names = Field((), description="Documents that are forgotten, by their names or ids.")
    partition: str = Field("", description="What is forgotten of tofu:PATH, as forget05; of muse:PATH, forget.")
    revocable: int = Field(-1, ge=-1, le=MOST, description="The class that training was told about; -1 is the target.")

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that are forgotten; none if other examples are."""
        return (self.target, *self.also) if self.setting == "class" else ()

    @property
    def kind(self) -> Literal["class", "random"]:
        """What a request is like: a class lies apart from what stays, anything else is among it as random examples are."""
        return "class" if self.setting == "class" else "random"

    @property
    def _instead(self) -> str:
        """What is forgotten that is no class."""
        return "random examples are" if self.setting == "random" else f"setting is {self.setting!r}: documents are"

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Forget:
        if self.also and self.kind == "random":
            sentence = f"is {self.also}, classes, but {self._instead} forgotten: set no --config.forget.also"
            raise Wrong((("also",), sentence))
        if len({self.target, *self.also}) <= len(self.also):
            raise Wrong((("also",), f"is {self.also} beside the target {self.target}: give each class once"))
        return self

    @model_validator(mode="after")
    def _revocable_is_of_a_class(self) -> Forget:
        if self.kind == "random" and self.revocable >= 0:
            sentence = f"is {self.revocable}, a class, but {self._instead} forgotten: set --config.forget.revocable=-1"
            raise Wrong((("revocable",), sentence))
        return self

    @model_validator(mode="after")
    def _names_are_of_the_setting(self) -> Forget:
        for setting, name in ASKED_BY.items():
            given = getattr(self, name)
            if given and setting != self.setting:
                sentence = f"is {shown(given)}, but setting is {self.setting!r}: set --config.forget.setting={setting}"
                raise Wrong(((name,), sentence))
            if not given and setting == self.setting:
                example = "forget05" if setting == "partition" else "'(\"NAME\",)'"
                sentence = f"is empty, but setting is {setting!r}: say which, as in --config.forget.{name}={example}"
                raise Wrong(((name,), sentence))
        return self


Form = Literal["level", "gain", "raw"]


class Suited(Section):
    """What readiness leaves unset, for one kind of request."""

    form: Form | None = Field(None, description="What a rehearsal is judged by.")
    efficiency: Weight | None = Field(None, description="Lambda 1.")
    retention: Weight | None = Field(None, description="Lambda 2.")
    algorithm: Algorithm | None = Field(None, description="The algorithm that is rehearsed.")
    normalise: bool | None = Field(None, description="Inner steps of a set length instead of a set rate.")
    step_size: StepSizes | None = Field(None, description="How far the inner steps go together, lowest and highest.")


class Readiness(Section):
    """What is rehearsed at training time, and how; what is unset is as `suited` has it."""

    form: Form | None = Field(
        None, description="level: end where unseen examples lie. gain, raw: the paper's, a gain in loss or the loss itself."
    )
    efficiency: Weight | None = Field(None, description="Lambda 1: how much a rehearsed request should forget.")
    retention: Weight | None = Field(None, description="Lambda 2: how much it should keep.")
    resistance: Weight = Field(0.0, description="Lambda 3: the forgotten should not be learnt again from what is near.")
    relearning: Weight = Field(0.0, description="Lambda 4: the forget loss should stay high after simulated relearning.")
    holding: Weight = Field(
        0.0, description="Lambda 5: before any request, what may be forgotten should lie where unseen examples do."
    )
    levels: Literal["own", "proxy"] = Field(
        "own",
        description="Where unseen examples lie: by the model's own answers (on other classes; of random examples, "
        "on held-out ones), or by a proxy of the oracle, trained beforehand for a quarter of the steps.",
    )
    width: float = Field(2.0, gt=0, le=1000, description="Nats around the level in which the pull grows.")
    each: bool = Field(False, description="Bring each example to its level, and not their mean.")
    cap: Cap = Field(
        "log_classes",
        description="Of the forget loss: its value at chance, a number, or nothing; of form level the level's.",
    )
    capped: Literal["each", "mean"] = Field("each", description="Cap the loss of each example, or their mean.")
    order: Literal[1, 2] = Field(2, description="Of the derivative through the inner steps.")
    inner_steps: int = Field(1, ge=0, le=1000, description="Steps of the rehearsed request.")
    algorithm: Algorithm | None = Field(None, description="The algorithm that is rehearsed.")
    algorithm_options: AlgorithmOptions = Field({}, description="Its options, as in {'gamma': 0.5}.")
    normalise: bool | None = Field(None, description="Inner steps of a set length instead of a set rate.")
    step_size: StepSizes | None = Field(None, description="How far the inner steps go together, lowest and highest.")
    start: int = Field(0, ge=0, le=10**8, description="The first step that rehearses.")
    every: Steps = Field(4, description="Rehearse on every so many steps.")
    fraction: float = Field(0.25, gt=0, le=1, description="Share of the training batch that is rehearsed on.")
    fresh: bool = Field(True, description="Judge a rehearsal on other examples than it forgot.")
    requests: Literal["known", "groups", "classes", "random"] = Field(
        "known", description="Rehearse the revocable set, overlapping groups of it, any class, or random parts of it."
    )
    noise: float = Field(0.0, ge=0, le=1, description="Share of the revocable ids that are wrong.")
    recovery: Literal["nearest_classes", "nearest_examples", "stable"] = Field(
        "nearest_classes",
        description="What resistance relearns from: the nearest by pixels, of text by tokens, or anything that stays.",
    )
    relearn_steps: int = Field(3, ge=0, le=1000, description="Steps of simulated relearning.")
    relearn_rate: Rate = Field(0.05, description="Learning rate of simulated relearning.")
    relearn_order: Literal[1, 2] = Field(1, description="Of the derivative through simulated relearning.")

    @property
    def asks_proxies(self) -> bool:
        """Whether levels are those of proxies; no other form has levels."""
        return self.form == "level" and self.levels == "proxy"

    @property
    def rehearsed(self) -> str:
        """The name of the algorithm that is rehearsed, which is resolved at the door."""
        assert self.algorithm is not None
        return self.algorithm

    @model_validator(mode="after")
    def _relearning_has_steps(self) -> Readiness:
        if self.relearning and not self.relearn_steps:
            raise Wrong((("relearn_steps",), "is 0, but relearning is rewarded: set 1 or more"))
        return self


class ToLevel(Section):
    """How requests to the level of unseen examples are carried out: those of `level` and of NAME@level."""

    levels: LevelsOf = Field(
        "own",
        description="Where it is: by a model's own answers on other classes or held-out examples, by a proxy of the "
        "oracle, or, for study, by the oracle; or a number.",
    )
    learning_rates: Annotated[tuple[Rate, ...], AfterValidator(each_once)] = Field(
        (0.03, 0.1, 0.3), min_length=1, description="Of the grid of `level`; one is chosen for each way to train."
    )
    betas: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], AfterValidator(each_once)] = Field(
        (0.5, 0.95), min_length=1, description="Of the grid of `level`: the share of what stays."
    )
    max_steps: int = Field(60, ge=1, le=100_000, description="Give up after so many updates, those undone among them.")
    retained: int = Field(1024, ge=1, le=MOST, description="Retained training examples that are watched at every step.")


class Unlearners(Section):
    """By what requests are carried out."""

    unlearners: Annotated[tuple[Unlearner, ...], AfterValidator(each_once)] = Field(
        ("level",),
        min_length=1,
        description="Algorithms, each on its own: of the shelf, or module:function. NAME@level ends at that level.",
    )
    options: dict[str, AlgorithmOptions] = Field({}, description="By algorithm, as in {'npo': {'beta': 0.2}}.")
    to_level: ToLevel = ToLevel()

    @model_validator(mode="after")
    def _options_are_of_unlearners(self) -> Unlearners:
        served = [short(name.partition(AT)[0]) for name in self.unlearners]
        unused = [name for name in self.options if name not in served]
        if unused:
            sentence = f"has {either(unused)}, which serves no request: add it to --config.request.unlearners"
            raise Wrong((("options",), sentence))
        return self

    @model_validator(mode="after")
    def _options_of_level_are_not_chosen_elsewhere(self) -> Unlearners:
        for option, key in (("beta", "betas"), ("target", "levels")):
            if option in self.options.get("level", {}):
                sentence = f"has {option} of level, which is no option of requests: set --config.request.to_level.{key}"
                raise Wrong((("options",), sentence))
        return self


class Request(Unlearners):
    """How requests are carried out."""

    learning_rates: tuple[Rate, ...] = Field(
        (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
        min_length=1,
        description="Of the grid; one is chosen for vanilla on validation data.",
    )
    clips: tuple[Weight, ...] = Field(
        (0.0,),
        min_length=1,
        description="Of the grid, too: clip to this global norm; 0 is plain gradient ascent.",
    )
    # A request's curves are kept whole, for all lanes.
    max_steps: int = Field(200, ge=1, le=100_000, description="Give up after so many steps.")
    batch_size: int = Field(0, ge=0, le=10**6, description="Forget examples in a step; 0 is the whole forget set.")
    observe: int = Field(1000, ge=0, le=MOST, description="Test examples that stay, watched at every step.")
    parts: int = Field(
        1, ge=1, le=10_000, description="So many requests in a row, cut by id; if as many as classes, one class each."
    )
    overlap: float = Field(0.0, ge=0, le=1, description="Share of the part before that a part asks for again.")
    tune_steps: int = Field(
        0, ge=0, le=10**6, description="Fine-tune between training and request, on half of the validation data."
    )
    tune_rate: Rate = Field(0.01, description="Learning rate of that fine-tuning.")


class Relearn(Section):
    """The relearning attack."""

    # At rate 0.05 the attack is over in five steps, and 20 and 40 steps tell nothing apart.
    learning_rate: Rate = Field(0.01, description="Of fine-tuning on the attack set.")
    steps: int = Field(40, ge=1, le=100_000, description="Of fine-tuning; accuracy is measured after each.")
    batch_size: BatchSize = Field(64, description="Examples in a step.")
    size: int = Field(500, ge=2, le=10**6, description="Examples in the attack set.")
    share: float = Field(0.1, gt=0, le=1, description="Of the attack set that is forgotten examples, if any are.")


def _rising(rates: tuple[float, ...]) -> tuple[float, ...]:
    if any(a >= b for a, b in itertools.pairwise(rates)):
        raise ValueError("give rates that increase")
    return rates


class StrongRelearn(Relearn):
    """The relearning attack, and a strong one whose rate and steps suit each row best."""

    rates: Annotated[tuple[Rate, ...], AfterValidator(_rising)] = Field(
        (0.01, 0.03, 0.1, 0.3), description="The strong attack's grid, increasing; none: there is no strong attack."
    )
    # 0 without rates, as in workdirs of versions that had no strong attack: what is new and empty changes nothing.
    strong_steps: int = Field(100, ge=0, le=100_000, description="Of the strong attack at each rate.")

    @model_validator(mode="after")
    def _strong_attacks_have_steps(self) -> StrongRelearn:
        if self.rates and not self.strong_steps:
            raise Wrong((("strong_steps",), "is 0, but relearn.rates has rates: set 1 or more, or no rates"))
        return self
