"""A tiny data set and ways of training on it, for the tests of fleets, devices and checkpoints."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import models
from experiments.core.machines import execution
from experiments.core.sections import StreamedData
from experiments.data.datasets import Images, Moments, load
from experiments.training import epochs, loop
from readiness import make_readiness, paper_terms
from readiness.requests import Draw, make_pools
from unlearn import ALGORITHMS
from unlearn.gradient import normalised

EXAMPLES, CLASSES = 22, 3
FORGET = np.arange(EXAMPLES) % 7 == 3  # three examples
MODEL = models.of_module(models.MLP(CLASSES, (6,)), (2, 3, 1))
SETTINGS = types.SimpleNamespace(optimizer="sgd", learning_rate=0.3, momentum=0.9, clip=1.0)
KINDS = ("plain", "readiness", "dpsgd")


def data():
    """Images of 2x3 pixels whose ids are neither dense nor in the order of their labels."""
    rng = np.random.default_rng(0)
    return {
        "x": jnp.asarray(rng.normal(size=(EXAMPLES, 2, 3, 1)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, CLASSES, size=EXAMPLES), jnp.int32),
        "id": jnp.asarray(5 * np.arange(EXAMPLES) + 2, jnp.int32),
        "weight": jnp.ones(EXAMPLES),
    }


@functools.cache
def digits():
    """Scikit-learn's digits, a tenth of the training images held out."""
    return load(StreamedData(validation_fraction=0.1))


def on_disk(notice=lambda ids: None):
    """The same data on the host, with images that must be read; `notice` is called with the ids of every read."""
    held = {name: np.asarray(leaf) for name, leaf in data().items()}

    def read(ids):
        notice(ids)
        return held["x"][np.searchsorted(held["id"], ids)], held["y"][np.searchsorted(held["id"], ids)]

    scale = Moments(np.zeros(1, np.float32), np.ones(1, np.float32))
    return dict(held, x=Images(read, held["id"], scale, held["x"].shape))


def pools():
    return jax.tree.map(jnp.asarray, make_pools(FORGET[None]))


def way(kind, ops=None, steps=6, per_epoch=3, batch_size=6):
    """One of KINDS. Readiness has all of its terms, two inner steps and a meta-batch of 3, on every second step."""
    plain = loop.Way(MODEL, loop.optimizer(SETTINGS, steps), steps, per_epoch, batch_size)
    if kind == "readiness":
        return plain._replace(rehearsing=rehearsing(ops or one_device()))
    return plain._replace(private=(1.0, 0.5)) if kind == "dpsgd" else plain


def rehearsing(ops):
    model = models.as_model(MODEL)

    def rehearsed(rate):
        optimizer = optax.chain(normalised(), optax.sgd(rate))
        return ALGORITHMS["graddiff"](model, optimizer, mean=ops.mean, grad=ops.inner_grad(2))

    relearner = ALGORITHMS["finetune"](model, optax.sgd(0.1), mean=ops.mean, grad=ops.inner_grad(1))
    terms = paper_terms(1.1, retention=1.0, resistance=0.5, relearning=0.2)
    readiness = make_readiness(model, rehearsed, terms, relearner=relearner, mean=ops.mean)
    draw = Draw(size=3, inner_steps=2, retain=True, recovery=True, relearn_steps=1)
    return loop.Rehearsing(readiness, draw, every=2, start=1, step_size=(0.1, 0.4))


def one_device(loops=False):
    """On a CPU, convolutional models go in loops, and so does what says that it is one."""
    return execution.one_device(convolutional=loops)


def lanes(seeds, member=None, weight=None):
    everyone = np.ones(EXAMPLES)
    return loop.make_lanes(
        seeds, everyone.astype(bool) if member is None else member, everyone if weight is None else weight
    )


def run_epochs(way, lanes, train, ops=None, loops=False):
    """Parameters and losses after all steps of `way`, without checkpoints."""
    epoch_fn = epochs.make(way, ops or one_device(loops), on_disk=isinstance(train["x"], Images))
    states, losses = loop.init_lanes(way, lanes), []
    for epoch in range(-(-way.steps // way.per_epoch)):
        steps = min(way.per_epoch, way.steps - epoch * way.per_epoch)
        states, infos = epoch_fn(states, lanes, train, pools() if way.rehearsing else None, epoch, steps)
        losses.append(infos.loss)
    return states.params, np.concatenate(losses, axis=1)
