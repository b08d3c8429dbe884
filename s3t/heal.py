"""Making a store's nodes: at first, after a kill, and after deletions. It is one loop: train what the plan misses.

A node is drafted from the ledger, trained on exactly the examples of its draft, and published if the ledger still has
these examples for it; a deletion that came meanwhile discards it. So nothing but the ledger has to be remembered, a process
may be killed at any moment, and several may work on one store.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s3t import build as builds
from s3t import ledger as ledgers
from s3t import stack as stacks
from s3t import store as stores
from s3t import train as training
from s3t.adapters import init_slot
from s3t.build import Setup
from s3t.certificate import canonical
from s3t.partition import Places, assign
from s3t.plan import Node, Plan
from s3t.source import Source, from_tensors, to_tensors
from s3t.store import Draft, Manifest, Outdated, Store
from s3t.train import Shape, Slices, Trained
from unlearn import tree

Compartments = Mapping[tuple[int, int], Sequence[int]]  # (shard, slice) -> ids, ascending
Serving = dict[tuple[int, Node], ledgers.Node]
Spoiled = dict[str, str]  # identity of a node below which nothing can be trained -> why, in one line


class Round(NamedTuple):
    """What came of one round: numbers of nodes published and discarded, and nodes found damaged or diverged."""

    made: int
    lost: int
    spoiled: Spoiled


class Work(NamedTuple):
    """What `train` did.

    trained: nodes that it published.
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
    training.check_ids(source.ids)
    if not len(source.ids):
        raise ValueError("the data set has no training example: check the factory's arguments")
    _check_trainable(source, _root_key(seed))
    places = assign(source.ids, shards, plan.slices, key)
    shapes = builds.make_shapes(source, plan, training.counts(places, shards, plan.slices))
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
    store = stores.create(root, manifest)
    register(store, source)
    return store


def _root_key(seed: int) -> jax.Array:
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"the seed is {seed}: give a whole number from 0 to {(1 << 32) - 1}")  # a larger one is cut off
    return jax.random.key(seed, impl="threefry2x32")


def _check_trainable(source: Source, key: jax.Array) -> None:
    """Trace the beginning of a training, so that a recipe that cannot be fails before there is a store."""
    backbone, recipe = source.backbone, source.recipe
    if recipe.batch_size < 1 or recipe.epochs < 1:
        raise ValueError(f"batches of {recipe.batch_size} in {recipe.epochs} epochs train nothing: give 1 or more of both")

    def start(key: jax.Array, steps: jax.Array) -> Any:
        part = init_slot(key, recipe.lora, backbone.layers), backbone.init_head(key)
        optimizer = recipe.optimizer(steps)
        return optimizer.update(part, optimizer.init(part), part)

    jax.eval_shape(start, key, np.int32(1))


def register(store: Store, source: Source) -> None:
    """Take in the source's examples, at the places that the partition's key gives them, unless the store has examples."""
    if ledgers.counts(store.ledger)["examples"]:
        return
    made = store.manifest
    places = assign(source.ids, made.shards, made.slices, bytes.fromhex(made.partition_key))
    try:
        stores.register(store, source.ids, places.shard, places.slice)
    except ValueError:
        if not ledgers.counts(store.ledger)["examples"]:
            raise  # else another process that goes on with this store was quicker


def setup_of(manifest: Manifest, source: Source) -> Setup:
    """How the nodes of a store are trained.

    Raises:
      ValueError: a source that is not the one of the manifest.
    """
    if canonical(source.hyper) != canonical(manifest.hyper["source"]):
        raise ValueError("the factory gives other hyper-parameters than the store was made with: take that factory")
    if tree.digest(source.frozen) != manifest.backbone:
        raise ValueError("the backbone is not the one that the store was made with: give the arguments that lead to it")
    shapes = tuple(Shape(**shape) for shape in manifest.hyper["shapes"])
    return Setup(source, stores.plan_of(manifest), manifest.shards, _root_key(manifest.root_key), shapes)


# --- Training what is missing -----------------------------------------------------------------------------------------


def heal(store: Store, source: Source, *, say: Callable[[Draft], None] = lambda made: None) -> dict[str, Any]:
    """Train anew what deletions took away, and whatever else is missing, while everything that survived serves.

    A node comes back under a new identity, trained on the examples that are left; one without examples does not come back.

    Args:
      store: the store.
      source: what its factory makes.
      say: told of each node that begins to serve.

    Returns:
      trained and discarded, as in `Work`; skipped, how many nodes have no examples; healed, the requests that became so.

    Raises:
      ValueError: see `train`.
    """
    stores.purge(store)
    try:
        work = train(store, source, say=say)
    except ValueError:
        stores.heal(store)  # what was trained beside a node that could not be may be all that a request waited for
        raise
    stores.purge(store)  # requests that came meanwhile
    skipped = sum(not stores.trainable(store, *place) for place in stores.missing(store))
    return {**work._asdict(), "skipped": skipped, "healed": list(stores.heal(store))}


def train(store: Store, source: Source, *, say: Callable[[Draft], None] = lambda made: None) -> Work:
    """Train the nodes that the plan misses, shallow before deep, and let each serve as soon as it is done.

    What was published before is read back as it is needed. Deleted examples are not even fetched. A node whose training
    diverges is not published; it and a parent with a damaged file hold up what is below them, and nothing else.

    Args:
      store: the store.
      source: what its factory makes.
      say: told of each node that begins to serve.

    Raises:
      ValueError: a source that is not the store's, an example that it lacks, or more examples in a slice than the store
        was made for; after all else is trained, nodes that diverged and damaged files of parents.
    """
    setup, here = setup_of(store.manifest, source), stacks.here()
    trained = discarded = 0
    spoiled: Spoiled = {}
    while True:
        serving, drafts = _due(store, spoiled)
        if not drafts:
            break
        made, lost, more = _round(store, setup, here, serving, drafts, say)
        trained, discarded, spoiled = trained + made, discarded + lost, spoiled | more
    if spoiled:
        others = f" (and {len(spoiled) - 1} more nodes)" if len(spoiled) > 1 else ""
        raise ValueError(f"{next(iter(spoiled.values()))}{others}; all else is trained")
    return Work(trained, discarded)


