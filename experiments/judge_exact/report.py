"""The report of a judgement of exact models, from the files of a workdir alone: the page, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.comparison import methods
from experiments.core import workdirs
from experiments.core.results import Row, Run
from experiments.judge.figures import roc
from experiments.judge.report import FEWEST
from experiments.judge.ulira import BAND, told
from experiments.judge_exact.attacks import TIERS
from experiments.reporting import drawing, names, pages, terminal
from experiments.reporting.document import Block, Figures, Heading, Headline, Key, Panel, Stat, Table, Text
from experiments.reporting.estimates import DISTANCE, NOTHING, SHARE, at, cell
from experiments.reporting.names import STATES, Method, Style
from experiments.reporting.numbers import Cell, Number, bare

SETS = {"forget": "deleted", "same": "same slice", "apart": "other slice", "validation": "valid."}
STREAMS = {"confident": "asks for the most confident", "mates": "asks for slice-mates"}
KINDS = {"s3t": "S3T", "sisa": "SISA"}


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report, columns = pages.told(write, workdir), terminal.width()
    tables = [f"{_title(kind)}:\n{terminal.to_text(_attacks(rows, kind), columns)}" for kind, rows in _kinds(found).items()]
    return "\n\n".join([*tables, report])


def write(workdir: str | Path) -> Path:
    """Write the report of a finished judgement; see `write_page`."""
    config, found = workdirs.read_run(Path(workdir))
    title = f"Forethought: {config['data']['name']}, exact unlearning judged"
    return pages.write_page(workdir, title, compose(found, config["exact"]["models"], config["exact"]["asked"]))


def compose(found: Run, models: int, asked: int) -> list[Block]:
    """The blocks of the page.

    Args:
      models: in each fleet.
      asked: examples that are deleted of a model.
    """
    kinds = _kinds(found)
    blocks: list[Block] = [*_too_few(models), _headline(*next(iter(kinds.items())), few=models < FEWEST)]
    for i, (kind, rows) in enumerate(kinds.items()):
        blocks += [Heading(f"{_title(kind)}: was it ever there?"), _attacks(rows, kind), *_verdicts(rows)]
        blocks += [Text(_how_to_read(models, asked))] if i == 0 else []
        blocks += [_groups(rows, kind), *_pictures(rows, kind)]
        blocks += [Heading(f"{_title(kind)}: before and after"), Text(BEFORE_AND_AFTER), _pairs(rows, kind)]
        blocks += [Heading(f"{_title(kind)}: requests that watch what is served"), Text(WATCHING)]
        blocks += [_streams(rows, kind), *_curves(rows, kind)]
    return blocks


def _how_to_read(models: int, asked: int) -> str:
    return (
        f"Each fleet has {models} models, each with a partition and keys of its own. The {asked} examples of "
        "one person lie in one slice, another one in every model, and are deleted. Read every value beside the held-out "
        "oracle's: models that never held the examples, compared with others of their kind. For U-LiRA these are both "
        "together, for memberships drawn again and again, and the central 90% of them. Brackets are 95% intervals over "
        "models, of U-LiRA's AUC in the first table 90%."
    )


def _too_few(models: int) -> list[Block]:
    """What is said of a judgement with too few models to judge by."""
    if models >= FEWEST:
        return []
    said = f"Too few models to judge by: each fleet has {models}, and at least {FEWEST} are needed."
    return [Text(f"{said} Read no verdict here: set exact.models higher.", "warning")]


def _headline(kind: str, rows: Sequence[Row], few: bool) -> Headline:
    """Are healed models told apart, are those with a slice off, and are healed nodes those of retraining.

    few: whether there are too few models for a verdict.
    """
    shown = [row for row in rows if "ulira" in row.extra and row.training != "oracle"]
    healed = next(row for row in rows if row.unlearner == "heal")
    off = next((row for row in rows if row.unlearner == "off"), None)
    floor = next((row for row in rows if row.training == "heldout_oracle"), None)
    entries = [(name(row), _auc(row), method(row).style) for row in sorted(shown, key=lambda row: row is not healed)]
    panel = drawing.intervals(
        "told-apart",
        f"Attack on {_title(kind)} after deletion, with 90% intervals; within the band nothing is told apart",
        entries,
        "AUC of U-LiRA",
        BAND,
    )
    beside = f" Held-out oracle: {_auc(floor).text}." if floor else ""
    audit = healed.extra["audit"]
    stats = [_attack(healed, few, f"AUC of U-LiRA, 90% interval; 0.5 tells nothing.{beside}")]
    if off:
        stats.append(_attack(off, few, "AUC of U-LiRA before anything is retrained, 90% interval."))
    equal = Number(audit["equal"], f"{audit['equal']} of {audit['nodes']}")
    note = "Healed nodes that equal, bit for bit, those trained from scratch without the deleted examples."
    return Headline(panel, [*stats, Stat("Equal to retraining", equal, note)])


def _attack(row: Row, few: bool, what: str) -> Stat:
    auc = row.extra["ulira"]["estimate90"]
    verdict = {"no": "Not told apart", "yes": "Told apart", "open": "Open"}[told(auc.low, auc.high)]
    return Stat(f"Attack on {name(row)}", _auc(row), f"{'No verdict' if few else verdict}. {what}")


def _auc(row: Row) -> Number:
    """U-LiRA's AUC with its 90% interval."""
    return cell(row.extra["ulira"]["estimate90"], ends=SHARE)


