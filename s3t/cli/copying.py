"""The commands about copies of a store: backup and restore."""

from __future__ import annotations

import argparse

from s3t.cli import arguments
from s3t.cli.texts import Result


def backup(args: argparse.Namespace) -> Result:
    """A copy of a store that others may use meanwhile."""
    from s3t.store import copies

    made = copies.back_up(args.store, args.destination, arguments.version())
    return {**made._asdict(), "files": len(made.files), "backup": args.destination}


def backup_lines(result: Result) -> list[str]:
    """A backup in words."""
    lines = [
        f"backup {result['backup']}: {result['files']} files of {result['time']}",
        f"head: {result['head']} after {result['rows']} rows",
        "it holds all who were not deleted before this head: after the next deletion take a new one and destroy this one",
    ]
    return lines


def restore(args: argparse.Namespace) -> Result:
    """A backup in a store's place."""
    from s3t.service import restoring

    chosen = {"replay": args.replay_deletions, "lose": args.lose_deletions}
    return restoring.restore(args.backup, args.store, args.expect_head, **chosen)


def restore_lines(result: Result) -> list[str]:
    """A restoration in words."""
    lines = [f"restored the backup of {result['taken']}"]
    lines += [f"moved what was there to {result['moved']}"] if result["moved"] else []
    for done in result["replayed"]:
        lines += [f"request {done['request']}: {done['ids']} examples deleted again, head {done['head']}"]
    lines += [f"head: {result['head']} after {result['rows']} rows"]
    return [*lines, *(f"warning: {warning}" for warning in result["warnings"])]
