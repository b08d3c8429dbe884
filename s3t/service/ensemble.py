"""The ensemble of survivors: nodes side by side in banks, and tables that say which of them are its members.

Which nodes serve is data, not part of a program: a bank has a row for every node of the plan, a table names the rows of
each member, and a mask selects how deep it goes. Deletions, purges and heals rewrite rows and tables and compile nothing.

The nodes of a shard that answer are its deepest live one, or with "all" every live one without a live child. Between nodes
of one depth the first in the plan's order is taken, by slice numbers, as `s3t.plans.structure.served` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s3t.plans.structure import Node, Plan, parent, sequences
from s3t.training.adapters import Lora, Slot, init_slot, select
from s3t.training.arrangement import HostOrDevice
from s3t.training.backbone import Backbone, forward, owned

Array = jax.Array
Tree = Any

AGGREGATES = ("mean", "depth", "all")


class Part(NamedTuple):
    """What a node owns and answers with: its slot and its snapshot of the head."""

    slot: Slot
    head: Tree


Bank = tuple[Part, ...]  # of each depth, 1 first, the parts of its nodes, leaves [rows, ...]; a row of no node is 0


class Table(NamedTuple):
    """Which rows of a bank make up the members of an ensemble.

    rows: [members, depths] int32, the row of each slot in the bank of its depth.
    active: [members, depths] bool, true down to the member's depth.
    weight: [members] float32 of the member's logits; 0 where there is no member.
    """

    rows: HostOrDevice
    active: HostOrDevice
    weight: HostOrDevice


# --- Banks ------------------------------------------------------------------------------------------------------------


def part_shapes(backbone: Backbone, lora: Lora, plan: Plan) -> tuple[Part, ...]:
    """Shapes and types of what a node of each depth owns, depth 1 first."""

    def make(key: Array, own: range) -> Part:
        return Part(init_slot(key, lora, [backbone.layers[i] for i in own]), backbone.init_head(key))

    blocks = owned(backbone.depth, plan.slices)[: len(plan.nodes[-1])]
    return tuple(jax.eval_shape(functools.partial(make, own=own), jax.random.key(0)) for own in blocks)


def make_bank(shapes: Sequence[Part], rows: Sequence[int]) -> Bank:
    """A bank without nodes.

    Args:
      shapes: from `part_shapes`.
      rows: room for nodes at each depth.
    """
    bank = []
    for shape, room in zip(shapes, rows, strict=True):
        held = jax.tree.map(lambda leaf, room=room: jnp.zeros((room, *leaf.shape), leaf.dtype), shape)
        bank.append(put(held, 0, blank(shape)))  # compiles what every later change of a row runs
    return tuple(bank)


def blank(shape: Part) -> Part:
    """Zeros, to overwrite a row with."""
    zeros: Part = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape)
    return zeros


@functools.partial(jax.jit, donate_argnums=0)
def put(held: Part, row: int, part: Part) -> Part:
    """Overwrite a row of one depth's bank in place: the bank that is given is used up, what was in the row is gone."""
    overwritten: Part = jax.tree.map(lambda leaf, new: leaf.at[row].set(new), held, part)
    return overwritten


# --- Members ---------------------------------------------------------------------------------------------------------


def answering(plan: Plan, live: Collection[Node], aggregate: str) -> tuple[Node, ...]:
    """The nodes of one shard that answer, in the plan's order; none if none lives.

    Args:
      plan: the plan.
      live: a parent-closed set of its nodes.
      aggregate: one of AGGREGATES.
    """
    nodes = [node for node in plan.nodes if node in live]
    if aggregate == "all":
        parents = {parent(node) for node in nodes}
        return tuple(node for node in nodes if node not in parents)
    deepest = max(nodes, key=len, default=None)
    return () if deepest is None else (deepest,)


def make_table(plan: Plan, chains: Sequence[Mapping[Node, Sequence[int]]], aggregate: str) -> Table:
    """The ensemble of all shards.

    The weights of a shard's logits are 1 ("mean": the mean over the shards that have a model), the depth served ("depth"),
    or 1 divided among its nodes ("all"). A shard without a model has no member. The form of the table depends on the plan,
    the number of shards and the aggregate alone: no shard has more live leaves than its plan has.

    Args:
      plan: of every shard.
      chains: for each shard its live nodes, each with its row and those of its ancestors, depth 1 first.
      aggregate: one of AGGREGATES.

    Raises:
      ValueError: another aggregate.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(f"an aggregate is one of {', '.join(AGGREGATES)}, got {aggregate!r}")
    room = len(sequences(plan)) if aggregate == "all" else 1
    form = (len(chains) * room, len(plan.nodes[-1]))
    table = Table(np.zeros(form, np.int32), np.zeros(form, bool), np.zeros(form[:1], np.float32))
    for shard, family in enumerate(chains):
        nodes = answering(plan, family.keys(), aggregate)
        for member, node in enumerate(nodes, shard * room):
            table.rows[member, : len(node)] = family[node]
            table.active[member, : len(node)] = True
            table.weight[member] = {"mean": 1, "depth": len(node), "all": 1 / len(nodes)}[aggregate]
    return table


# --- The program ------------------------------------------------------------------------------------------------------


def make_ensemble(backbone: Backbone, lora: Lora, slices: int) -> Callable[[Tree, Tree, Bank, Table], Array]:
    """A compiled function (frozen, x, bank, table) -> logits [examples, ...] of the ensemble.

    With l_k the logits of member k and w_k its weight: sum_k w_k l_k / sum_k w_k over the members with w_k > 0. A member's
    slots below its depth are not multiplied by 0, the frozen layers' output is selected; so are its head, that of its own
    depth, and the members that are there. Blocks below all slots run once for all members.

    Args:
      backbone: one that draws no keys.
      lora: how slots act.
      slices: L.

    Raises:
      ValueError: a backbone that draws keys.
    """
    if backbone.random:
        raise ValueError("a backbone that draws random keys cannot serve: give it without its augmentation")
    blocks = owned(backbone.depth, slices)

    def logits_of(frozen: Tree, x: Tree, bank: Bank, rows: Array, active: Array) -> Array:
        parts = [jax.tree.map(lambda leaf, row=row: leaf[row], held) for held, row in zip(bank, rows, strict=True)]
        head = parts[0].head
        for on, part in zip(active[1:], parts[1:], strict=True):
            head = select(on, part.head, head)
        return forward(backbone, frozen, x, lora, blocks, [part.slot for part in parts], head, list(active))

    def run(frozen: Tree, x: Tree, bank: Bank, table: Table) -> Array:
        rows, active, weight = map(jnp.asarray, table)
        logits = jax.vmap(logits_of, (None, None, None, 0, 0))(frozen, x, bank, rows, active)
        of_member = weight.reshape(-1, *[1] * (logits.ndim - 1))
        return jnp.sum(jnp.where(of_member > 0, of_member * logits, 0.0), axis=0) / jnp.sum(weight)

    return jax.jit(run)
