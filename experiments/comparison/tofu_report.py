"""TOFU's scores on the page of a comparison: one table, where a run has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.comparison import methods
from experiments.comparison.methods import Measure, Way, at
from experiments.reporting.document import Block, Heading, Table, Text
from experiments.reporting.numbers import Cell

BEFORE = Measure("probability of\nforgotten answers, before", at("extra", "tofu", "before", "forget_probability"), 1, ".3f")
AFTER = (
    Measure("after", at("extra", "tofu", "after", "forget_probability"), 1, ".3f"),
    Measure("asked in\nother words", at("extra", "tofu", "after", "forget_rephrased_probability"), 1, ".3f"),
    Measure("truth ratio,\nforgotten", at("extra", "tofu", "after", "forget_truth_ratio"), 1, ".3f"),
    Measure("forget\nquality p", at("extra", "tofu", "after", "forget_quality"), 1, ".2g"),
    Measure("probability of\nretained answers", at("extra", "tofu", "after", "retain_probability"), 1, ".3f"),
    Measure("truth ratio,\nretained", at("extra", "tofu", "after", "retain_truth_ratio"), 1, ".3f"),
    Measure("model\nutility", at("extra", "tofu", "after", "model_utility"), 1, ".3f"),
)
NOTE = (
    "Probability: exp of minus the mean token loss of an answer. Truth ratio R: of wrong answers against the right one in "
    "other words, losses averaged over wrong answers; mean min(R, 1/R) of forgotten and mean max(0, 1 − R) of retained "
    "questions. Forget quality: the p-value of a Kolmogorov-Smirnov test of R against an oracle, the median over oracles "
    "of all seeds (of an oracle: of the other seeds), then the mean over seeds. Read it against the oracles' own. "
    "Model utility: the harmonic mean of ROUGE-L recall, probability and truth ratio (by probabilities) on retained "
    "questions, real authors and world facts, where there are all of them."
)

TOGETHER = tuple(
    Measure(label, at("extra", "tofu", "after", f"{name}_{score}"), 1, ".3f", higher=name == "retain")
    for name, who, other in (("forget", "forgotten", "retained"), ("retain", "retained", "forgotten"))
    for label, score in (
        (f"{who}, asked alone:\nprobability", "probability"),
        (f"with a {other} one:\nprobability", "together_probability"),
        ("alone:\nROUGE-L", "rouge_l_recall"),
        (f"with a {other} one:\nROUGE-L", "together_rouge_l_recall"),
    )
)
TOGETHER_NOTE = (
    "After the request: a forgotten question and a retained one in one prompt (2410.02879). Each answer is scored as what "
    "comes next, its own question being the first. ROUGE-L: recall of the right answer by what the model says. A model "
    "that does not know such prompts says less to either: read forgotten answers against retained ones and the oracle's."
)


def section(every: Sequence[Way]) -> list[Block]:
    """The table; nothing of a run without such scores."""
    if not any(row.extra.get("tofu") for way in every for row in way.rows):
        return []
    count = next(row.extra["tofu"]["after"]["questions"] for way in every for row in way.rows if row.extra.get("tofu"))
    rows: list[list[Cell]] = [
        [way.marked, way.algorithm, *(methods.interval(way, measure) for measure in (BEFORE, *AFTER))] for way in every
    ]
    headers = ["method", "algorithm", *(measure.label for measure in (BEFORE, *AFTER))]
    ours = [i for i, way in enumerate(every) if way.ours]
    note = f"{NOTE} {count} forgotten questions are asked: so few tell only what differs much."
    return [Heading("TOFU"), Text(note), Table(headers, rows, left=2, name="tofu", ours=ours), *_together(every, ours)]


def _together(every: Sequence[Way], ours: Sequence[int]) -> list[Block]:
    """The table of questions asked in pairs; nothing of rows of an older version, which have none."""
    asked = TOGETHER[1]
    if all(math.isnan(asked.of(row)) for way in every for row in way.rows):
        return []
    rows: list[list[Cell]] = [
        [way.marked, way.algorithm, *(methods.interval(way, measure) for measure in TOGETHER)] for way in every
    ]
    headers = ["method", "algorithm", *(measure.label for measure in TOGETHER)]
    return [Text(TOGETHER_NOTE), Table(headers, rows, left=2, name="tofu-together", ours=ours)]
