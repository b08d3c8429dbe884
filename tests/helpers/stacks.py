"""A backbone of four tiny dense blocks and two shards of three slices, for the tests of adapters and their training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s3t.plans.partition import Places
from s3t.training import arrangement, caching, stages
from s3t.training.adapters import Lora, adapt
from s3t.training.backbone import Backbone
from s3t.training.source import Source

WIDTH, CLASSES, BLOCKS, FEATURES = 5, 3, 4, 2
SHARDS, SLICES = 2, 4
KEY = jax.random.key(5)
LAYERS = (("mix/dense_1", WIDTH, WIDTH + 1), ("mix/dense_10", WIDTH + 1, WIDTH))


def embed(frozen, x, keys):
    """Half of the features are masked, so that h carries a mask as well."""
    return {"h": jnp.tanh(x @ frozen["embed"]), "mask": jnp.arange(WIDTH) < WIDTH - 1 + 0 * x[:, :1]}


def block(frozen, i, h, adapters):
    w, x = frozen["blocks"][i], h["h"]
    y = jnp.tanh(adapt(x @ w["dense_1"], x, adapters.get("mix/dense_1")))
    z = adapt(y @ w["dense_10"], y, adapters.get("mix/dense_10"))
    return {"h": x + jnp.where(h["mask"], z, 0.0), "mask": h["mask"]}


def head(frozen, head_params, h):
    return (h["h"] * frozen["norm"]) @ head_params["w"] + head_params["b"]


def init_head(key):
    return {"w": 0.5 * jax.random.normal(key, (WIDTH, CLASSES)), "b": jnp.zeros(CLASSES)}


BACKBONE = Backbone(embed, block, head, init_head, (LAYERS,) * BLOCKS)
LORA = Lora(rank=2, alpha=2.0, targets=("dense_1", "dense_10"))


def optimizer(steps):
    """Momentum, weight decay and a schedule: all that a padded step or a wrong key could disturb."""
    return optax.adamw(lambda count: 0.05 * (1 - count / jnp.maximum(steps, 1)), weight_decay=0.1)


RECIPE = stages.Recipe(LORA, batch_size=4, epochs=2, optimizer=optimizer)


def frozen(seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    blocks = [{"dense_1": normal(WIDTH, WIDTH + 1) / 2, "dense_10": normal(WIDTH + 1, WIDTH) / 2} for _ in range(BLOCKS)]
    return {"embed": normal(FEATURES, WIDTH), "blocks": blocks, "norm": 1 + normal(WIDTH) / 5}


def data(sizes=((5, 7, 4, 6), (6, 3, 8, 5))):
    """(x, y, ids, places): ids neither dense nor in the order of slices, labels that can be learnt."""
    rng = np.random.default_rng(1)
    group = rng.permutation(np.repeat(np.arange(SHARDS * SLICES), np.ravel(sizes)))
    x = rng.normal(size=(len(group), FEATURES)).astype(np.float32)
    y = np.where(x[:, 0] > 0.3, 2, x[:, 1] > 0).astype(np.int32)
    ids = 1000 - 7 * np.arange(len(group))
    return x, y, ids, Places((group // SLICES).astype(np.int32), (group % SLICES).astype(np.int32))


def source(**changes):
    """The examples by id, behind what a factory returns."""
    x, y, ids, _ = data()
    order = np.argsort(ids)
    held = ids[order]

    def fetch(asked):
        if lacking := np.setdiff1d(asked, held).tolist():
            raise ValueError(f"the toy data have no example {lacking[0]}")
        rows = order[np.searchsorted(held, asked)]
        return x[rows], y[rows]

    made = Source(
        backbone=BACKBONE,
        frozen=frozen(),
        recipe=RECIPE,
        ids=held,
        fetch=fetch,
        hyper={"toy": 1},
        most_lanes=3,
        cache_bytes=1 << 20,
    )
    return dataclasses.replace(made, **changes)


def arranged(examples=None, keep=None, capacity=8):
    """Slices of the given examples, or of those that `keep` selects."""
    x, y, ids, places = examples or data()
    keep = np.ones(len(ids), bool) if keep is None else keep
    places = Places(places.shard[keep], places.slice[keep])
    return arrangement.arrange(x[keep], y[keep], ids[keep], places, SHARDS, SLICES, capacity)


@functools.cache
def stage(shape, recipe=RECIPE, backbone=BACKBONE):
    return stages.make_stage(backbone, recipe, shape)


@functools.cache
def prefixes(boundaries):
    return caching.make_prefixes(BACKBONE, boundaries, RECIPE.batch_size)


def shape(depth, lanes=2, steps=None, cached=True, capacity=8):
    return stages.Shape(depth, SHARDS, SLICES, capacity, steps or 2 * depth, lanes, cached)


def fill(slices):
    """What takes the place of x at each depth."""
    return caching.fill_cache(prefixes((0, 1, 2, 3)), frozen(), slices.x, range(SHARDS * SLICES))[::-1]


def train_jobs(slices, jobs, lanes=2, cached=True, have=None, filled=None, shapes=None):
    """Everything the jobs need, depth by depth, each with its ancestors."""
    have = dict(have or {})
    todo = sorted({(shard, node[:d]) for shard, node in jobs for d in range(1, len(node) + 1)} - have.keys())
    filled = fill(slices) if cached and filled is None else filled
    for depth in sorted({len(node) for _, node in todo}):
        form = shapes[depth] if shapes else shape(depth, lanes, cached=cached)
        inputs = slices._replace(x=filled[depth - 1]) if cached else slices
        of_depth = [job for job in todo if len(job[1]) == depth]
        done = stages.train_nodes(stage(form), frozen(), inputs, KEY, of_depth, lambda shard, node: have[shard, node])
        have.update(done)
    return have
