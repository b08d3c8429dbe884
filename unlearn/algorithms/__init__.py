"""The shelf: real functions `(model, optimizer, *, options) -> UnlearnAlgorithm`, one file per family."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from unlearn.algorithms.ascending import ascent, ascent_kl, graddiff, neggrad_plus
from unlearn.algorithms.distilling import undial
from unlearn.algorithms.finetuning import finetune
from unlearn.algorithms.levelling import level
from unlearn.algorithms.misdirecting import rmu
from unlearn.algorithms.preference import dpo, idk_dpo, npo, simnpo
from unlearn.algorithms.relabelling import random_label
from unlearn.algorithms.weighting import wga
from unlearn.base import UnlearnAlgorithm

ALGORITHMS: dict[str, Callable[..., UnlearnAlgorithm]] = {
    "level": level,
    "ascent": ascent,
    "graddiff": graddiff,
    "neggrad_plus": neggrad_plus,
    "ascent_kl": ascent_kl,
    "npo": npo,
    "finetune": finetune,
    "random_label": random_label,
    "simnpo": simnpo,
    "undial": undial,
    "rmu": rmu,
    "wga": wga,
    "dpo": dpo,
    "idk_dpo": idk_dpo,
}


def find_algorithm(name: str) -> Callable[..., UnlearnAlgorithm]:
    """The algorithm's factory by its name.

    Raises:
      ValueError: no such algorithm; one line with the nearest names, or with all of them.

    Example:
      >>> find_algorithm("npo").__name__
      'npo'
      >>> find_algorithm("ascend")
      Traceback (most recent call last):
      ValueError: algorithm 'ascend' is unknown: did you mean ascent or ascent_kl?
    """
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(ALGORITHMS)}"
        raise ValueError(f"algorithm {name!r} is unknown: {hint}")
    return ALGORITHMS[name]


__all__ = [
    "ALGORITHMS", "ascent", "ascent_kl", "dpo", "find_algorithm", "finetune", "graddiff", "idk_dpo", "level",
    "neggrad_plus", "npo", "random_label", "rmu", "simnpo", "undial", "wga",
]  # fmt: skip
