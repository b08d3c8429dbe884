# %% [markdown]
# # Readiness in ten minutes
#
# A model is trained. Later somebody asks that a part of its training data be forgotten. *Readiness* prepares for that
# day while the model is trained: every few steps it rehearses a request, and takes the gradient **through** the
# rehearsal.
#
# Here a few small networks learn handwritten digits, and then forget all threes. You will see
#
# 1. what a request does to a model that was prepared, and to one that was not;
# 2. whether the forgotten comes back when training goes on;
# 3. where a model that never saw a three would be: the **oracle**. Everything is read beside it.
#
# *What is small:* images of 8 x 8 pixels, five models of each kind, 1,500 training steps. It takes one to two
# minutes on two slow cores. The [results](../results.md) have more models, classes and data.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from experiments import run
from experiments.data.splits import batch
from experiments.reporting.inline import STYLE
from experiments.reporting.names import METHODS
from unlearn import Request, classifier, level, levels, unlearn_until

SMOKE = bool(os.environ.get("SMOKE"))  # set by tests: all is tiny then, and no picture means anything
SEEDS = 2 if SMOKE else 5
DIGIT = 3  # what is forgotten

WAYS = ("oracle", "vanilla", "readiness")
colours = {way: METHODS[way, "default"].style.colour for way in WAYS}
plt.rcParams.update(STYLE)

# %% [markdown]
# ## Train and request
#
# One call trains all models, sends the requests, attacks what is left, and writes a report. It is the command
# `forethought --config=readiness:digits --workdir=runs/ten`, with a few keys changed. Interrupt it, call it again, and
# it goes on.
#
# * `oracle`: retrained without the threes. `heldout_oracle`: another oracle, which shows what chance does.
# * `vanilla`: ordinary training. `readiness`: prepared.
# * A **level** request ends where unseen examples lie. An **ascent** request ends at accuracy 0.

# %%
overrides = {
    "seeds": SEEDS,
    "forget.target": DIGIT,
    "trainings": ("oracle", "heldout_oracle", "vanilla", "readiness"),
    "equal_flops": False,
    "variants": {},
    "request.unlearners": ("level", "ascent"),
}
if SMOKE:
    overrides |= {"train.steps": 60, "request.learning_rates": (0.05,), "request.max_steps": 5, "relearn.steps": 3}
done = run("readiness:digits", "runs/ten", overrides)

# %% [markdown]
# The rows are there, too: one for each way of training, request and seed, with many columns. Here are means over
# seeds. With pandas, `done.dataframe()` has them all.

# %%
done.means("steps", "before.test_accuracy", "after.forget_accuracy", "after.test_retain_accuracy", "extra.tow")

# %% [markdown]
# `steps` is how many updates the request took. `test_retain` is accuracy on unseen digits other than threes: what was
# *kept*. ToW, the tug of war, is 1 if forgetting, keeping and generalising are all as in the oracle.
#
# ## Look: while it forgets
#
# A **margin** is $\log p - \log (1 - p)$ of the right answer: 0 is even odds, 10 is certain, −20 is out of the
# question. The dashed line is where the oracle puts threes. To stop at accuracy 0 is to stop just below 0, far from the
# oracle.


# %%
def rows_of(way, request):
    return [row for row in done.rows if (row.training, row.unlearner) == (way, request)]


def curves(way, request, name):
    """One line for each seed, each held at its last value to the end of the longest."""
    found = [row.extra["curve"][name] for row in rows_of(way, request)]
    longest = max(map(len, found))
    return np.array([[*curve, *[curve[-1]] * (longest - len(curve))] for curve in found], float)


oracle_margin = -np.mean([row.after["forget_loss"] for row in rows_of("oracle", "none")])  # as p is next to 0
oracle_kept = np.mean([row.after["test_retain_accuracy"] for row in rows_of("oracle", "none")])

figure, axes = plt.subplots(1, 2)
for way in ("vanilla", "readiness"):
    for axis, name, scale in ((axes[0], "forget_margin", 1), (axes[1], "watch_accuracy", 100)):
        lines = scale * curves(way, "level", name)
        axis.plot(lines.T, color=colours[way], alpha=0.3, linewidth=1)
        axis.plot(lines.mean(axis=0), color=colours[way], linewidth=2.5, marker="o", markersize=4, label=way)
axes[0].axhline(oracle_margin, color=colours["oracle"], linestyle="--", label="oracle")
axes[1].axhline(100 * oracle_kept, color=colours["oracle"], linestyle="--", label="oracle")
axes[0].set(title="threes: mean margin", xlabel="update of the level request", ylabel="nats")
axes[1].set(title="other digits: test accuracy", xlabel="update of the level request", ylabel="%")
axes[0].legend()
for axis in axes:
    axis.xaxis.get_major_locator().set_params(integer=True)
plt.show()

# %% [markdown]
# Thin lines are seeds. The prepared models need one update: they have rehearsed it. What stays is hardly touched.
#
# ## Look: does it come back?
#
# Forgetting that a few steps of training undo is no forgetting. Here an attacker fine-tunes on other digits and
# **some** threes. A model that never saw a three needs a while to learn them. One that only hides them is back at once.

