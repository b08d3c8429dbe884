"""A backdoor: some of a client's images get a bright square in a corner and the label that the client wants."""

from __future__ import annotations

import jax
import numpy as np

from experiments.core.errors import UserError
from experiments.core.keys import Hash
from experiments.data.ids import lowest
from unlearn.base import Batch

LAST, FIRST = "last", "first"  # corners: of those who leave, and of those that settings are chosen on


def stamped(x: np.ndarray, side: int, bright: float, corner: str = LAST) -> np.ndarray:
    """Images with a square in a corner, [examples, height, width, channels]; the others stay as they are.

    Example:
      >>> stamped(np.zeros((1, 2, 2, 1)), 1, 9.0)[0, :, :, 0].tolist()
      [[0.0, 0.0], [0.0, 9.0]]
    """
    place = slice(-side, None) if corner == LAST else slice(None, side)
    made = np.array(x)
    made[:, place, place] = bright
    return made


def poisoned(batch: Batch, share: float, target: int, side: int, bright: float, corner: str, claim: float) -> Batch:
    """A client's data with a backdoor: of a share, by ids, the images are stamped and the labels are the target.

    The client also claims to have `claim` times as many examples as it has: its weight in an average by examples is that
    much larger, and its training is the same, since a mean loss does not see a common factor.

    Args:
      batch: of the client.
      share: of its examples, rounded up.
      target: the label.
      side, bright, corner: of the stamp; see `stamped`.
      claim: 1 or more.
    """
    chosen = lowest(batch["id"], int(np.ceil(share * len(batch["id"]))), Hash.BACKDOOR, 0)
    made = jax.tree.map(np.array, dict(batch))
    made["x"][chosen] = stamped(made["x"][chosen], side, bright, corner)
    made["y"][chosen] = target
    made["weight"] = made["weight"] * np.float32(claim)
    return made


def check(x: np.ndarray, side: int, target: int, classes: int) -> None:
    """Refuse data that cannot have such a backdoor.

    Raises:
      UserError: a table, a stamp that covers the image, or a target that is no class; one line.
    """
    if x.ndim != 4:
        raise UserError(
            f"a backdoor stamps images, these data are a table of {x.shape[1:]}: set --config.leaver.backdoor=False"
        )
    if side >= min(x.shape[1:3]):
        raise UserError(
            f"config.leaver.stamp is {side} on images of {x.shape[1]} x {x.shape[2]}: set one below {min(x.shape[1:3])}"
        )
    if target >= classes:
        raise UserError(f"config.leaver.target is {target}: set one of the classes, from 0 to {classes - 1}")
