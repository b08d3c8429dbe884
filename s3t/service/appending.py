"""Taking in examples that came to the data of a store: placed by its key as at the beginning, all or none.

The shapes of its programs were fixed for the examples of the beginning, so there is room for so many and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from s3t.plans.partition import Places
from s3t.service import creation, inputs
from s3t.store import disk, manifests
from s3t.store.disk import Store
from s3t.store.ledger import audit, marks, registry
from s3t.training import arrangement
from s3t.training.schedule import Setup
from s3t.training.source import Source, placed

Registered = dict[int, tuple[int, int, bool]]  # id -> shard, slice, whether it is deleted


def newcomers_of(store: Store, source: Source) -> list[int]:
    """The ids of a source that a store does not know, ascending; those of deleted examples it knows."""
    unknown = set(source.ids.tolist()) - _registered(store).keys()
    return sorted(unknown - _forgotten(store, unknown))


def append(store: Store, source: Source) -> int:
    """Register the examples that a store does not know, so that a heal trains what they touch; nothing is trained here.

    An example of a group that the store knows goes where the group is. Groups and names that a store of an older version
    did not keep are kept from now on.

    Returns:
      how many examples came.

    Raises:
      ValueError: a source that is not the store's, or lacks an example of it; an example in another group than before; more
        examples than there is room for. Nothing is changed then.
    """
    audit.check(store)
    setup, known = inputs.setup_of(store.manifest, source), _registered(store)
    ids = arrangement.check_ids(source.ids)
    there = set(ids.tolist())
    if lost := [id_ for id_, (*_, deleted) in known.items() if not deleted and id_ not in there]:
        raise ValueError(
            f"the data lack example {lost[0]}, which the store has: put it back, or delete it; nothing was changed"
        )
    placing = source.placing()
    forgotten = _forgotten(store, there - known.keys())
    labels = _unknown_labels(store, creation.labels_of(source, placing), forgotten)
    manifest = store.manifest
    places = placed(source, manifest.shards, manifest.slices, bytes.fromhex(manifest.partition_key), placing)
    groups = registry.labels_of(store.ledger, registry.GROUPS) | labels[registry.GROUPS]
    new = np.flatnonzero(~np.isin(ids, [*known, *forgotten]))
    where = _beside_their_groups(ids[new], Places(places.shard[new], places.slice[new]), groups, known)
    _check_room(setup, known, where)
    if len(new) or any(labels.values()):
        try:
            disk.register(store, ids[new], where.shard, where.slice, labels, retrain=bool(len(new)))
        except ValueError:
            if newcomers_of(store, source):
                raise
            return 0  # another process that took them in was quicker
    return len(new)


def _registered(store: Store) -> Registered:
    rows = store.ledger.execute("SELECT id, shard, slice, deleted IS NOT NULL FROM examples ORDER BY registered, id")
    return {id_: (shard, slice_, bool(deleted)) for id_, shard, slice_, deleted in rows}


def _forgotten(store: Store, ids: Iterable[int]) -> set[int]:
    """Those of some ids that were deleted and redacted: they never come back."""
    return marks.forgotten(store.ledger, manifests.key_of(store.manifest), ids)


def _unknown_labels(store: Store, labels: registry.Labels, forgotten: set[int]) -> dict[str, dict[int, str]]:
    """What a store does not know of the labels that a source gives, those of forgotten examples aside.

    Raises:
      ValueError: it knows another.
    """
    unknown = {}
    for kind, of_id in labels.items():
        kept = registry.labels_of(store.ledger, kind)
        if other := [id_ for id_, label in of_id.items() if kept.get(id_, label) != label]:
            what = f"{of_id[other[0]]!r:.80} among the {kind} of the data and {kept[other[0]]!r:.80} in the store"
            raise ValueError(f"example {other[0]} is {what}: give what it was registered with; nothing was changed")
        unknown[kind] = {id_: label for id_, label in of_id.items() if id_ not in kept and id_ not in forgotten}
    return unknown


def _beside_their_groups(ids: np.ndarray, places: Places, groups: Mapping[int, str], known: Registered) -> Places:
    """The places of new examples: that of the group if the store has one of it, be it deleted."""
    place_of: dict[str, tuple[int, int]] = {}
    for id_, (shard, slice_, _) in known.items():  # in the order of their registration
        if id_ in groups:
            place_of.setdefault(groups[id_], (shard, slice_))
    own = zip(places.shard.tolist(), places.slice.tolist(), strict=True)
    found = [place_of.get(groups.get(id_, ""), place) for id_, place in zip(ids.tolist(), own, strict=True)]
    return _places(found)


def _places(pairs: list[tuple[int, int]]) -> Places:
    return Places(*np.array(pairs, np.int32).reshape(-1, 2).T)


def _check_room(setup: Setup, known: Registered, new: Places) -> None:
    """Refuse more examples than the programs of a store have room for.

    Raises:
      ValueError: one line that says how many fit.
    """
    there = _places([(shard, slice_) for shard, slice_, deleted in known.values() if not deleted])
    count = arrangement.counts(there, setup.shards, setup.plan.slices)
    refused: list[tuple[int, int]] = []
    for place in zip(new.shard.tolist(), new.slice.tolist(), strict=True):
        if _has_room(setup, count[place[0]], place[1]):
            count[place] += 1
        else:
            refused.append(place)
    if refused:
        total, where = len(new.shard), "slice {1} of shard {0}".format(*refused[0])
        raise ValueError(
            f"{total - len(refused)} of {total} new examples fit: there is room for about as many as at the beginning, and "
            f"{where} is full; nothing was changed: make another store of all"
        )


def _has_room(setup: Setup, count: Sequence[int] | np.ndarray, slice_: int) -> bool:
    """Whether one more example fits into a slice of a shard and into every node that holds the slice."""
    size = setup.source.recipe.batch_size
    room = {shape.depth: shape.steps * size for shape in setup.shapes}
    holders = [node for node in setup.plan.nodes if slice_ in node]
    within = all(sum(int(count[s]) for s in node) < room[len(node)] for node in holders)
    return int(count[slice_]) < setup.shapes[0].capacity and within
