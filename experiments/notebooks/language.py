# %% [markdown]
# # Language
#
# Small GPT-2s learn passages of Python's own manual by heart. Then some passages must go. In text much is different:
#
# * The example is a **document**; nobody asks to delete a token.
# * Accuracy says little: some tokens of any text are easy. **Losses** lead, in nats per token.
# * An oracle does not have loss infinity on what it never saw. It has the loss of *any* unseen passage. That is where a
#   request should end, and no further: a model that finds a passage *more* surprising than a new one shows that it knew
#   it.
#
# Here the training is done by hand, with `unlearn` as a library. A whole comparison, readiness in it, is one command:
# `forethought --config=readiness:pydoc --workdir=runs/pydoc`. What came out is on the [page on text](../text.md).
#
# *What is small:* 24 passages, a vocabulary of 512, two blocks, one model of each kind. It takes one to two minutes
# on two slow cores.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from experiments import models
from experiments.core import sections
from experiments.data import datasets
from experiments.data.splits import batch
from experiments.reporting.inline import STYLE
from experiments.reporting.names import METHODS
from unlearn import Request, level
from unlearn.base import mean_loss

SMOKE = bool(os.environ.get("SMOKE"))  # set by tests: all is tiny then, and no picture means anything
STEPS = 20 if SMOKE else 400
UPDATES = 3 if SMOKE else 60  # of a request, at most

WAYS = ("oracle", "vanilla", "reweight")
names = {way: METHODS[way, "default"].name for way in WAYS}
colours = {way: METHODS[way, "default"].style.colour for way in WAYS}
plt.rcParams.update(STYLE)

# %% [markdown]
# ## Documents and rows
#
# The passages come with Python. The tokeniser is learnt from them. Each is cut into rows of 64 tokens; a row belongs to
# its document, and is forgotten with it. Three documents will go.

# %%
data = datasets.load(sections.StreamedData(name="pydoc", train_size=24, length=64, tokeniser="bpe:512"))
decode = data.corpus.tokeniser.decode
whole = batch(data.train)
documents = np.unique(data.asked_as)
goes = np.isin(data.asked_as, np.random.default_rng(0).choice(documents, 3, replace=False))
forget, retain = batch(data.train, np.flatnonzero(goes)), batch(data.train, np.flatnonzero(~goes)[:64])
held_out = batch(data.validation)
print(f"{len(documents)} documents in {len(goes)} rows; {goes.sum()} rows go. The first of them:\n")
print(decode(forget["x"][0].tolist()))

# %% [markdown]
# ## Train
#
# Three models see the same batches. What differs are weights: to the **oracle**, what will go weighs nothing.
# **Re-weighting** knows what may be asked for, and gives it a fifth. To **vanilla** all is alike. So they are one
# program with three lanes.

# %%
options = {"width": 16, "depth": 1, "heads": 2} if SMOKE else {"width": 48, "depth": 2, "heads": 4}
fns = models.build(sections.Model(name="gpt2", options=options), data.train.x[:1], data.classes, data.tokens)
model = models.as_model(fns)
optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(6e-3, STEPS), weight_decay=0.01)
)
tokens = {name: jnp.asarray(whole[name]) for name in ("x", "y", "token_weight")}
order = jnp.asarray(np.random.default_rng(1).integers(0, len(goes), (STEPS, 16)))


def train(weights):
    """The parameters that follow from weights of all rows."""

    def step(carry, positions):
        params, state = carry
        part = {name: leaf[positions] for name, leaf in tokens.items()} | {"weight": weights[positions]}
        loss, gradient = jax.value_and_grad(lambda params: mean_loss(model, params, part, None))(params)
        change, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), loss

    start = fns.init(jax.random.key(0))
    return jax.lax.scan(step, (start, optimizer.init(start)), order)[0][0]


weights = jnp.stack([jnp.where(goes, of_forgotten, 1.0) for of_forgotten in (0.0, 1.0, 0.2)])
lanes = jax.jit(jax.vmap(train))(weights)
trained = {way: jax.tree.map(lambda leaf, i=i: leaf[i], lanes) for i, way in enumerate(WAYS)}


# %%
@jax.jit
def losses(params, x, y):
    """[rows, tokens] nats."""
    return model.token_loss(model.apply(params, x, None), {"y": y})


def nats(params, part):
    """Of a token, on average."""
    return float(np.average(losses(params, part["x"], part["y"]), weights=part["token_weight"]))


for way, params in trained.items():
    seen = [nats(params, part) for part in (retain, forget, held_out)]
    print(f"{names[way]:14} stays {seen[0]:.2f}   goes {seen[1]:.2f}   never seen by anybody {seen[2]:.2f}")

# %% [markdown]
# What was learnt by heart has a small loss, and what nobody saw a large one. The oracle has the large one on what
# *goes*, too.
#
# ## Request
#
# The **level** request of the other notebooks. Here the level is that of held-out passages, by the model's own account;
# no oracle is asked. It ends when the forgotten are as surprising as those.


