"""Training a store's nodes: at first, after a kill, and after deletions. It is one loop: train what the plan misses.

A node is drafted from the ledger, trained on exactly the examples of its draft, and published if the ledger still has
these examples for it; a deletion that came meanwhile discards it. So nothing but the ledger has to be remembered, a process
may be killed at any moment, and several may work on one store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s3t.plans.structure import Node
from s3t.service import environment, inputs
from s3t.service.inputs import Compartments, Serving
from s3t.service.retraining import Retrained, retrain
from s3t.store import disk, newcomers, publishing, state
from s3t.store.certificates import merkle_root
from s3t.store.disk import Store
from s3t.store.ledger import audit, database, records
from s3t.store.ledger.records import Outdated
from s3t.store.publishing import Draft
from s3t.training import schedule
from s3t.training.schedule import Build, Setup
from s3t.training.source import Source, to_tensors
from s3t.training.stages import Trained

Spoiled = dict[str, str]  # identity of a node below which nothing can be trained -> why, in one line


class Round(NamedTuple):
    """What came of one round: numbers of nodes published and discarded, and nodes that diverged."""

    published: int
    outdated: int
    spoiled: Spoiled


class Work(NamedTuple):
    """What `train_missing` did.

    trained: nodes that it published, or whose files it restored.
    discarded: nodes that it trained in vain, because of a deletion.
    """

    trained: int
    discarded: int


# --- Training what is missing -----------------------------------------------------------------------------------------


def heal(
    store: Store, source: Source, *, report: Callable[[Draft], None] = lambda draft: None, build: Build = schedule.build
) -> dict[str, Any]:
    """Train anew what deletions took away, and whatever else is missing, while everything that survived serves.

    A node comes back under a new identity, trained on the examples that are left; one without examples does not come back.
    Where more examples came, see `s3t.service.appending`, a node of all of them takes the place of one that saw fewer.
    A node whose file alone was lost or damaged comes back as it was, bit for bit.

    Args:
      store: the store.
      source: what its factory makes.
      report: called with each node that begins to serve.
      build: as for `train_missing`.

    Returns:
      trained and discarded, as in `Work`; skipped, how many nodes have no examples; healed, the requests that became so.

    Raises:
      ValueError: see `train_missing`.
    """
    audit.check(store)
    disk.make_room(store)
    disk.purge(store)
    try:
        work = train_missing(store, source, report=report, build=build)
    except ValueError:
        state.mark_healed(store)  # a request may have waited only for nodes that could be trained
        raise
    disk.purge(store)  # requests that came meanwhile
    skipped = sum(not publishing.trainable(store, *place) for place in publishing.missing(store))
    return {**work._asdict(), "skipped": skipped, "healed": list(state.mark_healed(store))}


def train_missing(
    store: Store, source: Source, *, report: Callable[[Draft], None] = lambda draft: None, build: Build = schedule.build
) -> Work:
    """Train the nodes that the plan misses, shallow before deep, and let each serve as soon as it is done.

    What was published before is read back as it is needed. Deleted examples are not even fetched. A node whose training
    diverges is not published; it and a node whose file is lost for good hold up what is below them, and nothing else.

    Args:
      store: the store.
      source: what its factory makes.
      report: called with each node that begins to serve.
      build: trains nodes, as `schedule.build` does; another one where other processes take part and do not have the store.

    Raises:
      ValueError: a source that is not the store's, an example that it lacks, or more examples in a slice than the store
        was made for; after all else is trained, nodes that diverged and files that could not be restored.
      Damaged: the ledger was altered, or would have the same nodes trained for ever.
    """
    audit.check(store)
    setup, here = inputs.setup_of(store.manifest, source), environment.here()
    trained, discarded, spoiled = _restore(store, setup, here, report, build)
    while True:
        rows = database.head(store.ledger).rows
        serving, drafts = _due(store, spoiled)
        if not drafts:
            break
        published, outdated, diverged = _round(store, setup, here, serving, drafts, report, build)
        if not diverged and rows == database.head(store.ledger).rows:  # what is outdated is so by a later row
            raise database.Damaged(
                f"{store.root}'s ledger is damaged: no row says why node {drafts[0].identity} is outdated; "
                "restore it from a copy (python -m s3t verify tells more)"
            )
        trained, discarded, spoiled = trained + published, discarded + outdated, spoiled | diverged
    if spoiled:
        others = f" (and {len(spoiled) - 1} more nodes)" if len(spoiled) > 1 else ""
        raise ValueError(f"{next(iter(spoiled.values()))}{others}; all else is trained")
    return Work(trained, discarded)


def _restore(store: Store, setup: Setup, here: Mapping[str, Any], report: Callable[[Draft], None], build: Build) -> Round:
    """Train serving nodes whose files are lost or damaged once more, on what they saw then, and put the files back."""
    late = newcomers.behind(store)  # others take their places
    problems = {node: problem for node, problem in publishing.damaged(store).items() if node not in late}
    identity_at = {place: node.identity for place, node in inputs.serving(store).items()}
    restored, outdated = 0, 0
    spoiled: Spoiled = {}
    for retrained in retrain(store, setup, here, problems, build):
        node = retrained.node
        try:
            _put_back(store, retrained, identity_at.get((node.shard, node.slices[:-1])))
            restored += 1
            report(_draft_of(retrained))
        except (ValueError, OSError) as error:  # of a disk, or of something in the file's place
            if node not in publishing.live(store):  # an example of it was deleted meanwhile
                outdated += 1
                continue
            spoiled[node.identity] = f"{problems[node]}, and {error}: restore it from a copy, or heal where it was trained"
    return Round(restored, outdated, spoiled)


def _put_back(store: Store, retrained: Retrained, parent: str | None) -> None:
    if retrained.trained is None:
        raise ValueError(retrained.reason)
    publishing.restore(store, _draft_of(retrained), to_tensors(retrained.trained), retrained.stack, parent)


def _draft_of(retrained: Retrained) -> Draft:
    """The draft that a node was trained from."""
    node, ids = retrained.node, retrained.ids
    return Draft(node.identity, node.shard, node.slices, ids, node.as_of, merkle_root(ids))


def _due(store: Store, spoiled: Spoiled) -> tuple[Serving, list[Draft]]:
    """The nodes that serve, by place, and drafts of those that should and can, parents first; none below a spoiled one."""
    serving = inputs.serving(store)
    places = [(shard, slices) for slices in store.manifest.nodes for shard in range(store.manifest.shards)]
    late = {(node.shard, node.slices) for node in newcomers.behind(store)}
    due = [place for place in places if place not in serving or place in late]
    drafts = [publishing.draft_node(store, *place) for place in due if publishing.trainable(store, *place)]
    blocked = {place for place, node in serving.items() if node.identity in spoiled}
    blocked |= {(draft.shard, draft.slices) for draft in drafts if draft.identity in spoiled}

    def path(draft: Draft) -> set[tuple[int, Node]]:
        return {(draft.shard, draft.slices[:depth]) for depth in range(1, 1 + len(draft.slices))}

    return serving, [draft for draft in drafts if not blocked & path(draft)]


def _round(
    store: Store,
    setup: Setup,
    here: Mapping[str, Any],
    serving: Serving,
    drafts: list[Draft],
    report: Callable[[Draft], None],
    build: Build,
) -> Round:
    """Train drafts until all are published, or until a deletion or a spoiled node asks for new ones."""
    ids_in, drafts = _gathered(store, drafts)
    if not drafts:
        return Round(0, 0, {})
    draft_at = {(draft.shard, draft.slices): draft for draft in drafts}
    identity_at = {place: node.identity for place, node in serving.items()}
    read = inputs.reader(store, setup, serving)
    slices = inputs.compartments(setup, ids_in)
    seen = inputs.digests_of(slices, setup.plan.slices)
    published, outdated = 0, 0
    spoiled: Spoiled = {}
    try:
        for call in build(setup, slices, list(draft_at), read):
            for place, trained in call.nodes:
                draft, parent = draft_at[place], identity_at.get((place[0], place[1][:-1]))
                if not _finite(trained):
                    spoiled[draft.identity] = _diverged(draft)
                    continue
                try:
                    _publish_if_current(store, draft, trained, inputs.stack_of(here, call, seen(*place)), parent)
                    identity_at[place], published = draft.identity, published + 1
                    report(draft)
                except Outdated:
                    outdated += 1
            if outdated or spoiled:
                break  # the other drafts may be outdated too, or have a parent that does not serve
    except Outdated:  # a parent was dropped while it was being read
        pass
    return Round(published, outdated, spoiled)


def _finite(trained: Trained) -> bool:
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(trained))


def _diverged(draft: Draft) -> str:
    return (
        f"node {list(draft.slices)} of shard {draft.shard} is not published, its training diverged to numbers that are not"
        " finite: make another store with a lower learning rate, or look for an example that is not finite"
    )


def _gathered(store: Store, drafts: Sequence[Draft]) -> tuple[Compartments, list[Draft]]:
    """The ids in the slices of drafts as the ledger has them now, and those drafts that name the very same ones."""
    ids_in: dict[tuple[int, int], list[int]] = {(draft.shard, s): [] for draft in drafts for s in draft.slices}
    for shard in sorted({draft.shard for draft in drafts}):
        for id_, s, _, deleted in records.shard_ids(store.ledger, shard):
            if deleted is None and (shard, s) in ids_in:
                ids_in[shard, s].append(id_)

    def ids_now(draft: Draft) -> tuple[int, ...]:
        return tuple(sorted(id_ for s in draft.slices for id_ in ids_in[draft.shard, s]))

    return ids_in, [draft for draft in drafts if draft.ids == ids_now(draft)]


def _publish_if_current(store: Store, draft: Draft, trained: Trained, stack: Mapping[str, Any], parent: str | None) -> None:
    """Let a node serve if it would be drafted alike now: then no parent has seen a later ledger than it."""
    current = publishing.draft_node(store, draft.shard, draft.slices)
    if current.identity != draft.identity or (parent is None and len(draft.slices) > 1):
        raise Outdated(f"an id that node {draft.identity} was trained on has been deleted: it is not published")
    publishing.publish(store, current, to_tensors(trained), stack, parent, replace=True)
