"""What a judgement found, from the files of its workdir alone: report.html, report.md, and a table for the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.comparison.figures import ATTACKS
from experiments.core.results import Row, Run
from experiments.judge import figures
from experiments.judge.metrics import KINDS
from experiments.judge.ulira import BAND, told
from experiments.reporting import document, pages
from experiments.reporting.document import Block, Heading, Table, Text
from experiments.reporting.estimates import ANY, DISTANCE, NONE, SHARE, at, cell
from unlearn.metrics.membership import SCORES

WIDTH = 170
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
        "half, drawn at random, of those that models memorise in the {tier} tier (a share of {fraction:g}), by the "
        "confidence of models trained with an example less that of models trained without"
    ),
    "near_duplicates": (
        "one member each of the closest pairs of images (a share of {fraction:g}), whose twins stay in every training set: "
        "what they tell, oracles know, too"
    ),
    "cluster": "a synthetic group, one whole cluster of k-means on pixels (about a share of {fraction:g})",
}


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    file = pages.write_page(workdir, compose)
    parts = [f"{case}:\n{document.to_text(_table(rows, PRINTED), WIDTH)}" for case, rows in _cases(found).items()]
    return "\n\n".join([*parts, *_verdicts(found), f"report: {file}"])


def compose(config: dict[str, Any], found: Run) -> tuple[str, list[Block]]:
    """The title and the blocks of the page."""
    models, tuning = config["judge"]["lanes"], config["judge"]["tuning"]
    lead = (
        "Every value is to be read beside the held-out oracle's, the floor: models retrained without the forget set, "
        "compared with others of their kind. KLoM, epsilon and RMIA compare all ways with them, too, since oracles start "
        f"from the same keys as the ways. A row is {models} models that forgot one set (KLoM, epsilon, RMIA; the first "
        f"{config['seeds']} of them ToW, MIA and relearning) and {models} shadows that each forgot a half of its "
        "own of a pool (U-LiRA). Brackets are 95% intervals over models. Learning rate and steps were chosen for every "
        f"row from the same {len(tuning['learning_rates']) * len(tuning['steps'])} trials."
    )
    private = next((row.extra["models"] for row in _rows(found) if row.facts["few"]), None)
    if private:
        lead += (
            f" {FEWER} Of DP-SGD there are only {private['repeats']} models and {private['shadows']} shadows: its KLoM and "
            "epsilon are larger for that alone and have a floor of their own, as many held-out oracles."
        )
    blocks: list[Block] = [Text(lead, lead=True), *_calibration(found)]
    for case, rows in _cases(found).items():
        blocks += [
            Heading(f"Forget set: {case}"),
            Text(_told(found.facts["sets"][case])),
            _table(rows),
            *figures.pictures(rows, _name),
            _relearning(rows),
            Text(WITNESSED),
            _witnesses(rows),
            _costs(rows),
        ]
    blocks += [*_trials(found), *_failures(found)]
    return f"Forethought: {config['data']['name']}, judged", [*blocks, *pages.settings(config, found)]


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
    if row.is_oracle:
        return row.training
    return f"{row.training}{FEWER if row.facts['few'] else ''}, {row.unlearner}"


def _told(one: Mapping[str, Any]) -> str:
    """What a forget set is, in words."""
    words = f"Forgotten are {one['forget']} examples: {SETS[one['setting']].format(**one)}."
    words += f" U-LiRA's pool holds {one['pool']}" + (
        ": the forget set itself." if one["pool"] == one["forget"] else ", the others of the same kind."
    )
    if one.get("memorisation") is not None:
        words += f" Mean memorisation of the forget set: {one['memorisation']:.3f}."
    return words


def _table(rows: Sequence[Row], columns: Sequence[str] = tuple(COLUMNS)) -> Table:
    lines = []
    for row in rows:
        failed = row.extra["failed"]
        lines.append([_name(row), *_cells(row.extra, columns), f"{failed['repeats']} + {failed['shadows']}"])
        if fewer := row.extra.get("fewer"):
            lines.append([f"{_name(row)}{FEWER}", *_cells(fewer, columns), NONE])
    return Table(["way, algorithm", *columns, "failed"], lines)


def _cells(extra: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """A row's values, intervals below them: fourteen columns are to fit a printed page."""
    chosen = [COLUMNS[name] for name in columns]
    cells = [cell(at(extra, path), digits, scale=scale, ends=ends) for path, scale, digits, ends in chosen]
    return [one.replace(" [", "\n[") for one in cells]


# --- Calibration ------------------------------------------------------------------------------------------------------

ATTACKED = {
    "shadows": "U-LiRA on oracles and held-out oracles, by each other, asked of examples that none of them saw",
    "fleets": "LiRA between oracles and held-out oracles, on the forget set",
}


def _verdicts(found: Run) -> list[str]:
    low, high = BAND
    lines = []
    for attack, groups in found.facts.get("calibration", {}).items():
        pooled = groups["pooled"]
        if pooled.value is None:
            lines.append(f"{ATTACKED[attack]}: could not be computed ({pooled.reason or 'no value'}).")
            continue
        verdict = "inside" if told(pooled.low, pooled.high) == "no" else "NOT inside"
        auc = f"AUC {cell(pooled)}, pooled, 90% interval: {verdict} [{low:g}, {high:g}]"
        lines.append(f"{ATTACKED[attack]}: {auc}.")
    return lines