# %%
def asked_to_forget(params, rate=0.05):
    """The parameters after the request, and the losses of what goes and of what stays on the way."""
    target = model.margin(model.apply(params, held_out["x"], None), held_out).mean()
    unseen = nats(params, held_out)
    algorithm, request = level(model, optax.sgd(rate), target=target), Request(forget, retain)
    state, update = algorithm.init(params, request, jax.random.key(0)), jax.jit(algorithm.update)
    curve = [(nats(params, forget), nats(params, retain))]
    while len(curve) <= UPDATES and curve[-1][0] < unseen:
        state, _ = update(state, request, jax.random.key(len(curve)))
        curve.append((nats(state.params, forget), nats(state.params, retain)))
    return state.params, np.array(curve)


after, curves = {"oracle": trained["oracle"]}, {}
for way in ("vanilla", "reweight"):
    after[way], curves[way] = asked_to_forget(trained[way])

figure, axes = plt.subplots(1, 2, sharey=True)
for i, (axis, part, title) in enumerate(zip(axes, (forget, retain), ("what goes", "what stays"), strict=True)):
    for way, curve in curves.items():
        axis.plot(curve[:, i], color=colours[way], linewidth=2.4, label=names[way])
        axis.plot(len(curve) - 1, curve[-1, i], "o", color=colours[way], markersize=7)
    axis.axhline(nats(trained["oracle"], part), color=colours["oracle"], linestyle="--", linewidth=1.5, label="Oracle")
    axis.set(title=title, xlabel="update of the request", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)
axes[0].set_ylabel("loss, nats per token")
axes[1].legend()
plt.show()

# %% [markdown]
# Dots are where the request ended. Left it should end on the dashed line; right it should not move. This loop stops at the
# first update that goes far enough. A run chooses the rate on validation data, too, and takes back updates that overshoot.
#
# ## Token by token
#
# Each column is a token of a forgotten passage. Dark: the model did not expect it. What was learnt by heart is light
# throughout. Afterwards the strip should have the oracle's pattern: words that any reader guesses stay light.

# %%
shown = 44
strips = {
    "vanilla, before": trained["vanilla"],
    "vanilla, after": after["vanilla"],
    "re-weighting, after": after["reweight"],
    "oracle": trained["oracle"],
}
image = np.array([losses(params, forget["x"], forget["y"])[0, :shown] for params in strips.values()])
words = [decode([int(token)]).replace("\n", "\\n").replace(" ", "_") or "." for token in forget["y"][0][:shown]]
figure, axis = plt.subplots(figsize=(11, 2.8))
drawn = axis.imshow(image, aspect="auto", cmap="Blues", vmin=0, vmax=10, interpolation="nearest")
axis.set_yticks(range(len(strips)), list(strips))
axis.set_xticks(range(shown), words, rotation=90, fontsize=8)
axis.grid(False)
figure.colorbar(drawn, label="nats", pad=0.01)
plt.show()

# %% [markdown]
# ## Can it be made to recite?
#
# Each model is given the first 16 tokens of a forgotten passage, and goes on with the likeliest token.

# %%
logits = jax.jit(lambda params, x: model.apply(params, x, None))


def recited(params, row, known=16):
    """The rest of a row as a model goes on with it, token by token."""
    x = np.where(np.arange(len(row)) < known, row, 0)[None]
    for at in range(known, len(row)):
        x[0, at] = np.asarray(logits(params, x))[0, at - 1].argmax()
    return x[0, known:]


row = forget["x"][0]
print("the beginning:", repr(decode(row[:16].tolist())))
print("the passage:  ", repr(decode(row[16:].tolist())))
for name, params in strips.items():
    said = recited(params, row)
    print(f"\n{name}, {100 * np.mean(said == row[16:]):.0f}% of the tokens in their places:\n  {decode(said.tolist())!r}")

# %% [markdown]
# ## Does it come back?
#
# An attacker trains on: with some of the forgotten rows among others. Watched are the *other* rows of what was
# forgotten.


# %%
def relearnt(params, steps=3 if SMOKE else 40):
    """The loss of forgotten rows that the attacker does not have, by step."""
    half = len(forget["x"]) // 2
    mine = {name: np.concatenate([forget[name][:half], retain[name][:24]]) for name in forget}
    rest = {name: leaf[half:] for name, leaf in forget.items()}
    gradient = jax.jit(jax.grad(lambda params: mean_loss(model, params, mine, None)))
    curve = [nats(params, rest)]
    for _ in range(steps):
        params = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, gradient(params))
        curve.append(nats(params, rest))
    return curve


figure, axis = plt.subplots()
for way in WAYS:
    style = "--" if way == "oracle" else "-"
    axis.plot(relearnt(after[way]), color=colours[way], linewidth=2.4, linestyle=style, label=names[way])
axis.axhline(nats(trained["vanilla"], forget), color="grey", linestyle=":", label="Vanilla, before the request")
axis.set(xlabel="step of relearning", ylabel="loss of forgotten rows, nats per token", ylim=(0, None))
axis.legend()
plt.show()

# %% [markdown]
# A line that falls faster than the oracle's had something left to find.
#
# ## What to take home
#
# * Read the forgotten beside the oracle, and beside passages that nobody ever trained on.
# * One model of each kind shows how to look, and not who is best: for that see the [page on text](../text.md).
# * S3T fine-tunes a language model exactly: `forethought --config=s3t:pydoc --workdir=runs/exact`.
