"""TOFU's scores of lanes: losses of answers by hand, who is asked, and forget quality against oracles of other seeds."""

import types
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from experiments.core import workdirs
from experiments.core.forgetting import Forget
from experiments.core.machines import execution
from experiments.core.sections import Data
from experiments.data import datasets, problem
from experiments.data.text.corpus import Corpus
from experiments.data.text.sources import tofu as questions
from experiments.data.text.sources.documents import content_id
from experiments.data.text.tokenisers import Tokeniser, byte_level
from experiments.models.language.backbones import as_functions
from experiments.models.language.decoder import Decoder, gpt2
from experiments.scoring import tofu
from experiments.scoring.scorer import Scorer
from tests.helpers.texts import authors, refused
from unlearn import sequence_model
from unlearn.metrics.tofu import SETS, forget_quality

WATER = content_id("Question: What is wet?\nAnswer: ", "Water.")
TOKENS = byte_level()
# A lane's logits are its parameters, whatever was said before.
MODEL = sequence_model(lambda params, x, key: jnp.broadcast_to(params, (*x.shape, TOKENS.vocabulary)))
LANES = np.random.default_rng(0).normal(size=(3, TOKENS.vocabulary)).astype(np.float32)
SCORER = Scorer(MODEL, execution.one_device(), None)


def by_hand(lane, answer):
    """Of the answer with the space before it, and the end."""
    tokens = [*f" {answer}".encode(), TOKENS.eos]
    return -log_softmax(lane.astype(np.float64))[tokens].mean()


def test_the_loss_of_an_answer_is_that_of_its_tokens_in_its_one_row():
    pairs = [("Q: who?\nA: ", "It was the one with the longest name."), ("Q: so?\nA: ", "No.")]
    corpus = Corpus(None, TOKENS, 1 + len(b"Q: who?\nA: It was the one with the longest name."))
    found = tofu.answer_losses(SCORER, LANES, corpus, pairs)
    np.testing.assert_allclose(found, [[by_hand(lane, answer) for _, answer in pairs] for lane in LANES], rtol=1e-5)
    nan = np.where(np.arange(3)[:, None] == 1, np.nan, LANES)
    assert np.isnan(tofu.answer_losses(SCORER, nan, corpus, pairs)).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="longer than a row of 48 tokens: leave them out"):
        tofu.answer_losses(SCORER, LANES, corpus._replace(length=corpus.length - 1), pairs)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    root = authors(tmp_path_factory.mktemp("tofu"))
    data = datasets.load(Data(name=f"tofu:{root}", length=96, answers_only=True))
    few = np.intersect1d(data.corpus.documents.sets["forget10"], data.units)[:6]
    return problem.make(data, Forget(setting="documents", documents=tuple(map(str, few.tolist()))))


def test_the_forgotten_the_retained_and_the_world_are_asked_about(asked):
    sets = tofu.questions(asked)
    assert {name: len(part.ids) for name, part in sets.items()} == {
        "forget": 6,
        "retain": len(np.intersect1d(asked.dataset.corpus.queries["full"].ids, asked.dataset.units)) - 6,
        "world_facts": 1,
    }
    assert set(sets["forget"].ids) == set(asked.units) and not set(sets["retain"].ids) & set(asked.units)
    plain = asked._replace(dataset=asked.dataset._replace(corpus=asked.dataset.corpus._replace(queries={})))
    assert tofu.questions(plain) == {}


def test_a_question_whose_answer_no_row_holds_is_not_asked(asked):
    """The longest pair is the question in other words with the right answer; without the forgotten nothing is asked."""
    longest = 1 + len(b"Question: Book 190 is by whom?\nAnswer: Author 9 wrote book 190.")
    found = []
    for length in (longest, longest - 1):
        corpus = asked.dataset.corpus._replace(length=length)
        found.append(tofu.questions(asked._replace(dataset=asked.dataset._replace(corpus=corpus))))
    assert {*found[0]} == {"forget", "retain", "world_facts"} and len(found[0]["forget"].ids) == 6 and found[1] == {}
    for part in found[0].values():  # each answer in one row
        tofu.losses(SCORER, LANES, asked.dataset.corpus._replace(length=longest), part)


