"""Stores made by version 0.1 name their factory `experiments.s3t_factory:make`; it is `experiments.exact.factory:make`."""

from experiments.exact.factory import make as make
