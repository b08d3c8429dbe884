"""Low-rank adapters (LoRA, 2106.09685) as pytrees that can be switched off without a trace.

A slot is a tuple over the blocks it owns; each entry maps the names of adapted layers to two factors. It is a pytree of its
own: training differentiates with respect to it alone, so that no optimiser ever holds, decays or moves anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any
Layers = Sequence[tuple[str, int, int]]  # of one block: (name, fan-in, fan-out)


class Lora(NamedTuple):
    """How a slot is made and how it acts.

    rank: r.
    alpha: the strength.
    targets: layers to adapt, as names or parts of names; see `targeted`.
    rank_stabilised: scale by alpha / sqrt(r) (rsLoRA, 2312.03732), else by alpha / r.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    rank_stabilised: bool = True


class Factors(NamedTuple):
    """What is trained for one layer: a [fan-in, rank] and b [rank, fan-out]."""

    a: Array
    b: Array


class Adapter(NamedTuple):
    """What acts beside one layer: factors, the scale inside b, and a boolean scalar; without one they are always on."""

    a: Array
    b: Array
    on: Array | None


Slot = tuple[Mapping[str, Factors], ...]


def scale(lora: Lora) -> float:
    """The number that a slot's product is multiplied by."""
    return lora.alpha / (math.sqrt(lora.rank) if lora.rank_stabilised else lora.rank)


def targeted(lora: Lora, layers: Layers) -> tuple[tuple[str, int, int], ...]:
    """The layers of one block that the targets name.

    Names are compared by whole path components: a target hits the layers in whose path its components stand next to each
    other. 'query' and 'attention/query' hit 'attention/query'; 'dense_1' does not hit 'dense_10'.

    Raises:
      ValueError: a rank below 1, no target, or a target that hits nothing.
    """
    if lora.rank < 1 or not lora.targets:
        raise ValueError(f"an adapter needs a rank of at least 1 and a target, got {lora.rank} and {lora.targets}")
    for target in lora.targets:
        if not any(_hits(target, name) for name, *_ in layers):
            raise ValueError(f"no layer is called {target!r}: choose among {', '.join(name for name, *_ in layers)}")
    return tuple(layer for layer in layers if any(_hits(target, layer[0]) for target in lora.targets))


def _hits(target: str, name: str) -> bool:
    part, path = target.split("/"), name.split("/")
    return any(path[i : i + len(part)] == part for i in range(len(path) - len(part) + 1))


def init_slot(key: Array, lora: Lora, blocks: Sequence[Layers]) -> Slot:
    """A slot that changes nothing yet: a uniform within 1 / sqrt(fan-in) of 0, b zero.

    Args:
      key: of this draw alone.
      lora: rank and targets.
      blocks: the layers of each block that the slot owns.
    """
    slot = []
    for index, layers in enumerate(blocks):
        factors = {}
        for place, (name, fan_in, fan_out) in enumerate(targeted(lora, layers)):
            own, bound = jax.random.fold_in(jax.random.fold_in(key, index), place), 1 / math.sqrt(fan_in)
            a = jax.random.uniform(own, (fan_in, lora.rank), jnp.float32, -bound, bound)
            factors[name] = Factors(a, jnp.zeros((lora.rank, fan_out), jnp.float32))
        slot.append(factors)
    return tuple(slot)


def switched(lora: Lora, slot: Slot, on: Array | None = None) -> tuple[dict[str, Adapter], ...]:
    """The adapters of a slot's blocks, scaled; `on` is a boolean scalar, or None where nothing is ever off."""
    by = scale(lora)
    return tuple({name: Adapter(f.a, by * f.b, on) for name, f in block.items()} for block in slot)


def adapt(y: Array, x: Array, adapter: Adapter | None) -> Array:
    """A layer's output with its adapter: y + (x a) b, low-rank work beside the frozen product.

    An adapter that is off is not added as 0 (NaN times 0 is NaN, and -0.0 plus 0.0 is 0.0): y itself is selected.

    Args:
      y: [..., fan-out] what the frozen layer makes of x.
      x: [..., fan-in].
      adapter: None leaves y as it is.
    """
    if adapter is None:
        return y
    moved = y + (x @ adapter.a) @ adapter.b
    return moved if adapter.on is None else jnp.where(adapter.on, moved, y)


def select(condition: Array, yes: Tree, no: Tree) -> Tree:
    """One of two trees of equal structure, bit for bit, by a boolean scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
