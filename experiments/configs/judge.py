"""The strict judge: fleets of oracles and shadows, attacks on single examples, one table.

    python -m experiments.main --config=experiments/configs/judge.py:digits --workdir=runs/judge

`digits` needs no download and takes less than 20 minutes on two CPU cores. `quick` is a look, no result: one class, one
algorithm, 32 models of each kind, in two minutes.
`digits_full` is `digits` over twelve forget sets, two hours and a half on two busy cores; docs/judge.md has what both
showed. `cifar10`, a small convolutional net, is for an accelerator, and its time has not been measured. `pydoc` and `trec`
are text and take the extra `text`: two hours and a half of a core, and less than one (docs/text.md).
A run that was stopped goes on with the same command.
What is trained and rehearsed, and how, is as in `configs/readiness.py`, whose sections it shares.
Forget sets are given as a whole, each with a name of its own:
`--config.judge.sets='{"most": {"setting": "memorised", "tier": "high", "fraction": 0.05}}'`. A set's `setting` is

    random           fraction        a random share of the training examples
    class            target          every training example of a class
    memorised        tier, fraction  a share out of those memorised least (low), in between (medium) or most (high)
    near_duplicates  fraction        one member of each of the closest pairs of images or texts; its twin stays
    cluster          fraction        a synthetic group: a cluster of k-means on pixels, or on shares of tokens
    group            groups          of text: all documents of these speakers, authors or sources
    documents        documents       of text: these documents, by their names or ids
    partition        partition       of text: a part that came with the data, as forget05
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import ml_collections
import pydantic
from pydantic import AfterValidator, Field, model_validator

from experiments.configs import readiness
from experiments.configs.comparison import PAPER_VARIANT, RESIST, Comparison, Overrides, Training
from experiments.configs.judged_sets import ClassSet, ForgetSet, Named, RandomSet
from experiments.core import forgetting, sections, trackers, values
from experiments.core.config import Section, Wrong, as_config, mistakes, validated

ORACLES = ("oracle", "heldout_oracle")
WAYS = ("vanilla", "reweight", "readiness", "dpsgd")
POOLED = "pooled"  # all forget sets together, in tables

QUICK = 32  # models in each fleet of `quick`: the intervals of as few are too wide for a verdict

Models = Annotated[int, Field(ge=12, le=100_000)]  # intervals need 10, either half of the shadows 3 with and 3 without each


def _increasing(steps: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError("give whole numbers that increase")
    return steps


class Tuning(Section):
    """The same trials for every way and algorithm: each rate, looked at after each number of steps."""

    lanes: int = Field(8, ge=1, le=100_000, description="Models that are tuned on.")
    learning_rates: Annotated[tuple[values.Rate, ...], AfterValidator(values.each_once)] = Field(
        (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), min_length=1, description="Tried rates."
    )
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], AfterValidator(_increasing)] = Field(
        (5, 20, 80), min_length=1, description="After which requests are looked at."
    )


class Judgement(Section):
    """The size of a judgement, and its forget sets."""

    lanes: Models = Field(64, description="Models in each fleet: oracles, repeats of one request, shadows.")
    private_lanes: Models = Field(16, description="The same of DP-SGD, whose models cost many times as much.")
    memorisation_lanes: int = Field(
        64, ge=4, le=100_000, description="Models, each trained on a half, that tell how far each example is memorised."
    )
    memory_bytes: int = Field(
        2**31, ge=1, le=2**50, description="Of a device, that the lanes of one program may take; one lane always runs."
    )
    batch_size: values.BatchSize = Field(64, description="Forget and retain examples in an update.")
    retain: int = Field(256, ge=1, le=values.MOST, description="Retain examples that KLoM looks at, chosen by id.")
    tuning: Tuning = Tuning()
    revocable: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Training is told that this share of the training examples may be asked for, who is asked for among "
        "them, unless a class is; 0: who is asked for alone.",
    )
    sets: dict[str, ForgetSet] = Field(
        {"random": RandomSet(setting="random", fraction=0.1), "class": ClassSet(setting="class", target=3)},
        min_length=1,
        description="Forget sets by name, as in {'tenth': {'setting': 'random', 'fraction': 0.1}}.",
    )

    @model_validator(mode="after")
    def _sets_have_names(self) -> Judgement:
        told = []
        for name in self.sets:
            try:
                values.check_name("forget set", name, POOLED)
            except ValueError as error:
                told.append((("sets", name), str(error)))
        if told:
            raise Wrong(*told)
        return self


class Judge(Section):
    """One judgement."""

    # What version 0.1 wrote into config.json beside these keys; no other values were taken.
    retired: ClassVar[Mapping[str, Any]] = {
        "equal_flops": False,
        "parallel": "jit",
        "data.stream": False,
        "reweight.others": [],
        **{f"forget.{name}": value for name, value in forgetting.Forget().model_dump().items() if name != "seed"},
        **{
            f"request.{name}": value
            for name, value in forgetting.Request().model_dump(mode="json").items()
            if name not in forgetting.Unlearners.model_fields
        },
    }

    runner: Literal["judge"] = Field("judge", description="What runs this config.")
    name: str = Field("", description="Of the experiment.")
    seed: values.Seed = Field(0, description="The first seed.")
    seeds: int = Field(
        10, ge=1, le=10_000, description="Of each fleet, so many lanes are also attacked as a population and by relearning."
    )
    checkpoint_seconds: float = Field(30.0, ge=0, le=10**7, description="Between checkpoints of a training.")
    tracker: trackers.Names = trackers.JSONL
    trainings: tuple[Training, ...] = Field(
        ("oracle", "heldout_oracle", "vanilla", "reweight", "readiness", "dpsgd"),
        description="oracle, heldout_oracle, vanilla and any other ways to train.",
    )
    data: sections.ScoredData = sections.ScoredData()
    model: sections.Model = sections.Model()
    train: sections.Train = sections.Train()
    forget: forgetting.ForgetSeed = forgetting.ForgetSeed()
    readiness: forgetting.Readiness = forgetting.Readiness()
    variants: dict[str, Overrides] = Field(
        {}, description="Overrides of readiness by name, each judged beside the default, as in {'slow': {'every': 8}}."
    )
    suited: dict[Literal["class", "random"], forgetting.Suited] = Field(
        Comparison().suited, description="What readiness leaves unset, by the kind of forget set."
    )
    reweight: sections.Reweight = sections.Reweight()
    dpsgd: sections.DPSGD = sections.DPSGD()
    request: forgetting.Unlearners = forgetting.Unlearners(unlearners=values.JUDGED)
    relearn: forgetting.StrongRelearn = forgetting.StrongRelearn()
    judge: Judgement = Judgement()

    @model_validator(mode="after")
    def _ways_are_judged_beside_oracles(self) -> Judge:
        first, ways = self.trainings[:2], self.trainings[2:]
        if first != ORACLES or "vanilla" not in ways or set(ways) - set(WAYS) or len(set(ways)) < len(ways):
            sentence = (
                f"is {self.trainings}: give oracle, heldout_oracle, vanilla and any of {', '.join(WAYS[1:])}, each once"
            )
            raise Wrong((("trainings",), sentence))
        return self

    @property
    def fewest(self) -> int:
        """Models of the smallest fleet."""
        return min(self.judge.lanes, self.judge.private_lanes if "dpsgd" in self.trainings else self.judge.lanes)

    @model_validator(mode="after")
    def _seeds_are_of_models(self) -> Judge:
        if self.seeds > self.fewest:
            sentence = f"is {self.seeds}: give one from 1 to {self.fewest}, the models of the smallest fleet"
            raise Wrong((("seeds",), sentence))
        values.check_seeds(self.seed, max(self.judge.lanes, self.judge.private_lanes, self.judge.memorisation_lanes))
        return self

    @model_validator(mode="after")
    def _strong_attacks_have_models(self) -> Judge:
        if self.relearn.rates and self.seeds + 2 > self.fewest:
            sentence = f"is {self.seeds} of {self.fewest} models, and the strong relearning attack is tuned on two others"
            raise Wrong((("seeds",), f"{sentence}: lower it, or set --config.relearn.rates='()'"))
        return self

    @model_validator(mode="after")
    def _can_be_compared(self) -> Judge:
        try:
            for name in self.judge.sets:
                self.of_set(name)
        except pydantic.ValidationError as error:  # of rules that the comparison has: their keys are these keys
            raise Wrong(*mistakes(error, Judged, {})) from error
        return self

    def of_set(self, name: str) -> Judged:
        """The comparison of one forget set: what has no name is forgotten as random data are."""
        chosen = self.judge.sets[name]
        seed = self.forget.seed
        if isinstance(chosen, Named):
            forget = forgetting.Forget(**chosen.model_dump(), seed=seed)
        else:
            forget = forgetting.Forget(setting="random", fraction=chosen.fraction, seed=seed)
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in COMPARED}
        return Judged(
            **own,
            equal_flops=False,
            data=sections.StreamedData(**self.data.model_dump()),
            forget=forget,
            reweight=sections.Reweights(weight=self.reweight.weight, others=()),
            request=forgetting.Request(**self.request.model_dump()),
        )

    def shared(self) -> Shared:
        """What every forget set is judged by."""
        seeds = range(self.seed, self.seed + self.seeds)
        variants = [variant_of_readiness(name) for name in self.variants] if "readiness" in self.trainings else []
        return Shared(
            (*self.trainings, *variants), seeds, self.reweight, self.dpsgd, self.request, self.relearn, self.judge
        )

    def asked(self) -> list[Asked]:
        """Every forget set, resolved.

        Raises:
          ConfigError: readiness lacks what nothing suits.
        """
        found = []
        for name, wanted in self.judge.sets.items():
            compared = self.of_set(name).resolved()
            readiness = {variant_of_readiness(name): section for name, section in compared.by_variant().items()}
            found.append(Asked(name, wanted, compared.forget, readiness, self.data.score_examples))
        return found


def variant_of_readiness(name: str) -> str:
    """What a variant of readiness is called among the trainings; the default one has no name."""
    return f"readiness {name}" if name else "readiness"


class Shared(NamedTuple):
    """What every forget set of a judgement is judged by.

    trainings: the ways to train, variants of readiness as `variant_of_readiness` calls them.
    seeds: of the lanes that are also attacked as a population and by relearning; the first is every fleet's.
    reweight, dpsgd: how to train in those ways.
    request, relearn, judgement: by what is asked and attacked, and how much of it.
    """

    trainings: Sequence[str]
    seeds: range
    reweight: sections.Reweight
    dpsgd: sections.DPSGD
    request: forgetting.Unlearners
    relearn: forgetting.StrongRelearn
    judgement: Judgement


class Asked(NamedTuple):
    """A forget set, as the comparison would ask for it.

    forget: of the comparison.
    readiness: by training, with what suits the kind of request.
    score_examples: of each kind that are scored; 0 are all.
    """

    name: str
    wanted: ForgetSet
    forget: forgetting.Forget
    readiness: dict[str, forgetting.Readiness]
    score_examples: int


COMPARED = ("runner", "data", "forget", "reweight", "request")  # sections that a comparison has more of


class Judged(Comparison):
    """The comparison of one forget set, with the judgement that it is part of."""

    judge: Judgement


def shipped(config: Judge) -> Judge:
    """The judgement of that name as it is shipped; of a config of a user's own, the defaults."""
    return validated(Judge, get_config(config.name) if config.name in EXPERIMENTS else defaults())


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one judgement, by name."""
    if arg not in EXPERIMENTS:
        raise ValueError(f"config judge.py:{arg} is unknown; choose one of {', '.join(EXPERIMENTS)}")
    config = defaults()
    EXPERIMENTS[arg](config)
    config.name = arg
    return config


def defaults() -> ml_collections.ConfigDict:
    """Every setting at its default, for a config file of your own."""
    return as_config(Judge())


def digits(config: ml_collections.ConfigDict) -> None:
    """scikit-learn's digits: a random tenth and a class; every algorithm on vanilla, re-weighted, ready, private models."""
    config.variants = ml_collections.ConfigDict({"paper": PAPER_VARIANT})