def _calibration(found: Run) -> list[Block]:
    calibrated = found.facts.get("calibration", {})
    if not calibrated:
        return []
    groups = dict.fromkeys(name for one in calibrated.values() for name in one)
    names = [*(name for name in groups if name != "pooled"), "pooled"]
    rows = [[name, *(cell(at(one, (name,))) for one in calibrated.values())] for name in names]
    note = (
        "Oracles and held-out oracles are trained alike, so that there is nothing to find between them: a fair judge's AUC "
        "is .5. Intervals are 90%, by leaving groups of models out; the pooled value is the mean over forget sets. Between "
        "fleets all examples of a model are on one side, so that its interval is the wider one."
    )
    verdicts: list[Block] = [Text(line) for line in _verdicts(found)]
    headers = ["forget set", *(ATTACKED[attack].replace(", ", ",\n") for attack in calibrated)]
    return [Heading("Calibration"), Text(note), *verdicts, Table(headers, rows)]


# --- Relearning, costs, tuning, failures ------------------------------------------------------------------------------


def _relearning(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        cells = []
        for attack in ATTACKS:
            one = at(row.extra, ("relearn", "attacks", attack, "steps"))
            total = len(row.extra["relearn"]["curves"][attack])
            steps = f"{cell(one, 1, brief=True)} ({one.n}/{total})" if one.value is not None else f"{NONE} (0/{total})"
            cells += [cell(at(row.extra, ("relearn", "attacks", attack, "area")), 2, brief=True), steps]
        lines.append([_name(row), *cells])
    headers = [f"{attack}\n{what}" for attack in ATTACKS for what in ("area", "steps to recover")]
    return Table(["relearning", *headers], lines)


WITNESSED = (
    "Weaker witnesses miss or overstate much, and are nothing but beside the oracles: a classifier over examples (AUC and "
    "cross-validated balanced accuracy), resemblance to untrained models (ZRF), and resemblance to the oracles in what the "
    "last layer is given (CKA)."
)
WITNESSES = {
    **{f"{score.replace('_', ' ')}\nAUC": ("attacks", score, "auc") for score in SCORES},
    **{f"{score.replace('_', ' ')}\nbal. acc.": ("attacks", score, "balanced_accuracy") for score in SCORES},
    "ZRF": ("zrf",),
    "CKA with\noracles": ("cka",),
}


def _witnesses(rows: Sequence[Row]) -> Table:
    lines = [[_name(row), *(cell(at(row.extra, path), brief=True) for path in WITNESSES.values())] for row in rows]
    return Table(["weaker witnesses", *WITNESSES], lines)


def _costs(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        setting = row.extra["setting"]
        chosen = f"{setting['learning_rate']:g} x {setting['steps']}" if setting else NONE
        counts = [
            row.train_flops,
            row.train_seconds,
            row.unlearn_flops,
            row.unlearn_seconds,
            row.extra["cost"]["amortised_flops"]["10"],
            row.peak_bytes / 2**20,
            row.storage_bytes / 2**20,
        ]
        pays = row.extra["cost"]["break_even_requests"]
        cells = [f"{value:.3g}" if value else NONE for value in counts]
        lines.append([_name(row), chosen, *cells, "never" if pays is None else f"{pays:.3g}"])
    headers = ["cost of one model", "rate x steps", "train\nFLOPs", "train\ns", "request\nFLOPs", "request\ns"]
    headers += ["each of\n10, FLOPs", "peak\nMiB", "stored\nMiB", "pays after\nrequests"]
    return Table(headers, lines)


def _trials(found: Run) -> list[Block]:
    blocks: list[Block] = []
    for case, rows in _cases(found).items():
        tuned = [row for row in rows if row.extra.get("trials")]
        if tuned:
            heads = [f"{one['learning_rate']:g}\nx {one['steps']}" for one in tuned[0].extra["trials"]]
            lines = [[_name(row), *map(str, _gaps(row)), str(len(row.extra["trials"]))] for row in tuned]
            blocks += [Text(f"{case}:"), Table(["rate x steps", *heads, "trials"], lines)]
    note = (
        "The gap of every trial, in points: the mean of the distances to the oracles in accuracy on forget data and on "
        "validation data that stay, over models that nothing else is reported of. The smallest, marked *, was carried out."
    )
    return [Heading("Tuning"), Text(note), *blocks] if blocks else []


def _gaps(row: Row) -> Iterator[str]:
    setting = row.extra["setting"]
    for trial in row.extra["trials"]:
        gap = NONE if trial["gap"] is None else f"{100 * trial['gap']:.1f}"
        yield f"{gap}*" if setting and setting.items() <= trial.items() else gap


def _failures(found: Run) -> list[Block]:
    lines = []
    for row in _rows(found):
        failed, reasons = row.extra["failed"], list(_refused(row))
        diverged = sum(trial["gap"] is None for trial in row.extra.get("trials", ()))
        if reasons or diverged or any(failed.values()):
            counts = [str(failed["repeats"]), str(failed["shadows"]), str(diverged)]
            lines.append([row.setting, _name(row), *counts, "; ".join(reasons) or NONE])
    if not lines:
        return [Heading("Failures"), Text(f"No failures: all models of {len(found.rows)} rows had finite logits.")]
    note = "Models with a logit that is not finite are left out and counted; what could not be computed has no value."
    headers = ["forget set", "way, algorithm", "models", "shadows", "trials", "not computed"]
    return [Heading("Failures"), Text(note), Table(headers, lines, left=2, prose=True)]


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
