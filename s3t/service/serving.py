"""A process that answers from a store: what it holds in memory follows the ledger before every answer.

The ledger's head is read before each batch and once more when its logits are there. If a node that took part was dropped
meanwhile, they are thrown away and computed anew. So no answer is given that used a node dropped before its last look:
a request that follows the acknowledgement of a deletion is answered without the nodes that held the example.

What serves is read from the ledger's chain of rows and must be what its tables say. A server refuses to answer where it
cannot see what others append: on a disk that is read-only here, and after another file has taken the ledger's place.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from s3t.plans.structure import at_depth
from s3t.service import ensemble
from s3t.service.ensemble import Bank, Part, Table
from s3t.service.inputs import setup_of
from s3t.store import disk, events, files, publishing, state
from s3t.store.disk import Store
from s3t.store.files import Stamp
from s3t.store.ledger import audit, database, hash_chain, records
from s3t.store.ledger.database import Head
from s3t.store.manifests import plan_of
from s3t.training.adapters import Lora
from s3t.training.backbone import Backbone
from s3t.training.source import Source, from_tensors

Tree = Any

BATCH_SIZE = 64
RESTORE = "run python -m s3t verify, and restore it from a copy"


class Seat(NamedTuple):
    """A node in memory.

    node: as the ledger has it.
    parent: digest of its parent's certificate, None at depth 1.
    row: its row in the bank of its depth.
    """

    node: records.PublishedNode
    parent: str | None
    row: int


class View(NamedTuple):
    """What is served while the ledger stays as it is.

    head: of the ledger.
    seats: identity -> the node's seat, of every live node with a whole file.
    table: who answers.
    depth: for each shard the depth served, 0 if it has no model.
    damaged: the files of live nodes that are missing or altered, one line each; others answer in their place.
    stamps: of these files by identity, so that one that is put back is seen before the ledger says so.
    """

    head: Head
    seats: dict[str, Seat]
    table: Table
    depth: tuple[int, ...]
    damaged: tuple[str, ...] = ()
    stamps: tuple[tuple[str, Stamp | None], ...] = ()


class Answer(NamedTuple):
    """What the ensemble says.

    logits: [examples, ...], of a classifier [examples, classes].
    depth: for each shard the depth served, 0 if it has no model.
    head: digest of the ledger's head at which it is so.
    """

    logits: np.ndarray
    depth: tuple[int, ...]
    head: str


class Server:
    """A store that answers, for any number of threads, one after another: they share one bank and one device.

    It is no NamedTuple of arrays: rows are overwritten in place, so that there is never a second copy of the bank in which
    a dropped node lives on. It has a connection to the ledger of its own; `close` it, or use it in `with`.
    """

    def __init__(
        self,
        store: Store,
        backbone: Backbone,
        frozen: Tree,
        lora: Lora,
        *,
        aggregate: str = "mean",
        batch_size: int = BATCH_SIZE,
        expect_heads: Sequence[str] = (),
        example: Tree = None,
    ) -> None:
        """Read every live node of a store and compile the programs that change the bank.

        Args:
          store: an open store.
          backbone, frozen, lora: the model that its nodes were trained with.
          aggregate: one of `ensemble.AGGREGATES`.
          batch_size: examples that run at once.
          expect_heads: heads that were acknowledged; a ledger that lacks one is a copy from before.
          example: a pytree [1, ...] of inputs; with it the program that answers is compiled here, not by the first request.

        Raises:
          ValueError: a file that does not fit the model; a ledger whose changes are not seen here, or without one of the
            heads.
          Damaged: a ledger that was altered.
        """
        ledger = database.open_ledger(store.root / disk.LEDGER, any_thread=True)
        self.store, self.backbone, self.lora = store._replace(ledger=ledger), backbone, lora
        self.aggregate, self.batch_size = aggregate, batch_size
        self.plan = plan_of(store.manifest)
        self._lock, self._chain = threading.RLock(), hash_chain.start()
        try:
            if lacking := audit.lacking_heads(ledger, expect_heads):
                raise ValueError(f"{lacking[0]}: this may be a copy from before a deletion, which must not serve")
            self.frozen = jax.device_put(frozen)
            self.ensemble = ensemble.make_ensemble(backbone, lora, self.plan.slices)
            self.shapes = ensemble.part_shapes(backbone, lora, self.plan)
            self.rows = self._room(publishing.live(self.store))
            self.bank: Bank = ensemble.make_bank(self.shapes, self.rows)
            self.view = View(Head(0, ""), {}, *self._table({}))
            self.refresh()
            if example is not None:
                self._logits(example, 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the ledger's file once the answer that is being made is there; nothing is answered any more."""
        with self._lock:
            self.store.ledger.close()

    def __enter__(self) -> Server:
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _room(self, live: Sequence[records.PublishedNode]) -> list[int]:
        """Rows of the bank at each depth: those of the plan, or more if places were trained again with more data."""
        counts = Counter(len(node.slices) for node in live)
        depths = range(1, 1 + len(self.shapes))
        return [max(self.store.manifest.shards * len(at_depth(self.plan, depth)), counts[depth]) for depth in depths]

    def refresh(self) -> None:
        """Let memory follow the ledger: rows of dropped nodes become 0, new nodes get free rows.

        A node whose file is missing or altered stays out, and what is below it answers no more, until a heal restores it.

        Raises:
          ValueError: a file that does not fit the model; nothing is changed. The ledger was moved or replaced.
          Damaged: the ledger was altered, or is older than it was.
        """
        with self._lock, database.explained(self.store.ledger.path):
            while database.head(self.store.ledger) != self.view.head or self._other_files():
                self._follow()

    def predict(self, x: Tree) -> Answer:
        """The ensemble's logits of some examples, all by the same nodes.

        Args:
          x: a pytree of [examples, ...], at least one.

        Raises:
          ValueError: no example, or inputs that do not fit the model or are not finite; no shard has a model; as `refresh`;
            logits that are not finite.
        """
        examples = _checked(x)
        with self._lock, database.explained(self.store.ledger.path):
            while True:
                self.refresh()
                if not any(self.view.depth):
                    raise ValueError(
                        f"{state.REBUILD}: no shard has a model, so that nothing can be predicted; {self._remedy()}"
                    )
                logits = np.concatenate([self._logits(x, at) for at in range(0, examples, self.batch_size)])
                if not self._outdated():
                    break
            depth, head = self.view.depth, self.view.head.digest
        if not np.isfinite(logits).all():
            raise ValueError("the logits are not finite: a node diverged in training; train the store with a smaller rate")
        return Answer(logits, depth, head)

    def report(self) -> dict[str, Any]:
        """What is served, to be watched.

        Returns:
          depth, of each shard; head; problems, one line for each file that is missing or altered; and as `state.ages`
          oldest_open and last_heal.
        """
        with self._lock:
            self.refresh()
            ages = state.ages(self.store.ledger)
            problems = list(self.view.damaged)
            return {"depth": list(self.view.depth), "head": self.view.head.digest, "problems": problems, **ages}

    def _remedy(self) -> str:
        """What to do where no shard has a model."""
        trainable = any(publishing.trainable(self.store, *place) for place in publishing.missing(self.store))
        if trainable or self.view.damaged:
            return "train the store"
        return "it has no example left to train on: make another"

    def _logits(self, x: Tree, first: int) -> np.ndarray:
        """Logits of at most a batch, from `first` on; it is filled up, so that there is one program."""
        batch = jax.tree.map(lambda leaf: leaf[first : first + self.batch_size], x)
        examples = len(jax.tree.leaves(batch)[0])

        def filled(leaf: Any) -> np.ndarray:
            return np.concatenate([leaf, np.repeat(leaf[-1:], self.batch_size - examples, axis=0)])

        full = jax.tree.map(filled, batch)
        try:
            logits: np.ndarray = jax.device_get(self.ensemble(self.frozen, full, self.bank, self.view.table))
        except (TypeError, IndexError) as error:  # while the program is traced
            shapes = ", ".join(str(np.shape(leaf)[1:]) for leaf in jax.tree.leaves(x))
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"inputs of shape {shapes} do not fit the model ({reason})") from error
        return logits[:examples]

    def _outdated(self) -> bool:
        """Whether a node in memory has been dropped since the last look."""
        if database.head(self.store.ledger) == self.view.head:
            return False
        return not {seat.node for seat in self.view.seats.values()} <= set(publishing.live(self.store))

    def _other_files(self) -> bool:
        """Whether a damaged file is another one now: a process that restored it may have died before it told the ledger."""
        return any(self._stamp(name) != stamp for name, stamp in self.view.stamps)

    def _stamp(self, identity: str) -> Stamp | None:
        return files.stamp(disk.file_of(self.store, identity))

    def _follow(self) -> None:
        """One step after the ledger."""
        head, nodes = self._snapshot()
        live = {node.identity: node for node in nodes}
        for depth, count in Counter(len(node.slices) for node in nodes).items():
            if count > self.rows[depth - 1]:
                raise ValueError(f"{count} nodes of depth {depth} live, room is for {self.rows[depth - 1]}: serve anew")
        kept = {name: seat for name, seat in self.view.seats.items() if live.get(name) == seat.node}
        new = [node for name, node in live.items() if name not in kept]
        read, damaged, stamps = {}, [], []
        copies: list[np.ndarray] = []
        for node in new:  # before anything is changed
            stamp = self._stamp(node.identity)  # before it is read
            try:
                certificate, tensors = publishing.load(self.store, node)
            except ValueError as error:
                damaged.append(str(error))
                stamps.append((node.identity, stamp))
            else:
                read[node] = certificate.parent, self._part(node, tensors)
                copies += tensors.values()
        seats = dict(kept)
        for name, seat in self.view.seats.items():
            if name not in kept:
                self._put(seat, ensemble.blank(self.shapes[len(seat.node.slices) - 1]))
        for node, (parent, part) in read.items():
            seats[node.identity] = Seat(node, parent, self._free(seats.values(), len(node.slices)))
            self._put(seats[node.identity], part)
        jax.block_until_ready(self.bank)  # type: ignore[no-untyped-call]
        for copy in copies:  # what is in the bank can be overwritten; what is free in the heap cannot
            if copy.flags.writeable:
                copy.fill(0)
        before, self.view = self.view, View(head, seats, *self._table(seats), tuple(damaged), tuple(stamps))
        _log(before, self.view)

    def _snapshot(self) -> tuple[Head, tuple[records.PublishedNode, ...]]:
        """The head and the nodes that may serve at one moment, by the rows of the chain and by the tables alike."""
        chain, self._chain = self._chain, hash_chain.start()  # reading adds to it, and may be interrupted
        before = self.view.head
        with database.reading(self.store.ledger):
            head, nodes = database.head(self.store.ledger), publishing.live(self.store)
            self._chain = records.read_rows(chain, self.store.ledger)
            (goes_on,) = self.store.ledger.execute(
                "SELECT ? OR EXISTS (SELECT 1 FROM log WHERE seq = ? AND digest = ?)", (not before.rows, *before)
            ).fetchone()
        places = audit.misplaced_nodes(nodes, self.store.manifest)
        if self._chain.problem or places:
            raise database.Damaged(f"{self.store.root} must not serve, {self._chain.problem or places[0]}: {RESTORE}")
        if not goes_on or head != (self._chain.rows, self._chain.digest):
            raise database.Damaged(f"{self.store.root} must not serve, its ledger is older than it was: {RESTORE}")
        if set(nodes) != set(records.live_of(self._chain.history)):
            raise database.Damaged(f"{self.store.root} must not serve, its ledger's tables were altered: {RESTORE}")
        return head, nodes

    def _part(self, node: records.PublishedNode, tensors: Mapping[str, np.ndarray]) -> Part:
        """What a node owns."""
        try:
            trained = from_tensors(self.backbone, self.lora, self.plan.slices, len(node.slices), tensors)
        except ValueError as error:
            raise ValueError(f"node {node.identity}: {error}") from None
        return Part(trained.slot, trained.head)

    def _free(self, seats: Iterable[Seat], depth: int) -> int:
        """The first free row of a depth."""
        taken = {seat.row for seat in seats if len(seat.node.slices) == depth}
        return next(row for row in range(self.rows[depth - 1]) if row not in taken)

    def _put(self, seat: Seat, part: Part) -> None:
        at = len(seat.node.slices) - 1
        self.bank = (*self.bank[:at], ensemble.put(self.bank[at], seat.row, part), *self.bank[at + 1 :])

    def _table(self, seats: dict[str, Seat]) -> tuple[Table, tuple[int, ...]]:
        """Who answers, and how deep each shard serves; of several nodes of one place the last to be published."""
        chains: list[dict[tuple[int, ...], tuple[int, ...]]] = [{} for _ in range(self.store.manifest.shards)]
        rows: dict[str | None, tuple[int, ...]] = {None: ()}  # by the certificate of the deepest
        for seat in sorted(seats.values(), key=lambda seat: len(seat.node.slices)):
            if seat.parent in rows:
                rows[seat.node.certificate] = (*rows[seat.parent], seat.row)
                chains[seat.node.shard][seat.node.slices] = rows[seat.node.certificate]
        table = ensemble.make_table(self.plan, chains, self.aggregate)
        return table, tuple(max(map(len, family), default=0) for family in chains)


