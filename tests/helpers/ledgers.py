"""Ledgers of a few examples and nodes."""

import contextlib

from s3t.store.ledger import database, hash_chain, records

MANIFEST = "m" * 64


def rows(made):
    return [hash_chain.Row(*row) for row in made.execute("SELECT * FROM log ORDER BY seq")]


@contextlib.contextmanager
def small(path):
    """Ids 10..19 at shard i % 2, slice i % 3, and five nodes."""
    made = database.create_ledger(path, MANIFEST)
    ids = range(10, 20)
    records.record_examples(made, ids, [i % 2 for i in ids], [i % 3 for i in ids])
    for name, shard, slices in (("a", 0, (0,)), ("ab", 0, (0, 1)), ("b", 0, (1,)), ("c", 1, (2,)), ("ca", 1, (2, 0))):
        node = records.PublishedNode(name, shard, slices, 2, f"certificate of {name}")
        assert records.record_node(made, node, name[:-1] or None, lambda: None)
    yield made
    made.close()
