"""The commands that need no store: check what an operator gave, and make the operator's key. No jax."""

from __future__ import annotations

import argparse
from pathlib import Path

from s3t.cli.texts import Result


def check(args: argparse.Namespace) -> Result:
    """What receipts and proofs show; nothing but these files is read."""
    from s3t.store import claims, documents, given, signatures

    key = signatures.public_key(Path(args.key)) if args.key else None
    limits = documents.MOST_BYTES, documents.GIVE, documents.FEWER
    texts = [given.read(Path(path), *limits) for path in args.document]
    found = [document for text in texts for document in documents.documents_in(text)]
    each = [claim for document in found for claim in documents.check(document, key)]
    return claims.judged(each + documents.compare(found))


def key(args: argparse.Namespace) -> Result:
    """A new private key and its public half."""
    from s3t.store import signatures

    public = signatures.make_key(Path(args.key))
    return {"private": args.key, "public": args.key + signatures.PUBLIC, "public_key": public}
