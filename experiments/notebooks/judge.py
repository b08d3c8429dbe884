# %% [markdown]
# # The judge: how to read it
#
# *Accuracy on the forgotten is 0.* That says little. A model can call no three a three, and still give away which
# threes it was trained on. The **judge** asks a harder question: can unlearned models be told apart from models that
# never saw the data?
#
# So it trains **fleets**: many models of each kind, from different seeds. This notebook runs a small judgement and goes
# through its numbers, one by one:
#
# * tug of war: forgetting, keeping and generalising in one number;
# * KLoM: how far are margins from the oracles'?
# * U-LiRA: does an attacker find out who was in the training set?
# * relearning: does it come back?
# * and, before all that: what does the judge say where there is nothing to find?
#
# *What is small:* 8 x 8 digits, 24 models in a fleet, half of the usual training. That is too few for a verdict, and
# you will see why. It takes two to three minutes on two slow cores.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

from experiments import run
from experiments.reporting.estimates import at, cell
from experiments.reporting.inline import STYLE, Table
from experiments.reporting.names import METHODS
from unlearn.metrics.klom import klom

SMOKE = bool(os.environ.get("SMOKE"))  # set by tests: all is tiny then, and no picture means anything
MODELS = 12 if SMOKE else 24

plt.rcParams.update(STYLE)

# %% [markdown]
# ## The judgement
#
# All threes are forgotten. `vanilla` was trained as usual, `readiness` has rehearsed the request. *Level* is the
# request, *none* is none at all. **Oracles** were trained without threes. **Held-out oracles**, too, from other seeds:
# whatever the judge finds between the two is chance.

# %%
overrides = {
    "judge.lanes": MODELS,
    "judge.private_lanes": MODELS,
    "judge.tuning.lanes": MODELS,
    "train.steps": 64 if SMOKE else 720,
    "relearn.rates": (),
    "relearn.strong_steps": 0,
    "relearn.steps": 3 if SMOKE else 40,
}
if SMOKE:
    overrides |= {"judge.tuning.learning_rates": (0.03,), "judge.tuning.steps": (3,), "seeds": 2}
judged = run("judge:quick", "runs/judged", overrides)

# %% [markdown]
# Brackets are 95% intervals over models. Now to what they mean.

# %%
ENTRIES = {  # name -> (training, unlearner), in the order of the story
    "held-out oracle": ("heldout_oracle", "none"),
    "vanilla, nothing": ("vanilla", "none"),
    "vanilla, level": ("vanilla", "level"),
    "readiness, level": ("readiness", "level"),
}
colours = {name: METHODS[training, "default"].style.colour for name, (training, _) in ENTRIES.items()}
colours["vanilla, nothing"] = "#7a5195"
rows = {name: next(row for row in judged.rows if (row.training, row.unlearner) == key) for name, key in ENTRIES.items()}
oracle = next(row for row in judged.rows if row.training == "oracle")


def margins(training, unlearner="none", kind="pool"):
    """[models, examples]: log p - log(1 - p) of the right answer."""
    return judged.statistics("class", training, unlearner)[f"{kind}.margin"].astype(float)


def intervals(axis, *path):
    """One value with its interval for each entry, the first on top."""
    for i, (name, row) in enumerate(rows.items()):
        found = at(row.extra, path)
        if found.value is not None:
            axis.plot([found.low, found.high], [-i, -i], color=colours[name], linewidth=4, alpha=0.5)
            axis.plot(found.value, -i, "o", color=colours[name], markersize=9)
    axis.set_yticks([-i for i in range(len(rows))], list(rows))
    axis.set_ylim(-len(rows) + 0.5, 0.5)


reference = margins("heldout_oracle")
print(f"{reference.shape[0]} held-out oracles, each asked about {reference.shape[1]} threes")

# %% [markdown]
# ## Tug of war
#
# ToW = (1 − gap on the forgotten) (1 − gap on what stays) (1 − gap on test data), each gap in accuracy from the
# oracle's. 1 is as good as retraining. Doing nothing has 0: all threes are still known. It is easy to read, and easily
# pleased: it looks at accuracies alone.

# %%
figure, axis = plt.subplots(figsize=(9, 2.2))
intervals(axis, "tow")
axis.set(xlabel="tug of war, with its interval", xlim=(-0.05, 1.05))
plt.show()

# %% [markdown]
# ## KLoM, one example at a time
#
# Take one three, and ask all models of a fleet how sure they are of it. That is one histogram of margins. Oracles give
# another. KLoM is the Kullback-Leibler divergence between the two, for each example.
#
# An oracle starts from the same seed as the model beside it, and so their margins go together. Therefore methods are held
# against the *held-out* oracles, and these against the oracles.
#
# Below are three threes: of the readiness models, the one nearest to the oracles, one in the middle, and the furthest.

