"""Rows of a comparison made up by hand, a workdir that holds them, and a reader of the page that is made of it."""

import json
import math
from html.parser import HTMLParser

import numpy as np

from experiments.comparison import figures
from experiments.core import results
from experiments.core.files import dumps
from tests.helpers.pictures import undrawn  # noqa: F401

NAN = math.nan
VOID = {"br", "meta"}


def scores(test=0.9, forget=1.0, loss=0.1, kept=0.9):
    return {
        "test_accuracy": test,
        "forget_accuracy": forget,
        "forget_loss": loss,
        "forget_confidence": 0.95,
        "mia_auc": 0.6,
        "retain_accuracy": 1.0,
        "test_retain_accuracy": kept,
    }


def make(training, seed, kept=0.9, variant="default", unlearner="ascent", **changes):
    """A row of a request that was fulfilled in 4 steps; `changes` go to the row, its scores and its extra by name."""
    oracle = training.endswith("oracle")
    count = 0 if oracle else changes.pop("steps", 4)
    extra = {
        "lanes": 3,
        "tow": 0.8,
        "relearning": {attack: np.linspace(0, changes.pop(attack, 0.5), 31) for attack in figures.ATTACKS},
        "curve": {}
        if oracle
        else {
            "forget_accuracy": np.linspace(1, 0, count + 1),
            "forget_loss": np.linspace(0, 3, count + 1),
            "watch_accuracy": np.linspace(0.9, kept, count + 1),
        },
        "diagnostics": {"grad_norm": 2.0, "grad_cosine": -0.5},
        "step_flops": 10.0,
        "meta_step_flops": 25.0 if training == "readiness" else 0.0,
        **changes.pop("extra", {}),
    }
    return {
        "training": training,
        "variant": variant,
        "unlearner": "none" if oracle else unlearner,
        "setting": "class",
        "dataset": "toys",
        "seed": seed,
        "before": scores(loss=changes.pop("loss", 0.1), test=changes.pop("test", 0.9)),
        "after": scores(forget=0.0, kept=kept),
        "steps": count,
        "stop": "reached",
        "train_seconds": 1.5,
        "unlearn_seconds": 0.25,
        "train_flops": 1500.0 if training == "readiness" else 1000.0,
        "unlearn_flops": 100.0 * count,
        "peak_bytes": 2_000_000,
        "extra": extra,
        **changes,
    }


def fail(row, stop="diverged"):
    """What a lane leaves whose parameters are not finite: its accuracies look like accuracies, its losses do not."""
    row["stop"] = stop
    row["after"] = dict.fromkeys(row["after"], NAN)
    row["extra"]["tow"] = NAN
    row["extra"]["curve"]["forget_loss"][-1] = NAN
    row["extra"]["relearning"] = {attack: np.ones(31) for attack in figures.ATTACKS}
    return row


def three_seeds():
    rows = [make("oracle", s, kept) for s, kept in enumerate((0.95, 0.95, 0.95))]
    rows += [make("vanilla", s, kept, steps=10) for s, kept in enumerate((0.7, 0.8, 0.9))]
    rows += [make("reweight", s, 0.6, "weight=0.1", extra={"matched": True}, loss=0.4) for s in range(3)]
    rows += [make("readiness", s, kept, steps=5, loss=0.5) for s, kept in enumerate((0.91, 0.93, 0.95))]
    return rows


def finished(rows, path, config=None, log=()):
    """A workdir as a run leaves it."""
    config = config or {"forget": {"setting": "class", "target": 3, "revocable": -1}, "seeds": 3, "request": {"parts": 1}}
    content = {"schema": 1, "command": "python -m x", "environment": {"jax": "0.10"}, "rows": rows}
    (path / "config.json").write_text(dumps(config))
    (path / "results.json").write_text(dumps(content))
    (path / "metrics.jsonl").write_text("".join(line if isinstance(line, str) else dumps(line) + "\n" for line in log))
    return path


def as_read(rows):
    """Rows of version 0.1, as they are read."""
    return results.rows_from(json.loads(dumps(rows)))


def as_run(rows):
    return results.Run("", {}, as_read(rows))


def line_of(table, *words):
    return next(line for line in table.splitlines() if line.split()[: len(words)] == list(words))


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps what refers to something and what is said."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.said, self.cells = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert reader.open == []
    return reader


CASES = {
    "one seed": [make(t, 0) for t in ("oracle", "heldout_oracle", "vanilla", "readiness")],
    "no readiness": [make(t, s) for t in ("oracle", "vanilla", "dpsgd") for s in range(2)],
    "oracle alone": [make("oracle", 0)],
    "no oracle, no vanilla": [make("readiness", s) for s in range(2)],
    "unlearners": [make(t, s, unlearner=u) for t in ("vanilla", "readiness") for s in range(2) for u in ("ascent", "npo")],
    "variants": [make("readiness", s, variant=f"<b>|{i}") for i in range(8) for s in range(2)],
    "random": [make(t, s, setting="random") for t in ("oracle", "vanilla", "readiness") for s in range(2)],
    "all diverged": [fail(make(t, s)) for t in ("vanilla", "readiness") for s in range(2)],
    "training diverged": [
        fail(make("vanilla", 0, before=dict.fromkeys(scores(), NAN), train_flops=NAN, peak_bytes=NAN, steps=0)),
        make("readiness", 0),
    ],
    "nothing extra": [make(t, 0) | {"extra": {}} for t in ("oracle", "vanilla", "readiness")],
}
