"""What pages show of a run: measures and words for examples with labels, and for text to predict.

Of images and tables accuracy leads. Of text it says nothing, since some tokens of any text are told right: losses lead, in
nats per token, and what can be extracted. Losses and scores of text are of whole documents, of which each counts once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from experiments.comparison import methods
from experiments.comparison.methods import AUC, FORGET, KEPT, LOSS, STEPS, TEST, TOW, Measure, Way, at, number


class Column(NamedTuple):
    """A column of the first table; `wide`: with its interval on a terminal, too."""

    header: str
    measure: Measure
    wide: bool = False


class Curve(NamedTuple):
    """A curve of a request: the name of its panel, its name in a row, its caption, and the oracle's value."""

    name: str
    values: str
    caption: str
    oracle: Measure
    unit: str


class Shown(NamedTuple):
    """What is shown of a kind of data.

    kept: what stays, after a request.  gone: what goes, after it.  start: what stays, before it.
    before, after: columns of the tables of that name.
    first_before, first_after, first_last: of the first table, before the request, after it, and after relearning.
    paired: of the paired comparisons, with what is better.
    points: units of these.
    lines: sentences of the summary between aim and relearning.
    curves: of a request.
    documents: whether examples are documents.
    tried: of a trial's numbers, by which settings are chosen.
    Others are words of notes and headers, by where they stand.
    """

    kept: Measure
    gone: Measure
    start: Measure
    before: tuple[Measure, ...]
    after: tuple[Measure, ...]
    first_before: tuple[Column, ...]
    first_after: tuple[Column, ...]
    first_last: tuple[Column, ...]
    paired: tuple[tuple[str, Measure], ...]
    points: str
    lines: tuple[tuple[str, Measure], ...]
    curves: tuple[Curve, ...]
    documents: bool
    tried: str
    kept_words: str
    start_words: str
    legend: str
    best: str
    relearned: str
    relearned_unit: str
    paid: str
    before_note: str
    after_note: str
    attacked: str
    chosen: str
    chosen_by: str
    ended: tuple[str, str]


def of(ways: Iterable[Way]) -> Shown:
    """What is shown of these ways: of text, if all rows have losses of documents, which those of 0.2 have not."""
    rows = [row for way in ways for row in way.rows]
    return TEXTS if rows and all("forget_token_loss" in row.before for row in rows) else LABELLED


LABELLED = Shown(
    kept=KEPT,
    gone=FORGET,
    start=TEST,
    before=methods.BEFORE,
    after=methods.AFTER,
    first_before=(Column("test\nbefore", TEST), Column("forget\nbefore", methods.BEFORE[1]), Column("loss\nbefore", LOSS)),
    first_after=(
        Column("forget\nafter", FORGET, True),
        Column("test-retain\nafter", KEPT, True),
        Column("MIA AUC\nafter", AUC),
    ),
    first_last=(Column("ToW", TOW),),
    paired=(
        ("test-retain after\n(more is better)", KEPT),
        ("steps\n(fewer is better)", STEPS),
        ("test before\n(more is better)", TEST),
    ),
    points="points and steps",
    lines=(),
    curves=(
        Curve("forget", "forget_accuracy", "Accuracy on the forget set", FORGET, "accuracy, %"),
        Curve("watch", "watch_accuracy", "Accuracy on test data that stay", KEPT, "accuracy, %"),
        # An oracle's margin is close to minus its loss, where it is wrong about all of them.
        Curve(
            "margin",
            "forget_margin",
            "Mean margin of the forget set in nats",
            Measure("", lambda row: -number(row, "after", "forget_loss")),
            "nats",
        ),
    ),
    documents=False,
    tried="validation_retain_accuracy",
    kept_words="Test accuracy on what stays",
    start_words="Test accuracy before the request",
    legend="Accuracies in %.",
    best="ToW, tug of war: 1 is the oracle. ",
    relearned="accuracy on forget data",
    relearned_unit="accuracy, %",
    paid="in accuracy or in confidence",
    before_note="MIA AUC: the loss attack on the forget set. The oracle's value is what no membership looks like.",
    after_note=(
        "Gap: mean absolute difference from the oracle of the same seed in forget, retain and test accuracy. MIA: balanced "
        "accuracy of the loss attack. Read it beside the oracle's."
    ),
    attacked=(
        "Accuracy is measured on forget data that the attack does not train on: the forget "
        "set, or with 'part' the rest of it. With 'all' it is measured on test images of the forgotten class, or on the "
        "forget set itself if that is random."
    ),
    chosen="validation data: most requests reached, then highest validation accuracy on what stays",
    chosen_by="validation-retain\naccuracy",
    ended=("forget after", "test-retain after"),
)


# --- Text -------------------------------------------------------------------------------------------------------------


def _loss(label: str, when: str, which: str) -> Measure:
    """Mean loss of documents in nats per token."""
    return Measure(label, at(when, f"{which}_token_loss"), 1, ".2f", higher=False)


def _perplexity(label: str, when: str, which: str) -> Measure:
    return Measure(label, at(when, f"{which}_perplexity"), 1, ".2f" if which == "retain" else ".0f", higher=False)


def _extraction(label: str, when: str, which: str = "forget") -> Measure:
    return Measure(label, at(when, f"{which}_extraction_strength"), higher=which != "forget")


def _exact(label: str, when: str, which: str = "forget") -> Measure:
    return Measure(label, at(when, f"{which}_exact_memorisation"), higher=which != "forget")


def _auc(label: str, when: str, which: str) -> Measure:
    return Measure(label, at(when, which), 1, ".2f", higher=False)


