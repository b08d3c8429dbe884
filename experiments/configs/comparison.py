"""The config of a readiness comparison: its keys, what goes together, and named settings of readiness."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AfterValidator, Field, model_validator

from experiments.core import forgetting, sections, trackers, values
from experiments.core.config import Loc, Says, Section, Wrong, mistakes
from experiments.core.errors import ConfigError

Training = Literal["oracle", "heldout_oracle", "vanilla", "reweight", "dpsgd", "neftune", "readiness"]
NEEDED: tuple[Training, ...] = ("oracle", "vanilla")  # by every comparison


def _has_needed(trainings: tuple[Training, ...]) -> tuple[Training, ...]:
    if lacking := [name for name in NEEDED if name not in trainings]:
        raise ValueError(f"every comparison needs {' and '.join(lacking)}, add it")
    if len(set(trainings)) < len(trainings):
        raise ValueError("give each once")
    return trainings


# Named settings of readiness. `LEVEL` is shipped for a class: a request that ends where unseen examples lie, rehearsed as
# it will be carried out. `PAPER` is the reconstruction of the paper's objective. `RESIST` are overrides of `LEVEL` by which
# what was forgotten does not come back soon, at a price in likeness to an oracle.
LEVEL: dict[str, Any] = {
    "form": "level",
    "efficiency": 0.02,
    "retention": 1.0,
    "algorithm": "level",
    "normalise": False,
    "step_size": (0.1, 0.1),
}
PAPER: dict[str, Any] = {
    "form": "gain",
    "efficiency": 0.5,
    "retention": 8.0,
    "algorithm": "ascent",
    "normalise": True,
    "step_size": (0.4, 0.4),
}
# Beside another algorithm, whose options and levels are not these.
PAPER_VARIANT = PAPER | {"algorithm_options": {}, "levels": "own", "each": False}
RESIST: dict[str, Any] = {
    "relearning": 0.05,
    "relearn_steps": 4,
    "relearn_rate": 0.05,
    "relearn_order": 2,
    "levels": "proxy",
}

Overrides = Annotated[dict[str, values.Option], Says("a dict of overrides of readiness")]


class Comparison(Section):
    """One comparison of readiness and its rivals; the shipped schedule rehearses a quarter batch on every fourth step."""

    runner: Literal["readiness"] = Field("readiness", description="What runs this config.")
    name: str = Field("", description="Of the experiment.")
    seed: values.Seed = Field(0, description="The first seed.")
    seeds: int = Field(10, ge=1, le=10_000, description="How many, trained together.")
    parallel: Literal["jit", "pmap"] = Field("jit", description="How devices share a batch.")
    fsdp: int = Field(
        1, ge=1, le=10_000, description="Devices that share one copy of the parameters and the optimiser's state."
    )
    checkpoint_seconds: float = Field(30.0, ge=0, le=10**7, description="Between checkpoints of a training.")
    tracker: trackers.Names = trackers.JSONL
    trainings: Annotated[tuple[Training, ...], AfterValidator(_has_needed)] = Field(
        ("oracle", "heldout_oracle", "vanilla", "reweight", "dpsgd", "readiness"), description="Ways to train."
    )
    equal_flops: bool = Field(True, description="Also train vanilla and re-weighting for as many FLOPs as readiness used.")
    data: sections.StreamedData = sections.StreamedData()
    model: sections.Model = sections.Model()
    train: sections.Train = sections.Train()
    forget: forgetting.Forget = forgetting.Forget()
    readiness: forgetting.Readiness = forgetting.Readiness()
    # A class lies apart from what stays; a random forget set does not, and a model that must keep what stays so firmly, so
    # far from here, can no longer be made to forget it.
    suited: dict[Literal["class", "random"], forgetting.Suited] = Field(
        {
            "class": forgetting.Suited(**LEVEL),
            "random": forgetting.Suited(**PAPER | {"retention": 1.0, "step_size": (0.1, 0.1)}),
        },
        description="What readiness leaves unset: for a class, or for anything else.",
    )
    variants: dict[str, Overrides] = Field(
        {}, description="Overrides of readiness by name, each trained beside the default, as in {'raw': {'form': 'raw'}}."
    )
    reweight: sections.Reweights = sections.Reweights()
    dpsgd: sections.DPSGD = sections.DPSGD()
    neftune: sections.NEFTune = sections.NEFTune()
    request: forgetting.Request = forgetting.Request()
    relearn: forgetting.Relearn = forgetting.Relearn()

    @model_validator(mode="after")
    def _pmap_copies_parameters(self) -> Comparison:
        if self.fsdp > 1 and self.parallel == "pmap":
            sentence = f"is {self.fsdp}, but pmap gives each device a copy of the parameters: set --config.parallel=jit"
            raise Wrong((("fsdp",), sentence))
        return self

    @model_validator(mode="after")
    def _seeds_stay_apart(self) -> Comparison:
        values.check_seeds(self.seed, self.seeds)
        return self

    @model_validator(mode="after")
    def _proxies_never_saw_whom_is_asked_for(self) -> Comparison:
        asking = [self.readiness.levels, *(one.get("levels") for one in self.variants.values())]
        if "proxy" not in (*asking, self.request.to_level.levels):
            return self
        if self.forget.revocable not in (-1, self.forget.target):
            sentence = f"is {self.forget.revocable}, but a proxy saw class {self.forget.target}: set levels=own, or -1 here"
            raise Wrong((("forget", "revocable"), sentence))
        if self.request.to_level.levels == "proxy" and self.readiness.noise:
            sentence = (
                f"is {self.readiness.noise:g}, but a proxy saw whom nobody told of: set --config.request.to_level.levels"
            )
            raise Wrong((("readiness", "noise"), f"{sentence}=own"))
        return self

    @model_validator(mode="after")
    def _rehearsals_can_be_trained(self) -> Comparison:
        told: list[tuple[Loc, str]] = []
        self._check_rehearsal(self.readiness, ("readiness",), told)
        told_of_all = {loc[-1] for loc, _ in told}
        for name, overrides in self.variants.items():
            at: Loc = ("variants", name)
            try:
                values.check_name("variant", name, "default")
            except ValueError as error:
                told.append((at, str(error)))
                continue
            overridden = self.readiness.model_dump() | overrides
            try:
                mine: list[tuple[Loc, str]] = []
                self._check_rehearsal(forgetting.Readiness.model_validate(overridden), at, mine)
                told += [(loc, said) for loc, said in mine if loc[-1] in overrides or loc[-1] not in told_of_all]
            except pydantic.ValidationError as error:
                told += mistakes(error, forgetting.Readiness, overridden, at)
        if told:
            raise Wrong(*told)
        return self

    def _check_rehearsal(self, readiness: forgetting.Readiness, at: Loc, told: list[tuple[Loc, str]]) -> None:
        """Add to `told` what the rest of the config does not go together with."""
        if "readiness" in self.trainings and readiness.start >= self.train.steps:
            sentence = f"is {readiness.start}, but training ends after {self.train.steps} steps: start sooner"
            told.append(((*at, "start"), sentence))
        told += [((*at, key), sentence) for key, sentence in self._of_levels(readiness)]
        if readiness.resistance and readiness.recovery != "stable" and self.data.stream:
            sentence = (
                f"is {readiness.recovery!r}, which compares all images, and data.stream leaves them on disk: "
                "set --config.readiness.recovery=stable"
            )
            told.append(((*at, "recovery"), sentence))

    def _of_levels(self, readiness: forgetting.Readiness) -> list[tuple[str, str]]:
        """(key, sentence) of what levels do not go together with."""
        form = readiness.form or self.suited.get(self.forget.kind, forgetting.Suited()).form
        if readiness.levels == "proxy" and readiness.requests in ("classes", "random"):
            sentence = f"is {readiness.requests!r}, but a proxy stands for one known set: set --config.readiness.levels=own"
            return [("requests", sentence)]
        if readiness.levels == "proxy" and (noise := readiness.noise or self.readiness.noise):
            sentence = f"is {noise:g}, but a proxy saw whom nobody told of: set --config.readiness.levels=own"
            return [("noise", sentence)]
        if form != "level" and readiness.levels == "proxy":
            return [("levels", f"is 'proxy', but form {form} has no levels: set --config.readiness.levels=own")]
        if form != "level" and readiness.holding:
            return [
                ("holding", f"is {readiness.holding:g}, but form {form} has no levels: set --config.readiness.holding=0")
            ]
        return []

    def resolved(self) -> Self:
        """The config with what readiness leaves unset filled in, as suits the kind of request.

        Raises:
          ConfigError: nothing suits it.
        """
        suited = self.suited.get(self.forget.kind, forgetting.Suited())
        unset = [name for name in type(suited).model_fields if getattr(self.readiness, name) is None]
        filled = {name: getattr(suited, name) for name in unset}
        if lacking := [name for name, value in filled.items() if value is None]:
            raise ConfigError(
                [
                    f"config.readiness.{name} is unset, and suited has none for {self.forget.kind!r}: "
                    f"set --config.readiness.{name}"
                    for name in lacking
                ]
            )
        return self.model_copy(update={"readiness": self.readiness.model_copy(update=filled)})

    def by_variant(self) -> dict[str, forgetting.Readiness]:
        """The readiness of each variant, the default one under ""."""
        return {name: self.variant(name).readiness for name in ("", *self.variants)}

    def variant(self, name: str) -> Self:
        """The config with readiness as a variant of it has it; `default` changes nothing."""
        given = {key: value for key, value in self.variants.get(name, {}).items() if value is not None}
        overridden = self.readiness.model_dump() | given
        return self.model_copy(update={"readiness": forgetting.Readiness.model_validate(overridden)})