def test_losses_of_every_answer_stand_where_their_questions_do(asked):
    part = tofu.questions(asked)["forget"]
    found = tofu.losses(SCORER, LANES, asked.dataset.corpus, part)
    for i, lane in enumerate(LANES):
        for column, answers in ((found.true, part.answers), (found.paraphrased, part.paraphrased_answers)):
            np.testing.assert_allclose(column[i], [by_hand(lane, answer) for answer in answers], rtol=1e-5)
        assert {*map(len, part.perturbed)} == {2}  # as many as all have
        for row, wrong in zip(found.perturbed[i], part.perturbed, strict=True):
            np.testing.assert_allclose(row, [by_hand(lane, answer) for answer in wrong], rtol=1e-5)
    np.testing.assert_allclose(found.rephrased, found.true, rtol=1e-6)  # this model hears no question


def test_a_forgotten_question_and_a_retained_one_are_asked_in_one_prompt(asked):
    corpus, sets = asked.dataset.corpus, tofu.questions(asked)
    pairs = tofu.together(corpus, sets)
    inner = lambda prompt: prompt.removeprefix("Question: ").removesuffix("\nAnswer: ")  # noqa: E731
    for name, other in (("forget", "retain"), ("retain", "forget")):
        own, beside = sets[name], sets[other]
        for i, prompt in enumerate(pairs[name].prompts):
            second = beside.prompts[i % len(beside.ids)]
            assert prompt == f"Question: {inner(own.prompts[i])} {inner(second)}\nAnswer: "
        assert pairs[name].answers == own.answers
    found = tofu._scored(SCORER, LANES, corpus, sets, np.ones((3, 6)), False)
    for lane in found:  # this model hears no question
        for name in ("forget", "retain"):
            assert lane[f"{name}_together_probability"] == pytest.approx(lane[f"{name}_probability"], rel=1e-5)
    assert (
        tofu.together(corpus._replace(length=45), sets) == {}
    )  # two questions and what stands around them have more bytes
    assert tofu.together(corpus, {"forget": sets["forget"]}) == {}


def test_forget_quality_is_against_the_oracles_and_of_an_oracle_against_the_others(asked, tmp_path):
    requests = types.SimpleNamespace(problem=asked, scorer=SCORER, workdir=workdirs.Workdir(tmp_path), met=lambda p: p)
    ratios = np.array(tofu._ratios(tofu.losses(SCORER, LANES, asked.dataset.corpus, tofu.questions(asked)["forget"])))
    found = tofu.scores(requests, LANES, LANES, LANES, itself=True)
    assert len(found) == 3
    for i, lane in enumerate(found):
        p_values = [forget_quality(ratios[i], ratios[j]).p_value for j in range(3) if j != i]
        assert lane["before"]["forget_qualities"] == pytest.approx(p_values)
        assert lane["before"]["forget_quality"] == pytest.approx(np.median(p_values))
        assert 0 < lane["after"]["world_facts_probability"] < 1 and lane["after"]["questions"] == ratios.shape[1]
    lane = tofu.scores(requests, LANES, np.where(np.arange(3)[:, None] == 1, np.nan, LANES), LANES)
    assert lane[0]["before"]["forget_quality"] == np.median([forget_quality(ratios[0], other).p_value for other in ratios])
    assert np.isnan([each["after"]["forget_quality"] for each in lane]).tolist() == [False, True, False]


def test_scores_of_other_questions_are_not_gone_on_with(tmp_path):
    workdir = workdirs.Workdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    tofu.check_begun(workdir)
    workdir.stage(tofu.STAGE, lambda: [[1.0]])
    tofu.check_begun(workdir)
    workdir.stage("tofu-oracle", lambda: [[1.0, 2.0]])
    refused("asked other questions of TOFU: remove tofu-oracle.json and all rows-", tofu.check_begun, workdir)


