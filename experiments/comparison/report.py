"""The report of a comparison, from the files of its workdir alone: the page, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.comparison import canary_report, figures, methods, shown, tofu_report, tried
from experiments.comparison.headline import headline
from experiments.comparison.methods import MATCHED, SOON, STEPS, TEST, TIMES, Measure, Way, at
from experiments.comparison.summary import count, summary
from experiments.core import workdirs
from experiments.core.results import Run
from experiments.data import ids
from experiments.reporting import names, terminal
from experiments.reporting.document import Block, Heading, Points, Table, Text
from experiments.reporting.numbers import NONE, Cell
from experiments.reporting.pages import told, write_page
from experiments.training import privacy


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report = told(write, workdir)
    return f"{table(found, terminal.width())}\n{report}"


def write(workdir: str | Path) -> Path:
    """Write the report of a finished comparison; see `write_page`."""
    config, found = workdirs.read_run(Path(workdir))
    blocks = compose(found, tried.sweeps(Path(workdir) / "metrics.jsonl")) + _naming(config.get("data", {}))
    of_documents = shown.of(methods.group(found.rows)).documents
    asked = _asked(config.get("forget", {}), config.get("request", {}), "documents" if of_documents else "training set")
    return write_page(workdir, f"Forethought: {found.rows[0].dataset}, {asked}", blocks)


def table(found: Run, columns: int) -> str:
    """The result table for a terminal of so many columns."""
    every = methods.group(found.rows)
    seen = shown.of(every)
    notes = [
        f"{seen.legend} ± is half of the 95% t-interval over seeds. Relearn: {seen.relearned}, 'part' attack. "
        "Read every value against the oracle's, a model trained without the forget set."
    ]
    if any(way.matched for way in every):
        notes.append(f"{MATCHED} {NEAREST}")
    notes += _privacy(every)
    printed = terminal.to_text(_main_table(every, brief=True), columns)
    return "\n".join([printed, *(terminal.wrapped(note, columns) for note in notes)])


def compose(found: Run, swept: list[dict[str, Any]]) -> list[Block]:
    """The blocks of the page."""
    every = methods.group(found.rows)
    return [
        *headline(every),
        *_results(every),
        Heading("In words"),
        Points(summary(every, swept)),
        *_before(every),
        *_after(every),
        *tofu_report.section(every),
        *canary_report.section(every),
        *_paired(every),
        *figures.unlearning(every),
        *_relearning(every),
        *_cost(every),
        *tried.section(swept, shown.of(every)),
        *_failures(every),
        *_diagnostics(every),
    ]


def _naming(data: dict[str, Any]) -> list[Block]:
    """How examples of a user's own are called."""
    said = ids.naming(data)
    return [Heading("Ids"), Text(said)] if said else []


def _asked(forget: dict[str, Any], request: dict[str, Any], whole: str) -> str:
    classes = [str(label) for label in (forget.get("target"), *forget.get("also", ()))]
    who = f"class {classes[0]}" if len(classes) == 1 else f"classes {', '.join(classes[:-1])} and {classes[-1]}"
    if forget.get("setting") != "class":
        who = names.asked(forget) or f"a random {100 * forget.get('fraction', math.nan):g}% of the {whole}"
    parts = f" in {request['parts']} requests" if request.get("parts", 1) > 1 else ""
    tuned = f" after {request['tune_steps']} steps of fine-tuning" if request.get("tune_steps") else ""
    repaired = f", then {request['repair']} updates of repair" if request.get("repair") else ""
    revocable = f" (training was told: class {forget['revocable']})" if forget.get("revocable", -1) >= 0 else ""
    return f"{who} forgotten{parts}{tuned}{repaired}{revocable}"


# --- Names of lines ---------------------------------------------------------------------------------------------------


def _names(every: Sequence[Way], way: Way) -> list[Cell]:
    """What a line begins with; of a single algorithm nothing is said."""
    return [way.marked, way.algorithm] if _several(every) else [way.marked]


def _table(every: Sequence[Way], name: str, headers: Sequence[str], lines: Sequence[tuple[Way, Sequence[Cell]]]) -> Table:
    """One line for each way."""
    left = ["method", "algorithm"] if _several(every) else ["method"]
    rows = [[*_names(every, way), *cells] for way, cells in lines]
    return Table([*left, *headers], rows, len(left), name, ours=[i for i, (way, _) in enumerate(lines) if way.ours])


