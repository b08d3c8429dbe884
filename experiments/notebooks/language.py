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
# *What is small:* 24 passages, a vocabulary of 512, two blocks, 2 models of each kind. It takes two to four minutes on two
# slow cores. The [page on text](../text.md) has more.

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
from unlearn import Request, level, sequence_model

SMOKE = bool(os.environ.get("SMOKE"))  # set by tests: all is tiny then, and no picture means anything
SEEDS, STEPS = 2, 20 if SMOKE else 240

WAYS = ("oracle", "vanilla", "reweight", "readiness")
names = {way: METHODS[way, "default"].name for way in WAYS}
colours = {way: METHODS[way, "default"].style.colour for way in WAYS}
plt.rcParams.update(STYLE)

# %% [markdown]
# ## Train and request
#
# The passages come with Python. The tokeniser is learnt from them. `reweight` weighs the loss of what may be revoked down
# to a fifth. `readiness` rehearses late, once the passages are known by heart. The request is the *level* request of the
# other notebooks: here the level is the loss of held-out passages.

# %%
overrides = {
    "seeds": SEEDS,
    "data.train_size": 24,
    "forget.fraction": 0.1,
    "train.steps": STEPS,
    "readiness.start": 2 * STEPS // 3,
    "readiness.efficiency": 0.1,
    "trainings": WAYS,
    "request.to_level.learning_rates": (0.3,),
    "request.to_level.max_steps": 30,
    "relearn.steps": 12,
}
if SMOKE:
    overrides |= {
        "model.options": {"width": 16, "depth": 1, "heads": 2},
        "request.to_level.max_steps": 3,
        "relearn.steps": 2,
    }
done = run("readiness:pydoc", "runs/pydoc", overrides)

# %% [markdown]
# ## What was forgotten, and what stayed
#
# The dashed line is the oracle. A good request ends **on** it for the forgotten, and leaves what stays where it was.


# %%
def rows_of(way):
    return [row for row in done.rows if row.training == way]


figure, axes = plt.subplots(1, 2, sharey=True)
for axis, part, title in ((axes[0], "forget_token_loss", "forgotten"), (axes[1], "retain_token_loss", "what stays")):
    for i, way in enumerate(WAYS):
        before, after = (np.mean([getattr(row, when)[part] for row in rows_of(way)]) for when in ("before", "after"))
        axis.plot([before, after], [-i, -i], color=colours[way], linewidth=2)
        axis.plot(before, -i, "o", color=colours[way], markersize=9, markerfacecolor="white", markeredgewidth=2)
        axis.plot(after, -i, "o", color=colours[way], markersize=9)
    axis.axvline(np.mean([row.after[part] for row in rows_of("oracle")]), color="#1c2126", linestyle="--", linewidth=1)
    axis.set(title=title, xlabel="loss, nats per token: hollow before, full after", xlim=(0, None))
axes[0].set_yticks([-i for i in range(len(WAYS))], [names[way] for way in WAYS])
plt.show()

# %% [markdown]
# ## Token by token
#
# Now one model, and a request by hand. First the data: rows of 64 tokens, each with the token that comes next.

# %%
data = done.dataset()
tokeniser = data.corpus.tokeniser
apply, vanilla = done.model("vanilla")
_, oracle = done.model("oracle")
model = sequence_model(apply)

forgotten = done.forgotten()
forget = batch(data.train, forgotten)
retain = batch(data.train, np.setdiff1d(np.arange(len(data.train.id)), forgotten)[:64])
held_out = batch(data.validation)
print(tokeniser.decode(forget["x"][0].tolist())[:300])


# %%
@jax.jit
def losses(params, part):
    """[rows, tokens] nats."""
    return model.token_loss(model.apply(params, part["x"], None), part)


def mean_loss(params, part):
    return float(np.average(losses(params, part), weights=part["token_weight"]))


