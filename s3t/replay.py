"""Proof by replay: a serving node is trained once more from its certificate, and its bytes are compared.

`s3t.verify` shows that ledger, certificates and files agree with each other; whoever forged all of them alike is found
here. Training is handed the examples that the ledger has for the node, no deleted one among them, and the node's ancestors
as published. Bytes are a function of the stack too, so a node of another stack is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from s3t import build as builds
from s3t import heal, verify
from s3t import ledger as ledgers
from s3t import stack as stacks
from s3t import store as stores
from s3t.build import Setup
from s3t.certificate import Certificate, digest, parameters_digest
from s3t.ledger import Node
from s3t.source import Source, to_tensors
from s3t.store import Store

FOUND = IDENTICAL, DIFFERS, DAMAGED, ELSEWHERE = "identical", "differs", "damaged", "not replayable here"


class Verdict(NamedTuple):
    """What came of a replay: identical, differs, damaged, or not replayable here; and why, if there is more to say."""

    node: str
    found: str
    why: str = ""


class Family(NamedTuple):
    """Nodes that agree on who is in each slice, and so can be trained from one arrangement of examples.

    held: (shard, slice) -> ids.
    nodes: (shard, slices) -> identity and certificate.
    """

    held: dict[tuple[int, int], list[int]]
    nodes: dict[tuple[int, tuple[int, ...]], tuple[str, Certificate]]


def replay(store: Store, source: Source, which: str | int = "all") -> dict[str, Any]:
    """Train serving nodes once more and compare their bytes with what was published. Nothing is changed.

    Args:
      store: the store.
      source: what its factory makes.
      which: "all", the identity of a serving node, or a number: so many, drawn by a hash of the ledger's head.

    Returns:
      ok, false if a node differs or is damaged; problems, one line each; the identities of the nodes that are "identical",
      of those that "differs", "damaged" and "not replayable here" apply to; reasons, of the last.

    Raises:
      ValueError: no such node, or a source that is not the store's.
    """
    setup = heal.setup_of(store.manifest, source)
    verdicts = _judged(store, setup, chosen(store, which))
    serving = set(stores.names(stores.live(store)))  # what was dropped while we looked may have lost its file
    verdicts = [verdict for verdict in verdicts if verdict.node in serving]
    named = {found: [one.node for one in verdicts if one.found == found] for found in FOUND}
    problems = [f"node {one.node}: {one.why}" for one in verdicts if one.found in (DIFFERS, DAMAGED)]
    reasons = sorted({verdict.why for verdict in verdicts if verdict.found == ELSEWHERE})
    return {"ok": not problems, "problems": problems, **named, "reasons": reasons}


def chosen(store: Store, which: str | int) -> list[Node]:
    """The serving nodes that `replay` is asked for, in the order of their publication."""
    nodes = list(stores.live(store))
    if which == "all":
        return nodes
    if isinstance(which, int):
        if which < 1:
            raise ValueError(f"{which} nodes trained once more prove nothing: give 1 or more, or all")
        head = ledgers.head(store.ledger).digest
        drawn = sorted(nodes, key=lambda node: digest("sample", [head, node.identity]))[:which]
        return [node for node in nodes if node in drawn]
    found = [node for node in nodes if node.identity == which]
    if not found:
        raise ValueError(f"no serving node is called {which:.80}: give one of them, a number or all")
    return found


def _judged(store: Store, setup: Setup, nodes: Sequence[Node]) -> list[Verdict]:
    here = stacks.here()
    verdicts, todo = [], list[tuple[Node, Certificate]]()
    for node in nodes:
        try:
            certificate, _ = stores.load(store, node)
        except ValueError as error:
            verdicts.append(Verdict(node.identity, DAMAGED, str(error)))
            continue
        stack = {**here, "shape": setup.shapes[len(node.slices) - 1]._asdict(), "program": certificate.stack.get("program")}
        if other := _other(certificate.stack, stack):
            verdicts.append(Verdict(node.identity, ELSEWHERE, other))
        else:
            todo.append((node, certificate))
    for family in _families(store, todo):
        verdicts += _trained(store, setup, here, family)
    return verdicts


def _other(recorded: Mapping[str, Any], stack: Mapping[str, Any]) -> str:
    """In what two stacks differ, in words."""
    names = sorted(name for name in recorded.keys() | stack.keys() if recorded.get(name) != stack.get(name))
    return "; ".join(f"{name} was {_short(recorded.get(name))}, here it is {_short(stack.get(name))}" for name in names)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _families(store: Store, todo: Iterable[tuple[Node, Certificate]]) -> list[Family]:
    """The nodes by what they agree on: those trained before more examples came stand apart."""
    examples = {
        shard: [row for row in ledgers.shard_ids(store.ledger, shard) if row[-1] is None]
        for shard in range(store.manifest.shards)
    }
    families: list[Family] = []
    for node, certificate in todo:
        own = {(node.shard, s): verify.held_by(examples[node.shard], node, (s,)) for s in node.slices}
        kin = [one for one in families if all(one.held.get(place, ids) == ids for place, ids in own.items())]
        if not kin:
            families.append(Family({}, {}))
            kin = families[-1:]
        kin[0].held.update(own)
        kin[0].nodes[node.shard, node.slices] = node.identity, certificate
    return families


def _trained(store: Store, setup: Setup, here: Mapping[str, Any], family: Family) -> Iterator[Verdict]:
    """Train the nodes of a family anew, each below its ancestors as published, and judge them."""
    read = heal.reader(store, setup, {(node.shard, node.slices): node for node in stores.live(store)})
    slices = heal.compartments(setup, family.held)
    for depth in sorted({len(node) for _, node in family.nodes}):  # one by one, so that ancestors are read and not trained
        jobs = []
        for shard, node in (job for job in family.nodes if len(job[1]) == depth):
            try:
                for above in range(1, depth):
                    read(shard, node[:above])
                jobs.append((shard, node))
            except ValueError as error:
                yield Verdict(family.nodes[shard, node][0], ELSEWHERE, f"an ancestor cannot be read: {error}")
        for call in builds.build(setup, slices, jobs, read):
            for job, trained in call.nodes:
                name, certificate = family.nodes[job]
                if other := _other(certificate.stack, heal.stack_of(here, call)):
                    yield Verdict(name, ELSEWHERE, other)
                elif parameters_digest(to_tensors(trained)) == certificate.output:
                    yield Verdict(name, IDENTICAL)
                else:
                    yield Verdict(name, DIFFERS, "training gives other bytes than were published")
