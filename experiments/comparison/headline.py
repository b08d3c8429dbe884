"""What the page of a comparison opens with: what was kept, how many steps it took, how much came back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.comparison import methods, shown
from experiments.comparison.methods import EARLY, FORGET, KEPT, SOON, STEPS, Measure, Way
from experiments.comparison.shown import (
    APART,
    EXTRACTED,
    EXTRACTED_BEFORE,
    FORGOTTEN,
    HELD_OUT,
    MIN_K,
    PRIVLEAK,
    RETAINED,
    RETAINED_BEFORE,
)
from experiments.comparison.summary import count
from experiments.reporting import drawing
from experiments.reporting.document import Block, Headline, Stat
from experiments.reporting.numbers import Number

SHARE, POSITIVE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)


def headline(every: Sequence[Way]) -> list[Block]:
    """One figure and three numbers of the leading method, of the first algorithm; nothing without a request."""
    unlearners = methods.unlearners(every)
    if not unlearners:
        return []
    ways = [way for way in every if way.is_oracle or way.unlearner == unlearners[0]]
    lead = methods.lead(ways, unlearners[0]) or next(way for way in ways if not way.is_oracle)
    ways.sort(key=lambda way: (way.key != lead.key, not way.is_oracle))
    return [_of_documents(ways, lead) if shown.of(every).documents else _of_labelled(ways, lead)]


def _of_labelled(ways: Sequence[Way], lead: Way) -> Headline:
    caption = "Test accuracy on what stays, after the request, with 95% intervals over seeds"
    stats = [
        Stat(f"Kept accuracy, {lead.name}", methods.bounded(lead, KEPT, SHARE), _beside(ways, lead, KEPT, KEEPS, "%"), "%"),
        Stat("Steps to forget", methods.bounded(lead, STEPS, POSITIVE), _steps(ways, lead, f"{_mean(lead, FORGET)}%")),
        Stat("Relearned", methods.bounded(lead, SOON, SHARE), _beside(ways, lead, SOON, RELEARNS, "%"), "%"),
    ]
    return _headline(ways, lead, stats, KEPT, SHARE, caption, "accuracy, %")


def _of_documents(ways: Sequence[Way], lead: Way) -> Headline:
    caption = "Loss on retained documents, after the request, with 95% intervals over seeds; less is better"
    apart, kept = methods.bounded(lead, APART, ANY), methods.bounded(lead, RETAINED, POSITIVE)
    extracted, auc = methods.bounded(lead, EXTRACTED, SHARE), methods.bounded(lead, MIN_K, SHARE)
    held_out = f"{STAYS} Before: {_mean(lead, RETAINED_BEFORE)}. Held-out documents: {_mean(lead, HELD_OUT)}."
    goes = f"{GOES} Their loss is {_mean(lead, FORGOTTEN)}."
    could = f"{COULD} Before: {_mean(lead, EXTRACTED_BEFORE)}%."
    attack = f"{ATTACK} PrivLeak: {_mean(lead, PRIVLEAK)}%."
    stats = [
        Stat(f"What stays, {lead.name}", kept, _beside(ways, lead, RETAINED, held_out), NATS),
        Stat("What goes, minus the oracle", apart, _beside(ways, lead, APART, goes), NATS),
        Stat("Extraction strength", extracted, _beside(ways, lead, EXTRACTED, could, "%"), "%"),
        Stat("Min-K% attack, AUC", auc, _beside(ways, lead, MIN_K, attack)),
        Stat("Steps to forget", methods.bounded(lead, STEPS, POSITIVE), _steps(ways, lead)),
        Stat("Relearned", methods.bounded(lead, SOON, SHARE), _beside(ways, lead, SOON, TOLD_AGAIN, "%"), "%"),
    ]
    return _headline(ways, lead, stats, RETAINED, POSITIVE, caption, "nats per token")


def _headline(
    ways: Sequence[Way], lead: Way, stats: list[Stat], kept: Measure, ends: tuple[float, float], caption: str, unit: str
) -> Headline:
    """The figure of what is kept, and the numbers; the first says what brackets are."""
    oracle = methods.find(ways, "oracle")
    entries = [(way.marked, methods.bounded(way, kept, ends), way.style) for way in ways]
    rule = (kept.scale * methods.average_of(oracle, kept),) if oracle else ()
    seeds = count(lead.rows, "seed")
    stats[0] = stats[0]._replace(note=f"{stats[0].note} Brackets are 95% intervals over {seeds}.")
    return Headline(drawing.intervals("kept", caption, entries, unit, rule), stats)


KEEPS = "Test accuracy on what stays, after the request."
RELEARNS = f"Accuracy on unseen forget data after {EARLY} steps of relearning on a part of them; less is better."
NATS = " nats"
STAYS = "Loss per token on retained documents, after the request; less is better."
GOES = "Loss per token on forgotten documents minus the oracle's. Below 0 they are remembered, above they stand out."
COULD = "Share of forgotten text that the model adds word for word, given the beginning of each row; less is better."
ATTACK = "How often a forgotten document looks more likely seen than a held-out one; .5 is chance."
TOLD_AGAIN = (
    f"Tokens told right of unseen forgotten documents after {EARLY} steps of relearning on a part of them; less is better."
)


def _mean(way: Way, measure: Measure) -> Number:
    return methods.mean(way, measure)


def _beside(ways: Sequence[Way], lead: Way, measure: Measure, what: str, unit: str = "") -> str:
    """What a number is, and the same of vanilla and of the oracle."""
    others = [way for way in ways if way.key in (("vanilla", "default"), ("oracle", "default")) and way is not lead]
    values = [f"{way.name}: {_mean(way, measure)}{unit}" for way in others]
    return f"{what} {', '.join(values)}." if values else what


def _steps(ways: Sequence[Way], lead: Way, forgotten: str = "") -> str:
    vanilla = methods.find(ways, "vanilla")
    text = f"Mean steps of {lead.algorithm}. {methods.stops(lead)} requests reached their aim"
    text += f", with a forget accuracy of {forgotten}." if forgotten else "."
    return f"{text} Steps of Vanilla: {_mean(vanilla, STEPS)}." if vanilla and vanilla is not lead else text
