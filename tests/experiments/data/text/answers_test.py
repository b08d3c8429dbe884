"""Which of TOFU's questions are asked: against the rows that each answer makes, and how many wrong answers are used."""

import numpy as np
import pytest

from experiments.core.errors import DataError
from experiments.data.text import answers, packing
from experiments.data.text.sources.documents import QUESTION, Documents
from experiments.data.text.sources.tofu import Queries
from experiments.data.text.tokenisers import byte_level

TOKENS = byte_level()
ASKED = Queries(
    np.array([3, 5, 8, 9]),
    tuple(QUESTION.format(text) for text in ("Who?", "Where?", "When exactly?", "Why?")),
    ("Ann did.", "Here, or not far from here.", "Now.", "So."),
    tuple(QUESTION.format(text) for text in ("Which one?", "At which place?", "?", "For what reason of all there are?")),
    ("It was Ann, as far as is known.", "Here.", "Just now.", "So it is."),
    (("Ben.", "Eve."), ("There.",), ("Then, or at another time before.", "Never.", "Later."), ("No.", "Yes.")),
)


def one_row_each(asked, i, length):
    """Whether each answer to question i is one row after its prompt."""
    prompts, right, other = asked.prompts, asked.answers[i], asked.paraphrased_answers[i]
    pairs = [(prompts[i], answer) for answer in (right, other, *asked.perturbed[i])]
    pairs += [(asked.paraphrased_prompts[i], right)]
    before, after = zip(*pairs, strict=True)
    try:
        rows = packing.rows(Documents(np.arange(len(pairs)), after, before), TOKENS, length, answers_only=True)
    except DataError:  # a prompt fills the row
        return False
    return len(rows.id) == len(pairs)


def test_questions_are_asked_whose_answers_are_one_row_each(caplog):
    seen = set()
    for length in range(20, 80):
        caplog.clear()
        found = answers.whole(ASKED, TOKENS, length, "forget").ids.tolist()
        assert found == [int(ASKED.ids[i]) for i in range(4) if one_row_each(ASKED, i, length)]
        seen.add(len(found))
        told = f"{4 - len(found)} of 4 questions (forget) have an answer that no row of {length} tokens holds whole"
        assert [record.getMessage() for record in caplog.records] == [
            f"{told}: they are not asked, set a larger --config.data.length"
        ] * (len(found) < 4)
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("lacking", ["paraphrased_prompts", "paraphrased_answers"])
def test_what_is_not_asked_need_not_fit(lacking):
    """Question 9 has a long prompt in other words; of question 3 the longest answer is the one in other words."""
    row = {"paraphrased_prompts": 9, "paraphrased_answers": 3}[lacking]
    bare = ASKED._replace(**{lacking: None})
    gained = [
        set(answers.whole(bare, TOKENS, length, "").ids) - set(answers.whole(ASKED, TOKENS, length, "").ids)
        for length in range(20, 80)
    ]
    assert row in set().union(*gained)


def test_all_have_as_many_wrong_answers_and_what_is_left_out_is_told(caplog):
    assert answers.even(ASKED, "retain").perturbed == tuple(wrong[:1] for wrong in ASKED.perturbed)
    (record,) = caplog.records
    told = "1 of 4 questions (retain) have 1 wrong answers, others up to 3: 1 of each are used, give each as many"
    assert record.getMessage() == told
    pair = ASKED._replace(**{name: column[::3] for name, column in ASKED._asdict().items()})
    none = ASKED._replace(**{name: column[:0] for name, column in ASKED._asdict().items()})
    assert answers.even(pair, "retain").perturbed == pair.perturbed and answers.even(none, "").perturbed == ()
    assert len(caplog.records) == 1
