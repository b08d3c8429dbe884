"""What the page of a comparison opens with: what was kept, how many steps it took, how much came back."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.comparison import methods
from experiments.comparison.methods import EARLY, FORGET, KEPT, SOON, STEPS, Measure, Way
from experiments.comparison.summary import count
from experiments.reporting import drawing
from experiments.reporting.document import Block, Headline, Stat

SHARE, POSITIVE = (0.0, 1.0), (0.0, float("inf"))


def headline(every: Sequence[Way]) -> list[Block]:
    """One figure and three numbers of the leading method, of the first algorithm; nothing without a request."""
    unlearners = methods.unlearners(every)
    if not unlearners:
        return []
    shown = [way for way in every if way.is_oracle or way.unlearner == unlearners[0]]
    lead = methods.lead(shown, unlearners[0]) or next(way for way in shown if not way.is_oracle)
    shown.sort(key=lambda way: (way.key != lead.key, not way.is_oracle))
    oracle = methods.find(shown, "oracle")
    entries = [(way.marked, methods.bounded(way, KEPT, SHARE), way.style) for way in shown]
    rule = (100 * methods.average_of(oracle, KEPT),) if oracle else ()
    caption = "Test accuracy on what stays, after the request, with 95% intervals over seeds"
    panel = drawing.intervals("kept", caption, entries, "accuracy, %", rule)
    seeds = count(lead.rows, "seed")
    stats = [
        Stat(f"Kept accuracy, {lead.name}", methods.bounded(lead, KEPT, SHARE), _beside(shown, lead, KEPT, KEEPS), "%"),
        Stat("Steps to forget", methods.bounded(lead, STEPS, POSITIVE), _steps(shown, lead)),
        Stat("Relearned", methods.bounded(lead, SOON, SHARE), _beside(shown, lead, SOON, RELEARNS), "%"),
    ]
    stats[0] = stats[0]._replace(note=f"{stats[0].note} Brackets are 95% intervals over {seeds}.")
    return [Headline(panel, stats)]


KEEPS = "Test accuracy on what stays, after the request."
RELEARNS = f"Accuracy on unseen forget data after {EARLY} steps of relearning on a part of them; less is better."


def _beside(shown: Sequence[Way], lead: Way, measure: Measure, what: str) -> str:
    """What a number is, and the same of vanilla and of the oracle."""
    others = [way for way in shown if way.key in (("vanilla", "default"), ("oracle", "default")) and way is not lead]
    values = [f"{way.name}: {methods.mean(way, measure)}%" for way in others]
    return f"{what} {', '.join(values)}." if values else what


def _steps(shown: Sequence[Way], lead: Way) -> str:
    vanilla = methods.find(shown, "vanilla")
    text = f"Mean steps of {lead.algorithm}. {methods.stops(lead)} requests reached their aim, with a forget accuracy of "
    text += f"{methods.mean(lead, FORGET)}%."
    return f"{text} Steps of Vanilla: {methods.mean(vanilla, STEPS)}." if vanilla and vanilla is not lead else text
