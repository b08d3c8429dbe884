"""Tiny federations of digits that clients, a class or examples leave."""

import functools

from experiments.configs import federated as configs
from experiments.core.config import validated
from experiments.data import datasets
from experiments.erasure import problem
from tests.helpers.configs import with_keys

TINY = {
    "seeds": 2, "data.train_size": 120, "model.options.widths": (4,), "federation.clients": 5, "federation.rounds": 3,
    "federation.epochs": 1, "leaver.claim": 2.0, "archive.lattices": ("scalar",), "archive.rates": (2.0,),
    "archive.users": 0, "archive.threshold": 0.0, "archive.share": 0.0, "archive.coded": 1, "erase.calibrations": 1,
    "erase.alphas": (-0.1, 0.0), "erase.repairs": (1,),
}  # fmt: skip
QUICK = ("retrain", "rollback", "running_sums", "fast_fedul", "medu")


def config(name="digits", **changes):
    made = configs.get_config(name)
    return with_keys(made, TINY | {"erase.methods": QUICK} | changes)


@functools.cache
def made(name):
    section = validated(configs.Federated, config(name))
    return problem.make(section, datasets.load(section.data))


def asking(request, **changes):
    """A problem of which a class or some examples are to go."""
    asked = {"leaver.request": request, "leaver.label": 3, "leaver.examples": 5, "federation.dirichlet": 0.5}
    section = validated(configs.Federated, config(**asked, **changes))
    return problem.make(section, datasets.load(section.data))
