"""What a store's factory returns: the model, the recipe and the data of a build; and nodes as named arrays.

A manifest names its factory as `module:function` and holds two JSON objects for it. The function is called as
`make(hyper, **arguments)`: hyper decides bytes and is part of every node's identity, arguments say where things lie and may
differ from machine to machine. `python -m s3t` resolves the name; nothing else does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s3t.plans.partition import Bands, Id, Places, assign
from s3t.training.adapters import Lora, init_slot
from s3t.training.backbone import Backbone, owned
from s3t.training.stages import Lanes, Recipe, Trained

Tree = Any
Fetch = Callable[[np.ndarray], tuple[Tree, Tree]]
Turns = Callable[[Sequence[Callable[[], Any]]], Iterator[Any]]


def no_split(name: str) -> tuple[np.ndarray, Fetch]:
    """The splits of a factory that gives training examples alone."""
    raise ValueError(f"the store's factory has no split {name!r}: ask for examples by their ids")


def one_by_one(calls: Sequence[Callable[[], Any]]) -> Iterator[Any]:
    """What some calls give, each made as it is asked for."""
    return (call() for call in calls)


class Placing(NamedTuple):
    """What decides the slice of an example beside the hash of its id, see `partition.assign`; the ledger keeps the outcome.

    groups: [examples], examples of one group share a slice; or None.
    risks: [examples] probabilities of being deleted, with the `bands` of slices that they open; or None.
    """

    groups: Sequence[Id | None] | None = None
    risks: Sequence[float] | None = None
    bands: Bands | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """All that a store's nodes are made from, save the shapes of the programs, which the manifest holds.

    What `fetch` gives of an example must depend on that example alone: moments of the data set would carry what is deleted.

    backbone: the model.
    frozen: its pre-trained parameters.
    recipe: how every node is trained.
    ids: [examples] integers from 0 to 2^32 - 1, ascending: every training example that the data set holds.
    fetch: ids [n] -> (x, y), pytrees of [n, ...], y of a classifier [n] int32; a ValueError of one line for an id that the
      data set lacks.
    hyper: the JSON object that the factory was called with, defaults filled in: with it `make` gives this recipe again.
    most_lanes: nodes that one program trains at once, at most; see `schedule.make_shapes`.
    cache_bytes: device memory for the activations of one depth.
    devices: the number that lanes divide among.
    place: puts lanes on devices.
    split: name, such as "test" -> (ids, fetch) of examples to predict; a ValueError of one line for one that is not there.
    placing: how to place the examples, asked when a store is made.
    lane_bytes: device memory for all that a program's lanes take beyond the data and the backbone; 0 is no limit.
    names: [examples] what people call each example beside its id, None for one that has no name; or None.
    turns: calls of programs that do not need each other -> what each gives, in their order. Of processes that share a build
      each makes some; by itself this process makes all, one by one.
    """

    backbone: Backbone
    frozen: Tree
    recipe: Recipe
    ids: np.ndarray
    fetch: Fetch
    hyper: dict[str, Any]
    most_lanes: int
    cache_bytes: int
    devices: int = 1
    place: Callable[[Lanes], Lanes] = lambda lanes: lanes
    split: Callable[[str], tuple[np.ndarray, Fetch]] = no_split
    placing: Callable[[], Placing] = Placing
    lane_bytes: int = 0
    names: Sequence[str | None] | None = None
    turns: Turns = one_by_one


def placed(source: Source, shards: int, slices: int, key: bytes, placing: Placing | None = None) -> Places:
    """Where a source's examples belong.

    Args:
      source: whose examples.
      shards: m.
      slices: L.
      key: places examples.
      placing: what `source.placing` gives, if it was asked before.

    Raises:
      ValueError: see `partition.assign`.
    """
    return assign(source.ids, shards, slices, key, **(placing or source.placing())._asdict())


def to_tensors(trained: Trained) -> dict[str, np.ndarray]:
    """What a node owns as named arrays: `slot/<block of the slot>/<layer>/a`, `head/...`, `losses`."""
    leaves = jax.tree_util.tree_flatten_with_path(trained._asdict())[0]
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def from_tensors(backbone: Backbone, lora: Lora, slices: int, depth: int, tensors: Mapping[str, np.ndarray]) -> Trained:
    """A node read back.

    Args:
      backbone: the model.
      lora: of the recipe.
      slices: L.
      depth: of the node.
      tensors: from `to_tensors`.

    Raises:
      ValueError: arrays of another model.
    """
    own = owned(backbone.depth, slices)[depth - 1]

    def start(key: jax.Array) -> dict[str, Tree]:
        return {
            "slot": init_slot(key, lora, [backbone.layers[i] for i in own]),
            "head": backbone.init_head(key),
            "losses": np.zeros(np.shape(tensors.get("losses", ())), np.float32),
        }

    leaves, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(start, jax.random.key(0)))
    expected = {_name(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}
    if expected != {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}:
        raise ValueError("the arrays are not those of a node of this model: take the factory that the store was made with")
    return Trained(**jax.tree_util.tree_unflatten(structure, [tensors[_name(path)] for path, _ in leaves]))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
