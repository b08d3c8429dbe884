"""What a store was built from: the content of its manifest, which never changes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from s3t.plans.structure import Node, Plan, make_plan
from s3t.store import certificates


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
    if manifest.shards < 1:
        raise ValueError(f"a store needs at least 1 shard, got {manifest.shards}")
    sizes = ("shards", "slices", "capacity", "steps", "lanes")
    for shape in manifest.hyper.get("shapes", []):
        if wrong := [name for name in sizes if type(shape[name]) is not int or shape[name] < 1]:
            raise ValueError(f"a program's {wrong[0]} is {shape[wrong[0]]}: give the source whole numbers above 0")
    if plan_of(manifest).nodes != manifest.nodes:
        raise ValueError("the manifest's nodes are not those of a plan: give plan.nodes")
    module, _, function = manifest.factory.partition(":")
    if not module or not function:
        raise ValueError(f"a factory is named module:function, got {manifest.factory!r}")
    return manifest


def parse(text: bytes, where: object) -> Manifest:
    """The manifest of a store from its file.

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


def digest_of(text: bytes) -> str:
    """What the ledger's first row holds of the manifest's file."""
    return certificates.digest("manifest", text.decode(errors="surrogateescape"))  # a damaged one has a digest too