def quick(config: ml_collections.ConfigDict) -> None:
    """Digits, a class; level requests to vanilla and ready models. A look, no result: few models, 1440 training steps."""
    config.trainings = (*ORACLES, "vanilla", "readiness")
    config.request.unlearners = ("level",)
    # Most of the time goes into compiling, so shapes are few: whole epochs, and as many models to tune on as in a fleet.
    config.seeds, config.train.steps = 5, 1440
    config.judge.update(lanes=QUICK, private_lanes=QUICK)
    config.judge.tuning.update(lanes=QUICK, learning_rates=(0.01, 0.03, 0.1), steps=(80,))
    config.judge.sets = ml_collections.ConfigDict({"class": {"setting": "class", "target": 3}})


def digits_full(config: ml_collections.ConfigDict) -> None:
    """Digits by every kind of forget set and several sizes."""
    sets = {f"random_{percent}": {"setting": "random", "fraction": percent / 100} for percent in (1, 5, 10, 20)}
    sets |= {f"class_{target}": {"setting": "class", "target": target} for target in (3, 5, 8)}
    for tier in ("low", "medium", "high"):
        sets[f"memorised_{tier}"] = {"setting": "memorised", "tier": tier, "fraction": 0.05}
    sets["near_duplicates"] = {"setting": "near_duplicates", "fraction": 0.05}
    sets["cluster"] = {"setting": "cluster", "fraction": 0.05}
    config.judge.sets = ml_collections.ConfigDict(sets)