def _due(store: Store, spoiled: Spoiled) -> tuple[Serving, list[Draft]]:
    """The nodes that serve, by place, and drafts of those that should and can, parents first; none below a spoiled one."""
    serving = {(node.shard, node.slices): node for node in stores.live(store)}
    places = [(shard, slices) for slices in store.manifest.nodes for shard in range(store.manifest.shards)]
    lost = [place for place in places if place not in serving and stores.trainable(store, *place)]
    drafts = [stores.draft(store, *place) for place in lost]
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
    read = reader(store, setup, serving)
    made, lost = 0, 0
    spoiled: Spoiled = {}
    try:
        if damaged := _damaged(serving, drafts, read):
            return Round(0, 0, damaged)
        for call in builds.build(setup, compartments(setup, held), list(jobs), read):
            for place, trained in call.nodes:
                try:
                    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained)):
                        spoiled[jobs[place].identity] = _diverged(jobs[place])
                        continue
                    _publish(store, jobs[place], trained, stack_of(here, call), names.get((place[0], place[1][:-1])))
                    names[place], made = jobs[place].identity, made + 1
                    say(jobs[place])
                except Outdated:
                    lost += 1
            if lost or spoiled:
                break  # the drafts of what is left may be outdated too, or have a parent that is not there
    except Outdated:  # a parent went while it was being read
        pass
    return Round(made, lost, spoiled)


def _damaged(serving: Serving, drafts: Sequence[Draft], read: Callable[[int, Node], Trained]) -> Spoiled:
    """The serving ancestors of drafts whose files cannot be read."""
    found: Spoiled = {}
    for shard, node in sorted({(draft.shard, draft.slices[:n]) for draft in drafts for n in range(1, len(draft.slices))}):
        try:
            if (shard, node) in serving:
                read(shard, node)
        except Outdated:
            raise
        except ValueError as error:
            found[serving[shard, node].identity] = f"{error}: restore the file from a copy, or nothing below it comes back"
    return found


def _diverged(draft: Draft) -> str:
    return (
        f"node {list(draft.slices)} of shard {draft.shard} is not published, its training diverged to numbers that are not"
        " finite: make another store with a lower learning rate, or look for an example that is not finite"
    )


def _gathered(store: Store, drafts: Sequence[Draft]) -> tuple[Compartments, list[Draft]]:
    """The ids in the slices of drafts as the ledger has them now, and those drafts that name the very same ones."""
    found: dict[tuple[int, int], list[int]] = {(draft.shard, s): [] for draft in drafts for s in draft.slices}
    for shard in sorted({draft.shard for draft in drafts}):
        for one, s, _, gone in ledgers.shard_ids(store.ledger, shard):
            if gone is None and (shard, s) in found:
                found[shard, s].append(one)
    held = lambda draft: tuple(sorted(one for s in draft.slices for one in found[draft.shard, s]))  # noqa: E731
    return found, [draft for draft in drafts if draft.ids == held(draft)]


def compartments(setup: Setup, held: Compartments) -> Slices:
    """The examples of some slices in their compartments, fetched from the source; all other compartments are empty.

    Raises:
      ValueError: an id that the source lacks; more examples than a compartment has room for.
    """
    rows = sorted((one, shard, s) for (shard, s), ids in held.items() for one in ids)
    ids, shard, slice_ = np.array(rows, np.int64).reshape(-1, 3).T
    x, y = setup.source.fetch(ids)
    places = Places(shard.astype(np.int32), slice_.astype(np.int32))
    return training.arrange(x, y, ids, places, setup.shards, setup.plan.slices, setup.shapes[0].capacity)


def reader(store: Store, setup: Setup, serving: Serving) -> Callable[[int, Node], Trained]:
    """(shard, node) -> what a serving node owns, read once.

    The function raises Outdated if the node serves no more, and ValueError if its file is damaged.
    """
    source = setup.source

    @functools.cache
    def read(shard: int, node: Node) -> Trained:
        try:
            _, tensors = stores.load(store, serving[shard, node])
        except (KeyError, ValueError):
            if serving.get((shard, node)) in stores.live(store):
                raise
            raise Outdated(f"node {list(node)} of shard {shard} serves no more") from None
        return from_tensors(source.backbone, source.recipe.lora, setup.plan.slices, len(node), tensors)

    return read


def stack_of(here: Mapping[str, Any], call: builds.Call) -> dict[str, Any]:
    """The stack of a node: of this process, and of the program that made it."""
    return {**here, "shape": call.shape._asdict(), "program": call.program}


def _publish(store: Store, draft: Draft, trained: Trained, stack: Mapping[str, Any], parent: str | None) -> None:
    """Let a node serve if it would be drafted alike now: then no parent has seen a later ledger than it."""
    fresh = stores.draft(store, draft.shard, draft.slices)
    if fresh.identity != draft.identity or (parent is None and len(draft.slices) > 1):
        raise Outdated(f"an id that node {draft.identity} was trained on has been deleted: it is not published")
    stores.publish(store, fresh, to_tensors(trained), stack, parent)
