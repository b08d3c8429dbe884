"""One server, many threads: sixteen clients over HTTP while examples are deleted and nodes come back."""

import threading

import numpy as np
import pytest

from experiments.benchmarks import s3t_load
from s3t.store import disk
from tests.helpers import servers


def test_sixteen_clients_get_an_answer_each_and_none_is_stale(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store"))
    x, stop = servers.inputs(1), threading.Event()
    with servers.server(opened, example=x) as server, s3t_load.served(s3t_load.replies_of(server)) as port:
        with s3t_load.clients(port, x, 16) as asked:
            threading.Timer(2.0, stop.set).start()
            deleted = s3t_load.delete_and_heal(opened, lambda: servers.fill(opened), 0.05, stop)
        last = server.predict(x)
    rows = s3t_load.rows_of(opened)
    assert len(asked) >= 100 and len(deleted) >= 3
    assert [request for request in asked if request.answer is None] == []
    assert s3t_load.stale(asked, deleted, rows) == 0 and rows[last.head] == max(rows.values())
    assert len({request.answer["head"] for request in asked}) > 2, "answers followed the ledger"


def test_a_stale_answer_would_be_counted():
    rows = {"old": 3, "new": 5}
    deleted = [s3t_load.Deleted(at=10.0, seconds=0.1, row=5)]
    asked = [
        s3t_load.Asked(9.9, 0.2, {"head": "old"}),  # asked for before the acknowledgement
        s3t_load.Asked(10.1, 0.2, {"head": "new"}),
        s3t_load.Asked(10.2, 0.2, None),
    ]
    assert s3t_load.stale(asked, deleted, rows) == 0
    assert s3t_load.stale([*asked, s3t_load.Asked(10.1, 0.2, {"head": "old"})], deleted, rows) == 1


def test_threads_get_the_logits_of_one(tmp_path):
    opened = servers.fill(servers.make(tmp_path / "store"))
    x = servers.inputs(8)
    with servers.server(opened) as server:
        alone = server.predict(x).logits
        found = {}
        threads = [threading.Thread(target=lambda n=n: found.update({n: server.predict(x).logits})) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8 and all(np.array_equal(logits, alone) for logits in found.values())


def test_a_store_is_still_of_one_thread(tmp_path):
    """Two threads in one transaction would commit each other's halves; SQLite refuses, and so it should."""
    opened, raised = servers.make(tmp_path / "store"), []

    def delete():
        try:
            disk.delete(opened, [1])
        except Exception as error:
            raised.append(str(error))

    thread = threading.Thread(target=delete)
    thread.start()
    thread.join()
    assert len(raised) == 1 and "thread" in raised[0]
    with pytest.raises(StopIteration):
        next(iter(opened.ledger.execute("SELECT 1 FROM examples WHERE deleted IS NOT NULL")))