target = model.margin(model.apply(vanilla, held_out["x"], None), held_out).mean()  # where unseen passages lie
algorithm = level(model, optax.sgd(0.3), target=target)
request = Request(forget, retain)
unseen = mean_loss(vanilla, held_out)
state, update = algorithm.init(vanilla, request, jax.random.key(0)), jax.jit(algorithm.update)
curve = []
for step in range(3 if SMOKE else 60):
    curve.append((mean_loss(state.params, forget), mean_loss(state.params, retain)))
    if curve[-1][0] >= unseen:
        break
    state, _ = update(state, request, jax.random.key(step))
gone = state.params

figure, axis = plt.subplots()
for line, colour, name in zip(zip(*curve, strict=True), ("#d55e00", "#0072b2"), ("forgotten", "stays"), strict=True):
    axis.plot(line, color=colour, linewidth=2.4, marker="o", markersize=3, label=name)
axis.axhline(unseen, color="#d55e00", linestyle=":", label="unseen passages, by this model")
axis.axhline(mean_loss(oracle, forget), color="#1c2126", linestyle="--", label="the forgotten, by the oracle")
axis.set(xlabel="update", ylabel="loss, nats per token", ylim=(0, None))
axis.legend()
plt.show()

# %% [markdown]
# Each column below is a token of a forgotten passage. Dark: the model did not expect it. What was learnt by heart is
# light throughout. After the request the picture should have the oracle's pattern: words that any reader of English
# guesses stay light.

# %%
shown = 44
tokens = [tokeniser.decode([int(token)]) or "·" for token in forget["y"][0][:shown]]
strips = np.array([np.asarray(losses(params, forget))[0, :shown] for params in (vanilla, gone, oracle)])
figure, axis = plt.subplots(figsize=(11, 2.6))
image = axis.imshow(strips, aspect="auto", cmap="Blues", vmin=0, vmax=10, interpolation="nearest")
axis.set_yticks(range(3), ["vanilla, before", "vanilla, after", "oracle"])
axis.set_xticks(range(shown), [token.replace("\n", "⏎").replace(" ", "␣") for token in tokens], rotation=90, fontsize=8)
axis.grid(False)
figure.colorbar(image, label="nats", pad=0.01)
plt.show()

# %% [markdown]
# ## Can it be made to recite?
#
# Each model is given the first 16 tokens of a forgotten passage, and goes on with the likeliest token.


# %%
def recited(params, beginning, length=64):
    """The passage as a model goes on with it, token by token."""
    x = np.zeros((1, length), np.int32)
    x[0, : len(beginning)] = beginning
    for at in range(len(beginning), length):
        x[0, at] = np.asarray(jitted(params, x))[0, at - 1].argmax()
    return x[0, len(beginning) :]


jitted = jax.jit(lambda params, x: apply(params, x, None))
beginning, truth = forget["x"][0][:16], forget["x"][0][16:]
print("the beginning:  ", repr(tokeniser.decode(beginning.tolist())))
print("the passage:    ", repr(tokeniser.decode(truth.tolist())))
for name, params in (("vanilla, before", vanilla), ("vanilla, after", gone), ("oracle", oracle)):
    said = recited(params, beginning)
    print(f"{name + ':':17}{tokeniser.decode(said.tolist())!r}")
    print(f"{'':17}{100 * np.mean(said == truth):.0f}% of the tokens in their places")

# %% [markdown]
# ## Does it come back?
#
# An attacker trains on, with a part of the forgotten passages among others.

# %%
figure, axis = plt.subplots()
for way in WAYS:
    lines = 100 * np.array([one.extra["relearning"]["part"] for one in rows_of(way)], float)
    axis.plot(lines.mean(axis=0), color=colours[way], linewidth=2.4, label=names[way])
axis.set(xlabel="step of relearning", ylabel="tokens of the forgotten told right, %", ylim=(0, None))
axis.legend()
plt.show()

# %% [markdown]
# ## What to take home
#
# * Read the forgotten beside the oracle, and beside passages that nobody ever trained on.
# * Two models of each kind show how to look, and not who is best: for that see the [page on text](../text.md).
# * S3T fine-tunes a language model exactly: `forethought --config=s3t:pydoc --workdir=runs/exact`.
