"""What a run found, in sentences computed from its numbers: also where readiness is worse or nothing is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from experiments.comparison import methods, shown
from experiments.comparison.methods import LOSS, SOON, STEPS, TIMES, Measure, Way
from unlearn.metrics.intervals import Paired


def summary(every: Sequence[Way], swept: Sequence[dict[str, Any]]) -> list[str]:
    """A few sentences; of several unlearners, the first is told in full."""
    sentences: list[str] = []
    for name in methods.unlearners(every):
        ready, vanilla = methods.lead(every, name), methods.find(every, "vanilla", name)
        if ready and vanilla:
            brief = bool(sentences)
            sentences += _brief(every, swept, ready, vanilla) if brief else _full(every, swept, ready, vanilla)
    return [sentence for sentence in sentences if sentence] or [
        "This run does not compare readiness with vanilla. The tables hold what it measured."
    ]


def _full(every: Sequence[Way], swept: Sequence[dict[str, Any]], ready: Way, vanilla: Way) -> list[str]:
    matched = next((way for way in every if way.matched and way.unlearner == ready.unlearner), None)
    seen = shown.of(every)
    best = methods.strongest(every, ready.unlearner, seen.kept)
    oracle = methods.find(every, "oracle")
    fair = [vanilla, *([matched] if matched else [])]
    hard = [best] if best and best.key not in [way.key for way in fair] else []
    aim = f" (the oracle: {_shown(oracle, SOON)})" if oracle else ""
    return [
        f"Requests were carried out by {_how(ready, swept)} on {count(ready.rows, 'seed')}. In brackets: {ready.name} "
        "minus the other, paired by seed, with its 95% t-interval and p-value.",
        _kept(seen.kept_words, ready, [*fair, *hard], seen.kept),
        _who(ready, matched, hard),
        _line("Steps", ready, fair, STEPS),
        _fulfilled(ready, vanilla),
        *(_line(words, ready, fair, measure) for words, measure in seen.lines),
        _line(f"Relearned after {methods.EARLY} steps on a part of the forgotten{aim}", ready, fair, SOON),
        _line(seen.start_words, ready, fair, seen.start),
        _price(ready, vanilla),
    ]


def _brief(every: Sequence[Way], swept: Sequence[dict[str, Any]], ready: Way, vanilla: Way) -> list[str]:
    seen = shown.of(every)
    start = f"By {_how(ready, swept)}: {seen.kept_words[0].lower()}{seen.kept_words[1:]}"
    return [_kept(start, ready, [vanilla], seen.kept), _fulfilled(ready, vanilla)]


def _kept(what: str, ready: Way, others: Sequence[Way], kept: Measure) -> str:
    """What was kept. A way most of whose requests ran out of budget is compared with none: who does nothing keeps all."""
    if 2 * sum(methods.end(row) == "budget" for row in ready.rows) <= len(ready.rows):
        return _line(what, ready, others, kept)
    values = ", ".join(f"{way.name} {_shown(way, kept)}" for way in others)
    return (
        f"{what}: {ready.name} {_shown(ready, kept)}, {values}. {ready.name} has not forgotten, so this compares nothing."
    )


def _how(ready: Way, swept: Sequence[dict[str, Any]]) -> str:
    chosen = next((event["chosen"] for event in swept if event["unlearner"] == ready.unlearner), None)
    if chosen is None or "clip" not in chosen:  # none, or one for each way
        return ready.algorithm
    clipped = f", gradients clipped to norm {chosen['clip']:g}," if chosen["clip"] else ""
    return f"{ready.algorithm} at learning rate {chosen['learning_rate']:g}{clipped}"


def _line(what: str, ready: Way, others: Sequence[Way], measure: Measure) -> str:
    against = []
    for way in others:
        found, most = methods.compare(ready, way, measure), min(len(ready.rows), len(way.rows))
        missing = f" on {found.difference.count} of {most} seeds" if 1 < found.difference.count < most else ""
        against.append(f"{way.name} {_shown(way, measure)} ({verdict(found, measure, ready.name)}{missing})")
    return f"{what}: {ready.name} {_shown(ready, measure)}, {', '.join(against)}."


def _shown(way: Way, measure: Measure) -> str:
    text = methods.mean(way, measure).text
    return f"{text}%" if measure.scale == 100 and text != methods.NONE else text


def verdict(found: Paired, measure: Measure, name: str) -> str:
    """A paired difference in words: how large, how sure, and who is better, if that is shown.

    Args:
      found: the way called `name` minus the other.
    """
    (centre, low, high, pairs), p = found
    if not pairs:
        return "no seed has both"
    text = methods.signed(centre, measure)
    if not math.isfinite(low):
        return f"{text} on one seed, which shows nothing"
    text += f" [{methods.signed(low, measure)}, {methods.signed(high, measure)}], {methods.p_value(p)}"
    if low <= 0 <= high:
        return f"{text}: no difference is shown"
    return f"{text}: {name} is {'better' if (low > 0) == measure.higher else 'worse'}"


def _who(ready: Way, matched: Way | None, hard: Sequence[Way]) -> str:
    told = [f"{way.name} keeps the most of all others, judged by these very data" for way in hard]
    if matched:
        near = f"{methods.mean(matched, LOSS)}; {ready.name}: {methods.mean(ready, LOSS)}"
        told.insert(0, f"{matched.name} is the re-weighting nearest in forget loss before the request ({near})")
    return f"Of these, {'; '.join(told)}." if told else ""


def _fulfilled(ready: Way, vanilla: Way) -> str:
    return f"Aim reached: {ready.name} {methods.stops(ready)}, {vanilla.name} {methods.stops(vanilla)}."


def _price(ready: Way, vanilla: Way) -> str:
    ratio = methods.average(ready, "train_flops") / (methods.average(vanilla, "train_flops") or math.nan)
    needed = methods.requests_to_pay(ready, vanilla)
    if math.isinf(needed):
        won = "its requests save no FLOPs, so that is never won back"
    elif math.isnan(needed):
        won = "whether requests win that back is unknown"
    else:
        won = f"that is won back by {count(range(math.ceil(needed)), 'cheaper request')}"
    return f"Training took {methods.plain(ratio, TIMES)} times vanilla's FLOPs; {won}."


def count(things: Sequence[Any], name: str) -> str:
    """`3 seeds`, `1 seed`."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
