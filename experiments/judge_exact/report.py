"""What was found in exact models, from the files of a workdir alone: report.html, report.md, a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.comparison import figures
from experiments.comparison.figures import DASHES, ORACLE, OTHERS, Style
from experiments.core.results import Row, Run
from experiments.judge.figures import look, roc
from experiments.judge.ulira import BAND, told
from experiments.judge_exact.attacks import TIERS
from experiments.reporting import document, pages
from experiments.reporting.document import Block, Figures, Heading, Key, Table, Text
from experiments.reporting.estimates import DISTANCE, NOTHING, SHARE, at, cell

WIDTH = 170
STATES = {
    ("default", "none"): "nothing deleted",
    ("same slice off in both", "off"): "slice off, beside models with the same slice off",
    ("beside whole models", "off"): "slice off, beside whole models",
    ("default", "heal"): "healed",
}
ORACLE_NAMES = {"oracle": "oracle", "heldout_oracle": "held-out oracle"}
SETS = {"forget": "deleted", "same": "same slice", "apart": "other slice", "validation": "valid."}
STREAMS = {"confident": "asks for the most confident", "mates": "asks for slice-mates"}


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    file = pages.write_page(workdir, compose)
    parts = [f"{kind}:\n{document.to_text(_attacks(rows), WIDTH)}" for kind, rows in _kinds(found).items()]
    return "\n\n".join([*parts, f"report: {file}"])


def compose(config: dict[str, Any], found: Run) -> tuple[str, list[Block]]:
    """The title and the blocks of the page."""
    one = config["exact"]
    blocks: list[Block] = [
        Text(
            f"Each fleet has {one['models']} models, each with a partition and keys of its own. The {one['asked']} "
            "examples of one person lie in one slice, another one in every model, and are deleted. Every value is to be "
            "read beside the held-out oracle's: models that never held the examples, compared with others of their kind "
            "(U-LiRA: both together, for memberships drawn again and again, the central 90% of them). Brackets are 95% "
            "intervals over models, of U-LiRA's AUC in the first table 90%.",
            lead=True,
        )
    ]
    for kind, rows in _kinds(found).items():
        blocks += [Heading(f"{kind}: was it ever there?"), _attacks(rows), _verdict(rows), _groups(rows), *_pictures(rows)]
        blocks += [Heading(f"{kind}: before and after"), Text(BEFORE_AND_AFTER), _pairs(rows)]
        blocks += [Heading(f"{kind}: requests that watch what is served"), Text(WATCHING), _streams(rows), *_curves(rows)]
    return f"Forethought: {config['data']['name']}, exact unlearning judged", [
        *blocks,
        *pages.settings(config, found),
    ]


BEFORE_AND_AFTER = (
    "Somebody keeps the answers from before a deletion and compares them with those after it: the example whose margin "
    "fell furthest is called the deleted one. The value is the probability that it fell further than that of an example "
    "that stayed, in the same slice or in another; 0.5 is a guess. One example of each model was deleted, of the oracle "
    "the whole group."
)
WATCHING = (
    "One deletion after the other is asked for by somebody who sees the margins that are served and knows those of sibling "
    "models. What serves then is compared with held-out oracles after the same requests: does the depth that is served, or "
    "the mean confidence on the deleted, tell which is which? The floor is the same with another model's requests."
)


def _kinds(found: Run) -> dict[str, list[Row]]:
    """The rows of each kind, oracles first."""
    kinds = dict.fromkeys(str(row.facts["kind"]) for row in found.rows)
    return {kind: [row for row in found.rows if row.facts["kind"] == kind] for kind in kinds}


def name(row: Row) -> str:
    """What is served in the models of a row."""
    if row.is_oracle:
        return ORACLE_NAMES[row.training] + (", same slice off" if row.facts["slice_off"] else "")
    return STATES[row.variant, row.unlearner]


# --- Tables -----------------------------------------------------------------------------------------------------------


def _attacks(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        ulira, near, after = row.extra["ulira"], row.extra.get("klom", {}), row.after
        lines.append(
            [
                name(row),
                cell(ulira["estimate90"], ends=SHARE),
                told(ulira["estimate90"].low, ulira["estimate90"].high),
                cell(ulira["tpr_at_1%"], 1, scale=100, ends=SHARE),
                *(cell(at(near, (name,)), 2, ends=DISTANCE) for name in SETS),
                *(f"{100 * after[f'{name}_accuracy']:.1f}" for name in ("forget", "retain", "test")),
            ]
        )
    lines = [[one.replace(" [", "\n[") for one in line] for line in lines]  # intervals below values
    headers = ["served", "U-LiRA\nAUC", "told\napart", "TPR\n@1%"]
    headers += [f"KLoM\n{name}" for name in SETS.values()]
    return Table([*headers, "deleted\nacc.", "retain\nacc.", "test\nacc."], lines)


def _verdict(rows: Sequence[Row]) -> Text:
    healed = next(row for row in rows if row.unlearner == "heal")
    audit = healed.extra["audit"]
    return Text(
        f"Told apart: no where the 90% interval of the AUC lies within {BAND[0]} and {BAND[1]}, yes where it lies "
        f"outside, and open between. {audit['equal']} of {audit['nodes']} healed nodes that were trained from scratch as "
        "well, without the deleted, came out alike to the bit." + _silent(rows)
    )


def _silent(rows: Sequence[Row]) -> str:
    """Attacks find less where fewer models answer."""
    silent = next((row.extra["silent"] for row in rows if "silent" in row.extra), {"shadows": 0})
    if not silent["shadows"]:
        return ""
    return (
        f" With the slice off {silent['shadows']} models of U-LiRA and {silent['repeats']} of KLoM serve nothing, "
        "which is alike for everyone: attacks on these rows see that much less."
    )


def _groups(rows: Sequence[Row]) -> Table:
    lines = [[name(row), *(cell(row.extra["ulira"]["groups"][tier], ends=SHARE) for tier in TIERS)] for row in rows]
    return Table(["U-LiRA AUC of a third of the examples", *(f"memorised\n{tier}" for tier in TIERS)], lines)


def _pairs(rows: Sequence[Row]) -> Table:
    lines = [
        [
            "oracle, trained anew under other keys" if row.training == "oracle" else name(row),
            *(cell(row.extra["pair"][where]) for where in ("same", "apart")),
        ]
        for row in rows
        if "pair" in row.extra
    ]
    return Table(["after", "beside the\nsame slice", "beside\nanother slice"], lines)


def _streams(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        for how, found in row.extra.get("adaptive", {}).items():
            last = {name: one[-1] if isinstance(one, list) else one for name, one in found.items()}
            which = "slices off" if "depth" in found else "healed"
            who = "floor" if row.is_oracle else "own"
            lines.append([STREAMS[how], f"{who}, {which}", cell(last.get("depth", NOTHING)), cell(last["margin"])])
    return Table(["somebody", "requests, state", "AUC of\ndepth", "AUC of\nconfidence"], sorted(lines), left=2)


# --- Pictures ---------------------------------------------------------------------------------------------------------


def _pictures(rows: Sequence[Row]) -> list[Block]:
    drawn = [row for row in rows if row.training != "oracle" and "klom" in row.extra]
    styles = [ORACLE, *(Style(colour, dash) for colour, dash in zip(OTHERS, DASHES, strict=False))]
    names = [name(row) for row in drawn]
    panels = [
        (
            "U-LiRA: true-positive by false-positive rate",
            figures.svg(lambda axes: roc(axes, drawn, styles[: len(drawn)])),
        ),
        (
            "U-LiRA AUC of each example, in order",
            figures.svg(lambda axes: _sorted(axes, [row.extra["ulira"]["examples"] for row in drawn], styles, "AUC")),
        ),
        (
            "KLoM of each deleted example, in order",
            figures.svg(lambda axes: _sorted(axes, [r.extra["klom"]["forget"]["examples"] for r in drawn], styles, "nats")),
        ),
    ]
    return [Figures([Key(name, *style) for name, style in zip(names, styles, strict=False)], panels)]


def _sorted(axes: Axes, curves: Sequence[Sequence[float]], styles: Sequence[Style], label: str) -> None:
    for each, style in zip(curves, styles, strict=False):
        axes.plot(np.linspace(0, 100, len(each)), np.sort(each), **look(style))
    axes.set(xlabel="examples, %", ylabel=label)


def _curves(rows: Sequence[Row]) -> list[Block]:
    """AUC by number of requests while slices are off."""
    curves = {}
    for row in rows:
        for how, found in row.extra.get("adaptive", {}).items():
            if "depth" in found:
                who = "another model's requests" if row.is_oracle else STREAMS[how]
                curves[f"{who}{f' ({how})' if row.is_oracle else ''}"] = found
    styles = [Style(colour, dash) for colour, dash in zip(OTHERS, DASHES, strict=False)]

    def draw(axes: Axes, measure: str) -> None:
        axes.axhline(0.5, color="#b5bdc4", linewidth=1)
        for found, style in zip(curves.values(), styles, strict=False):
            values = [one.value for one in found[measure]]
            low, high = zip(*((one.low, one.high) for one in found[measure]), strict=True)
            requests = np.arange(1, 1 + len(values))
            axes.plot(requests, values, **look(style))
            axes.fill_between(requests, low, high, color=style.colour, alpha=0.15, linewidth=0)
        longest = max(len(found[measure]) for found in curves.values())
        axes.set(xlabel="requests", ylabel="AUC", ylim=(-0.02, 1.02), xticks=range(1, 1 + longest, 1 + longest // 10))

    panels = [
        ("AUC of the depth that is served", figures.svg(lambda axes: draw(axes, "depth"))),
        ("AUC of the confidence on the deleted", figures.svg(lambda axes: draw(axes, "margin"))),
    ]
    return [Figures([Key(name, *style) for name, style in zip(curves, styles, strict=False)], panels)]