RETAINED = _loss("retained", "after", "retain")
RETAINED_BEFORE = _loss("retained", "before", "retain")
HELD_OUT = _loss("held-out", "after", "test")
FORGOTTEN = _loss("forgotten", "after", "forget")
FORGOTTEN_BEFORE = _loss("forgotten", "before", "forget")
APART = Measure("forgotten − oracle", at("extra", "distance", "forget"), 1, "+.2f")
DISTANCE = Measure("distance", lambda row: abs(number(row, "extra", "distance", "forget")), 1, ".2f", higher=False)
EXTRACTED = _extraction("extraction", "after")
VERBATIM = Measure("forgotten,\nROUGE-L", at("after", "forget_rouge_l"), higher=False)
EXTRACTED_BEFORE = _extraction("extraction", "before")
MIN_K = _auc("Min-K% AUC", "after", "min_k_auc")
PRIVLEAK = Measure("PrivLeak", at("after", "privleak"), 1, "+.1f")
LEAK = Measure("PrivLeak", lambda row: abs(number(row, "after", "privleak")), 1, ".1f", higher=False)

TEXTS = Shown(
    kept=RETAINED,
    gone=FORGOTTEN,
    start=RETAINED_BEFORE,
    before=(
        RETAINED_BEFORE,
        _perplexity("retained,\nperplexity", "before", "retain"),
        _loss("held-out", "before", "test"),
        FORGOTTEN_BEFORE,
        _extraction("retained,\nextraction", "before", "retain"),
        _extraction("forgotten,\nextraction", "before"),
        _exact("forgotten,\ntold right", "before"),
        Measure("forgotten,\nROUGE-L", at("before", "forget_rouge_l"), higher=False),
        _auc("Min-K%\nAUC", "before", "min_k_auc"),
    ),
    after=(
        _perplexity("retained,\nperplexity", "after", "retain"),
        HELD_OUT,
        _perplexity("held-out,\nperplexity", "after", "test"),
        _extraction("retained,\nextraction", "after", "retain"),
        _exact("forgotten,\ntold right", "after"),
        VERBATIM,
        _auc("Min-K%++\nAUC", "after", "min_k_plus_auc"),
        _auc("loss AUC,\nof rows", "after", "mia_auc"),
        Measure("gap", at("extra", "distance", "mean"), 1, ".2f", higher=False),
    ),
    first_before=(Column("forgotten\nbefore", FORGOTTEN_BEFORE), Column("extraction\nbefore", EXTRACTED_BEFORE)),
    first_after=(
        Column("retained\nafter", RETAINED, True),
        Column("forgotten\nafter", FORGOTTEN, True),
        Column("forgotten\n− oracle", APART),
        Column("extraction\nafter", EXTRACTED),
        Column("Min-K%\nAUC after", MIN_K),
        Column("PrivLeak\nafter", PRIVLEAK),
    ),
    first_last=(),
    paired=(
        ("retained after, nats\n(less is better)", RETAINED),
        ("steps\n(fewer is better)", STEPS),
        ("distance, nats\n(less is better)", DISTANCE),
        ("extraction after\n(less is better)", EXTRACTED),
    ),
    points="nats, points and steps. Distance: between the loss of forgotten documents and the oracle's",
    lines=(
        ("Distance of the forgotten documents' loss from the oracle's, in nats per token", DISTANCE),
        ("Extraction strength of the forgotten documents", EXTRACTED),
        ("PrivLeak, whatever its sign, in %", LEAK),
    ),
    curves=(
        Curve("forget", "forget_loss", "Loss of the forget set", Measure("", at("after", "forget_loss")), "nats per token"),
        Curve(
            "watch",
            "watch_loss",
            "Loss of held-out documents",
            Measure("", at("after", "test_retain_loss")),
            "nats per token",
        ),
        Curve(
            "retained",
            "retained_accuracy",
            "Tokens of retained documents told right",
            Measure("", at("after", "retain_accuracy")),
            "tokens told right, %",
        ),
    ),
    documents=True,
    tried="retained_loss",
    kept_words="Loss of retained documents, in nats per token",
    start_words="Loss of retained documents before the request",
    legend=(
        "Retained, forgotten, held-out: loss of documents in nats per token, each document counting once. Extraction: the "
        "share of a text, in %, that the model adds word for word once it is given the beginning of each row. Min-K% AUC: "
        "how often a forgotten document looks more likely seen than a held-out one; at .5 nothing is told, below .5 they "
        "stand out as unseen. PrivLeak, in %: 0 is the oracle, below it forgotten documents look seen, above it they stand "
        "out."
    ),
    best="",
    relearned="tokens told right, in %, of forgotten documents",
    relearned_unit="tokens told right, %",
    paid="in loss",
    before_note=(
        "Losses in nats per token, perplexity: exp of the loss. Extraction, tokens told right and ROUGE-L in %. ROUGE-L: "
        "likeness, word by word, of what the model says after the first half of a forgotten row with what the row says. "
        "Min-K% AUC: the attack on the forget set. The oracle's values are those of documents that were never seen."
    ),
    after_note=(
        "Told right: the share of tokens that are the likeliest ones after the right ones before them, in %. AUCs: 1 if "
        "all forgotten documents, or rows of them, look more likely seen than held-out ones. Gap: mean absolute difference "
        "from the oracle of the same seed in the loss of forgotten, retained and held-out documents, in nats per token."
    ),
    attacked=(
        "Accuracy, the share of tokens told right, is measured on forget data that the attack does not train on: the "
        "forget set, or with 'part' the rest of it. With 'all' it is measured on the forget set itself."
    ),
    chosen="training documents that stay: most requests reached, then their lowest loss",
    chosen_by="retained,\nnats per token",
    ended=("forgotten after, nats", "retained after, nats"),
)