def _log(before: View, now: View) -> None:
    """Log what a server serves, where that has changed, and the files that it found damaged."""
    if (before.depth, before.head) != (now.depth, now.head):
        depth = ",".join(map(str, now.depth))
        events.LOGGER.info("serving depth=%s row=%d head=%s", depth, now.head.rows, now.head.digest)
    for problem in now.damaged:
        if problem not in before.damaged:
            events.LOGGER.warning("damaged %s", problem)


def _checked(x: Tree) -> int:
    """The number of examples in inputs.

    Raises:
      ValueError: none; leaves that are no arrays of as many examples; numbers that are not finite.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(x)]
    if not leaves or any(leaf.ndim < 1 or leaf.dtype == object for leaf in leaves):
        raise ValueError("inputs are arrays of [examples, ...]: give at least one example")
    if len({len(leaf) for leaf in leaves}) > 1:
        raise ValueError(f"inputs have {', '.join(str(len(leaf)) for leaf in leaves)} examples: give as many of each")
    if not len(leaves[0]):
        raise ValueError("there is nothing to predict: give at least one example")
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            bad = int(np.flatnonzero(~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1))[0])
            raise ValueError(f"example {bad} of the inputs is not finite: mend or leave it out")
    return len(leaves[0])


def predict_from_store(
    store: Store,
    source: Source,
    ids: Sequence[int] | None,
    split: str | None,
    aggregate: str,
    expect_heads: Sequence[str] = (),
) -> dict[str, Any]:
    """What a store's ensemble says of examples.

    Args:
      store: an open store.
      source: what its factory makes.
      ids: training examples, or None for a whole split.
      split: a split of the source, if ids is None.
      aggregate: one of `ensemble.AGGREGATES`.
      expect_heads: heads that were acknowledged.

    Returns:
      ids; labels, the classes of the largest logits, or losses where the backbone does not classify; logits; depth (served
      by each shard); head (of the ledger); problems (files of nodes that are missing or altered, so that shallower ones
      answer).

    Raises:
      ValueError: a source that is not the store's, examples that it lacks; as `Server`.
    """
    setup_of(store.manifest, source)
    asked, fetch = (np.asarray(ids), source.fetch) if split is None else source.split(split)
    x, y = fetch(asked)
    size = max(1, min(BATCH_SIZE, len(asked)))
    model = source.backbone, source.frozen, source.recipe.lora
    with Server(store, *model, aggregate=aggregate, batch_size=size, expect_heads=expect_heads) as server:
        answer = server.predict(x)
    backbone = source.backbone
    told = (
        {"labels": answer.logits.argmax(-1)}
        if backbone.classifies
        else {"losses": backbone.loss(jnp.asarray(answer.logits), y)}
    )
    return {
        "ids": asked.tolist(),
        **{name: np.asarray(values).tolist() for name, values in told.items()},
        "logits": answer.logits.tolist(),
        "depth": list(answer.depth),
        "head": answer.head,
        "problems": list(server.view.damaged),
    }