# %%
fleets = {name: margins(*key) for name, key in ENTRIES.items()}
against = {name: margins("oracle") if name == "held-out oracle" else reference for name in fleets}
values = {name: klom(unlearned=fleets[name], oracle=against[name]) for name in fleets}  # [examples] each
order = np.argsort(values["readiness, level"])
figure, axes = plt.subplots(1, 3, sharey=True)
for axis, example in zip(axes, (order[0], order[len(order) // 2], order[-1]), strict=True):
    every = np.concatenate([fleet[:, example] for fleet in fleets.values()])
    edges = np.linspace(every.min(), every.max(), 25)
    axis.hist(reference[:, example], edges, color="#1c2126", alpha=0.25, label="held-out oracles")
    for name in ("vanilla, nothing", "vanilla, level", "readiness, level"):
        axis.hist(fleets[name][:, example], edges, histtype="step", linewidth=2, color=colours[name], label=name)
    axis.set(xlabel="margin of one three", title=f"KLoM of readiness: {values['readiness, level'][example]:.1f}")
axes[0].set_ylabel("models")
handles, labels = axes[0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# Purple, far to the right: models that were not asked to forget. Orange and green went to the left. What counts is
# whether they lie **on** the grey, in place and in width.
#
# Now all threes. One KLoM for each example, so a histogram of KLoM for each row:

# %%
figure, axis = plt.subplots()
edges = np.linspace(0, 11.6, 30)
for name, found in values.items():
    label = f"{name}: mean {found.mean():.1f}"
    axis.hist(found, edges, histtype="step", linewidth=2.2, color=colours[name], label=label)
axis.set(xlabel="KLoM of each three, nats", ylabel="examples")
axis.legend(loc="upper center")
plt.show()

# %% [markdown]
# The grey line is **the floor**: held-out oracles have it, though they never saw a three. Read every KLoM beside it. At
# the right end, at 11.5, the histograms do not even overlap.
#
# ## Why few models mislead
#
# Two fleets of the same kind have a KLoM of 0 only if they are endless. With few models the histograms are ragged. Here
# are the same fleets, with some of the models left out:

# %%
counts = range(10, MODELS + 1, 2)
figure, axis = plt.subplots()
for name in ("held-out oracle", "vanilla, level", "readiness, level"):
    line = [klom(unlearned=fleets[name][:n], oracle=against[name][:n]).mean() for n in counts]
    axis.plot(counts, line, color=colours[name], marker="o", linewidth=2.2, label=name)
axis.set(xlabel="models in each fleet", ylabel="mean KLoM, nats", ylim=(0, None), title="the floor sinks as fleets grow")
axis.legend()
plt.show()

# %% [markdown]
# So a KLoM without its number of models and its floor says nothing. The judge's pages have 64 models.
#
# ## U-LiRA: an attack on single examples
#
# An attacker has **shadows**: models of which each was trained on threes and forgot a half of its own of them. From
# their margins he learns how a three looks that was unlearned, and how one that was not there. Then he guesses. AUC is
# how often he ranks them right: 0.5 is chance. What matters in practice is the left end of the curve: how many does he
# find with next to no false alarm?

# %%
figure, axes = plt.subplots(1, 2)
for name, row in rows.items():
    curve = row.extra["ulira"]["roc"]
    axes[0].plot(curve["fpr"], curve["tpr"], color=colours[name], linewidth=2.2)
axes[0].plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
axes[0].set(xlabel="false positives", ylabel="true positives", title="ROC")
axes[1].axvspan(0.47, 0.53, color="grey", alpha=0.2, linewidth=0)
intervals(axes[1], "ulira")
axes[1].set(xlabel="AUC, with its interval", title="in the grey band: next to nothing")
plt.show()

# %% [markdown]
# First look at the held-out oracle's row. There is nothing to find, and its interval is as wide as it is: that is what
# this judgement can see at all. The judge checks itself and says so. The 90% interval must lie within [0.47, 0.53]:

# %%
fair = at(judged.results.facts, ("calibration", "shadows", "pooled"))
inside = fair.value is not None and fair.low >= 0.47 and fair.high <= 0.53
print(f"AUC between oracles: {cell(fair)}:", "fair" if inside else "too wide for a verdict")

# %% [markdown]
# ## Relearning
#
# The judge fine-tunes what is left, here on other digits with some threes among them. Models that forgot should need as
# long as oracles.

# %%
figure, axis = plt.subplots()
for name, row in {"oracle": oracle, **rows}.items():
    curve = 100 * np.array(row.extra["relearn"]["curves"]["part"], float).mean(axis=0)
    style = {"color": "#1c2126", "linestyle": "--"} if name == "oracle" else {"color": colours[name]}
    axis.plot(curve, linewidth=2.4, label=name, **style)
axis.set(xlabel="step of relearning", ylabel="accuracy on threes, %", ylim=(-3, 103))
axis.legend(loc="center left")
plt.show()

# %% [markdown]
# ## One table
#
# Everything beside its floor. A row is good if nothing in it can be told from the held-out oracle's.


# %%
COLUMNS = {
    "tug of war": ("tow",),
    "KLoM, forgotten": ("klom", "forget"),
    "KLoM, what stays": ("klom", "retain"),
    "U-LiRA": ("ulira",),
}
Table(
    {"": name} | {label: str(cell(at(row.extra, path), 2)) for label, path in COLUMNS.items()} for name, row in rows.items()
)

# %% [markdown]
# ## Next
#
# * `forethought --config=judge:digits --workdir=runs/judge` is the whole: 64 models, two forget sets, five ways, eight
#   algorithms. What came out is on [the judge's page](../judge.md).
# * Which metric finds what, with how many models, was [measured](../judge_power.md) on models of known truth.
# * `runs/judged/report.html` has all of this run.
