"""The report of a judgement, from the files of its workdir alone: the page, and a table for the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.comparison.figures import ATTACKS
from experiments.core import workdirs
from experiments.core.results import Estimate, Row, Run
from experiments.judge import details, figures, tried
from experiments.judge.metrics import KINDS
from experiments.judge.ulira import BAND, told
from experiments.reporting import drawing, names, pages, terminal
from experiments.reporting.document import Block, Heading, Headline, Stat, Table, Text, slug
from experiments.reporting.estimates import ANY, DISTANCE, SHARE, at, cell, width
from experiments.reporting.numbers import NONE, Cell, Number, bare
from experiments.training import privacy
from unlearn.metrics.membership import SCORES

FEWEST = 32  # models of a fleet: with less, intervals are wider than what is to be told apart
FEWER = "†"

# header -> where a row has it, times what, digits, and where it ends
COLUMNS: dict[str, tuple[tuple[str, ...], float, int, tuple[float, float]]] = {
    "forget\nacc.": (("intervals", "forget_accuracy"), 100, 1, SHARE),
    "test-retain\nacc.": (("intervals", "test_retain_accuracy"), 100, 1, SHARE),
    "ToW": (("tow",), 1, 3, SHARE),
    "MIA\nAUC": (("mia",), 1, 3, SHARE),
    "U-LiRA\nAUC": (("ulira",), 1, 3, SHARE),
    "TPR\n@1%": (("ulira", "tpr_at_1%"), 100, 1, SHARE),
    "KLoM\nforget": (("klom", "forget"), 1, 2, DISTANCE),
    "KLoM\nretain": (("klom", "retain"), 1, 2, DISTANCE),
    "KLoM\nvalid.": (("klom", "validation"), 1, 2, DISTANCE),
    "epsilon": (("epsilon",), 1, 2, DISTANCE),
    "RMIA\nAUC": (("rmia",), 1, 3, SHARE),
    "relearn\narea": (("relearn",), 1, 2, ANY),
}

# What a terminal has room for, with intervals; the page has all.
PRINTED = (
    "forget\nacc.", "test-retain\nacc.", "ToW", "MIA\nAUC", "U-LiRA\nAUC", "KLoM\nforget", "KLoM\nretain", "relearn\narea"
)  # fmt: skip

SETS = {  # setting -> what is forgotten
    "random": "a random share of {fraction:g}",
    "class": "class {target}",
    "memorised": (
        "half, drawn at random, of those that models memorise in the {tier} tier (a share of {fraction:g}). Memorised is "
        "the confidence of models trained with an example less that of models trained without it"
    ),
    "near_duplicates": (
        "one member each of the closest pairs of {kind} (a share of {fraction:g}). Their twins stay in every training set, "
        "so that oracles know them, too"
    ),
    "group": "all documents of {names}",
    "documents": "documents by name: {names}",
    "partition": "the part {partition} of the data",
    "cluster": "a synthetic group, one whole cluster of k-means on {by} (about a share of {fraction:g})",
}


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report, columns = pages.told(write, workdir), terminal.width()
    tables = [f"{case}:\n{terminal.to_text(_table(rows, '', PRINTED), columns)}" for case, rows in _cases(found).items()]
    lines = [terminal.wrapped(line, columns) for line in [*_too_few(found), *_verdicts(found)]]
    return "\n\n".join([*tables, *lines, report])


def write(workdir: str | Path) -> Path:
    """Write the report of a finished judgement; see `write_page`."""
    config, found = workdirs.read_run(Path(workdir))
    blocks = compose(found, config["seeds"], config["judge"])
    quick = " quickly: a look, no result" if config["name"] == "quick" else ""
    return pages.write_page(workdir, f"Forethought: {config['data']['name']}, judged{quick}", blocks)


def compose(found: Run, seeds: int, judgement: Mapping[str, Any]) -> list[Block]:
    """The blocks of the page.

    Args:
      seeds: models of a fleet that are also attacked as a population and by relearning.
      judgement: the section of that name, as config.json has it.
    """
    cases = _cases(found)
    blocks: list[Block] = [
        *(Text(line, "warning") for line in _too_few(found)),
        *_headline(found),
    ]
    for i, (case, rows) in enumerate(cases.items()):
        prefix = slug(case)
        blocks += [
            Heading(f"Forget set: {case}"),
            Text(_forgotten(found.facts["sets"][case])),
            _table(rows, f"{prefix}-results"),
            *([Text(_how_to_read(found, seeds, judgement))] if i == 0 else []),
            *figures.pictures(prefix, rows, _name),
            _relearning(rows, prefix),
            *details.strong(rows, [_name(row) for row in rows], _ours(rows), prefix),
            Text(WITNESSED),
            _witnesses(rows, prefix),
            *details.published(rows, [_name(row) for row in rows], _ours(rows), prefix),
            _costs(rows, prefix),
        ]
    return [*blocks, *_calibration(found), *tried.section(cases, _name, _ours), *_failures(found)]


def _how_to_read(found: Run, seeds: int, judgement: Mapping[str, Any]) -> str:
    models = judgement["lanes"]
    text = (
        "Read every value beside the held-out oracle's, the floor: models retrained without the forget set, compared with "
        "others of their kind. KLoM, epsilon and RMIA compare all methods with them, too, since oracles start from the "
        f"same keys as the methods. A row is {models} models that forgot one set: all of them for KLoM, epsilon and RMIA, "
        f"the first {seeds} for ToW, MIA and relearning. U-LiRA has {models} shadows, each of which forgot a "
        "half of its own of a pool. Brackets are 95% intervals over models. Learning rate and steps were chosen by "
        "trials, as many for every method."
    )
    private = next((row.extra["models"] for row in _rows(found) if row.facts["few"]), None)
    if private:
        text += (
            f" {FEWER} Of DP-SGD there are only {private['repeats']} models and {private['shadows']} shadows. Its KLoM and "
            "epsilon are larger for that alone. They have a floor of their own, as many held-out oracles."
        )
    if facts := [row.facts for row in found.rows if row.training == "dpsgd"]:
        text += f" {privacy.said(facts[0])}"
    return text


# --- What comes first -------------------------------------------------------------------------------------------------


def _too_few(found: Run) -> list[str]:
    """What is said of a judgement with too few models to judge by."""
    models = max(row.extra["models"]["repeats"] for row in found.rows)
    # Of the attack that the tables are about; to tell fleets apart as wholes takes far more models.
    wide = width(at(_calibrated(found), ("shadows", "pooled"))) > BAND[1] - BAND[0]
    if models >= FEWEST and not wide:
        return []
    said = f"Too few models to judge by: each fleet has {models}"
    said += f", and at least {FEWEST} are needed." if models < FEWEST else "."
    if wide:
        band = f"[{BAND[0]:g}, {BAND[1]:g}]"
        said += f" Even between oracles the interval of U-LiRA's AUC is wider than the band {band} it must fit."
    return [f"{said} Read no verdict here: set judge.lanes higher."]


def _headline(found: Run) -> list[Block]:
    """Is the judge fair, is what was forgotten told apart, and how far from retraining: of the first forget set."""
    case, rows = next(iter(_cases(found).items()))
    shown = figures.chosen(rows)
    lead = next((row for row in shown if row.training == "readiness" and row.unlearner != "none"), None)
    lead = lead or next((row for row in shown if not row.is_oracle), None)
    if not lead:
        return []
    entries = [(_name(row), _auc(row), figures.style(row)) for row in sorted(shown, key=lambda row: row is not lead)]
    entries = [entry for entry in entries if entry[1].text != NONE]
    caption = f"Attack on forget set '{case}', with 95% intervals; within the band nothing is told apart"
    panel = drawing.intervals("told-apart", caption, entries, "AUC of U-LiRA", BAND)
    floor = next((row for row in rows if row.training == "heldout_oracle"), None)
    vanilla = next((row for row in shown if row.training == "vanilla" and row.unlearner != "none"), None)
    beside = [row for row in (vanilla, floor) if row and row is not lead]
    klom = ("klom", "forget")
    stats = [
        _fair(found),
        Stat(
            f"Attack on {_name(lead)}",
            _auc(lead),
            f"AUC of U-LiRA on set '{case}'; 0.5 tells nothing. {_others(beside, ('ulira',), 3)}",
        ),
        Stat(
            "Distance from retraining",
            cell(at(lead.extra, klom), 2, ends=DISTANCE),
            f"KLoM on the forget set, in nats, of {_name(lead)}. {_others(beside, klom, 2)}",
        ),
    ]
    return [Headline(panel, stats)]


def _auc(row: Row) -> Number:
    return cell(at(row.extra, ("ulira",)), ends=SHARE)


def _others(rows: Sequence[Row], path: tuple[str, ...], digits: int) -> str:
    values = [f"{_name(row)}: {cell(at(row.extra, path), digits, brief=True)}" for row in rows]
    return f"{'; '.join(values)}." if values else ""


def _fair(found: Run) -> Stat:
    pooled = at(_calibrated(found), ("shadows", "pooled"))
    if pooled.value is None:
        return Stat("Is the judge fair?", NONE, "No calibration: it needs oracles and held-out oracles.")
    inside = "Yes" if told(pooled.low, pooled.high) == "no" else "Not shown"
    inside = "No verdict" if _too_few(found) else inside
    note = (
        f"{inside}: AUC between oracles and held-out oracles, where there is nothing to find, with its 90% interval. It "
        f"must lie within [{BAND[0]:g}, {BAND[1]:g}]."
    )
    return Stat("Is the judge fair?", cell(pooled), note)


# --- Rows and their names ---------------------------------------------------------------------------------------------


def _cases(found: Run) -> dict[str, list[Row]]:
    cases: dict[str, list[Row]] = {}
    for row in _rows(found):
        cases.setdefault(row.setting, []).append(row)
    return cases


def _rows(found: Run) -> list[Row]:
    """The rows; the fact `few` tells those of fewer models than others have."""
    count = lambda row: row.extra["models"]["repeats"]  # noqa: E731
    most = max(map(count, found.rows))
    return [dataclasses.replace(row, facts={**row.facts, "few": count(row) < most}) for row in found.rows]


def _name(row: Row) -> str:
    name = names.method(row.training, row.variant).name
    if row.is_oracle:
        return name
    return f"{name}{FEWER if row.facts['few'] else ''}, {names.algorithm(row.unlearner)}"


def _ours(rows: Sequence[Row]) -> list[int]:
    return [i for i, row in enumerate(rows) if names.method(row.training, row.variant).ours]


def _forgotten(one: Mapping[str, Any]) -> str:
    """What a forget set is, in words."""
    alike = {"kind": "texts", "by": "shares of tokens"} if one.get("texts") else {"kind": "images", "by": "pixels"}
    alike["names"] = ", ".join(one.get("groups") or one.get("documents") or ())
    words = f"Forgotten are {one['forget']} examples: {SETS[one['setting']].format(**one, **alike)}."
    words += f" U-LiRA's pool holds {one['pool']}" + (
        ": the forget set itself." if one["pool"] == one["forget"] else ", the others of the same kind."
    )
    if one.get("memorisation") is not None:
        words += f" Mean memorisation of the forget set: {one['memorisation']:.3f}."
    return words


def _table(rows: Sequence[Row], name: str, columns: Sequence[str] = tuple(COLUMNS)) -> Table:
    """Intervals stand below their values: fourteen columns are to fit a printed page."""
    lines: list[list[Cell]] = []
    ours = []
    for row in rows:
        failed = row.extra["failed"]
        if names.method(row.training, row.variant).ours:
            ours.append(len(lines))
        lines.append([_name(row), *_cells(row.extra, columns), f"{failed['repeats']} + {failed['shadows']}"])
        if fewer := row.extra.get("fewer"):
            lines.append([f"{_name(row)}{FEWER}", *_cells(fewer, columns), NONE])
    return Table(["method, algorithm", *columns, "failed"], lines, name=name, ours=ours, stacked=True)


def _cells(extra: Mapping[str, Any], columns: Sequence[str]) -> list[Cell]:
    picked = [COLUMNS[name] for name in columns]
    return [cell(at(extra, path), digits, scale=scale, ends=ends) for path, scale, digits, ends in picked]


# --- Calibration ------------------------------------------------------------------------------------------------------

ATTACKED = {
    "shadows": "U-LiRA on oracles and held-out oracles, by each other, asked of examples that none of them saw",
    "fleets": "LiRA between oracles and held-out oracles, on the forget set",
}


def _calibrated(found: Run) -> Mapping[str, Mapping[str, Estimate]]:
    """attack -> group -> AUC, as the run has it."""
    return found.facts.get("calibration", {})


def _verdicts(found: Run) -> list[str]:
    low, high = BAND
    lines = []
    for attack, groups in _calibrated(found).items():
        pooled = groups["pooled"]
        if pooled.value is None:
            lines.append(f"{ATTACKED[attack]}: could not be computed ({pooled.reason or 'no value'}).")
            continue
        verdict = "inside" if told(pooled.low, pooled.high) == "no" else "NOT inside"
        auc = f"AUC {cell(pooled)}, pooled, 90% interval: {verdict} [{low:g}, {high:g}]"
        lines.append(f"{ATTACKED[attack]}: {auc}.")
    return lines


def _calibration(found: Run) -> list[Block]:
    calibrated = _calibrated(found)
    if not calibrated:
        return []
    groups = dict.fromkeys(name for one in calibrated.values() for name in one)
    sets = [*(name for name in groups if name != "pooled"), "pooled"]
    rows: list[list[Cell]] = [[name, *(cell(at(one, (name,))) for one in calibrated.values())] for name in sets]
    note = (
        "Oracles and held-out oracles are trained alike. There is nothing to find between them: a fair judge's AUC is 0.5. "
        "Intervals are 90%, by leaving groups of models out. The pooled value is the mean over forget sets. Between fleets "
        "all examples of a model are on one side, so that its interval is the wider one."
    )
    verdicts: list[Block] = [Text(line) for line in _verdicts(found)]
    headers = ["forget set", *(ATTACKED[attack].replace(", ", ",\n") for attack in calibrated)]
    return [Heading("Calibration"), Text(note), *verdicts, Table(headers, rows, name="calibration")]


# --- Relearning, costs, tuning, failures ------------------------------------------------------------------------------


def _relearning(rows: Sequence[Row], prefix: str) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        cells: list[Cell] = []
        for attack in ATTACKS:
            one = at(row.extra, ("relearn", "attacks", attack, "steps"))
            total, reached = len(row.extra["relearn"]["curves"][attack]), one.n or 0
            area = cell(at(row.extra, ("relearn", "attacks", attack, "area")), 2, brief=True)
            value = cell(one, 1, brief=True)
            cells += [area, Number(value.value, value.text, f"({reached if value.text != NONE else 0}/{total})")]
        lines.append([_name(row), *cells])
    headers = [f"{attack}\n{what}" for attack in ATTACKS for what in ("area", "steps to recover")]
    return Table(["relearning", *headers], lines, name=f"{prefix}-relearning", ours=_ours(rows))


WITNESSED = (
    "Weaker tests miss or overstate much. Read them beside the oracles only. They are a classifier over examples (AUC and "
    "cross-validated balanced accuracy), resemblance to untrained models (ZRF), and resemblance to the oracles in the "
    "input of the last layer (CKA)."
)
WITNESSES = {
    **{f"{score.replace('_', ' ')}\nAUC": ("attacks", score, "auc") for score in SCORES},
    **{f"{score.replace('_', ' ')}\nbal. acc.": ("attacks", score, "balanced_accuracy") for score in SCORES},
    "ZRF": ("zrf",),
    "CKA with\noracles": ("cka",),
}


def _witnesses(rows: Sequence[Row], prefix: str) -> Table:
    lines: list[list[Cell]] = [
        [_name(row), *(cell(at(row.extra, path), brief=True) for path in WITNESSES.values())] for row in rows
    ]
    return Table(["weaker tests", *WITNESSES], lines, name=f"{prefix}-weaker-tests", ours=_ours(rows))


def _costs(rows: Sequence[Row], prefix: str) -> Table:
    lines: list[list[Cell]] = []
    for row in rows:
        setting = row.extra["setting"]
        chosen = f"{setting['learning_rate']:g} x {setting['steps']}" if setting else NONE
        counts = [
            row.train_flops,
            row.train_seconds,
            row.unlearn_flops,
            row.unlearn_seconds,
            row.extra["cost"]["amortised_flops"]["10"],
            (row.peak_bytes or 0) / 2**20,
            (row.storage_bytes or 0) / 2**20,
        ]
        pays = row.extra["cost"]["break_even_requests"]
        cells: list[Cell] = [bare(value, f"{value:.3g}") if value else NONE for value in counts]
        lines.append([_name(row), chosen, *cells, "never" if pays is None else bare(pays, f"{pays:.3g}")])
    headers = ["cost of one model", "rate x steps", "train\nFLOPs", "train\ns", "request\nFLOPs", "request\ns"]
    headers += ["each of\n10, FLOPs", "peak\nMiB", "stored\nMiB", "pays after\nrequests"]
    return Table(headers, lines, name=f"{prefix}-cost", ours=_ours(rows))


def _failures(found: Run) -> list[Block]:
    lines: list[list[Cell]] = []
    for row in _rows(found):
        failed, reasons = row.extra["failed"], list(_refused(row))
        diverged = sum(trial.get("gap", trial.get("kept")) is None for trial in row.extra.get("trials", ()))
        if reasons or diverged or any(failed.values()):
            counts = [str(failed["repeats"]), str(failed["shadows"]), str(diverged)]
            lines.append([row.setting, _name(row), *counts, "; ".join(reasons) or NONE])
    if not lines:
        return [Heading("Failures"), Text(f"No failures: all models of {len(found.rows)} rows had finite logits.")]
    note = "Models with a logit that is not finite are left out and counted. What could not be computed has no value."
    headers = ["forget set", "method, algorithm", "models", "shadows", "trials", "not computed"]
    return [Heading("Failures"), Text(note), Table(headers, lines, left=2, prose=True, name="failures")]


def _refused(row: Row) -> Iterator[str]:
    """metric: reason; the oracle is the measure of most metrics and has none of its own."""
    if row.training == "oracle":
        return
    extra = row.extra
    metrics = {name: at(extra, (name,)) for name in ("ulira", "epsilon", "rmia", "attacks", "zrf", "cka")}
    metrics |= {f"KLoM {kind}": at(extra, ("klom", kind)) for kind in KINDS}
    for name, one in metrics.items():
        if one.reason:
            yield f"{name}: {one.reason}"
