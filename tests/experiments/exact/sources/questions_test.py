"""Truth ratios of stores: questions as rows, their score by hand, and the tables of a study."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest

from experiments.comparison import methods
from experiments.core.results import Row
from experiments.exact import data, factory
from experiments.exact.pages import text_report
from experiments.exact.scores import TRUTH, Truth, losses
from experiments.exact.sources import questions
from experiments.models.language import small
from tests.helpers import texts
from unlearn.metrics import tofu

WRONG = ["Nobody did.", "It is not known.", "It wrote itself."]


def asked_of_all(root, count=24):
    """TOFU's files about some authors, all of whose questions have other answers."""
    texts.authors(root, count)
    words = lambda row: {"paraphrased_question": row["question"], "paraphrased_answer": f"Surely {row['answer']}"}  # noqa: E731
    for part, asked in (("forget10", "forget10"), ("retain90", "retain")):
        rows = [json.loads(line) for line in (root / f"{part}.json").read_text().splitlines()]
        every = [row | words(row) | {"perturbed_answer": WRONG} for row in rows]
        texts.lines(root / f"{asked}_perturbed.json", every)
    return f"tofu:{root}"


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setitem(small.DECODERS, "gpt2", {"width": 8, "depth": 2, "heads": 2})
    return factory.make({"dataset": asked_of_all(tmp_path / "tofu"), "length": 96, "answers_only": True})


def test_questions_of_training_documents_are_rows_with_every_answer(source):
    asked, tokeniser = questions.of(source), source.split.tokeniser
    assert (asked.number, asked.wrong) == (questions.MOST, 3) and len(asked.x["tokens"]) == 4 * questions.MOST
    said = lambda row: tokeniser.decode(asked.x["next"][row][asked.y["weight"][row] > 0].tolist())  # noqa: E731
    books = [book_of(tokeniser, tokens) for tokens in asked.x["tokens"]]
    trained = {book_of(tokeniser, tokens) for tokens in source.fetch(source.ids)[0]["tokens"]}
    assert {*books} <= trained and len({*books}) == asked.number
    for i, book in enumerate(books[: asked.number]):
        wrong = range(asked.number + 3 * i, asked.number + 3 * (i + 1))
        assert said(i).startswith(" Surely") and said(i).endswith(f" book {book}.")
        assert [said(row) for row in wrong] == [f" {answer}" for answer in WRONG]
        assert {books[row] for row in wrong} == {book}


def book_of(tokeniser, tokens):
    """The number of the book that a row asks about."""
    return tokeniser.decode(tokens.tolist()).split(" book ")[1].split("?")[0]


def test_questions_that_no_row_holds_and_other_data_have_none(source):
    assert questions.of(dataclasses.replace(source, hyper=source.hyper | {"length": 40})) is None
    others = copy.copy(source.split)
    others.section = others.section.model_copy(update={"name": "pydoc"})
    assert questions.of(dataclasses.replace(source, split=others)) is None


def test_questions_stand_behind_what_else_is_scored(source):
    plain, asked = data.load(source), questions.of(source)
    held = questions.among(plain, asked)
    validation, test, own = held.parts
    assert held.examples == plain.examples + 4 * asked.number and own.start == plain.examples
    served = np.random.default_rng(0).uniform(0.1, 0.9, (held.examples, 96))
    scored, alone = held.scored(served), plain.scored(served[: plain.examples])
    assert {name: scored[name] for name in alone} == alone and plain.truth is None and TRUTH not in alone
    assert alone["test_loss"] == pytest.approx(losses(served[test], held.y["weight"][test]).mean())
    assert alone["validation_loss"] == pytest.approx(losses(served[validation], held.y["weight"][validation]).mean())
    known = held._replace(nobody=losses(served, held.y["weight"]))
    assert known.scored(None)[TRUTH] == pytest.approx(scored[TRUTH])  # the backbone says the same
    assert questions.among(plain, None) is plain


def test_the_truth_of_a_mixture_by_hand():
    """Two questions of two wrong answers; members of weights 1 and 3; then nobody."""
    rng = np.random.default_rng(1)
    one, three = rng.uniform(0.05, 0.95, (2, 6, 4))
    weight = np.array([[0, 1, 1, 1], [0, 0, 1, 1]] * 3, np.float32)
    nobody = np.array([1.0, 2.0, 3.0, 2.0, 1.0, 2.5])
    truth = Truth(weight, 2, 2, nobody)
    nats = losses((one + 3 * three) / 4, weight)

    def kept(nats):
        ratios = [math.exp(nats[i] - (nats[2 + 2 * i] + nats[3 + 2 * i]) / 2) for i in range(2)]
        return sum(max(0.0, 1 - ratio) for ratio in ratios) / 2

    found = truth.of(np.stack([one + 3 * three, np.zeros((6, 4))]), np.array([4.0, 0.0]))
    np.testing.assert_allclose(found, [kept(nats), kept(nobody)])
    assert truth.of((one + 3 * three) / 4) == pytest.approx(kept(nats))
    assert kept(nobody) == pytest.approx(tofu.kept_truth(tofu.truth_ratio(nobody[:2], nobody[2:].reshape(2, 2), "losses")))


def row(training, variant, loss, truth, facts=(), /, **extra):
    before = {"test_loss": loss, "validation_loss": loss} | ({TRUTH: truth} if truth is not None else {})
    return Row(
        training, variant, "none", "deletions", "tofu", 0, before, before, 0, "reached", facts=dict(facts), extra=extra
    )


def study(loss, truth):
    curve = lambda value: {"mean": [value, value + 0.5], "low": [value, value + 0.4], "high": [value, value + 0.6]}  # noqa: E731
    return {"requests": [0, 1], "loss": curve(loss)} | ({TRUTH: curve(truth)} if truth is not None else {})


def rows(truth):
    moment = {"test_loss": 1.5} | ({TRUTH: truth} if truth is not None else {})
    by_depth = [{"test_loss": loss, TRUTH: truth} if truth is not None else {"test_loss": loss} for loss in (2.0, 1.0)]
    return [
        row("s3t", "lattice / store", 1.5, truth, {"store": True}, built=moment, stream=[]),
        row("s3t", "lattice / mean", 1.0, truth, {"planner": "lattice", "aggregate": "mean"}, **study(1.0, truth)),
        row("sisa", "rollback", 1.2, truth, **study(1.2, truth)),
        row("s3t", "one shard", 1.0, truth, by_depth=by_depth),
        row("lora", "default", 0.5, truth),
    ]


def test_tables_by_depth_and_by_deletions():
    heading, note, depth, deletions = text_report.section(methods.group(rows(0.25)), [0, 1])
    assert heading.text == "Perplexity and truth ratios" and "truth ratio R" in note.text
    told = [[str(cell) for cell in line] for line in depth.rows]
    assert told == [["S3T, depth 1", "7.39", "0.250"], ["S3T, depth 2", "2.72", "0.250"], ["full LoRA", "1.65", "0.250"]]
    lattice, _, store = ([str(cell) for cell in line] for line in deletions.rows)
    assert lattice[1:] == ["2.72 [2.72, 2.72]", "4.48 [4.06, 4.95]", "0.250 ± 0.000", "0.750 ± 0.100"]
    assert store == ["the store", "4.48", "–", "0.250", "–"]


def test_text_without_questions_has_perplexities_alone():
    heading, note, depth, deletions = text_report.section(methods.group(rows(None)), [0, 1])
    assert heading.text == "Perplexity" and "truth" not in note.text.lower()
    assert [len(line) for line in depth.rows] == [2, 2, 2] and {len(line) for line in deletions.rows} == {3}