def levels(config: ml_collections.ConfigDict) -> None:
    """Digits classes that nothing was tuned on, 32 models of each kind: what ends where unseen examples lie."""
    config.trainings = (*ORACLES, "vanilla", "reweight", "readiness")
    config.variants = ml_collections.ConfigDict({"paper": PAPER_VARIANT, "resist": RESIST})
    config.request.unlearners = ("neggrad_plus", "level")
    config.seed = 3000
    config.judge.lanes = 32
    sets = {f"class_{target}": {"setting": "class", "target": target} for target in (6, 9)}
    config.judge.sets = ml_collections.ConfigDict(sets)


def trec(config: ml_collections.ConfigDict) -> None:
    """trec, questions of six classes, by a small BERT: a class, questions about people, 32 models of each kind."""
    _of_text(config, "trec")
    config.request.unlearners = ("level",)
    # As in the comparison: with a beta of .95 every update costs more of what stays than is allowed, and is undone.
    compared = readiness.get_config("trec").request.to_level
    config.request.to_level.update({name: compared[name] for name in ("learning_rates", "betas", "retained")})
    config.relearn.steps, config.relearn.size = 20, 200
    config.judge.tuning.update(learning_rates=(0.03, 0.1, 0.3), steps=(20, 80))
    config.judge.sets = ml_collections.ConfigDict({"class": {"setting": "class", "target": 3}})