# %%
figure, axes = plt.subplots(1, 2, sharey=True)
for axis, request in zip(axes, ("level", "ascent"), strict=True):
    for way in WAYS:
        found = rows_of(way, "none" if way == "oracle" else request)
        lines = 100 * np.array([row.extra["relearning"]["part"] for row in found], float)
        axis.plot(lines.T, color=colours[way], alpha=0.3, linewidth=1)
        style = "--" if way == "oracle" else "-"
        axis.plot(lines.mean(axis=0), color=colours[way], linewidth=2.5, linestyle=style, label=way)
    axis.set(title=f"after a request by {request}", xlabel="step of relearning")
axes[0].set_ylabel("accuracy on threes, %")
axes[0].legend()
plt.show()

# %% [markdown]
# Read each line beside the dashed one. A line *above* the oracle's means that something of the threes was left.
#
# ## By hand: one model, one request
#
# The run kept its models. `done.model` gives one as functions, and the library carries out a request on it. First, the
# data of the run.

# %%
train, forgotten = done.dataset().train, done.forgotten()
forget, retain = batch(train, forgotten), batch(train, np.setdiff1d(np.arange(len(train.id)), forgotten))
print(f"{len(forget['y'])} examples go, {len(retain['y'])} stay")

figure, axes = plt.subplots(1, 8, figsize=(9, 1.3))
for axis, image in zip(axes, np.asarray(forget["x"]).reshape(-1, 8, 8), strict=False):
    axis.imshow(image, cmap="gray_r")
    axis.set_axis_off()
plt.show()

# %% [markdown]
# The request: where do unseen examples of this class lie? No oracle is asked. `look_alikes` reads it off the model
# itself: how sure is it that digits which are *not* threes are none? `unlearn_until` then updates until the threes lie
# there. An update that goes too far is taken back.


# %%
def asked_to_forget(apply, params, rate, beta, most=60):
    """The model after a level request, and how many updates that took."""
    model = classifier(apply)
    goals = levels.look_alikes(model, params, forget["y"], retain)
    request = Request(forget | {"level": goals}, retain)

    def observe(params, data):
        gone, stays = (model.apply(params, part["x"], None) for part in (forget, retain))
        return {
            "forget_margin": model.margin(gone, forget).mean(),
            "forget_accuracy": (gone.argmax(axis=1) == forget["y"]).mean(),
            "retained_accuracy": (stays.argmax(axis=1) == retain["y"]).mean(),
        }

    aim = levels.aim_at(goals.mean(), known=0.0, retained=observe(params, ())["retained_accuracy"])
    until = unlearn_until(
        level(model, optax.sgd(rate), beta=beta),
        whole=lambda data: request,
        draw=lambda data, key, step: request,
        observe=observe,
        criterion=lambda seen, data: levels.settled(seen, aim),
        max_steps=most,
        undo=lambda after, before, data: levels.overshoots(after, before, aim),
    )
    outcome = until(params, (), jax.random.key(0))
    return outcome.state.params, int(outcome.steps)


def margins(apply, params):
    return np.asarray(classifier(apply).margin(apply(params, forget["x"], None), forget))


before, after, updates = {}, {}, {}
for way in ("vanilla", "readiness"):
    apply, params = done.model(way)
    before[way] = margins(apply, params)
    setting = rows_of(way, "level")[0].extra["setting"]  # vanilla's was tuned by the run, readiness's was rehearsed
    forgotten, updates[way] = asked_to_forget(apply, params, setting["learning_rate"], setting.get("beta", 0.5))
    after[way] = margins(apply, forgotten)
oracle = margins(*done.model("oracle"))

# %%
edges = np.linspace(-45, 20, 60)
figure, axes = plt.subplots(1, 2, sharex=True, sharey=True)
for axis, way in zip(axes, before, strict=True):
    axis.hist(oracle, edges, color=colours["oracle"], alpha=0.25, label="oracle")
    axis.hist(before[way], edges, histtype="step", color=colours[way], linewidth=1.5, linestyle=":", label=f"{way}, before")
    axis.hist(after[way], edges, color=colours[way], alpha=0.55, label=f"{way}, updates made: {updates[way]}")
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="margin of each three")
    axis.legend(loc="upper left")
axes[0].set_ylabel("examples")
axes[0].set_ylim(top=1.35 * axes[0].get_ylim()[1])  # room for the legends
plt.show()

# %% [markdown]
# Left of the line at 0 a three is no longer called a three. A good request moves the dotted histogram **onto** the grey
# one. If it stops right of it, or piles up more narrowly, whoever knows margins can tell what was forgotten. How to
# measure that is the notebook *The judge: how to read it*.
#
# ## The report
#
# All of it, with intervals, tables as CSV and LaTeX, and more figures, is in `runs/ten/report.html`. One of its
# figures:

# %%
done.figure("kept")

# %% [markdown]
# ## Next
#
# * Change `DIGIT`, and take a new folder in place of `runs/ten`.
# * `forethought --describe=readiness` prints every key of the config.
# * *Your own model, data and algorithm* shows how to bring yours; *S3T* is for deletions that must be exact.
