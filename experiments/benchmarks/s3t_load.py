"""Serving over HTTP while examples are deleted and nodes healed: latency of answers and of acknowledgements.

    python -m experiments.benchmarks.s3t_load [--model digits] [--clients 16] [--seconds 60] [--every 0.5] [--dir DIR]

A store of 5 shards, 4 slices and all 75 nodes of an untrained ViT is served by `serving.Server` behind the standard
library's `ThreadingHTTPServer`. Clients ask for one example at a time, each again as soon as it is answered, while another
connection deletes an example every so often and, after every third deletion, publishes all missing nodes again. The same
clients then ask one plain model with LoRA in all of its blocks behind the same HTTP server, which is what one would serve
without S3T.

Printed are p50 and p99 in milliseconds of answers and of acknowledgements, failed requests, and stale answers: those that
were asked for after a deletion was acknowledged and rest on an earlier head. Both of the latter must be 0.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import s3t_serve, smoke
from experiments.models import vits
from s3t.service import serving
from s3t.store import disk
from s3t.store.disk import Store
from s3t.store.ledger import database, records

HEAL_AFTER = 3  # deletions
Reply = Callable[[np.ndarray], dict[str, Any]]


class Asked(NamedTuple):
    """One request of a client: when it was asked, how many seconds it took, and what came; None if it failed."""

    at: float
    seconds: float
    answer: dict[str, Any] | None


class Deleted(NamedTuple):
    """One deletion: when it was acknowledged, how many seconds that took, and the row of the ledger that holds it."""

    at: float
    seconds: float
    row: int


def main() -> None:
    """Print a line for the store and one for the plain model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=s3t_serve.IMAGES, default="digits")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between deletions")
    parser.add_argument("--dir", default=".")
    args = smoke.parse(parser, dir=smoke.folder, clients=4, seconds=2.0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, *s3t_serve.IMAGES[args.model])).astype(np.float32)
    module = vits.vit(args.model, 10)
    backbone, frozen = vits.as_backbone(module), vits.split_head(vits.init(module, jax.random.key(0), x))[0]
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        opened = s3t_serve.fill(s3t_serve.make(Path(directory) / "store"), backbone, rng)
        with serving.Server(opened, backbone, frozen, s3t_serve.LORA, batch_size=1, example=x) as server:
            plain = s3t_serve.plain_model(backbone, server)
            plain(server.frozen, x, 0)
            stop = threading.Event()
            with served(replies_of(server)) as port, clients(port, x, args.clients) as asked:
                threading.Timer(args.seconds, stop.set).start()
                deleted = delete_and_heal(opened, lambda: s3t_serve.fill(opened, backbone, rng), args.every, stop)
            print(line("s3t", asked, deleted, rows_of(opened)), flush=True)
            alone = served(lambda x: {"label": int(plain(server.frozen, x, 0).argmax())})
            with alone as port, clients(port, x, args.clients) as asked:
                time.sleep(args.seconds)
            print(line("one plain model", asked, [], {}), flush=True)
        disk.close(opened)


def replies_of(server: serving.Server) -> Reply:
    """What a server answers, as JSON."""

    def reply(x: np.ndarray) -> dict[str, Any]:
        answer = server.predict(x)
        return {"label": int(answer.logits[0].argmax()), "depth": answer.depth, "head": answer.head}

    return reply


@contextlib.contextmanager
def served(reply: Reply) -> Iterator[int]:
    """The port at which examples are answered while this lasts: a POST of a JSON list of numbers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # a connection stays open

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, told = 200, reply(np.asarray(json.loads(body), np.float32))
            except ValueError as error:
                status, told = 503, {"error": str(error)}
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    class Http(ThreadingHTTPServer):
        request_queue_size = 128  # clients that connect at once
        daemon_threads = True

    with Http(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        yield http_server.server_address[1]
        http_server.shutdown()
        thread.join()


@contextlib.contextmanager
def clients(port: int, x: np.ndarray, count: int) -> Iterator[list[Asked]]:
    """Clients that ask again and again while this lasts; the list is filled when it ends."""
    stop, asked, body = threading.Event(), list[Asked](), json.dumps(x.tolist())

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not stop.is_set():
            began = time.perf_counter()
            try:
                connection.request("POST", "/", body)
                response = connection.getresponse()
                text = response.read()
                answer = json.loads(text) if response.status == 200 else None
            except (OSError, http.client.HTTPException):
                connection.close()
                answer = None
            asked.append(Asked(began, time.perf_counter() - began, answer))
        connection.close()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield asked
    stop.set()
    for thread in threads:
        thread.join()


def delete_and_heal(opened: Store, heal: Callable[[], Any], every: float, stop: threading.Event) -> list[Deleted]:
    """Delete one example after the other until `stop`, and let all missing nodes serve again after every few."""
    deleted: list[Deleted] = []
    while not stop.wait(every):
        shard = len(deleted) % opened.manifest.shards
        (id_, *_) = records.members(opened.ledger, shard, (len(deleted) % opened.manifest.slices,))[1]
        began = time.perf_counter()
        disk.delete(opened, [id_])
        acknowledged = time.perf_counter()
        deleted.append(Deleted(acknowledged, acknowledged - began, database.head(opened.ledger).rows))
        disk.purge(opened)
        if len(deleted) % HEAL_AFTER == 0:
            heal()
    return deleted


def rows_of(opened: Store) -> dict[str, int]:
    """Head -> row."""
    return {digest: row for row, digest in opened.ledger.execute("SELECT seq, digest FROM log")}


def stale(asked: list[Asked], deleted: list[Deleted], rows: dict[str, int]) -> int:
    """Answers that were asked for after an acknowledgement and rest on an earlier head."""
    return sum(
        rows[request.answer["head"]] < max((done.row for done in deleted if done.at <= request.at), default=0)
        for request in asked
        if request.answer is not None
    )


def line(what: str, asked: list[Asked], deleted: list[Deleted], rows: dict[str, int]) -> str:
    """The result in one line."""
    failed = sum(request.answer is None for request in asked)
    text = f"{what}: {len(asked)} answers, {_percentiles(asked)}, {failed} failed"
    if not deleted:
        return text
    return f"{text}, {stale(asked, deleted, rows)} stale; {len(deleted)} deletions acknowledged, {_percentiles(deleted)}"


def _percentiles(measured: list[Asked] | list[Deleted]) -> str:
    p50, p99 = np.percentile([1e3 * one.seconds for one in measured], [50, 99])
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


if __name__ == "__main__":
    main()
