"""What a store was built from: the content of its manifest, which never changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from s3t.plans.structure import Node, Plan, make_plan
from s3t.store import certificates

MOST_BYTES = 1 << 24  # of a manifest's file
MOST = 1 << 20  # shards, slices
MOST_PLACES = 1 << 21  # nodes of all shards together; whoever lists what is missing holds them all
SIZES = ("shards", "slices", "capacity", "steps", "lanes")  # of a program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store was built from.

    factory: `module:function` that makes model and data.
    arguments: its keyword arguments, a JSON object; where things lie, not what is trained.
    backbone: digest of the frozen parameters.
    hyper: hyper-parameters, a JSON object; part of every node's identity.
    root_key: seed of every random draw.
    shards: m, models of the ensemble.
    slices: L, slices of a shard.
    nodes: the plan of every shard.
    partition_key: the key that places examples, in hexadecimal digits; a secret.
    """

    factory: str
    arguments: dict[str, Any]
    backbone: str
    hyper: dict[str, Any]
    root_key: int
    shards: int
    slices: int
    nodes: tuple[Node, ...]
    partition_key: str


def checked(manifest: Manifest) -> Manifest:
    """The manifest itself.

    Raises:
      ValueError: one that cannot be.
    """
    if wrong := [what for what, holds in _rules(manifest) if not holds]:
        raise ValueError(f"a manifest's {wrong[0]}")
    for shape in manifest.hyper.get("shapes", []):
        if wrong := [name for name in SIZES if not _whole(shape.get(name), 1, 1 << 31)]:
            raise ValueError(
                f"a program's {wrong[0]} is {shape.get(wrong[0])!r:.40}: give the source whole numbers from 1 to 2^31 - 1"
            )
        if not _whole(shape.get("depth", 1), 1, manifest.slices + 1):
            raise ValueError(f"a program's depth is {shape['depth']!r:.40}: give one from 1 to the number of slices")
    check_places(manifest.shards, manifest.nodes)
    if plan_of(manifest).nodes != manifest.nodes:
        raise ValueError("the manifest's nodes are not those of a plan: give plan.nodes")
    return manifest


def check_places(shards: int, nodes: Sequence[Node]) -> None:
    """Refuse a store of more nodes than can be listed.

    Raises:
      ValueError: it has.
    """
    if shards * len(nodes) > MOST_PLACES:
        raise ValueError(
            f"a manifest's plan of {len(nodes)} nodes in {shards} shards has {shards * len(nodes)} places, the most are "
            f"{MOST_PLACES}: give fewer shards or a smaller plan"
        )


def _rules(manifest: Manifest) -> list[tuple[str, bool]]:
    """What must hold of each field before any other is looked at, in words."""
    hyper = manifest.hyper if isinstance(manifest.hyper, dict) else {}
    shapes = hyper.get("shapes", [])
    return [
        ("factory is named module:function", is_factory(manifest.factory)),
        ("arguments are a JSON object", isinstance(manifest.arguments, dict)),
        ("backbone is a text", isinstance(manifest.backbone, str)),
        ("hyper is a JSON object", isinstance(manifest.hyper, dict)),
        ("hyper.source is a JSON object", isinstance(hyper.get("source", {}), dict)),
        ("hyper.shapes are JSON objects", isinstance(shapes, list) and all(isinstance(shape, dict) for shape in shapes)),
        ("root_key is a whole number from 0 to 2^32 - 1", _whole(manifest.root_key, 0, 1 << 32)),
        (f"shards are at least 1 shard and at most {MOST}", _whole(manifest.shards, 1, MOST + 1)),
        (f"slices are at least 1 slice and at most {MOST}", _whole(manifest.slices, 1, MOST + 1)),
        ("nodes are lists of slice numbers", _nodes(manifest.nodes)),
        ("partition_key is 1 to 64 bytes in hexadecimal digits", _key(manifest.partition_key)),
    ]


def is_factory(name: Any) -> bool:
    """Whether it is a text module:function."""
    module, colon, function = name.partition(":") if isinstance(name, str) else ("", "", "")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *function.split(".")])


def _whole(value: Any, low: int, end: int) -> bool:
    return type(value) is int and low <= value < end


def _nodes(nodes: Any) -> bool:
    return bool(nodes) and all(
        isinstance(node, tuple) and bool(node) and all(_whole(number, 0, MOST) for number in node) for node in nodes
    )


def _key(text: Any) -> bool:
    try:
        return 1 <= len(bytes.fromhex(text)) <= 64
    except (TypeError, ValueError):
        return False


def parse(text: bytes, where: object) -> Manifest:
    """The manifest of a store from its file, not `checked` yet.

    Args:
      text: the file's content.
      where: the file's path, for the message that it is damaged.

    Raises:
      ValueError: it is not one.
    """
    try:
        fields = json.loads(text)
        return Manifest(**{**fields, "nodes": tuple(tuple(node) for node in fields["nodes"])})
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(f"{where} is not a manifest of a store: restore it from a copy") from None


def plan_of(manifest: Manifest) -> Plan:
    """The plan of every shard."""
    return make_plan(manifest.slices, manifest.nodes)


def key_of(manifest: Manifest) -> bytes:
    """The store's secret: it places examples, and marks those that are forgotten."""
    return bytes.fromhex(manifest.partition_key)


def digest_of(text: bytes) -> str:
    """What the ledger's first row holds of the manifest's file."""
    return certificates.digest("manifest", text.decode(errors="surrogateescape"))  # a damaged one has a digest too
