"""S3T and SISA before the strict judge: attacks on what they serve after a deletion, each beside the held-out oracle's.

    python -m experiments.main --config=experiments/configs/judge_exact.py:digits --workdir=runs/judge_exact

`digits` needs no download; it took 12 CPU-minutes on two busy cores. Every model is a shard of its own with its own keys,
of partition and of training; the backbone is pre-trained on other classes. Expected: nothing is found where the claim of
docs/s3t.md says so, and it is said where something is found; see docs/judge_exact.md. One run of 64 models is too few to
show that nothing is there: `python -m experiments.judge_exact.pooled DIR DIR` takes runs of different seeds together.
"""

from __future__ import annotations

from typing import Annotated, Literal

import ml_collections
from pydantic import AfterValidator, Field, model_validator

from experiments.configs.pretrain import Pretrain
from experiments.configs.s3t import Bytes, Exact, FullLora, Lora, NodeTrain
from experiments.core import sections, values
from experiments.core.config import Section, Wrong, as_config

PAIRS = 240  # of a model and an example, half of them without it: for a true-positive rate at 1%, some models left out
MOST_SLICES = 6  # the logits of all 2^L states of every model are held at once

Examples = Annotated[int, Field(ge=1, le=10**6)]


class ExactJudgement(Section):
    """The size of an exact judgement, and who takes part in it."""

    # Intervals need ten models, and each half of the shadows three of either kind.
    models: int = Field(64, ge=12, le=100_000, description="Of each fleet.")
    asked: int = Field(
        64, ge=3, le=10**6, description="Training examples of one person, in one slice; a fleet is asked to delete them."
    )
    same: Examples = Field(24, description="Examples that lie in that slice and stay.")
    apart: Examples = Field(24, description="Examples that lie in another slice.")
    requests: Examples = Field(6, description="Of an adaptive stream, one after the other.")
    resamples: int = Field(400, ge=20, le=10**6, description="Of models, behind an interval.")
    audited: int = Field(
        4, ge=0, le=100_000, description="Healed models that are trained from scratch as well and compared bit by bit."
    )

    @model_validator(mode="after")
    def _pairs_are_enough(self) -> ExactJudgement:
        if self.models * self.asked < PAIRS:
            sentence = f"is {self.asked}, too few for {self.models} models: set {-(-PAIRS // self.models)} or more"
            raise Wrong((("asked",), sentence))
        if self.audited > self.models:
            raise Wrong((("audited",), f"is {self.audited} of {self.models} models: set fewer"))
        return self


class JudgeExact(Exact):
    """One exact judgement."""

    runner: Literal["judge_exact"] = Field("judge_exact", description="What runs this config.")
    kinds: Annotated[tuple[Literal["s3t", "sisa"], ...], AfterValidator(values.each_once)] = Field(
        ("s3t", "sisa"), min_length=1, description="Who is judged."
    )
    pretrain: Pretrain = Pretrain(model="mini")
    model: sections.Backbone = Field("mini", description="The ViT: mini, digits, small, Ti/16, S/16, B/16 or L/16.")
    data: sections.Data = sections.Data(train_size=600)
    slices: int = Field(3, ge=2, le=MOST_SLICES, description="Parts of the data that are trained one after another.")
    lora: Lora = Lora(rank=4, alpha=4.0)
    train: NodeTrain = NodeTrain(epochs=10)
    full_lora: FullLora = FullLora(epochs=10)  # SISA's
    lanes: int = Field(32, ge=1, le=100_000, description="Nodes that are trained at once.")
    cache_bytes: Bytes = Field(1 << 30, description="Device memory for frozen activations.")
    exact: ExactJudgement = ExactJudgement()

    @model_validator(mode="after")
    def _no_text(self) -> JudgeExact:
        if self.of_text:
            raise Wrong((("model",), f"is {self.model!r}, which reads text, and images alone are judged: set a ViT"))
        return self


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
    """The config of one judgement, by name."""
    if arg != "digits":
        raise ValueError(f"config judge_exact.py:{arg} is unknown; choose digits")
    return as_config(JudgeExact(name=arg))
