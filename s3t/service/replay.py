"""Proof by replay: a serving node is trained once more from its certificate, and its bytes are compared.

`s3t.service.verify` shows that ledger, certificates and files agree with each other; parameters that were forged along with
all of them show here. Training is handed the examples that the ledger has for the node, no deleted one among them, and the
node's ancestors as published. Bytes are a function of the stack too, so a node of another stack is not judged. A forger may
claim one: if one node that was asked for cannot be judged, nothing is proved, which is never ok. Nor may a forger know
which nodes are asked for, so a number of them is drawn from the system's randomness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from s3t.service import environment, inputs
from s3t.service.retraining import Retrained, retrain
from s3t.store import publishing
from s3t.store.certificates import Certificate, parameters_digest
from s3t.store.claims import NOTHING, PROVED, REFUTED
from s3t.store.disk import Store
from s3t.store.ledger.records import PublishedNode
from s3t.store.publishing import SINCE
from s3t.training.schedule import Setup
from s3t.training.source import Source, to_tensors

MENDED_BY = {  # how to have the stack of a certificate here
    "threads": "NPROC={} in the environment",
    "flags": "these flags in XLA_FLAGS, those of JAX by its own settings",
    "jax": "pip install jax=={}",
    "jaxlib": "pip install jaxlib=={}",
    "devices": "as many devices as then, {}",
}
OTHER_INPUTS = "its examples are not read as they were then (it takes that decoder of images and that data)"
OUTCOMES = IDENTICAL, DIFFERS, DAMAGED, ELSEWHERE = "identical", "differs", "damaged", "not replayable here"


class Verdict(NamedTuple):
    """What came of a replay: identical, differs, damaged, or not replayable here; and why, if there is more to say."""

    node: str
    outcome: str
    reason: str = ""


def replay(store: Store, source: Source, which: str | int = "all") -> dict[str, Any]:
    """Train serving nodes once more and compare their bytes with what was published. Nothing is changed.

    Args:
      store: the store.
      source: what its factory makes.
      which: "all", the identity of a serving node, or a number: so many, drawn anew each time.

    Returns:
      ok, whether the verdict is "proved"; verdict: "proved", every node that was asked for is identical, and there is one;
      "refuted", one differs or is damaged; or "nothing was proved"; problems, one line each; proved, how many nodes are
      identical; asked, how many of the nodes that were asked for still serve, and serving, how many serve; the identities
      of the nodes that are "identical", of those that "differs", "damaged" and "not replayable here" apply to; reasons, of
      the last.

    Raises:
      ValueError: no such node, or a source that is not the store's.
    """
    setup = inputs.setup_of(store.manifest, source)
    verdicts = _judged(store, setup, chosen(store, which))
    serving = set(publishing.identities(publishing.live(store)))  # a node that was dropped meanwhile may have lost its file
    verdicts = [verdict for verdict in verdicts if verdict.node in serving]
    by_outcome = {outcome: [verdict.node for verdict in verdicts if verdict.outcome == outcome] for outcome in OUTCOMES}
    problems = [f"node {verdict.node}: {verdict.reason}" for verdict in verdicts if verdict.outcome in (DIFFERS, DAMAGED)]
    reasons = sorted({verdict.reason for verdict in verdicts if verdict.outcome == ELSEWHERE})
    proved = len(by_outcome[IDENTICAL])
    verdict = REFUTED if problems else PROVED if proved == len(verdicts) > 0 else NOTHING
    return {
        "ok": verdict == PROVED,
        "verdict": verdict,
        "problems": problems,
        "proved": proved,
        "asked": len(verdicts),
        "serving": len(serving),
        **by_outcome,
        "reasons": reasons,
    }


def chosen(store: Store, which: str | int) -> list[PublishedNode]:
    """The serving nodes that `replay` is asked for, in the order of their publication."""
    nodes = list(publishing.live(store))
    if which == "all":
        return nodes
    if isinstance(which, int):
        if which < 1:
            raise ValueError(f"{which} nodes trained once more prove nothing: give 1 or more, or all")
        drawn = np.random.default_rng().permutation(len(nodes))[:which]  # not by a hash of the store, which a forger knows
        return [nodes[at] for at in sorted(drawn)]
    matches = [node for node in nodes if node.identity == which]
    if not matches:
        raise ValueError(f"no serving node is called {which:.80}: give one of them, a number or all")
    return matches


def _judged(store: Store, setup: Setup, nodes: Sequence[PublishedNode]) -> list[Verdict]:
    here = environment.here()
    verdicts, todo = [], dict[PublishedNode, Certificate]()
    for node in nodes:
        try:
            certificate = publishing.check(store, node)
        except ValueError as error:
            verdicts.append(Verdict(node.identity, DAMAGED, str(error)))
            continue
        stack = {**here, "shape": setup.shapes[len(node.slices) - 1]._asdict(), "program": certificate.stack.get("program")}
        if difference := _difference(certificate.stack, stack):
            verdicts.append(Verdict(node.identity, ELSEWHERE, difference))
        else:
            todo[node] = certificate
    return [*verdicts, *(_verdict(todo[retrained.node], retrained) for retrained in retrain(store, setup, here, todo))]


def _verdict(certificate: Certificate, retrained: Retrained) -> Verdict:
    """The verdict on a node that was trained once more."""
    name = retrained.node.identity
    if retrained.trained is None:
        return Verdict(name, ELSEWHERE, retrained.reason)
    recorded, stack = dict(certificate.stack), dict(retrained.stack)
    inputs_then, inputs_now = recorded.pop("inputs", None), stack.pop("inputs")
    if difference := _difference(recorded, stack):
        return Verdict(name, ELSEWHERE, difference)
    if parameters_digest(to_tensors(retrained.trained)) == certificate.output:
        return Verdict(name, IDENTICAL)
    if inputs_then not in (None, inputs_now):
        return Verdict(name, ELSEWHERE, OTHER_INPUTS)
    return Verdict(name, DIFFERS, "training gives other bytes than were published")


def _difference(recorded: Mapping[str, Any], stack: Mapping[str, Any]) -> str:
    """In what two stacks differ, one line; empty if in nothing. What only one of them states is no difference."""
    names = sorted(recorded.keys() | stack.keys())
    unstated = {name for name in SINCE if name not in recorded or name not in stack}
    different = [name for name in names if name not in unstated and recorded.get(name) != stack.get(name)]
    return "; ".join(
        f"{name} was {_short(recorded.get(name))}, here it is {_short(stack.get(name))}{_mended(name, recorded.get(name))}"
        for name in different
    )


def _mended(name: str, value: Any) -> str:
    return f" (it takes {MENDED_BY[name].format(value)})" if name in MENDED_BY else ""


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
