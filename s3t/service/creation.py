"""Making a store: its manifest and its examples, without nodes yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from s3t.plans.structure import Plan
from s3t.service.inputs import root_key
from s3t.store import disk, manifests
from s3t.store.disk import Store
from s3t.store.ledger import records, registry
from s3t.store.manifests import Manifest
from s3t.training import arrangement, schedule
from s3t.training.adapters import init_slot
from s3t.training.backbone import check_losses, run_blocks
from s3t.training.source import Placing, Source, placed
from unlearn import tree

Tree = Any


def make_store(
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
      ValueError: no example; ids that cannot be keys; a plan with more slices than the model has blocks, or of more nodes
        than a store may have; a directory that holds something; a recipe or a seed that nothing can be trained with.
        Nothing is made then.
    """
    check_trainable(source, root_key(seed))
    manifests.check_places(shards, plan.nodes)
    placing = source.placing()
    places = placed(source, shards, plan.slices, key, placing)
    labels_of(source, placing)  # refused before there is a store
    shapes = schedule.make_shapes(source, plan, arrangement.counts(places, shards, plan.slices))
    hyper = {"source": source.hyper, "shapes": [shape._asdict() for shape in shapes]}
    manifest = Manifest(
        factory=factory,
        arguments=dict(arguments or {}),
        backbone=tree.digest(source.frozen),
        hyper=hyper,
        root_key=seed,
        shards=shards,
        slices=plan.slices,
        nodes=plan.nodes,
        partition_key=key.hex(),
    )
    store = disk.create(root, manifest)
    ensure_examples(store, source)
    return store


def check_trainable(source: Source, key: jax.Array) -> None:
    """Trace the beginning of a training, so that a recipe that cannot train fails before there is a store.

    Raises:
      ValueError: no example, or ids that cannot be keys; it cannot train, or the backbone's loss does not give one number
        per example.
    """
    arrangement.check_ids(source.ids)
    if not len(source.ids):
        raise ValueError("the data set has no training example: check the factory's arguments")
    backbone, recipe = source.backbone, source.recipe
    if source.most_lanes < 1:
        raise ValueError(f"most_lanes is {source.most_lanes}: give the source a whole number from 1 on")
    if recipe.batch_size < 1 or recipe.epochs < 1:
        raise ValueError(f"batches of {recipe.batch_size} in {recipe.epochs} epochs train nothing: give 1 or more of both")

    def start(key: jax.Array, steps: jax.Array, frozen: Tree, x: Tree, y: Tree) -> Any:
        part = init_slot(key, recipe.lora, backbone.layers), backbone.init_head(key)
        optimizer = recipe.optimizer(steps)
        h = backbone.embed(frozen, x, jax.random.split(key, 1) if backbone.random else None)
        logits = backbone.head(frozen, part[1], run_blocks(backbone, frozen, h, range(backbone.depth)))
        return optimizer.update(part, optimizer.init(part), part), check_losses(backbone.loss(logits, y), 1)

    jax.eval_shape(start, key, np.int32(1), source.frozen, *source.fetch(source.ids[:1]))


def ensure_examples(store: Store, source: Source) -> None:
    """Take in the source's examples, at the places that the partition's key gives them, unless the store has examples."""
    if records.counts(store.ledger)["examples"]:
        return
    manifest = store.manifest
    placing = source.placing()
    places = placed(source, manifest.shards, manifest.slices, bytes.fromhex(manifest.partition_key), placing)
    try:
        disk.register(store, source.ids, places.shard, places.slice, labels_of(source, placing))
    except ValueError:
        if not records.counts(store.ledger)["examples"]:
            raise  # else another process that continues this store was quicker


def labels_of(source: Source, placing: Placing) -> dict[str, dict[int, str]]:
    """What a source's examples are called beside their ids, by kind.

    Raises:
      ValueError: two of one kind that are written alike.
    """
    groups = {} if placing.groups is None else registry.group_labels(source.ids, placing.groups)
    names = {} if source.names is None else registry.name_labels(source.ids, source.names)
    return {registry.GROUPS: groups, registry.NAMES: names}