def _several(every: Sequence[Way]) -> bool:
    return len(methods.unlearners(every)) > 1


# --- Sections ---------------------------------------------------------------------------------------------------------

NEAREST = "The re-weighting whose forget loss before the request is nearest to readiness's."


def _main_table(every: Sequence[Way], brief: bool) -> Table:
    seen = shown.of(every)
    relearned = [SOON] if seen.documents else [SOON, *_late(every)]  # those of text have more columns before
    first = seen.first_before
    then = [*seen.first_after, *(shown.Column(m.label, m) for m in relearned), *seen.first_last]
    headers = [*(column.header for column in first), "steps\nmed / max", "aim\nreached", *(c.header for c in then)]

    def cell(way: Way, column: shown.Column) -> Cell:
        if brief and not column.wide:
            return methods.mean(way, column.measure)
        return methods.interval(way, column.measure, brief)

    lines: list[tuple[Way, Sequence[Cell]]] = []
    for way in every:
        before, after = ([cell(way, column) for column in columns] for columns in (first, then))
        lines.append((way, [*before, methods.steps(way), methods.stops(way, brief), *after]))
    return _table(every, "results", headers, lines)


def _results(every: Sequence[Way]) -> list[Block]:
    heldout = any(way.training == "heldout_oracle" for way in every)
    longer = any(row.facts.get("equal_flops") for way in every for row in way.rows)
    seen = shown.of(every)
    note = (
        f"{seen.legend} ± is half of the 95% t-interval over seeds. (n/N): only n of N seeds had a finite value. Read "
        "every value against the oracle's, a model trained without the forget set. "
        + ("The held-out oracle is a second one: it shows the best that can be asked for. " if heldout else "")
        + f"{seen.best}Relearn: {seen.relearned} that stay unseen, after so many steps on "
        "stable data with a part of the forgotten. Requests that ran out of budget count with what they ended at."
        + (" Longer: trained for as many FLOPs as readiness used." if longer else "")
    )
    marks = [Text(f"{MATCHED} {NEAREST}")] if any(way.matched for way in every) else []
    return [Heading("Results"), _main_table(every, brief=False), *marks, Text(note), *map(Text, _privacy(every))]


def _privacy(every: Sequence[Way]) -> list[str]:
    """What DP-SGD guarantees, if it is there."""
    return [privacy.said(way.rows[0].facts) for way in every if way.training == "dpsgd"][:1]


def _before(every: Sequence[Way]) -> list[Block]:
    seen, once = shown.of(every), methods.trainings(every)
    ready = methods.lead(once)
    rivals = [way for way in once if way.key == ("vanilla", "default") or way.matched]
    apart: list[list[Cell]] = [
        [f"{ready.name} − {way.marked}", *(methods.difference(ready, way, m) for m in seen.before)]
        for way in rivals
        if ready
    ]
    headers = [measure.label for measure in seen.before]
    matched = (
        f"The re-weighting marked {MATCHED} paid about as much, by smaller weights for the revocable examples and "
        "nothing else. "
    )
    note = (
        f"What was hardly learned is easily forgotten. Was the ease paid for in advance, {seen.paid}? "
        + (matched if any(way.matched for way in once) else "")
        + seen.before_note
    )
    rows: list[list[Cell]] = [[way.marked, *(methods.interval(way, measure) for measure in seen.before)] for way in once]
    ours = [i for i, way in enumerate(once) if way.ours]
    return [
        Heading("Before the request"),
        Text(note),
        Table(["method", *headers], rows, name="before", ours=ours),
        *([Table(["difference\n[95% interval]", *headers], apart, name="before-paired", stacked=True)] if apart else []),
    ]


def _after(every: Sequence[Way]) -> list[Block]:
    seen = shown.of(every)
    lines = [(way, [methods.interval(way, measure) for measure in seen.after]) for way in every]
    headers = [measure.label for measure in seen.after]
    return [Heading("After the request"), Text(seen.after_note), _table(every, "after", headers, lines)]


