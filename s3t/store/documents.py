"""Receipts and proofs that leave the house: JSON that an auditor checks without store, data or jax.

A *receipt* is a signed statement of format RECEIPT: the answer to one deletion, with the head that holds it. A *proof* is
of format PROOF: of one id, whether each node that serves was trained on it, and under "serving" a statement of format
SERVING, signed if the operator has a key, that names the certificates of all nodes that serve at a head. The digests of the
proof's certificates must be those, one for one, so that a node that is left out shows.

What a proof cannot show by itself: that the statement names all nodes (the operator's word, to be held against the ledger),
and that the leaves of a tree are sorted, on which exclusion rests (whoever can read the ledger rebuilds the tree). A proof
names up to two other ids for each node, the neighbours of the id in question.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from s3t.store import certificates, database, publishing, records, signatures
from s3t.store.certificates import Json
from s3t.store.claims import NOTHING, PROVED, REFUTED, Claim
from s3t.store.disk import Store
from s3t.store.signatures import Sign

RECEIPT, SERVING, PROOF = "s3t.receipt/1", "s3t.serving/1", "s3t.proof/1"
MOST_BYTES = 1 << 28  # of a document's file
ANSWER = (
    "request",
    "ids",
    "already",
    "unknown",
    "groups",
    "unknown_groups",
    "names",
    "nodes_dropped",
    "head",
)  # what a receipt repeats


# --- Made by the operator ---------------------------------------------------------------------------------------------


def receipt(store: Store, answer: dict[str, Any], sign: Sign) -> Json:
    """A signed receipt of a deletion.

    Args:
      store: the store.
      answer: from `disk.delete`, of a deletion that the ledger holds.
      sign: from `signatures.signer`.
    """
    row, at = store.ledger.execute("SELECT seq, at FROM log WHERE digest = ?", (answer["head"],)).fetchone()
    asked = {name: answer[name] for name in ANSWER if name in answer}
    return sign({"format": RECEIPT, "store": records.manifest_digest(store.ledger), "row": row, "at": at, **asked})


def prove(store: Store, ids: Iterable[int], sign: Sign | None = None) -> list[Json]:
    """Of each id a proof whether the nodes that serve were trained on it.

    Args:
      store: the store.
      ids: whole numbers.
      sign: from `signatures.signer`; without it nobody vouches that the nodes of a proof are all that serve.

    Returns:
      objects of format PROOF: id, head, serving, and nodes, of each its certificate (as `certificates.to_json`), holds, and
      proof, which `certificates.check_inclusion` or `check_exclusion` checks against the certificate's ids_root.
    """
    with database.reading(store.ledger):  # the nodes of the head that is signed
        rows, head = database.head(store.ledger)
        nodes = publishing.live(store)
        (at,) = store.ledger.execute("SELECT at FROM log WHERE seq = ?", (rows,)).fetchone()
        trees = list(_trees(store, nodes))
    digests = sorted(node.certificate for node in nodes)
    manifest = records.manifest_digest(store.ledger)
    statement = {"format": SERVING, "store": manifest, "head": head, "rows": rows, "at": at, "certificates": digests}
    serving = sign(statement) if sign else {"statement": statement}
    texts = [certificates.to_json(publishing.load(store, node)[0]) for node in nodes]
    return [
        {"format": PROOF, "id": id_, "head": head, "serving": serving, "nodes": _of_nodes(id_, texts, trees)} for id_ in ids
    ]


def _of_nodes(id_: int, texts: list[str], trees: list[certificates.MerkleTree]) -> list[Json]:
    proofs = [certificates.prove(tree, id_) for tree in trees]
    return [
        {"certificate": text, "holds": "leaf" in proof, "proof": proof} for text, proof in zip(texts, proofs, strict=True)
    ]


def _trees(store: Store, nodes: Iterable[records.PublishedNode]) -> Iterator[certificates.MerkleTree]:
    """The tree of ids of each node."""
    examples = {shard: records.shard_ids(store.ledger, shard) for shard in range(store.manifest.shards)}
    return (certificates.merkle_tree(records.held_by(examples[node.shard], node)) for node in nodes)


# --- Checked by an auditor --------------------------------------------------------------------------------------------


def documents_in(text: bytes) -> list[Json]:
    """The receipts and proofs of a file: one, a list, or what `python -m s3t delete` and `verify` printed with --json.

    Raises:
      ValueError: no JSON, or none of these.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("this is no JSON: give what python -m s3t delete or verify --prove printed with --json") from None
    found = list(_documents(value))
    if not found:
        raise ValueError("there is no receipt and no proof in it: give what s3t delete --key or verify --prove printed")
    return found


