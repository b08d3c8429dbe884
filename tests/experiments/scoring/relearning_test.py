"""What relearning attacks with, and what it is watched on."""

import numpy as np
import pytest

from experiments.core import forgetting
from experiments.data import problem
from experiments.data.splits import Tokens
from experiments.scoring import relearning
from tests.helpers import tiny


def attacks(setting, **relearn):
    asked = problem.make(tiny.digits(), forgetting.Forget(setting=setting))
    found = relearning.attacks(forgetting.Relearn(**{"size": 100, **relearn}), asked)
    ids = {name: [set(batch["id"].tolist()) for batch in pair] for name, pair in found.items()}
    assert all(len(a["id"]) == len(ids[name][0]) for name, (a, _) in found.items()), "nobody attacks twice"
    return asked, set(asked.sets.forget["id"].tolist()), ids


@pytest.mark.parametrize("setting", ["class", "random"])
def test_relearning_is_watched_on_forget_examples_that_it_does_not_train_on(setting):
    asked, forget, ids = attacks(setting)
    assert len(ids) == relearning.ATTACKS and set(ids) == {"stable", "similar", "part", "all"}
    for name in ("stable", "similar"):
        attack, watch = ids[name]
        assert watch == forget and not attack & forget and len(attack) == 100
    attack, watch = ids["part"]
    assert watch == forget - attack and watch
    attack, watch = ids["all"]
    assert attack == forget
    assert watch == (set(asked.sets.others["id"].tolist()) if setting == "class" else forget)


@pytest.mark.parametrize("share, forgotten", [(0.1, 10), (0.4, 40), (0.001, 1)])
def test_a_part_of_the_forget_set_comes_back_beside_data_that_stay(share, forgotten):
    _, forget, ids = attacks("class", share=share)
    attack, _ = ids["part"]
    assert len(attack & forget) == forgotten and len(attack) == 100


def test_half_of_the_forget_set_is_always_left_to_watch():
    _, forget, ids = attacks("class", size=1000, share=1.0)
    attack, watch = ids["part"]
    assert len(attack & forget) == len(forget) // 2 and watch == forget - attack


@pytest.mark.parametrize("most, documents", [(1, 1), (3, 1), (6, 2), (7, 2), (100, 3)])
def test_documents_come_back_whole(most, documents):
    """Six documents of three rows each: as many as fit, one at least, and half of them at most."""
    units = np.arange(18) % 6
    known = relearning._known(units, most)
    assert known.sum() == 3 * documents == np.isin(units, units[known]).sum()
    assert not relearning._known(np.zeros(4, int), 2).any()  # of one document nothing would be left to watch


def test_a_bag_counts_tokens_and_no_pads():
    x, tokens = np.array([[2, 2, 0], [1, 3, 3]]), Tokens(4, pad=3)
    np.testing.assert_array_equal(relearning.bags(x, tokens), [[1, 0, 2, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(relearning.compared(x, tokens), relearning.bags(x, tokens))
    assert relearning.compared(x, None) is x