def _paired(every: Sequence[Way]) -> list[Block]:
    seen, relearned = shown.of(every), [SOON, *_late(every)]
    measures = (*(measure for _, measure in seen.paired), *relearned)
    rows: list[list[Cell]] = []
    for name in methods.unlearners(every):
        for a, b in _pairs(every, name):
            cells = [NONE if b.is_oracle and m is STEPS else methods.difference(a, b, m) for m in measures]
            rows.append([f"{a.name} − {b.marked}", *([names.algorithm(name)] if _several(every) else []), *cells])
    if not rows:
        return []
    headers = [header for header, _ in seen.paired]
    headers += [" ".join(measure.label.split()) + "\n(less is better)" for measure in relearned]
    note = (
        f"Differences seed by seed, in {seen.points}, with 95% t-intervals and p-values of paired t-tests. The p-values "
        "are not corrected for their number. Requests that ran out of budget "
        "count with the steps they had. Pairs without two finite values are left out, and the others counted (n/N)."
    )
    left = ["comparison", "algorithm"] if _several(every) else ["comparison"]
    table_ = Table([*left, *headers], rows, len(left), "paired", stacked=True)
    return [Heading("Paired comparisons"), Text(note), table_]


def _pairs(every: Sequence[Way], unlearner: str) -> list[tuple[Way, Way]]:
    """The leading readiness against all others, and every other readiness against vanilla."""
    ready, vanilla = methods.lead(every, unlearner), methods.find(every, "vanilla", unlearner)
    if not ready:
        return []
    others = [way for way in every if way.unlearner == unlearner and way.key != ready.key]
    pairs = [(ready, way) for way in [*others, methods.find(every, "oracle")] if way]
    return pairs + [(way, vanilla) for way in others if vanilla and way.training == "readiness"]


def _relearning(every: Sequence[Way]) -> list[Block]:
    drawn = figures.relearning(every)
    if not drawn:
        return []
    note = (
        f"Plain SGD on four attack sets. {shown.of(every).attacked} "
        "The oracle never saw these data and is attacked alike. A model that comes "
        "back faster than the oracle still held something. Area: between a curve and the oracle's of the same seed, as a "
        "share of what a model that never forgot would have. 0 relearns as the oracle does; 1 forgot nothing."
    )
    oracle = methods.find(every, "oracle")
    steps = [(str(methods.EARLY), methods.EARLY)] + ([(_last_step(every), -1)] if _late(every) else [])
    headers = [f"{attack}\n@{step}" for attack in figures.ATTACKS for step, _ in steps] + ["part\narea"]
    measures = [_relearned(attack, index) for attack in figures.ATTACKS for _, index in steps]
    measures += [Measure("part", lambda row: methods.relearned_area(row, oracle, "part"), 1, ".2f")]
    lines = [(way, [methods.interval(way, measure) for measure in measures]) for way in every]
    return [Heading("Relearning"), Text(note), *drawn, _table(every, "relearning", headers, lines)]


def _relearned(attack: str, step: int) -> Measure:
    return Measure(attack, lambda row: methods.relearned(row, attack, step))


def _late(every: Sequence[Way]) -> list[Measure]:
    """What is back at the end of relearning, unless that is as early as `SOON`."""
    last = _last_step(every)
    return [] if last == str(methods.EARLY) else [Measure(f"relearn\n@{last}", _relearned("part", -1).of)]


def _last_step(every: Sequence[Way]) -> str:
    """The step at which relearning ends."""
    length = max(len(methods.relearning(row, "part")) for way in every for row in way.rows)
    return str(length - 1) if length else "last"


