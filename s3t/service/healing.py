"""Making a store's nodes: at first, after a kill, and after deletions. It is one loop: train what the plan misses.

A node is drafted from the ledger, trained on exactly the examples of its draft, and published if the ledger still has
these examples for it; a deletion that came meanwhile discards it. So nothing but the ledger has to be remembered, a process
may be killed at any moment, and several may work on one store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s3t.plans.structure import Plan
from s3t.service import environment, inputs
from s3t.service.inputs import Compartments, Serving, root_key
from s3t.service.retraining import Again, again
from s3t.store import database, disk, records
from s3t.store.certificates import merkle_root
from s3t.store.disk import Draft, Outdated, Store
from s3t.store.manifests import Manifest
from s3t.training import schedule, stages
from s3t.training.adapters import init_slot
from s3t.training.schedule import Setup
from s3t.training.source import Source, placed, to_tensors
from s3t.training.stages import Trained
from unlearn import tree

Spoiled = dict[str, str]  # identity of a node below which nothing can be trained -> why, in one line


class Round(NamedTuple):
    """What came of one round: numbers of nodes published and discarded, and nodes that diverged."""

    made: int
    lost: int
    spoiled: Spoiled


class Work(NamedTuple):
    """What `train` did.

    trained: nodes that it published, or whose files it restored.
    discarded: nodes that it trained in vain, because of a deletion.
    """

    trained: int
    discarded: int


# --- Making a store ---------------------------------------------------------------------------------------------------


def create(
    root: str,
    source: Source,
    plan: Plan,
    shards: int,
    seed: int,
    key: bytes,
    *,
    factory: str,
    arguments: Mapping[str, Any] | None = None,
) -> Store:
    """A new store of all examples that a source holds, without nodes yet.

    Shapes are chosen here, for the examples that there are, and are part of every node's identity: the manifest's hyper is
    {"source": what the factory read, "shapes": those of each depth}.

    Args:
      root: directory of the store.
      source: model, recipe and data.
      plan: of every shard.
      shards: m.
      seed: the root key.
      key: places examples, 1 to 64 secret bytes.
      factory: `module:function` that made the source.
      arguments: its keyword arguments.

    Raises:
      ValueError: no example; ids that cannot be keys; a plan with more slices than the model has blocks; a directory that
        holds something; a recipe or a seed that nothing can be trained with. Nothing is made then.
    """
    stages.check_ids(source.ids)
    if not len(source.ids):
        raise ValueError("the data set has no training example: check the factory's arguments")
    check_trainable(source, root_key(seed))
    places = placed(source, shards, plan.slices, key)
    shapes = schedule.make_shapes(source, plan, stages.counts(places, shards, plan.slices))
    hyper = {"source": source.hyper, "shapes": [shape._asdict() for shape in shapes]}
    manifest = Manifest(
        factory,
        dict(arguments or {}),
        tree.digest(source.frozen),
        hyper,
        seed,
        shards,
        plan.slices,
        plan.nodes,
        key.hex(),
    )
    store = disk.create(root, manifest)
    register(store, source)
    return store


def check_trainable(source: Source, key: jax.Array) -> None:
    """Trace the beginning of a training, so that a recipe that cannot be fails before there is a store.

    Raises:
      ValueError: it cannot be.
    """
    backbone, recipe = source.backbone, source.recipe
    if source.most_lanes < 1:
        raise ValueError(f"most_lanes is {source.most_lanes}: give the source a whole number from 1 on")
    if recipe.batch_size < 1 or recipe.epochs < 1:
        raise ValueError(f"batches of {recipe.batch_size} in {recipe.epochs} epochs train nothing: give 1 or more of both")

    def start(key: jax.Array, steps: jax.Array) -> Any:
        part = init_slot(key, recipe.lora, backbone.layers), backbone.init_head(key)
        optimizer = recipe.optimizer(steps)
        return optimizer.update(part, optimizer.init(part), part)

    jax.eval_shape(start, key, np.int32(1))


def register(store: Store, source: Source) -> None:
    """Take in the source's examples, at the places that the partition's key gives them, unless the store has examples."""
    if records.counts(store.ledger)["examples"]:
        return
    made = store.manifest
    places = placed(source, made.shards, made.slices, bytes.fromhex(made.partition_key))
    try:
        disk.register(store, source.ids, places.shard, places.slice)
    except ValueError:
        if not records.counts(store.ledger)["examples"]:
            raise  # else another process that goes on with this store was quicker


# --- Training what is missing -----------------------------------------------------------------------------------------


def heal(store: Store, source: Source, *, say: Callable[[Draft], None] = lambda made: None) -> dict[str, Any]:
    """Train anew what deletions took away, and whatever else is missing, while everything that survived serves.

    A node comes back under a new identity, trained on the examples that are left; one without examples does not come back.
    A node whose file alone was lost or damaged comes back as it was, bit for bit.

    Args:
      store: the store.
      source: what its factory makes.
      say: told of each node that begins to serve.

    Returns:
      trained and discarded, as in `Work`; skipped, how many nodes have no examples; healed, the requests that became so.

    Raises:
      ValueError: see `train`.
    """
    disk.make_room(store)
    disk.purge(store)
    try:
        work = train(store, source, say=say)
    except ValueError:
        disk.heal(store)  # what was trained beside a node that could not be may be all that a request waited for
        raise
    disk.purge(store)  # requests that came meanwhile
    skipped = sum(not disk.trainable(store, *place) for place in disk.missing(store))
    return {**work._asdict(), "skipped": skipped, "healed": list(disk.heal(store))}


def train(store: Store, source: Source, *, say: Callable[[Draft], None] = lambda made: None) -> Work:
    """Train the nodes that the plan misses, shallow before deep, and let each serve as soon as it is done.

    What was published before is read back as it is needed. Deleted examples are not even fetched. A node whose training
    diverges is not published; it and a node whose file is lost for good hold up what is below them, and nothing else.

    Args:
      store: the store.
      source: what its factory makes.
      say: told of each node that begins to serve.

    Raises:
      ValueError: a source that is not the store's, an example that it lacks, or more examples in a slice than the store
        was made for; after all else is trained, nodes that diverged and files that could not be restored.
      Damaged: the ledger would have the same nodes trained for ever.
    """
    setup, here = inputs.setup_of(store.manifest, source), environment.here()
    trained, discarded, spoiled = _restore(store, setup, here, say)
    while True:
        rows = database.head(store.ledger).rows
        serving, drafts = _due(store, spoiled)
        if not drafts:
            break
        made, lost, more = _round(store, setup, here, serving, drafts, say)
        if not more and rows == database.head(store.ledger).rows:  # what is outdated is so by a later row
            raise database.Damaged(
                f"{store.root}'s ledger is damaged: no row says why node {drafts[0].identity} is outdated; "
                "restore it from a copy (python -m s3t verify tells more)"
            )
        trained, discarded, spoiled = trained + made, discarded + lost, spoiled | more
    if spoiled:
        others = f" (and {len(spoiled) - 1} more nodes)" if len(spoiled) > 1 else ""
        raise ValueError(f"{next(iter(spoiled.values()))}{others}; all else is trained")
    return Work(trained, discarded)


def _restore(store: Store, setup: Setup, here: Mapping[str, Any], say: Callable[[Draft], None]) -> Round:
    """Train serving nodes whose files are lost or damaged once more, on what they saw then, and put the files back."""
    lost = disk.damaged(store)
    names = {place: node.identity for place, node in inputs.serving(store).items()}
    done, outdated = 0, 0
    spoiled: Spoiled = {}
    for made in again(store, setup, here, lost):
        node, parent = made.node, names.get((made.node.shard, made.node.slices[:-1]))
        try:
            _put_back(store, made, parent)
            done += 1
            say(_draft_of(made))
        except (ValueError, OSError) as error:  # of a disk, or of something in the file's place
            if node not in disk.live(store):  # an example of it was deleted meanwhile
                outdated += 1
                continue
            spoiled[node.identity] = f"{lost[node]}, and {error}: restore it from a copy, or heal where it was trained"
    return Round(done, outdated, spoiled)


def _put_back(store: Store, made: Again, parent: str | None) -> None:
    if made.trained is None:
        raise ValueError(made.why)
    disk.restore(store, _draft_of(made), to_tensors(made.trained), made.stack, parent)


def _draft_of(made: Again) -> Draft:
    """The draft that a node was trained from."""
    node = made.node
    return Draft(node.identity, node.shard, node.slices, made.ids, node.as_of, merkle_root(made.ids))


def _due(store: Store, spoiled: Spoiled) -> tuple[Serving, list[Draft]]:
    """The nodes that serve, by place, and drafts of those that should and can, parents first; none below a spoiled one."""
    serving = inputs.serving(store)
    places = [(shard, slices) for slices in store.manifest.nodes for shard in range(store.manifest.shards)]
    lost = [place for place in places if place not in serving and disk.trainable(store, *place)]
    drafts = [disk.draft(store, *place) for place in lost]
    bad = {place for place, node in serving.items() if node.identity in spoiled}
    bad |= {(draft.shard, draft.slices) for draft in drafts if draft.identity in spoiled}
    above = lambda draft: {(draft.shard, draft.slices[:n]) for n in range(1, 1 + len(draft.slices))}  # noqa: E731
    return serving, [draft for draft in drafts if not bad & above(draft)]


def _round(
    store: Store,
    setup: Setup,
    here: Mapping[str, Any],
    serving: Serving,
    drafts: list[Draft],
    say: Callable[[Draft], None],
) -> Round:
    """Train drafts until all are published, or until a deletion or a spoiled node asks for new ones."""
    held, drafts = _gathered(store, drafts)
    if not drafts:
        return Round(0, 0, {})
    jobs = {(draft.shard, draft.slices): draft for draft in drafts}
    names = {place: node.identity for place, node in serving.items()}
    read = inputs.reader(store, setup, serving)
    made, lost = 0, 0
    spoiled: Spoiled = {}
    try:
        for call in schedule.build(setup, inputs.compartments(setup, held), list(jobs), read):
            for place, trained in call.nodes:
                try:
                    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained)):
                        spoiled[jobs[place].identity] = _diverged(jobs[place])
                        continue
                    _publish(store, jobs[place], trained, inputs.stack_of(here, call), names.get((place[0], place[1][:-1])))
                    names[place], made = jobs[place].identity, made + 1
                    say(jobs[place])
                except Outdated:
                    lost += 1
            if lost or spoiled:
                break  # the drafts of what is left may be outdated too, or have a parent that is not there
    except Outdated:  # a parent went while it was being read
        pass
    return Round(made, lost, spoiled)


def _diverged(draft: Draft) -> str:
    return (
        f"node {list(draft.slices)} of shard {draft.shard} is not published, its training diverged to numbers that are not"
        " finite: make another store with a lower learning rate, or look for an example that is not finite"
    )


def _gathered(store: Store, drafts: Sequence[Draft]) -> tuple[Compartments, list[Draft]]:
    """The ids in the slices of drafts as the ledger has them now, and those drafts that name the very same ones."""
    found: dict[tuple[int, int], list[int]] = {(draft.shard, s): [] for draft in drafts for s in draft.slices}
    for shard in sorted({draft.shard for draft in drafts}):
        for one, s, _, gone in records.shard_ids(store.ledger, shard):
            if gone is None and (shard, s) in found:
                found[shard, s].append(one)
    held = lambda draft: tuple(sorted(one for s in draft.slices for one in found[draft.shard, s]))  # noqa: E731
    return found, [draft for draft in drafts if draft.ids == held(draft)]


def _publish(store: Store, draft: Draft, trained: Trained, stack: Mapping[str, Any], parent: str | None) -> None:
    """Let a node serve if it would be drafted alike now: then no parent has seen a later ledger than it."""
    fresh = disk.draft(store, draft.shard, draft.slices)
    if fresh.identity != draft.identity or (parent is None and len(draft.slices) > 1):
        raise Outdated(f"an id that node {draft.identity} was trained on has been deleted: it is not published")
    disk.publish(store, fresh, to_tensors(trained), stack, parent)
