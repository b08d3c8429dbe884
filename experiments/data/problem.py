"""A problem: what is asked of which data, who training is told may be asked for, and who is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.core import forgetting
from experiments.core.errors import DataError
from experiments.core.keys import Hash
from experiments.data import datasets
from experiments.data.sets import Sets, of_units
from experiments.data.text import asked as of_text
from experiments.data.text import refusals
from unlearn.base import Batch


class Problem(NamedTuple):
    """What is asked of which data; it knows of no model, device or config.

    forget: positions in the training split of who is to be forgotten.
    asked: the same as one Batch: what the request is about.
    revocable: ids that training is told may be asked for, before any of them are wrong; see `told`.
    sets: who is scored.
    setting: as `forgetting.Forget` has it.
    seed: of every random choice of ids.
    """

    dataset: datasets.Dataset
    forget: np.ndarray
    asked: Batch
    revocable: np.ndarray
    sets: Sets
    setting: str
    seed: int

    @property
    def by_class(self) -> bool:
        """Whether a class is forgotten."""
        return self.setting == "class"

    @property
    def labels(self) -> np.ndarray | None:
        """[examples] int, those of who is asked for; None if random examples are."""
        return np.asarray(self.asked["y"]) if self.by_class else None

    @property
    def units(self) -> np.ndarray:
        """[examples] int64, what each of who is asked for is asked for as a part of: of text, its document."""
        return self.dataset.asked_as[self.forget]

    def told(self, noise: float = 0.0) -> np.ndarray:
        """Positions in the training split that training is told may be forgotten.

        Args:
          noise: share of them that is wrong.

        Raises:
          DataError: there are too few others.
        """
        ids = datasets.revocable_ids(self.dataset, self.revocable, noise, self.seed)
        return datasets.check_ids(self.dataset, ids)


def make(
    dataset: datasets.Dataset,
    forget: forgetting.Forget,
    ids: np.ndarray | None = None,
    *,
    score_examples: int = 0,
    halve: bool = False,
    alternatives: bool = False,
) -> Problem:
    """The problem of a forget set.

    Args:
      ids: of who is forgotten; None: as `forget` says.
      score_examples: score on so many forget and so many retain examples, of text documents; 0 is all.
      halve: keep half of the validation data as new data to tune on.
      alternatives: also say what questions are to be answered with instead, where there are questions.

    Raises:
      DataError: ids that cannot be asked for, names of nobody, or questions that are too long; half of one
        validation example, or document of text.
    """
    positions = datasets.check_ids(dataset, _ids(dataset, forget, forget.classes) if ids is None else ids)
    asked: Batch = datasets.batch(dataset.train, positions)
    revocable = dataset.train.id[positions] if forget.revocable < 0 else _ids(dataset, forget, (forget.revocable,))
    sets = make_sets(dataset, asked, forget.classes, score_examples=score_examples, halve=halve)
    if alternatives and (instead := alternatives_of(dataset, dataset.asked_as[positions])) is not None:
        asked = {**asked, "alternative": instead}
    return Problem(dataset, positions, asked, revocable, sets, forget.setting, forget.seed)


def alternatives_of(dataset: datasets.Dataset, asked_as: np.ndarray) -> Batch | None:
    """What the questions of some documents are to be answered with instead, as `dpo` takes it; None: there are none.

    Args:
      asked_as: [rows], the document of each.
    """
    if dataset.corpus is None or dataset.corpus.documents.prompts is None:
        return None
    return refusals.instead(dataset.corpus, asked_as)


def _ids(dataset: datasets.Dataset, forget: forgetting.Forget, classes: Sequence[int]) -> np.ndarray:
    if forget.setting in forgetting.ASKED_BY:
        return of_text.ids(dataset, forget)
    return datasets.forget_ids(dataset, forget.setting, classes, forget.fraction, forget.seed)


def make_sets(
    dataset: datasets.Dataset, asked: Batch, classes: Sequence[int], *, score_examples: int = 0, halve: bool = False
) -> Sets:
    """Who is scored when `asked` are forgotten: all of `classes`, if there are any. Samples cut no document of text."""
    kept = np.flatnonzero(~np.isin(dataset.train.id, asked["id"]))
    kept = kept[of_units(dataset.asked_as[kept], score_examples, Hash.SCORE)]
    scored = of_units(dataset.units_of(asked["id"]), score_examples, Hash.SCORE)
    staying = lambda split: np.flatnonzero(~np.isin(split.y, classes)) if classes else None  # noqa: E731
    leaving = np.flatnonzero(np.isin(dataset.test.y, classes)) if classes else None
    validation, fresh = _halves(dataset, halve)
    return Sets(
        jax.tree.map(lambda leaf: leaf[scored], dict(asked)),
        datasets.batch(dataset.train, kept),
        datasets.batch(dataset.test),
        datasets.batch(dataset.test, staying(dataset.test)),
        datasets.batch(validation),
        datasets.batch(validation, staying(validation)),
        datasets.batch(dataset.test, leaving),
        datasets.batch(fresh),
    )


def _halves(dataset: datasets.Dataset, halve: bool) -> tuple[datasets.Split, datasets.Split]:
    """Validation data to select on, and others to tune on: by lowest hash, half of them if asked; documents whole."""
    validation = dataset.validation
    units = dataset.units_of(validation.id)
    distinct = np.unique(units)
    if halve and len(distinct) < 2:
        raise DataError(
            "fine-tuning takes half of the validation data, of which there is one example: raise "
            "--config.data.validation_fraction"
        )
    drawn = distinct[datasets.lowest(distinct, len(distinct) // 2 if halve else 0, Hash.TUNE, 0)]
    tuned_on = np.isin(units, drawn)
    return jax.tree.map(lambda leaf: leaf[~tuned_on], validation), jax.tree.map(lambda leaf: leaf[tuned_on], validation)
