"""Whether the models of a fleet have room beside each other; large ones are told of, too large ones refused."""

from __future__ import annotations

import math
import os
from typing import Any

import jax
import optax

from experiments.core import keys
from experiments.core.errors import UserError
from experiments.core.notices import LOG
from experiments.models import ModelFns

TOLD = 1e9  # bytes from which on a line tells


def of_lanes(model: ModelFns, optimizer: optax.GradientTransformation, lanes: int) -> int:
    """Bytes of so many models in a step: parameters and optimiser before and after it, and a gradient.

    Activations come on top, and so do frozen weights, which lanes share.
    """
    params = jax.eval_shape(model.init, keys.unused())
    state = jax.eval_shape(optimizer.init, params)
    return lanes * (3 * _bytes(params) + 2 * _bytes(state))


def check(model: ModelFns, optimizer: optax.GradientTransformation, lanes: int, available: float | None = None) -> None:
    """Tell what a fleet takes, if that is much.

    Args:
      lanes: of the largest fleet.
      available: bytes; None: what the device has.

    Raises:
      UserError: more than there is.
    """
    needed, there = of_lanes(model, optimizer, lanes), memory() if available is None else available
    said = f"{lanes} models are trained at once and take {needed / 1e9:.3g} GB beside their activations"
    if needed > there:
        raise UserError(
            f"{said}, and there are {there / 1e9:.3g} GB: set fewer --config.seeds or trainings, or, of pre-trained "
            "weights, --config.model.lora.rank=8"
        )
    if needed >= TOLD:
        LOG.warning("%s, of %.3g GB", said, there / 1e9)


def memory() -> float:
    """Bytes of a device, or of the machine on a CPU; infinite where it does not tell."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return float(limit)
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
