"""Pages about text: they lead with what suits text; those of other data and of older runs stay as they are."""

import math

import pytest

from experiments.comparison import headline, methods, report, shown, summary
from tests.helpers import pages
from tests.helpers.pictures import undrawn  # noqa: F401

SWEPT = [{"unlearner": "level", "chosen": {"learning_rate": 0.1, "beta": 0.5}}]


def documents(retain, forget, extraction):
    """Scores of documents: losses in nats, of held-out ones 7."""
    losses = {"forget": forget, "retain": retain, "test": 7.0}
    scores = {f"{name}_token_loss": loss for name, loss in losses.items()}
    scores |= {f"{name}_perplexity": math.exp(loss) for name, loss in losses.items()}
    scores |= {f"{name}_extraction_strength": extraction for name in losses}
    scores |= {f"{name}_exact_memorisation": 0.5 for name in losses}
    return scores | {"min_k_auc": 0.75, "min_k_plus_auc": 0.7, "min_40_unseen_auc": 0.3, "privleak": -40.0}


def row(training, seed, retain, forget, **changes):
    """A row of text whose forgotten documents had a loss of 1 before, and have one of 6 in the oracle."""
    made = pages.make(training, seed, unlearner="level", **changes)
    made["before"] |= documents(1.0, 1.0, 0.8)
    made["after"] |= documents(retain, forget, 0.25)
    made["extra"]["distance"] = {"forget": forget - 6, "retain": 0.0, "test": 0.0, "mean": abs(forget - 6) / 3}
    if made["extra"]["curve"]:
        made["extra"]["curve"]["watch_loss"] = made["extra"]["curve"]["forget_loss"]
    return made


def three_seeds():
    rows = [row("oracle", s, 0.9, 6.0) for s in range(3)]
    rows += [row("vanilla", s, retain, 2.0, steps=10) for s, retain in enumerate((2.0, 2.1, 2.2))]
    return rows + [row("readiness", s, retain, 5.5, steps=5) for s, retain in enumerate((1.0, 1.1, 1.2))]


def test_the_page_leads_with_what_stays_and_what_goes(tmp_path, undrawn):  # noqa: F811
    trial = {"learning_rate": 0.1, "beta": 0.5, "reached": 3, "steps": [9], "validation_retain_accuracy": 0.09}
    trials = [trial | {"retained_loss": 1.25}, trial | {"learning_rate": 0.3, "reached": 0, "retained_loss": None}]
    swept = {"event": "sweep", "selected_for": "readiness-default", "trials": trials, **SWEPT[0]}
    pages.finished(three_seeds(), tmp_path, {"forget": {"setting": "random", "fraction": 0.05}}, log=[swept])
    page = report.write(tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert markdown.startswith("# Forethought: toys, a random 5% of the documents forgotten")
    lead = markdown[: markdown.index("## Results")]
    # 1, 1.1, 1.2: sd .1, t(2) = 4.303, half-width .25
    assert "**What stays, Readiness: 1.10 [0.85, 1.35] nats.**" in lead
    assert "Oracle: 0.90, Vanilla: 2.10" in lead
    assert "**What goes, minus the oracle: −0.50" in lead and "Vanilla: −4.00" in lead
    assert "**Extraction strength: 25.0" in lead and "Before: 80.0%" in lead
    assert "**Min-K% attack, AUC: 0.75" in lead and "PrivLeak: −40.0%" in lead
    assert lead.index("What stays") < lead.index("Steps to forget") < lead.index("Relearned")
    assert "ccuracy" not in lead and "image" not in markdown and "class" not in markdown.split("## Settings")[0]
    assert "(figures/unlearning-forget-level.svg)" in markdown and "unlearning-margin" not in markdown
    assert "chosen on training documents that stay" in markdown and "| 9 / 9 | 1.25 | chosen |" in markdown
    assert "| 0/1 | 9 / 9 | – |  |" in markdown and "9.0" not in markdown[markdown.index("## Learning rate") :][:600]
    assert pages.read(page).said


def test_the_terminal_has_losses_in_nats():
    table = report.table(pages.as_run(three_seeds()), 200)
    ready = pages.line_of(table, "Readiness")
    assert ready.split()[1:3] == ["1.00", "80.0"]
    assert ready.split()[7:15] == ["1.10", "±", "0.25", "5.50", "±", "0.00", "−0.50", "25.0"]
    assert "test-retain" not in table and "ToW" not in table and "nats per token" in table


def test_less_loss_is_better():
    every = methods.group(pages.as_read(three_seeds()))
    text = " ".join(summary.summary(every, SWEPT))
    assert "Loss of retained documents, in nats per token: Readiness 1.10, Vanilla 2.10 (−1.00" in text
    found = text[text.index("Loss of retained") : text.index("Steps:")]
    assert "Readiness is better" in found and "accuracy" not in text
    assert "from the oracle's, in nats per token: Readiness 0.50, Vanilla 4.00" in text


def test_the_hardest_rival_has_the_lowest_loss_and_not_the_one_that_failed():
    rows = [row(name, s, retain, 5.0) for name, retain in (("vanilla", 2.0), ("reweight", 1.5)) for s in range(2)]
    rows += [pages.fail(row("dpsgd", s, 1.0, 5.0)) for s in range(2)]
    every = methods.group(pages.as_read(rows))
    assert methods.strongest(every, "level", shown.RETAINED).training == "reweight"


@pytest.mark.parametrize("old", [1, 9])
def test_a_run_of_text_without_scores_of_documents_is_shown_as_it_was(old, undrawn):  # noqa: F811
    """All rows of an older version, or what it had done of a run that went on."""
    rows = three_seeds()
    for made in rows[:old]:
        made["before"] = {name: value for name, value in made["before"].items() if name in pages.scores()}
    every = methods.group(pages.as_read(rows))
    assert shown.of(every) is shown.LABELLED
    assert "Test accuracy" in headline.headline(every)[0].panel.caption
    assert shown.of(methods.group(pages.as_read(pages.three_seeds()))) is shown.LABELLED
    assert shown.of([]) is shown.LABELLED
