"""Ready2Unlearn: training through a simulated unlearning step, so that a later request is quick, keeps the rest and lasts.

A reconstruction after Duan et al. (2505.10845): the paper's equations were not available, so every choice is a switch.
"""

from importlib import metadata

from readiness.objective import MetaBatch, Readiness, Terms, make_readiness
from readiness.step import TrainState, make_step

__all__ = ["MetaBatch", "Readiness", "Terms", "TrainState", "make_readiness", "make_step"]

try:
    __version__ = metadata.version("forethought")
except metadata.PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"