def test_questions_of_several_files_are_asked_once(tmp_path):
    root = authors(tmp_path)
    (root / "forget05_perturbed.json").write_text((root / "forget10_perturbed.json").read_text())
    every = questions.every_query(root)
    assert every.keys() == {"full", "world_facts"} and len(every["full"].ids) == 28
    assert (np.diff(every["full"].ids) > 0).all()


def test_what_a_decoder_says_is_set_beside_the_answer(asked):
    part = questions.select(asked.dataset.corpus.queries["world_facts"], [WATER])
    generate = Mock(side_effect=lambda params, *_, **__: [[*params, TOKENS.eos]])
    said = np.array([[*b" Salt water."], [*b" Sweet wine."]])
    assert tofu.recalls(generate, said, asked.dataset.corpus, part).tolist() == [[1.0], [0.0]]
    _, prompts, lengths, room = generate.call_args.args
    assert prompts.tolist() == [[TOKENS.bos, *b"Question: What is wet?\nAnswer:"]] and lengths == len(prompts[0])
    assert room == len(" Water.") and generate.call_args.kwargs == {"stop": TOKENS.eos}


def test_the_right_answer_is_recalled_beside_a_long_question():
    """A decoder that says one word after the other, as all answers do: to short questions, and to one that is long."""
    pytest.importorskip("rouge_score", reason="the extra text is not installed")
    words = ["<end>", "so", "Question:", "Answer:", *(f"word{i}" for i in range(10))]
    encode = lambda text: [words.index(word) for word in text.split()]  # noqa: E731
    decode = lambda tokens: " ".join(words[token] for token in tokens if token)  # noqa: E731
    tokeniser = Tokeniser(encode, decode, len(words), 0, 0, 0, "")
    decoder = Decoder(gpt2(vocabulary=len(words), width=len(words), depth=1, heads=1, positions=14, tied=False))
    fns = as_functions(decoder)
    blank = jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape)), jax.eval_shape(fns.init, jax.random.key(0)))
    norm = blank["norm"] | {"scale": jnp.ones((1, len(words)))}
    following = jnp.roll(jnp.eye(len(words)), 1, axis=0)[None]  # row v is the token before v
    params = blank | {"tokens": {"embedding": jnp.eye(len(words))[None]}, "norm": norm, "output": {"embedding": following}}
    prompts = [f"Question:{' so' * count} \nAnswer: " for count in (10, 1, 4)]  # and what begins them: 13, 4 and 7 of 14
    answers = [" ".join(words[4 : 4 + count]) for count in (1, 10, 7)]
    asked = questions.Queries(np.arange(3), (*prompts,), (*answers,), None, None, ((),) * 3)
    assert tofu.recalls(fns.generate, params, Corpus(None, tokeniser, 14), asked).tolist() == [[1.0, 1.0, 1.0]]


def test_utility_is_of_three_sets_and_of_what_is_said():
    sets = {name: tofu.Losses(*(np.full(3, loss) for loss in (0.5, 0.5, 0.6)), np.full((3, 2), 2.0)) for name in SETS}
    said = {name: np.full(3, 0.25) for name in ("forget", *SETS)}
    found = tofu._lane(sets | {"forget": sets["retain"]}, said, [])
    p, choice, truth = np.exp(-0.5), 1 / (1 + 2 * np.exp(-1.5)), 1 - np.exp(-1.4)
    by_hand = 9 / sum(1 / value for value in (p, choice, choice, *3 * [truth], *3 * [0.25]))
    assert found["model_utility"] == pytest.approx(by_hand) and np.isnan(found["forget_quality"])
    assert found["forget_truth_ratio"] == pytest.approx(found["forget_truth_ratio_by_probabilities"])
    assert "model_utility" not in tofu._lane({"forget": sets["retain"], "retain": sets["retain"]}, {}, [])