def _documents(value: Json) -> Iterator[Json]:
    if isinstance(value, list):
        for inner in value:
            yield from _documents(inner)
    elif isinstance(value, dict):
        if value.get("format") == PROOF or (isinstance(value.get("statement"), dict) and "signature" in value):
            yield value
        else:
            for name in ("receipt", "proofs"):
                yield from _documents(value.get(name))


def check(document: Json, key: str | None) -> list[Claim]:
    """What a receipt or a proof shows.

    Args:
      document: one of `documents_in`.
      key: the operator's public key in hexadecimal digits; None if the auditor has none.
    """
    if document.get("format") == PROOF:
        return [_fits(document), _complete(document), _signed(document.get("serving"), SERVING, key)]
    return [_signed(document, RECEIPT, key)]


def _signed(signed: Json, kind: str, key: str | None) -> Claim:
    """Whether the operator signed a statement of some kind, and what it says."""
    statement = signed.get("statement") if isinstance(signed, dict) else None
    if not isinstance(statement, dict) or statement.get("format") != kind:
        return Claim("the operator says so", REFUTED, f"there is no statement of format {kind}")
    said = _said(statement, kind)
    if "signature" not in signed:
        return Claim(said, NOTHING, "it is not signed: make it with --key")
    if key is None:
        return Claim(said, NOTHING, "give --key, the file of the operator's public key")
    return Claim(said, PROVED) if signatures.holds(signed, key) else Claim(said, REFUTED, "this key did not sign it")


def _said(statement: dict[str, Any], kind: str) -> str:
    what = f"head {statement.get('head')!s:.64} of store {statement.get('store')!s:.12}, {statement.get('at')!s:.30}"
    if kind == SERVING:
        return f"the operator says that these {_length(statement.get('certificates'))} nodes are all that served at {what}"
    gone = f"{_length(statement.get('ids'))} examples, {_length(statement.get('already'))} gone before"
    return f"the operator says that request {statement.get('request')!s:.80} deleted {gone}, at {what}"


def _length(value: Json) -> int:
    return len(value) if isinstance(value, list) else 0


def _fits(document: Json) -> Claim:
    """Whether each node's proof fits the tree of its certificate."""
    claim = f"id {document.get('id')!s:.40}: "
    try:
        wrong, holders = 0, 0
        for node in document["nodes"]:
            root = certificates.from_json(node["certificate"]).ids_root
            test = {True: certificates.check_inclusion, False: certificates.check_exclusion}[node["holds"]]
            wrong += type(node["holds"]) is not bool or not test(root, document["id"], node["proof"])
            holders += node["holds"]
        count = len(document["nodes"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return Claim(f"{claim}its proof can be read", REFUTED, "it is malformed")
    said = (
        f"{claim}{holders} of {count} nodes were trained on it"
        if holders
        else f"{claim}none of {count} nodes was trained on it"
    )
    return Claim(said, REFUTED, f"{wrong} proofs do not fit their certificates") if wrong else Claim(said, PROVED)


def _complete(document: Json) -> Claim:
    """Whether the nodes of a proof are, one for one, those that the statement names."""
    claim = "the nodes are those that the statement names, none left out"
    try:
        read = [certificates.from_json(node["certificate"]) for node in document["nodes"]]
        statement = document["serving"]["statement"]
        named = statement["certificates"] == sorted(map(certificates.certificate_digest, read))
        whole = named and statement["head"] == document["head"]
    except (AttributeError, LookupError, TypeError, ValueError):
        return Claim(claim, REFUTED, "it is malformed")
    return Claim(claim, PROVED) if whole else Claim(claim, REFUTED, "they are others")