def pydoc(config: ml_collections.ConfigDict) -> None:
    """Python's own manual, by a small GPT-2: six of 60 documents, of which every attack sees whole documents."""
    _of_text(config, "pydoc")
    config.request.to_level.retained = 48
    config.request.unlearners = ("level", "npo")
    config.relearn.size, config.relearn.batch_size = 64, 16
    config.judge.update(batch_size=16, retain=32)
    config.judge.sets = ml_collections.ConfigDict({"random": {"setting": "random", "fraction": 0.1}})


def cifar10(config: ml_collections.ConfigDict) -> None:
    """cifar10, 20,000 training images, by the quick recipe; a random tenth and a class. For an accelerator."""
    _as_compared(config, "cifar10_quick")


def _of_text(config: ml_collections.ConfigDict, name: str) -> None:
    """What two cores judge in hours: half as many models, fewer rates of attacks, nobody trained in private."""
    _as_compared(config, name)
    config.trainings = (*ORACLES, "vanilla", "reweight", "readiness")
    config.seeds, config.judge.lanes = 5, 32
    config.relearn.rates, config.relearn.strong_steps = (0.03, 0.1, 0.3), 40


def _as_compared(config: ml_collections.ConfigDict, name: str) -> None:
    """Data, model and training of a comparison, and what suits its requests."""
    compared = readiness.get_config(name)
    if "widths" not in compared.model.options:
        config.model.options = ml_collections.ConfigDict()
    for part in ("data", "model", "train", "readiness", "suited"):
        config[part].update({name: value for name, value in compared[part].items() if name in config[part]})


EXPERIMENTS = {one.__name__: one for one in (quick, digits, digits_full, levels, trec, pydoc, cifar10)}
