"""Receipts and proofs that leave the house: JSON that an auditor checks without store, data or jax.

A *receipt* is a signed statement of format RECEIPT: the answer to one deletion, with the head that holds it. A *proof* is
of format PROOF: of one id, whether each node that serves was trained on it, and under "serving" a statement of format
SERVING, signed if the operator has a key, that names the certificates of all nodes that serve at a head. The digests of the
proof's certificates must be those, one for one, so that a node that is left out shows.

What a proof cannot show by itself: that the statement names all nodes (the operator's word, to be held against the ledger),
and that the leaves of a tree are sorted, on which exclusion rests (whoever can read the ledger rebuilds the tree). A proof
names up to two other ids for each node, the neighbours of the id in question.

A receipt and a proof of one store are held against each other: what was deleted is in nothing that serves later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from s3t.store import certificates, publishing, signatures
from s3t.store.certificates import INT64, Json
from s3t.store.claims import NOTHING, PROVED, REFUTED, Claim
from s3t.store.disk import Store
from s3t.store.ledger import database, records
from s3t.store.signatures import Sign

RECEIPT, SERVING, PROOF = "s3t.receipt/1", "s3t.serving/1", "s3t.proof/1"
MOST_BYTES = 1 << 25  # of a document's file; JSON of empty lists takes 36 times as much memory
SNAPSHOTS = 100  # that are taken at most
FEWER = "check it in parts, and ask verify --prove for fewer ids at once"  # of a larger one
GIVE = "give what python -m s3t delete --key or verify --prove printed with --json"
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

    Raises:
      ValueError: the ids of the request were redacted since, so that a receipt would say that it deleted none.
    """
    if answer.get("redacted"):
        raise ValueError(f"the ids of request {answer['request']} were redacted: the receipt that it was given then holds")
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

    Raises:
      ValueError: the file of a serving node is missing or damaged; nodes are dropped faster than they can be read.
    """
    for _ in range(SNAPSHOTS):
        with database.reading(store.ledger):  # the nodes of the head that is signed
            rows, head = database.head(store.ledger)
            nodes = publishing.live(store)
            (at,) = store.ledger.execute("SELECT at FROM log WHERE seq = ?", (rows,)).fetchone()
            trees = list(_trees(store, nodes))
        if (texts := _texts(store, nodes)) is not None:
            break
    else:
        raise ValueError(f"{store.root} lost nodes faster than they could be read: repeat the command")
    digests = sorted(node.certificate for node in nodes)
    manifest = records.manifest_digest(store.ledger)
    statement = {"format": SERVING, "store": manifest, "head": head, "rows": rows, "at": at, "certificates": digests}
    serving = sign(statement) if sign else {"statement": statement}
    return [
        {"format": PROOF, "id": id_, "head": head, "serving": serving, "nodes": _of_nodes(id_, texts, trees)} for id_ in ids
    ]


def _texts(store: Store, nodes: Iterable[records.PublishedNode]) -> list[str] | None:
    """The certificate of each node; None if one that was dropped meanwhile has lost its file."""
    texts = []
    for node in nodes:
        try:
            texts.append(certificates.to_json(publishing.check(store, node)))
        except ValueError:
            if node in publishing.live(store):
                raise
            return None
    return texts


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
        raise ValueError(f"this is no JSON: {GIVE}") from None
    found = list(_documents(value))
    if not found:
        raise ValueError(f"there is no receipt and no proof in it: {GIVE}")
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
    """What a receipt, a proof, or the signed statement of a proof alone shows.

    Args:
      document: one of `documents_in`.
      key: the operator's public key in hexadecimal digits; None if the auditor has none.
    """
    if document.get("format") == PROOF:
        return [_fits(document), _complete(document), _signed(document.get("serving"), SERVING, key)]
    alone = document["statement"].get("format") == SERVING
    return [_signed(document, SERVING if alone else RECEIPT, key)]


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
    id_ = document.get("id")
    if type(id_) is not int or id_ not in INT64:  # true and 12.0 are like numbers, and are none that was ever registered
        return Claim("the proof of an id can be read", REFUTED, "its id is no whole number of 64 bits")
    claim = f"id {id_}: "
    try:
        wrong, holders = 0, 0
        for node in document["nodes"]:
            root = certificates.from_json(node["certificate"]).ids_root
            test = {True: certificates.check_inclusion, False: certificates.check_exclusion}[node["holds"]]
            wrong += type(node["holds"]) is not bool or not test(root, id_, node["proof"])
            holders += node["holds"]
        count = len(document["nodes"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return Claim(f"{claim}its proof can be read", REFUTED, "it is malformed")
    if not count:
        return Claim(f"{claim}no node that serves was trained on it", NOTHING, "the proof is of no node")
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


# --- Receipts and proofs held against each other ----------------------------------------------------------------------


def compare(documents: Iterable[Json]) -> list[Claim]:
    """Whether receipts and proofs that were given together agree, by what they say; no claim without both.

    Args:
      documents: from `documents_in`, of one file or several; whether each holds is for `check`.
    """
    documents = list(documents)
    proofs = [document for document in documents if document.get("format") == PROOF]
    statements = [_statement(document) for document in documents if document.get("format") != PROOF]
    receipts = [statement for statement in statements if statement.get("format") == RECEIPT]
    serving = [statement for statement in statements if statement.get("format") == SERVING]
    serving += [_statement(proof.get("serving")) for proof in proofs]
    if not receipts or not serving:
        return []
    try:
        return [_agree(receipts, serving, proofs)]
    except (LookupError, TypeError):
        return [Claim("receipts and proofs agree", REFUTED, "one of them is malformed")]


def _statement(signed: Json) -> dict[str, Any]:
    statement = signed.get("statement") if isinstance(signed, dict) else None
    return statement if isinstance(statement, dict) else {}


def _agree(receipts: list[Json], serving: list[Json], proofs: list[Json]) -> Claim:
    deleted = {id_ for receipt in receipts for id_ in (*receipt["ids"], *receipt["already"])}
    proved = [proof for proof in proofs if proof["id"] in deleted]
    held = {proof["id"] for proof in proved if any(node["holds"] for node in proof["nodes"])}
    claim = (
        "receipts and proofs are of one store, no proof is from before a receipt, and what was deleted is in no node "
        f"({len({proof['id'] for proof in proved})} of {len(deleted)} deleted ids have a proof)"
    )
    latest, earliest = max(receipt["row"] for receipt in receipts), min(statement["rows"] for statement in serving)
    if len({statement["store"] for statement in (*receipts, *serving)}) > 1:
        return Claim(claim, REFUTED, "they are of several stores: give those of one")
    if earliest < latest:
        why = f"a proof is of row {earliest}, a receipt of row {latest}: ask for a proof from after the deletion"
        return Claim(claim, REFUTED, why)
    if held:
        return Claim(claim, REFUTED, f"a node that serves holds id {min(held)}, which was deleted")
    if not proved:
        return Claim(claim, NOTHING, "give proofs of the deleted ids, too")
    return Claim(claim, PROVED)
