"""What exact unlearning needs of a model: a stack of frozen blocks, cut into slots that carry adapters.

Slots are allotted from the top down: slot 0 owns the topmost blocks and is trained first. Everything below the slot in
training is then purely pre-trained, a function of the backbone and of the example alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from s3t.training.adapters import Adapter, Lora, Slot, switched
from unlearn.losses import cross_entropy

Array = jax.Array
Tree = Any


class Backbone(NamedTuple):
    """A model as functions of its frozen parameters.

    Images and text are the same to it: x, y and h are pytrees of arrays [examples, ...].

    embed: (frozen, x, keys) -> h. keys: [examples] random keys, or None unless `random`; h holds masks and all that a block
      needs.
    block: (frozen, i, h, adapters) -> h, i static. adapters: {layer: Adapter} of this block, empty for the frozen block.
    head: (frozen, head_params, h) -> logits [examples, ...], of a classifier [examples, classes].
    init_head: key -> head_params.
    layers: for each block, its linear layers that may carry adapters: ((name, fan-in, fan-out), ...), names joined by '/'.
    random: whether embed draws from its keys, as augmentation does; then nothing may be cached.
    loss: (logits, y) -> [examples]; the cross-entropy of a classifier unless another is given. An example is a whole
      document: the mean over its tokens, under their weights in y, is taken here.
    classifies: whether outputs are logits of classes; else a prediction is told by its loss, and has no label.
    """

    embed: Callable[[Tree, Tree, Array | None], Tree]
    block: Callable[[Tree, int, Tree, dict[str, Adapter]], Tree]
    head: Callable[[Tree, Tree, Tree], Array]
    init_head: Callable[[Array], Tree]
    layers: tuple[tuple[tuple[str, int, int], ...], ...]
    random: bool = False
    loss: Callable[[Array, Tree], Array] = cross_entropy
    classifies: bool = True

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return len(self.layers)


def owned(depth: int, slots: int) -> tuple[range, ...]:
    """The consecutive blocks that each slot owns, slot 0 the topmost.

    With depth = q slots + r every slot owns q blocks, and each of the r topmost slots, which serve longest, one more.

    Raises:
      ValueError: more slots than blocks, or no slot.
    """
    if not 1 <= slots <= depth:
        raise ValueError(f"{depth} blocks cannot be cut into {slots} slots of whole blocks: choose 1 to {depth} slices")
    q, r = divmod(depth, slots)
    below = [depth - slot * q - min(slot, r) for slot in range(slots + 1)]
    return tuple(range(low, high) for high, low in itertools.pairwise(below))


def check_losses(losses: Array, examples: int) -> Array:
    """The losses of a batch, one number per example.

    Raises:
      ValueError: another shape; a loss per token averaged by the weights of examples would be wrong without a word.
    """
    if losses.shape != (examples,):
        raise ValueError(
            f"the backbone's loss has the shape {losses.shape} for {examples} examples: reduce it to one number per example"
        )
    return losses


def augmented(backbone: Backbone, augment: Callable[[Tree, Any], Tree]) -> Backbone:
    """The backbone on examples changed at random, `augment(one example, key) -> one example`; it cannot be cached."""

    def embed(frozen: Tree, x: Tree, keys: Array | None) -> Tree:
        return backbone.embed(frozen, jax.vmap(augment)(x, keys), keys)

    return backbone._replace(embed=embed, random=True)


def run_blocks(
    backbone: Backbone, frozen: Tree, h: Tree, blocks: range, adapters: dict[int, dict[str, Adapter]] | None = None
) -> Tree:
    """The given blocks in order; those without an entry in `adapters` run frozen."""
    for i in blocks:
        h = backbone.block(frozen, i, h, (adapters or {}).get(i, {}))
    return h


def by_block(
    lora: Lora, blocks: Sequence[range], slots: Sequence[Slot], active: Sequence[Array] | None = None
) -> dict[int, dict[str, Adapter]]:
    """The adapters of each block, ready for `run_blocks`.

    Args:
      lora: how slots act.
      blocks: what each slot owns, from `owned`.
      slots: parameters of the slots 0, 1, ...; there may be fewer than in `blocks`.
      active: a mask: for each slot a scalar that says whether it acts. All do if None.
    """
    switches = [None] * len(slots) if active is None else active
    return {
        i: adapters
        for own, slot, on in zip(blocks, slots, switches, strict=False)
        for i, adapters in zip(own, switched(lora, slot, on), strict=True)
    }


def forward(
    backbone: Backbone,
    frozen: Tree,
    x: Tree,
    lora: Lora,
    blocks: Sequence[range],
    slots: Sequence[Slot],
    head: Tree,
    active: Sequence[Array] | None = None,
) -> Array:
    """Logits [examples, ...] of the model that some slots and a head make of a backbone that draws no keys.

    A mask that switches a slot off needs the head of a shallower node too: the last head saw what the slot saw.
    """
    h = backbone.embed(frozen, x, None)
    h = run_blocks(backbone, frozen, h, range(backbone.depth), by_block(lora, blocks, slots, active))
    return backbone.head(frozen, head, h)
