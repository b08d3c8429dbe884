# %% [markdown]
# # S3T: delete and prove
#
# A model is fine-tuned on data that people may want back. With S3T a deletion is **exact**: after it, no parameter that
# answers was influenced by the deleted example. And it can be proved, byte by byte.
#
# The trick: data are cut into shards, and each shard into slices. Adapters are trained slice after slice, from the top
# of the network down. To delete an example is to switch off what was trained on its slice, and everything trained after
# it. If many orders of slices are kept, something deep nearly always survives.
#
# You will build a store, delete from it, watch what serves, heal it, and check the proof yourself.
#
# *What is small:* 8 x 8 digits, a transformer of four blocks, 2 shards of 4 slices. It takes two to three
# minutes on two slow cores.

# %%
import os
import shutil

import matplotlib.pyplot as plt
import numpy as np

from experiments import run
from experiments.exact import factory
from experiments.reporting.inline import STYLE
from experiments.reporting.names import PLANS
from s3t.plans import planners, simulate, structure
from s3t.service import creation, healing, replay
from s3t.service.serving import Server
from s3t.service.verify import verify
from s3t.store import disk, publishing

SMOKE = bool(os.environ.get("SMOKE"))  # set by tests: all is tiny then, and no picture means anything
SHARDS, SLICES = (1, 2) if SMOKE else (2, 4)
EPOCHS = 1 if SMOKE else 12
DELETIONS = 3 if SMOKE else 12

plt.rcParams.update(STYLE)
ALIVE, DEAD, SERVES = "#9fd8c5", "#e4e8ec", "#009e73"

# %% [markdown]
# ## A model, and data to fine-tune it on
#
# The backbone is pre-trained on public data, here the digits 0 to 4. It stays frozen. What it was pre-trained on cannot
# be deleted, so it must share no example with what people may want back: the digits 5 to 9.

# %%
pretrained = run("pretrain:digits", "runs/backbone", {"train.steps": 10 if SMOKE else 300})

# %%
hyper = {"dataset": "digits", "classes": [5, 6, 7, 8, 9], "range": 16.0, "model": "digits", "epochs": EPOCHS}
if SMOKE:
    hyper["train_size"] = 60
source = factory.make(hyper, checkpoint=str(pretrained.path / "vit.npz"))
test_ids, fetch = source.split("test")
x, y = fetch(test_ids)
print(f"{len(source.ids)} training images, {len(y)} test images")

# %% [markdown]
# ## A plan
#
# The **lattice** trains one node for each set of slices. A node of depth 3 was trained on three slices, one after
# another, each in adapters of its own. In the picture a node stands below the one whose adapters it goes on from.

# %%
plan = planners.lattice(SLICES)
nodes = [node for depth in range(1, SLICES + 1) for node in structure.at_depth(plan, depth)]
places = {}
for depth in range(1, SLICES + 1):
    row = structure.at_depth(plan, depth)
    places |= {node: (i - (len(row) - 1) / 2, -depth) for i, node in enumerate(row)}


def draw(axis, deleted, title):
    """The plan of a shard in which some slices were hit: what serves, what is left, and what is off."""
    serving = structure.served(plan, deleted)
    for node in nodes:
        at, colour = places[node], DEAD if set(node) & set(deleted) else SERVES if node == serving else ALIVE
        if len(node) > 1:
            above = places[structure.parent(node)]
            axis.plot([at[0], above[0]], [at[1], above[1]], color="#b5bdc4", linewidth=1, zorder=0)
        name = "".join(map(str, node))
        axis.text(*at, name, ha="center", va="center", fontsize=9, bbox={"boxstyle": "round", "fc": colour, "ec": "none"})
    axis.set(title=title, xlim=(-3.2, 3.2), ylim=(-SLICES - 0.5, -0.5))
    axis.set_axis_off()


figure, axes = plt.subplots(1, 3)
for axis, deleted in zip(axes, ((), (2,), (2, 0)) if SLICES > 2 else ((), (1,), (0, 1)), strict=True):
    depth = structure.depth_served(plan, deleted)
    draw(axis, deleted, f"hit: {', '.join(map(str, deleted)) or 'none'}; depth served: {depth}")
plt.show()

# %% [markdown]
# Dark: what answers. Light: what is ready in its place. Grey: off. One deletion costs one block of adapters, not the
# model.
#
# ## Build the store
#
# Where an example goes is a keyed hash of its id. Nobody without the key can tell, and nothing moves when another
# example leaves.

# %%
shutil.rmtree("runs/store", ignore_errors=True)  # of an earlier run of this notebook
KEY = b"a secret of the owner"
store = creation.make_store("runs/store", source, plan, SHARDS, 0, KEY, factory="experiments.exact.factory:make")
work = healing.train_missing(store, source)
print(f"{work.trained} nodes were trained")

# %% [markdown]
# ## Delete, one by one
#
# `delete` is in force when it returns: every process that serves this store asks the same ledger. Here a server answers
# all test images after each of a row of deletions. Nothing is healed meanwhile.

# %%
rng = np.random.default_rng(0)
asked = [int(id_) for id_ in rng.choice(source.ids, DELETIONS, replace=False)]
accuracies, depths, acknowledged = [], [], []
with Server(store, source.backbone, source.frozen, source.recipe.lora, example=x[:1]) as server:
    for id_ in (None, *asked):
        if id_ is not None:
            receipt = disk.delete(store, [id_])
            acknowledged.append(receipt["acknowledged_ms"])
        answer = server.predict(x)
        accuracies.append(100 * np.mean(answer.logits.argmax(axis=-1) == y))
        depths.append(answer.depth)