def _cost(every: Sequence[Way]) -> list[Block]:
    vanilla = methods.find(every, "vanilla")
    base = methods.average(vanilla, "train_flops") if vanilla else math.nan
    once = methods.trainings(every)
    training = [_training_cost(way, base) for way in once]
    requests = [(way, _request_cost(every, way)) for way in every if not way.is_oracle]
    per_lane = (
        "Of one lane, FLOPs as XLA counts them. Seconds are the program's wall time without compiling, divided by the "
        "lanes it trained together. Compare them between programs of as many lanes only. Peak memory: arguments, results "
        "and temporaries of one training step."
    )
    per_request = (
        "FLOPs per request are means over the seeds that did not diverge. Seconds are the program's, divided by its lanes. "
        "Break-even: how many requests win back the training FLOPs beyond vanilla's. It is extra training FLOPs / FLOPs "
        "saved per request against vanilla with the same algorithm. It does not ask in what state the request left the "
        "model. Retraining instead costs the oracle's training each time."
    )
    headers = ["method", "training", "× vanilla", "seconds", "lanes", "ordinary step", "step with\nreadiness"]
    ours = [i for i, way in enumerate(once) if way.ours]
    return [
        Heading("Cost"),
        Text(per_lane),
        Table([*headers, "× ordinary", "peak memory"], training, name="cost-training", ours=ours),
        Text(per_request),
        _table(every, "cost-requests", ["FLOPs", "seconds", "aim reached", "break-even requests"], requests),
    ]


def _training_cost(way: Way, base: float) -> list[Cell]:
    flops, step = methods.average(way, "train_flops"), methods.average(way, "extra", "step_flops")
    meta = methods.average(way, "extra", "meta_step_flops") or math.nan  # 0: never rehearsed
    return [
        way.marked,
        methods.scaled(flops, "FLOP"),
        methods.shown(flops / (base or math.nan), TIMES),
        methods.seconds(methods.average(way, "train_seconds")),
        str(way.rows[0].extra.get("lanes", NONE)),
        methods.scaled(step, "FLOP"),
        methods.scaled(meta, "FLOP"),
        methods.shown(meta / (step or math.nan), TIMES),
        methods.scaled(methods.average(way, "peak_bytes"), "B"),
    ]


def _request_cost(every: Sequence[Way], way: Way) -> list[Cell]:
    vanilla = methods.find(every, "vanilla", way.unlearner)
    needed = methods.requests_to_pay(way, vanilla) if vanilla and vanilla is not way else math.nan
    return [
        methods.scaled(methods.average_of(way, methods.SPENT), "FLOP"),
        methods.seconds(methods.average(way, "unlearn_seconds")),
        methods.stops(way),
        "never" if math.isinf(needed) else NONE if math.isnan(needed) else str(math.ceil(needed)),
    ]


ENDS = {"diverged": "diverged", "budget": "out of budget"}


def _failures(every: Sequence[Way]) -> list[Block]:
    seen, lanes = shown.of(every), [(way, row) for way in every for row in way.rows]
    rows = []
    for way, row in lanes:
        if methods.end(row) != "reached":
            after = [methods.plain(measure.of(row), measure) for measure in (seen.gone, seen.kept)]
            trained = "yes" if math.isfinite(TEST.of(row)) else "no"
            rows.append([way.marked, way.algorithm, str(row.seed), ENDS[methods.end(row)], str(row.steps), trained, *after])
    if not rows:
        return [
            Heading("Failures"),
            Text(f"No failures: {count(lanes, 'lane')} reached their aim, with finite scores."),
        ]
    note = f"{len(rows)} of {count(lanes, 'lane')} diverged, or ran out of budget before they reached their aim."
    headers = ["method", "algorithm", "seed", "ended", "steps", "trained", *seen.ended]
    return [Heading("Failures"), Text(note), Table(headers, rows, left=2, name="failures")]


def _diagnostics(every: Sequence[Way]) -> list[Block]:
    length = Measure("gradient norm", at("extra", "diagnostics", "grad_norm"), 1, ".3g")
    cosine = Measure("cosine", at("extra", "diagnostics", "grad_cosine"), 1, ".3f")
    once = methods.trainings(every)
    rows: list[list[Cell]] = [[way.marked, methods.interval(way, length), methods.interval(way, cosine)] for way in once]
    note = (
        "Of the mean loss before the request: the norm of the forget set's gradient, and its cosine with the stable "
        "data's. The longer the gradient, the faster ascent sets out. Below a cosine of zero, ascent on the one is descent "
        "on the other."
    )
    ours = [i for i, way in enumerate(once) if way.ours]
    table_ = Table(["method", length.label, cosine.label], rows, name="diagnostics", ours=ours)
    return [Heading("Diagnostics"), Text(note), table_]
