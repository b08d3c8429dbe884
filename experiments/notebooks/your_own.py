# %% [markdown]
# # Your own model, data and algorithm
#
# Three functions of yours go through the same comparison as everything else: oracles, tuning on validation data,
# relearning attacks, intervals. No file of the project is changed.
#
# * **Data**: a function that gives three splits, with ids.
# * **A model**: `init` and `apply`. Here in plain JAX; Flax, NNX and Equinox work as well.
# * **An algorithm**: what one update of a request descends.
#
# The data have two features. So you can *see* what a model has forgotten.
#
# *What is small:* 1,600 points, a perceptron of 64 units, 3 models of each kind. It takes one to two minutes on two
# slow cores.

# %%
import itertools
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from experiments import run
from experiments.data.splits import Dataset, Split, batch
from experiments.models import ModelFns
from experiments.reporting.inline import STYLE
from unlearn import Request, classifier, declare, from_objective, level, levels, unlearn
from unlearn.base import mean_loss, remember_params

SMOKE = bool(os.environ.get("SMOKE"))  # set by tests: all is tiny then, and no picture means anything
FORGET = 1  # the arm that is forgotten

plt.rcParams.update(STYLE)
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"]  # of the four arms

# %% [markdown]
# ## Data
#
# Four arms of a spiral. An **id** is what people ask to delete. It must stay as it is when others are erased, and the
# split must follow from the id alone: then nothing moves when somebody leaves.


# %%
def make_data():
    rng = np.random.default_rng(0)
    ids = np.arange(240 if SMOKE else 1600)
    y = ids % 4
    radius = rng.uniform(0.25, 1.0, len(ids))
    angle = 2 * np.pi * (y / 4 + 0.6 * radius) + rng.normal(0, 0.18, len(ids))
    x = 2 * (radius * np.array([np.cos(angle), np.sin(angle)])).T.astype("float32")  # as the model is to see it
    place = (ids * 2654435761 % 2**32) / 2**32  # a hash of the id, in [0, 1)
    part = lambda rows: Split(x[rows], y[rows], ids[rows])  # noqa: E731
    return Dataset("spiral", part(place < 0.6), part((place >= 0.6) & (place < 0.8)), part(place >= 0.8), classes=4)


data = make_data()
figure, axis = plt.subplots(figsize=(3.6, 3.4))
axis.scatter(*data.train.x.T, c=[COLOURS[label] for label in data.train.y], s=8)
axis.set(title=f"{len(data.train.y)} training points", aspect="equal")
plt.show()

# %% [markdown]
# ## A model
#
# Parameters are any pytree of floats. `key` is for dropout and the like; with None a prediction is asked for.


# %%
def make_model(example, classes, width=64):
    sizes = [example.shape[-1], width, width, classes]

    def init(key):
        keys = jax.random.split(key, 3)
        shapes = list(itertools.pairwise(sizes))
        return [
            {"w": jax.random.normal(one, shape) * (2 / shape[0]) ** 0.5, "b": jnp.zeros(shape[1])}
            for one, shape in zip(keys, shapes, strict=True)
        ]

    def apply(params, x, key):
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return ModelFns(init, apply)


# %% [markdown]
# ## An algorithm
#
# It descends an objective. This one ascends on what goes, held near where it started:
#
# $$-L_f(\theta) + \text{pull} \cdot |\theta - \theta_0|^2 / 2$$
#
# `remember` sees the whole request once, before the first update. `declare` says what the algorithm needs: no data that
# stay.


# %%
@declare(needs_retain=False)
def anchored(model, optimizer, *, pull=0.1):
    def objective(params, start, request, key, pull):
        squares = jax.tree.map(lambda leaf, before: jnp.sum((leaf - before) ** 2), params, start)
        return -mean_loss(model, params, request.forget, key) + pull * sum(jax.tree.leaves(squares)) / 2

    return from_objective(objective, optimizer, remember=remember_params, pull=pull)


# %% [markdown]
# ## Compare
#
# What is yours is named as `module:function`. In a notebook the module is `__main__`; on the command line it is a file
# of yours, as in `--config.data.factory=mine:make_data`. `level` and `graddiff` are from the shelf. The rate of each is
# tuned on validation data.
#
# A run knows your functions by their names. So after a change to one, restart the kernel and take a new folder.

# %%
overrides = {
    "seeds": 2 if SMOKE else 3,
    "data.factory": "__main__:make_data",
    "model.factory": "__main__:make_model",
    "forget.target": FORGET,
    "train.steps": 40 if SMOKE else 1200,
    "trainings": ("oracle", "vanilla", "readiness"),
    "equal_flops": False,
    "variants": {},
    "request.unlearners": ("level", "graddiff", "__main__:anchored"),
    "request.options": {"anchored": {"pull": 0.02}},
}
if SMOKE:
    overrides |= {"request.learning_rates": (0.05,), "request.max_steps": 5, "relearn.steps": 3}
    overrides["request.unlearners"] = ("__main__:anchored",)
done = run("readiness:digits", "runs/own", overrides)