print(f"acknowledged within {max(acknowledged):.1f} ms each; the last receipt: {receipt['head'][:16]}...")

# %%
figure, axes = plt.subplots(1, 2)
axes[0].plot(accuracies, color=SERVES, marker="o", linewidth=2.5)
axes[0].axhline(20, color="grey", linestyle=":", linewidth=1)
axes[0].text(0, 21, "guessing", color="grey")
axes[0].set(title="what the store answers, unhealed", xlabel="deletions", ylabel="test accuracy, %", ylim=(0, 100))
for shard, line in enumerate(np.array(depths).T):
    axes[1].step(range(len(line)), line + 0.06 * shard, where="post", linewidth=2.5, label=f"shard {shard}")
axes[1].set(title="depth served", xlabel="deletions", ylabel="slices", yticks=range(SLICES + 1))
axes[1].legend()
plt.show()

# %% [markdown]
# A deletion in a slice that is off already changes nothing. The first in a slice costs depth. A shard whose slices were
# all hit has no model until it is healed: healing runs behind, while the rest serves.
#
# ## How long does a plan last?
#
# No store is needed for that: only the first hit on each slice matters. `simulate` draws streams of deletions and reads
# off how deep each plan serves. SISA, the usual baseline, keeps one order of slices; *stumps* keeps one path for each
# slice to begin with.

# %%
after = np.arange(0, 41)
hits = simulate.uniform(np.random.default_rng(0), 500, 3, 4)  # 500 streams, 3 shards of 4 slices
figure, axes = plt.subplots(1, 2)
for name in ("sisa", "cyclic", "lattice", "stumps"):
    other = planners.cyclic(4, 3) if name == "cyclic" else getattr(planners, name)(4)
    served = simulate.depths(simulate.falls(other, hits), after)  # [streams, shards, after]
    method = PLANS[name]
    dashes = "--" if name == "stumps" else "-"  # in the right panel it lies on the lattice
    look = {"color": method.style.colour, "linewidth": 3 if method.ours else 1.8, "linestyle": dashes}
    label = f"{method.name}: {structure.flops(other, cached=True):.1f}"
    for axis, values in ((axes[0], served.mean(axis=(0, 1))), (axes[1], 100 * (served > 0).mean(axis=(0, 1)))):
        axis.plot(after, values, label=label, **look)
axes[0].set(title="mean depth served", xlabel="deletions in all", ylabel="slices", ylim=(0, 4.1))
axes[1].set(title="shards that have a model", xlabel="deletions in all", ylabel="%", ylim=(0, 102))
axes[0].legend(title="plan, and its cost in full forward passes")
plt.show()

# %% [markdown]
# ## Heal
#
# What was lost is trained anew, without the deleted examples, and serves as soon as it is there.

# %%
healed = healing.heal(store, source)
with Server(store, source.backbone, source.frozen, source.recipe.lora, example=x[:1]) as server:
    answer = server.predict(x)
accuracy = 100 * np.mean(answer.logits.argmax(axis=-1) == y)
print(f"{healed['trained']} nodes were trained anew; accuracy {accuracy:.1f}%, before any deletion {accuracies[0]:.1f}%")

# %% [markdown]
# ## Prove
#
# **From the record.** `verify` needs no trust in whoever ran the store. It rebuilds the chain of the ledger, holds
# every serving node against its certificate, and looks for a deleted id in any. It wants the receipt of the last
# deletion to be in the chain.

# %%
proof = verify("runs/store", receipt["head"])
print({name: proof[name] for name in ("ok", "problems", "nodes", "examples", "deleted")})

# %% [markdown]
# **By training once more.** A record could be forged together with the parameters. So two nodes are drawn by chance,
# trained again from the examples that the ledger names, and compared byte by byte.

# %%
again = replay.replay(store, source, 2)
print(again["verdict"], "-", len(again["identical"]), "nodes are identical,", len(again["differs"]), "differ")

# %% [markdown]
# **By the definition.** Exact means: as if the examples had never been there. So make that store. In it the same ids
# are deleted *before* anything is trained. Then compare all files of the two.

# %%
shutil.rmtree("runs/never", ignore_errors=True)
never = creation.make_store("runs/never", source, plan, SHARDS, 0, KEY, factory="experiments.exact.factory:make")
disk.delete(never, asked)
healing.train_missing(never, source)


def files_of(which):
    """The bytes of each node that serves, by shard and slices."""
    return {(node.shard, node.slices): disk.file_of(which, node.identity).read_bytes() for node in publishing.live(which)}


ours, theirs = files_of(store), files_of(never)
same = sum(ours[place] == theirs.get(place) for place in ours)
print(f"{same} of {len(ours)} files are the same to the byte; the other store has {len(theirs)}")

# %% [markdown]
# ## Somebody meddles
#
# One bit of one file is changed. `verify` finds it, the server no longer uses that node, and healing puts back what was
# published.

# %%
victim = disk.file_of(store, publishing.live(store)[-1].identity)
whole = victim.read_bytes()
victim.chmod(0o600)
victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
found = verify("runs/store")
print(found["ok"], "-", found["problems"][0][:90], "...")
healing.heal(store, source)
print("healed:", verify("runs/store")["ok"], "- as it was, to the bit:", victim.read_bytes() == whole)

# %%
disk.close(never)
disk.close(store)

# %% [markdown]
# ## What this does not say
#
# * What was pre-trained stays.
# * Someone who kept answers from before a deletion can compare.
# * A slice that is off can be seen.
#
# The [threat model](../threat_model.md) has the rest, and [S3T](../s3t.md) the commands, as in
# `python -m s3t delete --store DIR --ids 13,51`.
