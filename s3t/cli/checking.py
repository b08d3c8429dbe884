"""The commands that need no store: check what an operator gave, and make the operator's key. No jax."""

from __future__ import annotations

import argparse
from pathlib import Path

from s3t.cli.texts import Result


def check(args: argparse.Namespace) -> Result:
    """What receipts and proofs show; nothing but the two files is read."""
    from s3t.store import claims, documents, files, signatures

    key = signatures.public_key(Path(args.key)) if args.key else None
    path = Path(args.document)
    if not path.exists():
        raise ValueError(f"there is no file {path}: give what s3t delete --key or s3t verify --prove printed with --json")
    found = documents.documents_in(files.read_text(path, documents.MOST_BYTES))
    return claims.judged(claim for document in found for claim in documents.check(document, key))


def key(args: argparse.Namespace) -> Result:
    """A new private key and its public half."""
    from s3t.store import signatures

    public = signatures.make_key(Path(args.key))
    return {"private": args.key, "public": args.key + signatures.PUBLIC, "public_key": public}
