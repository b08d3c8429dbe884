"""Nodes between training and a store: publishing what is missing, reading back what serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_map_with_path

from experiments import results, s3t_build
from experiments.s3t_bench import Build
from s3t import store as stores
from s3t.adapters import init_slot
from s3t.backbone import owned
from s3t.plan import Node, parent
from s3t.store import Store
from s3t.train import Slices, Trained

Nodes = dict[tuple[int, Node], Trained]


def train(
    build: Build,
    slices: Slices,
    kept: Nodes | None = None,
    done: Callable[[int, Node, Trained], None] = lambda shard, node, trained: None,
) -> tuple[Nodes, dict[int, float]]:
    """Train what is not kept, parents first.

    Args:
      build: what to train.
      slices: on which examples.
      kept: nodes of an earlier build that are still good.
      done: called with each node as soon as it is trained.

    Returns:
      every node, and the seconds of training by depth, without compilation.
    """
    nodes = dict(kept or {})
    have, seconds = dict(nodes), dict.fromkeys(range(1, 1 + build.setup.plan.slices), 0.0)
    with results.stopwatch() as clock:
        began = clock()
        for shard, node, trained in s3t_build.build(build.setup, slices, lambda *job: have.get(job)):
            seconds[len(node)] += max(clock() - began, 0.0)
            nodes[shard, node] = trained
            done(shard, node, trained)
            began = clock()
    return nodes, seconds


def fill(opened: Store, build: Build, slices: Slices) -> tuple[Nodes, dict[int, float], dict[int, int]]:
    """Train and publish what the store's plan lacks; what serves is never trained again.

    Returns:
      every node; and by depth the seconds of training, without compilation, and the number of nodes that were trained.
    """
    names, trained_nodes = _names(opened), dict.fromkeys(range(1, 1 + build.setup.plan.slices), 0)

    def publish(shard: int, node: Node, trained: Trained) -> None:
        drafted = stores.draft(opened, shard, node)
        stores.publish(opened, drafted, to_tensors(trained), _stack(build, node), names.get((shard, parent(node))))
        names[shard, node] = drafted.identity
        trained_nodes[len(node)] += 1

    nodes, seconds = train(build, slices, serving(opened, build), publish)
    return nodes, seconds, trained_nodes


def serving(opened: Store, build: Build) -> Nodes:
    """The nodes that serve, from their files."""
    return {
        (node.shard, node.slices): from_tensors(build, node.slices, stores.load(opened, node)[1])
        for node in stores.live(opened)
    }


def inherit(opened: Store, elder: Store) -> None:
    """Publish in one store what another has trained of the same examples, the same nodes by name."""
    names = _names(opened)
    for node in stores.live(elder):
        job = node.shard, node.slices
        if job not in names:
            certificate, tensors = stores.load(elder, node)
            drafted = stores.draft(opened, *job)
            stores.publish(opened, drafted, tensors, certificate.stack, names.get((node.shard, parent(node.slices))))
            names[job] = drafted.identity


def _names(opened: Store) -> dict[tuple[int, Node], str]:
    return {(node.shard, node.slices): node.identity for node in stores.live(opened)}


def _stack(build: Build, node: Node) -> dict[str, Any]:
    shape = build.setup.shapes[len(node) - 1]
    return {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "shape": dict(shape._asdict())}


# --- Files ------------------------------------------------------------------------------------------------------------


def to_tensors(trained: Trained) -> dict[str, np.ndarray]:
    """A node's arrays by their paths in the tree."""
    return {_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(trained)}


def _name(path: tuple[Any, ...]) -> str:
    return keystr(path, simple=True, separator="/")


def from_tensors(build: Build, node: Node, tensors: dict[str, np.ndarray]) -> Trained:
    """A node from its arrays."""
    return tree_map_with_path(lambda path, _: tensors[_name(path)], _like(build, node))


def _like(build: Build, node: Node) -> Any:
    """The structure of a node of this depth."""
    backbone, recipe = build.setup.backbone, build.setup.recipe
    blocks = owned(backbone.depth, build.setup.plan.slices)[len(node) - 1]

    def made(key: jax.Array) -> Trained:
        slot = init_slot(key, recipe.lora, [backbone.layers[i] for i in blocks])
        return Trained(slot, backbone.init_head(key), jnp.zeros(recipe.epochs))

    return jax.eval_shape(made, jax.random.key(0))


def label(job: tuple[int, Node]) -> str:
    """A shard and a node of it as the name of an array: 0:1-3-2."""
    return f"{job[0]}:{'-'.join(map(str, job[1]))}"


def job_of(text: str) -> tuple[int, Node]:
    """The shard and node that `label` named."""
    shard, node = text.split(":")
    return int(shard), tuple(map(int, node.split("-")))
