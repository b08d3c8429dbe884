"""The commands about a store that exists: delete and verify.

Libraries are imported where they are used: a process that only deletes must start at once, so it imports no jax.
"""

from __future__ import annotations

import argparse
import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from s3t.cli import terminal
from s3t.cli.texts import Result

if TYPE_CHECKING:
    from s3t.store.signatures import Sign


def delete(args: argparse.Namespace) -> Result:
    """A durable deletion, in force for every process that serves the store."""
    from s3t.store import disk, documents
    from s3t.store.ledger import registry

    if not args.ids and not args.groups:
        raise ValueError("delete whom? give --ids or --groups")
    sign = signer(args)  # first: what cannot be signed should not be done
    store = disk.look(args.store)  # the purge of earlier deletions must not keep this one waiting
    result = disk.delete(store, registry.typed(store.ledger, args.ids), args.request_id, args.groups)
    if sign and result.get("redacted"):  # what a receipt would say of no ids is not what was done
        result["no_receipt"] = "its ids are redacted, so that the receipt of the deletion itself is the one to keep"
    elif sign and result.get("ok", True):
        result["receipt"] = documents.receipt(store, result, sign)
    disk.close(store)
    return result


def signer(args: argparse.Namespace) -> Sign | None:
    """What signs with the key that the user named, if any."""
    from s3t.store import signatures

    return signatures.signer(Path(args.key)) if args.key else None


def acknowledge(args: argparse.Namespace, result: Result, text: str) -> None:
    """Acknowledge a deletion, then purge, which the caller need not wait for.

    Raises:
      BrokenPipeError: all is done, but nobody read the answer.
      ValueError: one of the two failed; the deletion stands.
    """
    from s3t.store import disk

    def purge() -> None:
        disk.close(disk.open(args.store))

    steps: dict[str, Callable[[], None]] = {
        "the answer could not be written": functools.partial(terminal.write, text),
        "the purge is still to be done": purge,
    }
    errors: dict[str, Exception] = {}
    for failure, step in steps.items():
        try:
            step()
        except (ValueError, OSError, sqlite3.Error) as error:
            errors[failure] = error
    if [type(error) for error in errors.values()] == [BrokenPipeError]:
        raise BrokenPipeError
    if errors:
        done = "deleted" if result["ids"] or result.get("redacted") else "nothing to delete"
        reasons = "; ".join(f"{failure}: {error}" for failure, error in errors.items())
        later = f"; then run python -m s3t purge --store {args.store}" * ("the purge is still to be done" in errors)
        raise ValueError(f"{done} (request {result['request']}), but {reasons}{later}")


def verify(args: argparse.Namespace) -> Result:
    """Proof from the ledger and the certificates, and by training anew; nothing is changed."""
    from s3t.service.verify import verify
    from s3t.store import claims, disk, documents
    from s3t.store.ledger import registry

    if args.key and not args.prove:
        raise ValueError("--key signs proofs: give --prove, too, or leave it out")
    sign = signer(args)
    result = verify(args.store, *args.expect_head)
    if args.prove and result["ok"]:  # certificates that are not those that were published prove nothing
        store = disk.look(args.store, read_only=True)
        result["proofs"] = documents.prove(store, registry.known(store.ledger, args.prove), sign)
        disk.close(store)
    if args.replay is None or "nodes" not in result:  # without a whole ledger there is nothing to train from
        return result
    replayed = _replay(args)
    problems = list(dict.fromkeys([*result["problems"], *replayed["problems"]]))
    verdict = replayed["verdict"] if result["ok"] else claims.REFUTED
    return {**result, "ok": verdict == claims.PROVED, "verdict": verdict, "problems": problems, "replay": replayed}


def _replay(args: argparse.Namespace) -> Result:
    """Train nodes once more and compare their bytes."""
    from s3t.cli.devices import check_device
    from s3t.service import factory, replay
    from s3t.store import disk

    check_device()
    store = disk.look(args.store, read_only=True)
    result = replay.replay(store, factory.source_for(store, args.arguments, args.trust_factory), args.replay)
    disk.close(store)
    return result
