"""The report of federated erasure, from the files of a workdir alone: the page, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.core import workdirs
from experiments.core.results import Estimate, Row, Run
from experiments.erasure import figures, shown
from experiments.judge.ulira import told
from experiments.reporting import drawing, pages, terminal
from experiments.reporting.document import Block, Heading, Headline, Points, Stat, Table, Text
from experiments.reporting.estimates import DISTANCE, SHARE, at, cell
from experiments.reporting.numbers import NONE, Cell, Number, bare, minus

GOING = {"class": "the class", "examples": "the examples"}  # by a row's setting; else clients leave
LEFT = {"backdoor": " and the backdoor at 5% or less", "class": " and tell 5% or less of the class"}  # what is wanted, too
CLOSE, GONE, RATE = 0.01, 0.05, 4.0  # of retraining's accuracy; of a backdoor or a class; bits an entry
HUGE = 100.0  # from which on a distance is told as such


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report, columns = pages.told(write, workdir), terminal.width()
    said = [terminal.wrapped(sentence, columns) for sentence in verdicts(found)]
    return "\n\n".join([terminal.to_text(_methods(found), columns), *said, report])


def write(workdir: str | Path) -> Path:
    """Write the report of a finished run; see `write_page`."""
    config, found = workdirs.read_run(Path(workdir))
    kind = _kind(config["leaver"])
    return pages.write_page(workdir, f"Forethought: federated {config['data']['name']}, {kind}", compose(config, found))


def _kind(leaver: Mapping[str, Any]) -> str:
    """What goes, for the title."""
    one, request = leaver["clients"] == 1, leaver.get("request", "client")
    if request == "class":
        return f"class {leaver['label']} goes"
    if request == "examples":
        some = "an example" if leaver["examples"] == 1 else f"{leaver['examples']} examples"
        return f"{some} of {'a client' if one else str(leaver['clients']) + ' clients each'} go{'es' * (some[0] == 'a')}"
    client = "a client leaves" if one else f"{leaver['clients']} clients leave"
    return f"{client}, with a backdoor" if leaver["backdoor"] else client


def compose(config: Mapping[str, Any], found: Run) -> list[Block]:
    """The blocks of the page."""
    backdoor = config["leaver"]["backdoor"]
    blocks: list[Block] = [_headline(found, backdoor), Points(verdicts(found))]
    blocks += [Heading("Every method beside retraining"), Text(_setting(config, found)), _methods(found), Text(READING)]
    blocks += [Heading("What each needs"), _needs(found)]
    if archives := _archives(found):
        blocks += [Heading("Archives after MEDU"), Text(ARCHIVES), archives, *figures.by_rate(found.rows, backdoor)]
    if found.facts.get("sweep"):
        blocks += [
            Heading("The choice of α"),
            Text(CHOICE),
            _sweep(found),
            *figures.by_alpha(found.facts["sweep"], backdoor),
        ]
    return blocks


READING = (
    "Gap: test accuracy minus that of retraining, in points. Distance: of parameters from retraining, where nothing "
    "done is 1; retraining in other batches is its floor. Differs: test examples that get another class than by "
    "retraining. Then so many rounds: a repair, of federated averaging without what went; the α before it was chosen "
    "with it. U-LiRA: the AUC of an attack that asks whether what went was ever there. 0.5 tells nothing; the fleet "
    "has few models, so read the interval (90%). Other brackets are 95% t-intervals over seeds. Ridge heads are another "
    "model, on a network as it was drawn, and stand beside a retraining of their own. Sent counts a whole model down and "
    "an update up for each update, also where a part of it would do. Seconds are a median on this machine, without "
    "compilation; of an archive they hold the encoding of all rounds."
)
ARCHIVES = (
    "After MEDU, whose text and code were not available: no reproduction. Each archive stores the same updates. Bits "
    "are what a range coder takes, tables included, over all updates of all who took part in some rounds of each seed, "
    "stored or not. Raw data are a byte a pixel, four a number of a table, and one a label. SNR: log10 "
    "of the variance over entries of the erased model, over that of what compression changed in it."
)
CHOICE = (
    "α was chosen on other federations, without the data that are to go here: the α whose model tells least "
    "from retraining there, on validation examples and on what went there. The table and the figure show the test "
    "set at every α that was tried; nothing was chosen by them."
)


def _setting(config: Mapping[str, Any], found: Run) -> str:
    fed, leaver, facts = config["federation"], config["leaver"], found.facts
    present = f"{fed['present']} in each round" if fed["present"] else "all in each round"
    spread = (
        f"classes by a Dirichlet distribution of {fed['dirichlet']:g}" if fed["dirichlet"] else "examples dealt out alike"
    )
    who = {"client": "one leaves" if leaver["clients"] == 1 else f"{leaver['clients']} leave"}.get(
        leaver.get("request", "client"), _kind(leaver)
    )
    claimed = f", and it claimed {leaver['claim']:g} times its examples" if fed["weighting"] == "examples" else ""
    planted = (
        f" and had planted a backdoor: {leaver['share']:.0%} of its images were stamped and called {leaver['target']}"
        + claimed
        if leaver["backdoor"]
        else ""
    )
    owned = ", ".join(map(str, facts["leavers_examples"]))
    return (
        f"{fed['clients']} clients, {present}, {fed['rounds']} rounds of federated averaging, {spread}; {who}{planted}, "
        f"with {owned} of {facts['examples']} examples. {facts['parameters']} parameters, {config['seeds']} seeds."
    )


# --- Verdicts ---------------------------------------------------------------------------------------------------------


def verdicts(found: Run) -> list[str]:
    """What the run shows of archives, in sentences: whether one is good enough, and what they save."""
    rows = [row for row in found.rows if "scheme" in row.facts]
    if not rows:
        return []
    low = [row for row in rows if (row.extra["bits"].value or math.inf) <= RATE]
    good = [row for row in low if _is_good(row)]
    wanted = "within 1 point of retraining" + LEFT.get(rows[0].setting, "")
    said = [f"{len(good)} of {len(low)} ways to erase by an archive of at most 4 bits an entry are {wanted}."]
    if good:
        best = min(good, key=lambda row: row.extra["bits"].value or math.inf)
        said[0] += f" The smallest is {shown.label(best)} at {best.extra['bits'].value:.2f} bits."
        served = next(row for row in found.rows if row.variant == "served")
        said[0] += " So is the model to which nothing was done: this setting does not ask much." * _is_good(served)
    elif low:
        near = min(low, key=lambda row: abs(row.extra["test_gap"].value or 0) + (_left(row) or 0))
        said[0] += f" The nearest is {shown.label(near)}: {_points(near)}."
    return [*said, _sizes(found, rows)]


def _is_good(row: Row) -> bool:
    gap, left = row.extra["test_gap"].value, _left(row)
    return gap is not None and abs(gap) <= CLOSE and (row.setting not in LEFT or (left is not None and left <= GONE))


def _left(row: Row) -> float | None:
    """What is left of a backdoor or a class."""
    score = {"backdoor": "backdoor", "class": "leaver_accuracy"}.get(row.setting)
    return row.extra[score].value if score else None


def _points(row: Row) -> str:
    gap, left = row.extra["test_gap"].value, _left(row)
    text = minus(f"{100 * gap:.1f}") + " points of accuracy"
    return text if left is None else f"{text}, {row.setting} {100 * left:.1f}%"


def _sizes(found: Run, rows: Sequence[Row]) -> str:
    raw, sums = float(found.facts["raw_bytes"]), float(found.facts["sums_bytes"])
    small = min(rows, key=lambda row: row.extra["stored"].value or math.inf)
    stored = small.extra["stored"].value or math.nan
    return (
        f"The smallest archive, {small.facts['scheme']}, takes {stored / 1000:,.0f} kB: {stored / raw:.2g} times the raw "
        f"data ({raw / 1000:,.0f} kB), {stored / sums:.2g} times running sums ({sums / 1000:,.0f} kB), "
        "which do what the uncompressed history does at α = 0 where weights do not change."
    )


def _headline(found: Run, backdoor: bool) -> Headline:
    chosen = shown.archives(shown.main_rows(found.rows), chosen=True)
    middle = chosen[len(chosen) // 2] if chosen else None
    rows = [row for row in found.rows if _is_ahead(row, middle)]
    entries = [(shown.label(row), cell(row.extra["test_gap"], 1, scale=100), shown.style(row)) for row in rows]
    caption = "Test accuracy minus that of retraining, with 95% intervals; within the band it is within 1 point"
    panel = drawing.intervals("gap", caption, entries, "points", (-100 * CLOSE, 100 * CLOSE))
    oracle = next(row for row in found.rows if row.variant == "oracle")
    without = f"Retrained without {GOING.get(oracle.setting, 'the leavers')}"
    stats = [Stat(without, _percent(oracle, "test_accuracy"), "Test accuracy.", "%")]
    if middle:
        bits = middle.extra["bits"].value or math.nan
        note = f"{shown.label(middle)}, {bits:.2f} bits an entry."
        stats.append(Stat("An archive's gap to retraining, points", cell(middle.extra["test_gap"], 1, scale=100), note))
        if backdoor:
            served = next(row for row in found.rows if row.variant == "served")
            note = f"Before: {_percent(served, 'backdoor').text}%. Retrained: {_percent(oracle, 'backdoor').text}%."
            stats.append(Stat("Backdoor after it", _percent(middle, "backdoor"), note, "%"))
        repaired = [row for row in rows if "scheme" in row.facts and "repair" in row.facts]
        stats += [_repair(row, backdoor) for row in repaired[-1:]]
    return Headline(panel, stats)


def _is_ahead(row: Row, middle: Row | None) -> bool:
    """Whether a row stands in the first figure: of alphas the chosen one, of archives the main one at its middle rate."""
    if row.variant == "oracle" or row.unlearner.startswith("ridge") or row.extra["test_gap"].value is None:
        return False
    of_middle = "scheme" not in row.facts or (middle is not None and row.facts["scheme"] == middle.facts["scheme"])
    return of_middle and row.facts.get("chosen") is not False


def _repair(row: Row, backdoor: bool) -> Stat:
    left = f" Backdoor: {_percent(row, 'backdoor').text}%." if backdoor else ""
    note = f"{shown.label(row)}; {cell(row.extra['updates'], 0).text} updates of clients.{left}"
    return Stat("After a repair, points", cell(row.extra["test_gap"], 1, scale=100), note)


# --- Tables -----------------------------------------------------------------------------------------------------------


def _methods(found: Run) -> Table:
    rows = shown.main_rows(found.rows)
    backdoor = any(row.setting == "backdoor" for row in rows)
    headers = ["way", "test\nacc. %", "gap,\npoints", f"{_whose(rows)}\nacc. %", *(["backdoor\n%"] if backdoor else [])]
    headers += [
        "U-LiRA\nAUC",
        "told\napart",
        "distance",
        "differs\n%",
        "bits an\nentry",
        "stored\nkB",
        "sent\nkB",
        "rounds",
    ]
    headers += ["updates", "seconds"]
    lines: list[list[Cell]] = []
    for row in rows:
        extra = row.extra
        lines.append(
            [
                shown.label(row),
                _percent(row, "test_accuracy"),
                cell(extra["test_gap"], 1, scale=100),
                _percent(row, "leaver_accuracy"),
                *([_percent(row, "backdoor")] if backdoor else []),
                *_membership(row),
                _distance(extra["distance"]),
                _percent(row, "disagreement"),
                cell(extra["bits"], 2, brief=True),
                _kilobytes(extra["stored"]),
                _kilobytes(extra["sent"]),
                cell(extra["rounds"], 0, brief=True),
                cell(extra["updates"], 0, brief=True),
                bare(row.unlearn_seconds, f"{row.unlearn_seconds:.2f}") if row.unlearn_seconds is not None else NONE,
            ]
        )
    ours = [i for i, row in enumerate(rows) if "scheme" in row.facts]
    return Table(headers, lines, name="methods", ours=ours, stacked=True)


def _needs(found: Run) -> Table:
    lines: list[list[Cell]] = []
    for row in shown.main_rows(found.rows):
        if row.unlearner != "served" and not any(line[0] == row.unlearner for line in lines):
            facts = row.facts
            refused = f" Here: {row.extra['reason']}." if row.extra["reason"] else ""
            helpers, source = (str(facts[name])[:1].upper() + str(facts[name])[1:] for name in ("helpers", "source"))
            lines.append([row.unlearner, f"{helpers}. Exact: {facts['exact']}. {source}.{refused}"])
    return Table(["method", "who must help, when it is exact, and whose it is"], lines, left=2, name="needs", prose=True)


def _archives(found: Run) -> Table | None:
    rows, zero = (
        shown.archives(found.rows, chosen=True),
        {row.facts["scheme"]: row for row in shown.archives(found.rows, False)},
    )
    if not rows:
        return None
    backdoor = rows[0].setting == "backdoor"
    raw, sums = float(found.facts["raw_bytes"]), float(found.facts["sums_bytes"])
    headers = ["archive", "bits an\nentry", "updates\nstored %", "stored\nkB", "× raw\ndata", "× running\nsums", "SNR"]
    headers += [
        "gap,\npoints",
        f"{_whose(rows)}\nacc. %",
        *(["backdoor\n%"] if backdoor else []),
        "U-LiRA\nAUC",
        "distance",
    ]
    headers += ["gap,\nα = 0", *(["backdoor\n%, α = 0"] if backdoor else []), "distance,\nα = 0"]
    lines: list[list[Cell]] = []
    for row in rows:
        extra, other = row.extra, zero[row.facts["scheme"]].extra
        stored = extra["stored"].value or math.nan
        lines.append(
            [
                str(row.facts["scheme"]),
                cell(extra["bits"], 2, brief=True),
                cell(extra["kept"], 0, scale=100, brief=True),
                _kilobytes(extra["stored"]),
                bare(stored / raw, f"{stored / raw:.1f}"),
                bare(stored / sums, f"{stored / sums:.2f}"),
                cell(extra["ratio"], 1, brief=True),
                cell(extra["test_gap"], 1, scale=100),
                _percent(row, "leaver_accuracy"),
                *([_percent(row, "backdoor")] if backdoor else []),
                _membership(row)[0],
                _distance(extra["distance"]),
                cell(other["test_gap"], 1, scale=100),
                *([cell(other["backdoor"], 1, scale=100, ends=SHARE)] if backdoor else []),
                _distance(other["distance"]),
            ]
        )
    return Table(headers, lines, name="archives", stacked=True)


def _sweep(found: Run) -> Table:
    scores = [
        score
        for score in figures.SWEPT
        if any(at(told, (score,)).value is not None for told in found.facts["sweep"].values())
    ]
    headers = [
        "α",
        "divergence\nelsewhere",
        *(f"{figures.SWEPT[score][0].lower()}\n%" for score in scores),
        "gap,\npoints",
        "distance",
    ]
    away = _divergences(found)
    chosen = float(found.facts["calibration"]["chosen"]["alpha"])
    lines: list[list[Cell]] = []
    for name, scored in sorted(found.facts["sweep"].items(), key=lambda entry: float(entry[0])):
        divergence = away.get(float(name), math.nan)
        lines.append(
            [
                minus(name) + (", chosen" if float(name) == chosen else ""),
                bare(divergence, f"{divergence:.4f}"),
                *(cell(at(scored, (score,)), 1, scale=100, ends=SHARE) for score in scores),
                cell(at(scored, ("test_gap",)), 1, scale=100),
                _distance(at(scored, ("distance",))),
            ]
        )
    ours = [i for i, line in enumerate(lines) if "chosen" in str(line[0])]
    return Table(headers, lines, name="alphas", ours=ours)


def _divergences(found: Run) -> dict[float, float]:
    """By alpha, the mean over federations of calibration."""
    calibration = found.facts["calibration"]
    each = calibration["divergences"].get("alpha", [])
    means = [sum(column) / len(column) if None not in column else math.nan for column in zip(*each, strict=True)]
    return dict(zip(map(float, calibration["grids"]["alpha"]), means, strict=False))


def _whose(rows: Sequence[Row]) -> str:
    """Whose accuracy a column has, of what goes."""
    return {"class": "class's", "examples": "examples'"}.get(rows[0].setting, "leavers'")


def _percent(row: Row, score: str) -> Number:
    return cell(row.extra[score], 1, scale=100, ends=SHARE)


def _kilobytes(estimate: Estimate) -> Number:
    if estimate.value is None:
        return Number(math.nan, NONE)
    thousands = estimate.value / 1000
    return Number(thousands, f"{thousands:,.0f}" if thousands >= 10 or not thousands else f"{thousands:.1f}")


def _distance(estimate: Estimate) -> Number:
    if estimate.value is not None and estimate.value >= HUGE:
        return Number(estimate.value, f"{estimate.value:.0e}")
    return cell(estimate, 2, ends=DISTANCE)


def _membership(row: Row) -> list[Cell]:
    found = row.extra["ulira"]
    if not isinstance(found, Mapping):
        return [Number(math.nan, NONE), NONE]
    auc = found["estimate90"]
    return [cell(auc, 2, ends=SHARE), told(auc.low, auc.high)]
