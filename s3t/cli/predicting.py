"""The command that asks the ensemble: predict."""

from __future__ import annotations

import argparse

from s3t.cli.devices import check_device
from s3t.cli.texts import Result


def predict(args: argparse.Namespace) -> Result:
    """Predictions of the ensemble; nothing is changed."""
    from s3t.service import factory, serving
    from s3t.store import disk
    from s3t.store.ledger import registry

    check_device()
    store = disk.look(args.store)
    ids = registry.known(store.ledger, args.ids) if args.split is None else None
    source = factory.source_for(store, args.arguments, args.trust_factory)
    result = serving.predict_from_store(store, source, ids, args.split, args.aggregate, args.expect_head)
    disk.close(store)
    return result
