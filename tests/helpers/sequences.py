"""A backbone on token sequences: an embedding, two causal attention blocks, and the loss of the next token.

x is {"tokens"}, y is {"next", "weight"}: an example is a document, and its loss the mean over its tokens under their
weights. Half of the documents are shorter than the others; what follows their end has weight 0 and holds rubbish.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s3t.training import stages
from s3t.training.adapters import Lora, adapt
from s3t.training.backbone import Backbone
from s3t.training.source import Source
from unlearn.losses import cross_entropy

VOCABULARY, LENGTH, WIDTH, BLOCKS, EXAMPLES = 7, 6, 8, 2, 44
NAMES = ("query", "key", "value", "out")
LAYERS = tuple((f"attention/{name}", WIDTH, WIDTH) for name in NAMES)
FACTORY = "tests.helpers.sequences:make"


def embed(frozen, x, keys):
    return frozen["tokens"][x["tokens"]] + frozen["positions"]


def block(frozen, i, h, adapters):
    weights = frozen["blocks"][i]

    def project(name, x):
        return adapt(x @ weights[name], x, adapters.get(f"attention/{name}"))

    scores = project("query", h) @ project("key", h).swapaxes(1, 2) / math.sqrt(WIDTH)
    causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
    mixed = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf)) @ project("value", h)
    return h + project("out", mixed)


def head(frozen, head_params, h):
    return (h * frozen["norm"]) @ head_params["w"]


def init_head(key):
    return {"w": 0.3 * jax.random.normal(key, (WIDTH, VOCABULARY))}


def loss(logits, y):
    """[examples] mean over tokens; a document of no weight costs 0."""
    total = y["weight"].sum(axis=1)
    tokens = jnp.where(y["weight"] > 0, cross_entropy(logits, y["next"]), 0.0)
    return (tokens * y["weight"]).sum(axis=1) / jnp.where(total > 0, total, 1.0)


BACKBONE = Backbone(embed, block, head, init_head, (LAYERS,) * BLOCKS, loss=loss)
LORA = Lora(rank=2, alpha=2.0, targets=("query", "value", "out"))


def optimizer(steps):
    return optax.adamw(lambda count: 0.05 * (1 - count / jnp.maximum(steps, 1)), weight_decay=0.1)


RECIPE = stages.Recipe(LORA, batch_size=4, epochs=2, optimizer=optimizer)


def frozen(seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32) / 2  # noqa: E731
    blocks = [{name: normal(WIDTH, WIDTH) for name in NAMES} for _ in range(BLOCKS)]
    return {
        "tokens": normal(VOCABULARY, WIDTH),
        "positions": normal(LENGTH, WIDTH),
        "blocks": blocks,
        "norm": 1 + normal(WIDTH),
    }


def data():
    """(x, y, ids): counting up or down by a step of the document's own."""
    rng = np.random.default_rng(2)
    start, step = rng.integers(0, VOCABULARY, (2, EXAMPLES, 1))
    tokens = (start + step * np.arange(LENGTH + 1)) % VOCABULARY
    weight = np.where(np.arange(LENGTH) < rng.choice([LENGTH // 2, LENGTH], (EXAMPLES, 1)), 1, 0).astype(np.float32)
    following = np.where(weight > 0, tokens[:, 1:], 0)
    return {"tokens": tokens[:, :-1]}, {"next": following, "weight": weight}, 1000 - 7 * np.arange(EXAMPLES)


def take(trees, rows):
    return jax.tree.map(lambda leaf: leaf[rows], trees)


def source(**changes):
    """The documents by id, behind what a factory returns."""
    x, y, ids = data()
    order = np.argsort(ids)

    def fetch(asked):
        if lacking := np.setdiff1d(asked, ids).tolist():
            raise ValueError(f"the toy data have no example {lacking[0]}")
        return take((x, y), order[np.searchsorted(ids[order], asked)])

    fields = {
        "backbone": BACKBONE,
        "frozen": frozen(),
        "recipe": RECIPE,
        "ids": ids[order],
        "fetch": fetch,
        "hyper": {"toy": "sequences"},
        "most_lanes": 3,
        "cache_bytes": 1 << 20,
    }
    return Source(**{**fields, **changes})


def make(hyper, *, missing=()):
    """The factory; documents may be missing from the data set, as may be noticed when they are fetched."""
    made = source(hyper={"toy": "sequences"} | dict(hyper))
    return source(hyper=made.hyper, ids=made.ids[~np.isin(made.ids, missing)])
