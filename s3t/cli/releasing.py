"""The command that lets a store out: release."""

from __future__ import annotations

import argparse

from s3t.cli.devices import check_device
from s3t.cli.texts import Result


def release(args: argparse.Namespace) -> Result:
    """Every claim about a store, each with a verdict; nothing is changed."""
    from s3t.service import factory
    from s3t.service.release import release
    from s3t.store import disk

    check_device()
    store = disk.look(args.store, read_only=True)
    result = release(store, factory.source_for(store, args.arguments, args.trust_factory), args.replay, args.expect_head)
    disk.close(store)
    return result