BEFORE_AND_AFTER = (
    "An attacker keeps the answers from before a deletion and compares them with those after it. The example whose margin "
    "fell furthest is called the deleted one. The value is the probability that it fell further than that of an example "
    "that stayed, in the same slice or in another. 0.5 is a guess. One example of each model was deleted, of the oracle "
    "the whole group."
)
WATCHING = (
    "An attacker asks for one deletion after the other. It sees the margins that are served and knows those of sibling "
    "models. What serves then is compared with held-out oracles after the same requests. Does the depth that is served, or "
    "the mean confidence on the deleted, tell which is which? The floor is the same with another model's requests."
)


def _kinds(found: Run) -> dict[str, list[Row]]:
    """The rows of each kind, oracles first."""
    kinds = dict.fromkeys(str(row.facts["kind"]) for row in found.rows)
    return {kind: [row for row in found.rows if row.facts["kind"] == kind] for kind in kinds}


def method(row: Row) -> Method:
    """How what is served in the models of a row is called and drawn."""
    if row.is_oracle:
        oracle = STATES[row.training, ""]
        return oracle._replace(name=f"{oracle.name}, same slice off") if row.facts["slice_off"] else oracle
    return STATES[row.variant, row.unlearner]


def name(row: Row) -> str:
    """What is served in the models of a row."""
    return method(row).name


def _title(kind: str) -> str:
    return KINDS.get(kind, kind)


def _ours(rows: Sequence[Row]) -> list[int]:
    return [i for i, row in enumerate(rows) if method(row).ours]


# --- Tables -----------------------------------------------------------------------------------------------------------


def _attacks(rows: Sequence[Row], kind: str) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        ulira, near = row.extra["ulira"], row.extra.get("klom", {})
        accuracies = [100 * methods.number(row, "after", f"{part}_accuracy") for part in ("forget", "retain", "test")]
        lines.append(
            [
                name(row),
                _auc(row),
                told(ulira["estimate90"].low, ulira["estimate90"].high),
                cell(ulira["tpr_at_1%"], 1, scale=100, ends=SHARE),
                *(cell(at(near, (part,)), 2, ends=DISTANCE) for part in SETS),
                *(bare(value, f"{value:.1f}") for value in accuracies),
            ]
        )
    headers = ["served", "U-LiRA\nAUC", "told\napart", "TPR\n@1%"]
    headers += [f"KLoM\n{part}" for part in SETS.values()]
    headers += ["deleted\nacc.", "retain\nacc.", "test\nacc."]
    return Table(headers, lines, name=f"{kind}-attacks", ours=_ours(rows), stacked=True)


def _verdicts(rows: Sequence[Row]) -> list[Block]:
    healed = next(row for row in rows if row.unlearner == "heal")
    audit = healed.extra["audit"]
    text = (
        f"Told apart: no where the 90% interval of the AUC lies within {BAND[0]} and {BAND[1]}, yes where it lies outside, "
        f"and open between. {audit['equal']} of {audit['nodes']} healed nodes that were trained from scratch as well, "
        f"without the deleted, are equal to the bit.{_silent(rows)}"
    )
    return [Text(text)]


def _silent(rows: Sequence[Row]) -> str:
    """Attacks find less where fewer models answer."""
    silent = next((row.extra["silent"] for row in rows if "silent" in row.extra), {"shadows": 0})
    if not silent["shadows"]:
        return ""
    return (
        f" With the slice off {silent['shadows']} models of U-LiRA and {silent['repeats']} of KLoM serve nothing, "
        "which is alike for everyone: attacks on these rows see that much less."
    )


def _groups(rows: Sequence[Row], kind: str) -> Table:
    lines: list[list[Cell]] = [
        [name(row), *(cell(row.extra["ulira"]["groups"][tier], ends=SHARE) for tier in TIERS)] for row in rows
    ]
    headers = ["U-LiRA AUC of a third of the examples", *(f"memorised\n{tier}" for tier in TIERS)]
    return Table(headers, lines, name=f"{kind}-groups", ours=_ours(rows))


