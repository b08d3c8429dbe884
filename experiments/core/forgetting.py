"""Sections of forgetting that configs share: who is forgotten, how it is rehearsed, asked for and learnt again."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from experiments.core.config import Section, Wrong, either, shown
from experiments.core.values import (
    AT,
    MOST,
    Algorithm,
    AlgorithmOptions,
    BatchSize,
    Cap,
    ClassNumber,
    LevelsOf,
    Names,
    Rate,
    Seed,
    Share,
    Steps,
    StepSizes,
    Unlearner,
    Weight,
    each_once,
    short,
)


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
    neftune: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Alpha of NEFTune's noise on the embedded tokens of ordinary batches of text; 0: none.",
    )
    requests: Literal["known", "groups", "classes", "random"] = Field(
        "known", description="Rehearse the revocable set, overlapping groups of it, any class, or random examples of all."
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
    repair: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Updates of `level` once it has settled; those that would unsettle it are undone.",
    )
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

    @model_validator(mode="after")
    def _what_settles_is_repaired(self) -> Request:
        if self.repair and "level" not in self.unlearners:
            raise Wrong(
                (("repair",), f"is {self.repair}, but no request settles: add level to --config.request.unlearners")
            )
        return self


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
