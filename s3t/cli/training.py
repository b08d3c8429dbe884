"""The commands that train: train and heal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from s3t.cli.devices import check_device
from s3t.cli.planning import make_plan
from s3t.cli.texts import Result

if TYPE_CHECKING:
    from s3t.store.disk import Store
    from s3t.store.manifests import Manifest
    from s3t.store.publishing import Draft

KEY_BYTES = 32  # of a new store's partition key


def train(args: argparse.Namespace) -> Result:
    """Create the store if there is none, and train what is missing."""
    from s3t.store import disk

    check_device()
    if not disk.exists(args.store):
        return train_missing(new_store(args), args)
    store = disk.look(args.store)
    check_as_made(store.manifest, args)
    return train_missing(store, args)


def heal(args: argparse.Namespace) -> Result:
    """Train anew what deletions took away."""
    from s3t.store import disk

    check_device()
    return train_missing(disk.look(args.store), args)


def new_store(args: argparse.Namespace) -> Store:
    """A new store, as the arguments describe it."""
    lacking = [f"--{name}" for name in ("factory", "planner", "slices", "shards") if getattr(args, name) is None]
    if lacking:
        raise ValueError(f"there is no store at {args.store}; to make one, give {' and '.join(lacking)}")
    from s3t.service import creation, factory

    source = factory.source_of(args.factory, args.hyper or {}, args.arguments)
    key = os.urandom(KEY_BYTES)
    origin = {"factory": args.factory, "arguments": args.arguments}
    return creation.make_store(args.store, source, make_plan(args), args.shards, args.seed or 0, key, **origin)


def check_as_made(manifest: Manifest, args: argparse.Namespace) -> None:
    """Refuse to go on with a store that was made otherwise than asked for now; what is left out is as it was made."""
    from s3t.service import factory

    hyper = factory.source_hyper(manifest)
    as_made = {
        "factory": manifest.factory,
        "slices": manifest.slices,
        "shards": manifest.shards,
        "seed": manifest.root_key,
        "hyper": args.hyper and {name: hyper.get(name) for name in args.hyper},
    }
    for name, value in as_made.items():
        if getattr(args, name) not in (None, value):
            raise ValueError(
                f"the store was made with another --{name} ({value}): leave it out or choose another directory"
            )
    described = [f"--{name}" for name in ("planner", "budget", "prior") if getattr(args, name) is not None]
    lacking = [f"--{name}" for name in ("planner", "slices") if getattr(args, name) is None]
    if described and lacking:  # the manifest holds the plan alone, not what it was made from
        raise ValueError(f"{described[0]} says nothing without {' and '.join(lacking)}: give that too, or leave both out")
    if args.planner and make_plan(args).nodes != manifest.nodes:
        raise ValueError(f"made for another plan: leave {' and '.join(described)} out or choose another directory")


def train_missing(store: Store, args: argparse.Namespace) -> Result:
    """Train what a store misses; its status then."""
    from s3t.service import appending, creation, factory, healing
    from s3t.store import disk, state

    named = [args.factory] if getattr(args, "factory", None) else []  # by the user, in this command
    source = factory.source_for(store, args.arguments, [*args.trust_factory, *named])
    creation.ensure_examples(store, source)  # if the store's creation was killed before it
    taken = {"appended": appending.append(store, source)} if getattr(args, "append", False) else {}
    work = healing.heal(store, source, report=(lambda draft: None) if args.json else show)
    new = len(appending.newcomers_of(store, source))
    result = {**state.status(store), **work, **taken, "new": new}
    if new:
        result["notes"] = [
            *result["notes"],
            f"{new} new examples of the data are not in the store: train --append takes them in",
        ]
    disk.close(store)
    return result


def show(draft: Draft) -> None:
    """Say that a node serves."""
    slices = " ".join(map(str, draft.slices))
    print(f"shard {draft.shard}: {slices} ({len(draft.ids)} examples)", file=sys.stderr, flush=True)