# %%
done.means("steps", "after.forget_accuracy", "after.test_retain_accuracy", "after.forget_loss", "extra.tow")

# %% [markdown]
# Read it beside the oracle's row, which never saw the forgotten arm. `forget_loss` says how sure a model is that the
# forgotten is *something else*. Too little, and it shows that it knew; the oracle's is the measure.
#
# ## Look
#
# The plane, coloured by what each model says: strong where it is sure. The forgotten arm is drawn as dots. The oracle
# fills its place with the neighbours.

# %%
ticks = np.linspace(-2.2, 2.2, 120, dtype="float32")
grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
palette = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
gone = data.train.x[data.train.y == FORGET]


def look(axis, apply, params, title):
    """The plane as a model sees it."""
    p = np.asarray(jax.nn.softmax(apply(params, grid, None)))
    image = 1 - (1 - p @ palette) * 0.75
    axis.imshow(image.reshape(120, 120, 3), origin="lower", extent=(-2.2, 2.2, -2.2, 2.2), interpolation="nearest")
    axis.scatter(*gone.T, s=3, color="black", linewidths=0)
    correct = np.mean(np.asarray(apply(params, data.test.x, None)).argmax(axis=1) == data.test.y)
    axis.set_title(f"{title}\ntest accuracy {100 * correct:.0f}%", fontsize=9)
    axis.grid(False)
    axis.set_axis_off()


apply, vanilla = done.model("vanilla")
ready = done.model("readiness")[1]
model = classifier(apply)
forgotten = done.forgotten()
forget, retain = batch(data.train, forgotten), batch(data.train, np.setdiff1d(np.arange(len(data.train.id)), forgotten))


def after(algorithm, params, steps, goals=None):
    """The parameters after so many updates, each of the whole request."""
    request = Request(forget if goals is None else forget | {"level": goals}, retain)
    batches = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * steps), request)
    return unlearn(algorithm, params, request, batches, jax.random.key(0))[0].params


def to_level(params, steps):
    goals = levels.look_alikes(model, params, forget["y"], retain)
    return after(level(model, optax.sgd(0.1)), params, steps, goals)


# %%
asked = next(row for row in done.rows if (row.training, row.unlearner) == ("vanilla", "anchored"))
rate = asked.extra["setting"]["learning_rate"]  # as the run tuned it; it stopped after so many steps

figure, axes = plt.subplots(1, 5, figsize=(11, 2.6))
look(axes[0], apply, vanilla, "vanilla, as trained")
look(axes[1], apply, after(anchored(model, optax.sgd(rate), pull=0.02), vanilla, asked.steps), f"anchored x {asked.steps}")
look(axes[2], apply, to_level(vanilla, 40), "level x 40")
look(axes[3], apply, to_level(ready, 1), "readiness: level x 1")
look(axes[4], *done.model("oracle"), "oracle")
plt.show()

# %% [markdown]
# Which of them looks like the last? That is the question of unlearning, and a picture answers it only in two
# dimensions. Ascent knows no end: it goes on after the arm is forgotten, and takes the neighbours with it. A request to
# the level has one.
#
# ## How much pull?
#
# An option of yours is an argument as any other. The same request at a small rate, with more and with less pull:

# %%
pulls = (0.0, 0.5, 1.0, 4.0)
kept_rows = data.test.y != FORGET
figure, axes = plt.subplots(1, 2)
for pull, colour in zip(pulls, plt.cm.viridis(np.linspace(0.1, 0.85, len(pulls))), strict=True):
    algorithm, params, lines = anchored(model, optax.sgd(0.03), pull=pull), vanilla, []
    state = algorithm.init(params, Request(forget, retain), jax.random.key(0))
    update = jax.jit(algorithm.update)
    for step in range(5 if SMOKE else 60):
        correct = np.asarray(apply(state.params, data.test.x, None)).argmax(axis=1) == data.test.y
        lines.append((100 * correct[~kept_rows].mean(), 100 * correct[kept_rows].mean()))
        state, _ = update(state, Request(forget, retain), jax.random.key(step))
    for axis, line in zip(axes, zip(*lines, strict=True), strict=True):
        axis.plot(line, color=colour, linewidth=2, label=f"pull {pull:g}")
axes[0].set(title="the forgotten arm", xlabel="update", ylabel="test accuracy, %", ylim=(-3, 103))
axes[1].set(title="the others", xlabel="update", ylim=(-3, 103))
axes[1].legend()
plt.show()

# %% [markdown]
# Pull puts the end off, for the arm and for its neighbours alike, and much of it forbids any. It cannot tell the two apart:
# for that an algorithm has to look at what stays.
#
# ## Next
#
# * A csv, an npz or a folder of images needs no function: see [your own](../your-own.md).
# * What a `Request`, a `Model` and an algorithm are, with examples: [libraries](../library.md).
# * To be *rehearsed* (`readiness.algorithm`), an algorithm takes `mean` and `grad`, too: see
#   [contributing](../../CONTRIBUTING.md#add-an-algorithm).
