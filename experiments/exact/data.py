"""Model and data of a run: made as the store's factory makes them, the backbone pre-trained here if none is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.pretrain import Pretrain
from experiments.core import files, keys
from experiments.core.machines import processes
from experiments.core.sections import LEARNED
from experiments.data import digests
from experiments.data.images import DECODE_AT_ONCE
from experiments.data.splits import Split
from experiments.data.text import parts
from experiments.exact import factory
from experiments.exact.scores import ACCURACY, LOSS, TRUTH, Target, Truth, losses
from experiments.exact.sources import text
from experiments.pretrain import run
from s3t.service import creation
from s3t.service.factory import FROM_STORE
from s3t.training.backbone import run_blocks
from s3t.training.source import Source
from unlearn import tree
from unlearn.losses import correct

AT_ONCE = 16  # texts whose attention is held at once
PRETRAINED = Path("pretrain")  # in the workdir


class Data(NamedTuple):
    """Training examples with a model for them, and what its nodes are scored on.

    name: of the data set.
    source: model, recipe and training examples.
    x, y: validation and test examples, `held` of them for validation, which come first; pytrees of arrays. Questions, if
      any are asked, come last.
    nobody: [examples] of x, the score where no model answers, see `Target`; None: 0.
    asked: of TOFU how many questions are asked, and how many wrong answers there are to each; see `questions`.
    """

    name: str
    source: Source
    x: Any
    y: Any
    held: int
    nobody: np.ndarray | None = None
    asked: tuple[int, int] = (0, 0)

    @property
    def examples(self) -> int:
        """How many there are to score on."""
        return len(jax.tree.leaves(self.x)[0])

    @property
    def parts(self) -> tuple[slice, slice, slice]:
        """Where validation examples, test examples and questions are."""
        count, wrong = self.asked
        end = self.examples - count * (1 + wrong)
        return slice(self.held), slice(self.held, end), slice(end, None)

    @property
    def truth(self) -> Truth | None:
        """What answers to questions are held against; None if none are asked."""
        count, wrong = self.asked
        if not count:
            return None
        where = self.parts[2]
        return Truth(self.y["weight"][where], count, wrong, self.target.nobody[where])

    @property
    def target(self) -> Target:
        """What answers are held against."""
        nobody = np.zeros(self.examples) if self.nobody is None else self.nobody
        return Target(ACCURACY if self.source.backbone.classifies else LOSS, self.y, nobody)

    def scored(self, answers: np.ndarray | None) -> dict[str, float]:
        """Validation and test score of answers [all that is answered, ...], and of questions; None: there are none."""
        if answers is None:
            each = self.target.nobody
        elif self.target.name == ACCURACY:
            each = np.asarray(correct(jnp.asarray(answers), jnp.asarray(self.y)))
        else:
            each = losses(answers, self.y["weight"])
        name, (validation, test, questions) = self.target.name, self.parts
        found = {f"validation_{name}": float(each[validation].mean()), f"test_{name}": float(each[test].mean())}
        if truth := self.truth:
            served = np.zeros_like(truth.weight) if answers is None else answers[questions]
            found[TRUTH] = float(truth.of(served, 0.0 if answers is None else 1.0))
        return found


def check_trainable(source: Source, seen: Pretrain | None) -> None:
    """Refuse adapters that hit no layer, and what the backbone cannot, or must not, be pre-trained on.

    Args:
      seen: how it is pre-trained; None if one is given.

    Raises:
      ValueError (DataError among them): one line that says what to do.
    """
    creation.check_trainable(source, keys.unused())  # the targets of the adapters are layers
    if seen is not None:
        try:
            corpus = run.look(seen).dataset.corpus
            if corpus is not None and isinstance(source.split, text.Splits):
                parts.check_apart(source.split.documents, parts.known_by(corpus.documents))
        except ValueError as error:
            raise ValueError(f"pretrain: {error}") from error


def passes(seen: Pretrain | None) -> float:
    """What pre-training is expected to take: examples forward and backward through the model."""
    return run.passes(seen.train) if seen is not None else 0.0


def load(source: Source) -> Data:
    """The data of a run, with what its nodes are scored on."""
    (x, y), (test_x, test_y) = (fetch(ids) for ids, fetch in map(source.split, ("validation", "test")))
    both = lambda first, second: jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)  # noqa: E731
    return Data(source.hyper["dataset"], source, both(x, test_x), both(y, test_y), len(jax.tree.leaves(y)[0]))


def with_nobody(data: Data) -> Data:
    """The data with the loss of the backbone alone, of text to predict: its own head leaves a decoder as it is."""
    backbone, frozen = data.source.backbone, data.source.frozen
    if backbone.classifies:
        return data

    @jax.jit
    def of_backbone(frozen: Any, x: Any) -> jax.Array:
        h = run_blocks(backbone, frozen, backbone.embed(frozen, x, None), range(backbone.depth))
        return backbone.head(frozen, backbone.init_head(keys.unused()), h)

    def answers(first: int) -> np.ndarray:
        return np.asarray(of_backbone(frozen, jax.tree.map(lambda leaf: leaf[first : first + AT_ONCE], data.x)))

    whole = np.concatenate([answers(first) for first in range(0, data.examples, AT_ONCE)])
    return data._replace(nobody=losses(whole, data.y["weight"]))


def inputs(source: Source, checkpoint: str, given: bool = False) -> dict[str, str]:
    """Digests of what a workdir is bound to beside its config: the examples, and the backbone if one is given.

    Args:
      source: as the factory made it.
      checkpoint: the file of the backbone; '' is none.
      given: whether there is a backbone all the same, in a folder or a package.
    """

    def parts() -> Iterator[Split]:
        for ids, fetch in ((source.ids, source.fetch), *map(source.split, ("validation", "test"))):
            for part in np.split(ids, range(DECODE_AT_ONCE, len(ids), DECODE_AT_ONCE)):
                yield Split(*fetch(part), part)

    given = given and not Path(checkpoint).expanduser().is_file()
    parameters = tree.digest(source.frozen) if given else files.digest(checkpoint)
    return {"data": digests.digest(parts()), "parameters": parameters}


def pretrained(data: Data, arguments: dict[str, Any], seen: Pretrain | None, folder: Path) -> Data:
    """The data with a backbone that is pre-trained in a folder in place of the random one, if none is given.

    Every process pre-trains it; only process 0 keeps it, and tells the others what was kept.

    Args:
      data: as the factory made it.
      arguments: that the factory was called with beside hyper-parameters.
      seen: how the backbone is pre-trained; None if one is given.
    """
    if seen is not None:
        run.run(seen, str(folder / PRETRAINED))
        with processes.copied(folder / pretrained_at(seen)) as checkpoint:
            source = factory.make(data.source.hyper, **{**arguments, "checkpoint": str(checkpoint)})
        data = data._replace(source=source)
    return with_nobody(data)


def pretrained_at(seen: Pretrain) -> Path:
    """Where in a workdir the backbone is that was pre-trained there."""
    return PRETRAINED / run.checkpoint_of(seen.model)


def beside(seen: Pretrain) -> dict[str, str]:
    """The factory's arguments by which a store's manifest has it, since a workdir may be moved, with its own tokeniser."""
    learned = {"tokeniser": ""} if seen.data.tokeniser.startswith(LEARNED) else {}
    return {"checkpoint": f"{FROM_STORE}../{pretrained_at(seen).as_posix()}", **learned}
