"""Proof from what a store holds: nothing that serves was trained on a deleted example, and the record is whole."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from s3t.store import certificates, disk, manifests, publishing
from s3t.store.certificates import Certificate
from s3t.store.disk import Store
from s3t.store.ledger import audit, database, records
from s3t.store.ledger.database import Ledger


def verify(root: Path | str, *expect_heads: str) -> dict[str, Any]:
    """Prove from the ledger and the certificates that no served node holds a deleted id, and that nothing was altered.

    Nothing is changed, and no writer has to wait. The tree of ids of each node is built anew from the ledger's examples.

    Args:
      root: directory of the store.
      expect_heads: heads that the ledger had, from earlier answers; they must be in the chain still.

    Returns:
      ok; problems, one line each; and what was looked at: nodes, examples, deleted, requests, leftovers, rows, head.

    Raises:
      ValueError: there is no store, or its ledger is whole for all that is known but out of reach here or now.
    """
    root = Path(root).absolute()
    text, path = disk.manifest_text(root), root / disk.LEDGER
    try:
        with closing(database.open_ledger(path, read_only=True)) as ledger:
            return _verify(root, text, ledger, expect_heads)
    except database.Damaged as error:
        return {"ok": False, "problems": [str(error)]}


def _verify(root: Path, text: bytes, ledger: Ledger, expect_heads: Iterable[str]) -> dict[str, Any]:
    faults: list[tuple[str, str]] = []
    seen: dict[str, Any] = {}
    with database.reading(ledger):  # one snapshot
        rows, head = database.head(ledger)
        problems = audit.audit(ledger, manifests.digest_of(text), *expect_heads, key=_key_in(text))
        if not problems:  # else there is nothing to hold the nodes against
            store = Store(root, manifests.checked(manifests.parse(text, root / disk.MANIFEST)), ledger)
            problems = audit.misplaced(ledger, store.manifest)
        if not problems:
            nodes = publishing.live(store)
            faults = [fault for shard in range(store.manifest.shards) for fault in _faults(store, nodes, shard)]
            left = disk.leftovers(store, publishing.identities(nodes))
            seen = {"nodes": len(nodes), **records.counts(ledger), "leftovers": len(left)}
            problems += [
                f"node {name} was purged, but its file is there"
                for name in records.purged_identities(ledger)
                if disk.file_of(store, name).exists()
            ]
    if faults:  # a node that was dropped meanwhile may have lost its file
        serving = set(publishing.identities(publishing.live(store)))
        problems += [f"node {name}: {fault}" for name, fault in faults if name in serving]
    return {"ok": not problems, "problems": problems, **seen, "rows": rows, "head": head}


def _key_in(text: bytes) -> bytes:
    """The secret in the file of a manifest; of one that is damaged, which the audit finds itself, none."""
    try:
        return manifests.key_of(manifests.parse(text, disk.MANIFEST))
    except (TypeError, ValueError):
        return b""


def _faults(store: Store, nodes: Iterable[records.PublishedNode], shard: int) -> list[tuple[str, str]]:
    """(identity, what is wrong) of the nodes of one shard."""
    examples = records.shard_ids(store.ledger, shard)
    deleted_ids = {id_ for id_, _, _, deleted in examples if deleted is not None}
    family = [node for node in nodes if node.shard == shard]
    parents = {(node.slices, node.certificate) for node in family} | {((), None)}
    faults = []
    for node in family:
        try:
            certificate = publishing.check(store, node)
        except ValueError as error:
            faults.append((node.identity, str(error)))
            continue
        held = records.held_by(examples, node)
        claims = {
            "was made otherwise than the manifest says": _as_the_manifest_says(store, node, certificate),
            "does not bear the name of its certificate": certificates.identity_of(certificate) == node.identity,
            "was not trained on the ids that the ledger has for it": certificate.examples == len(held)
            and certificate.ids_root == certificates.merkle_root(held),
            "holds a deleted id": deleted_ids.isdisjoint(held),
            "has no serving parent": (node.slices[:-1], certificate.parent) in parents,
        }
        faults += [(node.identity, claim) for claim, holds in claims.items() if not holds]
    return faults


def _as_the_manifest_says(store: Store, node: records.PublishedNode, certificate: Certificate) -> bool:
    made, place = store.manifest, (certificate.shard, certificate.slices)
    same = all(getattr(certificate, name) == getattr(made, name) for name in ("backbone", "hyper", "root_key"))
    return same and place == (node.shard, node.slices)