def _pairs(rows: Sequence[Row], kind: str) -> Table:
    lines: list[list[Cell]] = [
        [
            "Oracle, trained anew under other keys" if row.training == "oracle" else name(row),
            *(cell(row.extra["pair"][where]) for where in ("same", "apart")),
        ]
        for row in rows
        if "pair" in row.extra
    ]
    return Table(["after", "beside the\nsame slice", "beside\nanother slice"], lines, name=f"{kind}-pairs")


def _streams(rows: Sequence[Row], kind: str) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        for how, found in row.extra.get("adaptive", {}).items():
            last = {name: one[-1] if isinstance(one, list) else one for name, one in found.items()}
            which = "slices off" if "depth" in found else "healed"
            who = "floor" if row.is_oracle else "own"
            lines.append([STREAMS[how], f"{who}, {which}", cell(last.get("depth", NOTHING)), cell(last["margin"])])
    headers = ["attacker", "requests, state", "AUC of\ndepth", "AUC of\nconfidence"]
    lines.sort(key=lambda line: list(map(str, line)))
    return Table(headers, lines, left=2, name=f"{kind}-watching")


# --- Pictures ---------------------------------------------------------------------------------------------------------


def _pictures(rows: Sequence[Row], kind: str) -> list[Block]:
    drawn = [row for row in rows if row.training != "oracle" and "klom" in row.extra]
    styles = names.distinct([method(row).style for row in drawn])
    aucs = [row.extra["ulira"]["examples"] for row in drawn]
    distances = [row.extra["klom"]["forget"]["examples"] for row in drawn]
    panels = [
        drawing.panel(f"{kind}-roc", "U-LiRA: true-positive by false-positive rate", lambda axes: roc(axes, drawn, styles)),
        _sorted(f"{kind}-examples", "U-LiRA AUC of each example, in order", aucs, styles, "AUC"),
        _sorted(f"{kind}-klom", "KLoM of each deleted example, in order", distances, styles, "nats"),
    ]
    return [Figures([Key(name(row), style) for row, style in zip(drawn, styles, strict=True)], panels)]


def _sorted(file: str, caption: str, curves: Sequence[Sequence[float]], styles: Sequence[Style], label: str) -> Panel:
    def draw(axes: Axes) -> None:
        for i, (each, style) in enumerate(zip(curves, styles, strict=True)):
            drawing.line(axes, np.linspace(0, 100, len(each)), np.sort(each), style, offset=i / len(curves))
        axes.set(xlabel="examples, %", ylabel=label, xlim=(0, 100))

    return drawing.panel(file, caption, draw)


WATCHERS = {"confident": Style("#0072b2", "5 2", "^"), "mates": Style("#e69f00", "3 1 1 1", "v")}
FLOORS = {"confident": Style("#8a949e", "2 2", "x"), "mates": Style("#5f6b76", "1 2", "D")}


def _curves(rows: Sequence[Row], kind: str) -> list[Block]:
    """AUC by number of requests while slices are off."""
    keys: list[Key] = []
    curves: list[dict[str, Any]] = []
    for row in rows:
        floor = row.is_oracle
        for how, found in row.extra.get("adaptive", {}).items():
            if "depth" in found:
                label = f"another model's requests ({how})" if floor else STREAMS[how]
                keys.append(Key(label, (FLOORS if floor else WATCHERS)[how]))
                curves.append(found)
    if not curves:
        return []

    def draw(axes: Axes, measure: str) -> None:
        axes.axhline(0.5, color=drawing.RULE, linewidth=1)
        for i, (found, key) in enumerate(zip(curves, keys, strict=True)):
            values = [one.value for one in found[measure]]
            low, high = zip(*((one.low, one.high) for one in found[measure]), strict=True)
            requests = np.arange(1, 1 + len(values))
            drawing.line(axes, requests, values, key.style, (low, high), i / len(curves))
        longest = max(len(found[measure]) for found in curves)
        axes.set(xlabel="requests", ylabel="AUC", ylim=(0, 1), xticks=range(1, 1 + longest, 1 + longest // 10))
        axes.set_xlim(1, max(longest, 2))

    panels = [
        drawing.panel(f"{kind}-depth", "AUC of the depth that is served", lambda axes: draw(axes, "depth")),
        drawing.panel(f"{kind}-confidence", "AUC of the confidence on the deleted", lambda axes: draw(axes, "margin")),
    ]
    return [Figures(keys, panels)]
