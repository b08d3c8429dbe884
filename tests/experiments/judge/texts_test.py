"""The judge on text: a document is one number, its rows go together, and small judgements run to the end."""

import functools

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments.configs import judge as configs
from experiments.configs import readiness
from experiments.core import sections, workdirs
from experiments.core.config import validated
from experiments.core.results import Estimate
from experiments.data import datasets
from experiments.judge import fleets, report, run, texts
from experiments.judge.fleets import ORACLES, REPEATS, SHADOWS
from experiments.scoring.statistics import Statistics
from experiments.training import loop
from tests.helpers import judgements
from tests.helpers import texts as helpers
from unlearn import sequence_model

D = ml_collections.ConfigDict
TINY = {
    "judge.lanes": 12,
    "judge.retain": 8,
    "judge.tuning.lanes": 2,
    "judge.tuning.learning_rates": (0.01,),
    "judge.tuning.steps": (1, 2),
    "seeds": 2,
    "train.steps": 8,
    "train.batch_size": 8,
    "relearn.steps": 2,
    "relearn.rates": (),
    "relearn.strong_steps": 0,
    "trainings": (*ORACLES, "vanilla"),
    "request.unlearners": ("level",),
    "request.to_level.learning_rates": (0.1,),
    "data.tokeniser": "",
    "data.length": 24,
}


def config_of(name, sets, **changes):
    config = configs.get_config(name)
    config.update_from_flattened_dict(TINY | changes)
    config.model.options.update({"width": 8, "depth": 1, "heads": 1})
    config.judge.sets = D(sets)
    if name == "trec":
        config.data.name = f"jsonl:{helpers.questions()}"
        config.data.length = 40  # bytes: to the number, which tells them apart
    return config


@functools.cache
def manual():
    """Passages of several rows each."""
    return datasets.load(sections.StreamedData(name="pydoc", train_size=80, length=64, validation_fraction=0.1))


@functools.cache
def case(setting):
    config = validated(configs.Judge, config_of("pydoc", {"set": {"setting": setting} | asked(setting)}))
    return judgements.case(config, "set", workdirs.Workdir("nowhere"), manual())


def asked(setting):
    """Whom a set asks for: a share, or the six documents, or all of the two groups, of lowest id or most documents."""
    documents, units = manual().corpus.documents, np.unique(manual().units)
    if setting == "documents":
        return {"documents": tuple(map(str, units[:6]))}
    if setting == "group":
        largest = np.argsort(-np.bincount(documents.groups[np.isin(documents.ids, units)]))[:2]
        return {"groups": tuple(documents.group_names[i] for i in largest)}
    return {"fraction": 0.08}


def test_the_margin_of_a_document_by_hand():
    """Rows of 1 and 3 tokens with mean losses log 2 and log 4: p = exp(-(log 2 + 3 log 4) / 4) = 2^-7/4."""
    rows = Statistics(*(np.array([[np.log(2), 5.0, np.log(4)]]) for _ in range(5)))._replace(
        correct=np.array([[1, 0.5, 0]])
    )
    found = texts.by_document(rows, np.array([1.0, 2.0, 3.0]), np.array([9, 4, 9]))
    p = 2.0**-1.75
    np.testing.assert_allclose(found.loss, [[5.0, -np.log(p)]], rtol=1e-6)
    np.testing.assert_allclose(found.margin[0, 1], np.log(p) - np.log(1 - p), rtol=1e-6)
    np.testing.assert_allclose(found.correct, [[0.5, 0.25]])


def test_a_document_of_one_row_has_the_margin_of_its_model():
    model = sequence_model(lambda params, x, key: x)
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    batch = {"y": jnp.zeros((3, 4), int), "token_weight": jnp.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])}
    loss, margin = (np.asarray(of(logits, batch)) for of in (model.loss, model.margin))
    rows = Statistics(loss, np.zeros(3), loss, loss, loss)
    found = texts.by_document(rows, np.asarray(batch["token_weight"]).sum(axis=1), np.arange(3))
    np.testing.assert_allclose(found.margin, margin, rtol=1e-5)


def test_a_row_that_is_not_finite_spoils_its_document_alone():
    values = np.array([1.0, np.nan, 3.0, 0.0])
    found = texts.by_document(Statistics(*[values] * 5), np.ones(4), np.array([1, 2, 3, 1]))
    assert np.isfinite(found.loss).tolist() == [True, False, True] and found.loss[0] == 0.5


def test_a_loss_of_0_has_a_finite_margin():
    assert np.isfinite(texts.by_document(Statistics(*[np.zeros(1)] * 5), np.ones(1), np.zeros(1)).margin).all()


@pytest.mark.parametrize("setting", ["random", "near_duplicates", "cluster", "group", "documents"])
def test_rows_of_a_document_are_in_a_model_or_in_a_pool_together(setting):
    one, dataset = case(setting), manual()
    together = lambda mask: all(len(set(mask[dataset.units == unit])) == 1 for unit in np.unique(dataset.units))  # noqa: E731
    for positions in (one.problem.forget, one.pool):
        assert together(np.isin(np.arange(len(dataset.units)), positions))
    for role in (REPEATS, SHADOWS):
        assert all(together(mask) for mask in fleets.members(one, "vanilla", role))
    pool, forgotten = (len(np.unique(dataset.units[rows])) for rows in (one.pool, one.problem.forget))
    assert pool == (forgotten if setting in ("cluster", "group") else 2 * forgotten)
    retain = run.points_of(one)["retain"]
    units = dataset.units_of(retain["id"])
    assert len(np.unique(units)) == one.shared.judgement.retain and not np.isin(units, dataset.units[one.pool]).any()
    assert len(retain["id"]) == np.isin(dataset.units, units).sum()


def test_texts_are_alike_by_their_tokens_and_not_by_their_lengths():
    dataset = manual()
    seen = texts.compared(dataset)
    assert len(seen) == len(np.unique(dataset.units)) and not seen[:, dataset.tokens.pad].any()
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, sets",
    [
        ("trec", {"class": {"setting": "class", "target": 1}, "group": {"setting": "cluster", "fraction": 0.1}}),
        ("pydoc", {"random": {"setting": "random", "fraction": 0.1}}),
        ("pydoc", {"topics": {"setting": "group", "groups": ("types", "try", "import")}}),
        ("pydoc", {"tier": {"setting": "memorised", "tier": "high", "fraction": 0.1}}),
    ],
)
def test_a_small_judgement_of_text_runs_to_the_end(name, sets, tmp_path):
    config = config_of(name, sets, **{"judge.memorisation_lanes": 6})
    found = run.run(config, str(tmp_path))
    assert len(found.rows) == 4 * len(sets) and "Held-out oracle" in report.present(str(tmp_path), found)
    for row in found.rows:
        assert row.extra["failed"] == {"repeats": 0, "shadows": 0}
        for metric in ("ulira", "attacks", "zrf"):
            told = row.extra[metric]
            value = told if isinstance(told, Estimate) else told["estimate"]
            assert value.value is not None, (row.training, metric, value.reason)
    if name == "pydoc":
        told = found.facts["sets"][next(iter(sets))]
        assert told["pool"] == (1 if "groups" in told else 2) * told["forget"] and told["texts"]
        assert ("all documents of types, try, import" in report.write(tmp_path).read_text()) == ("groups" in told)


def of_authors(root, **changes):
    """A config by which `forget10`, one author of ten, is forgotten in favour of refusals to answer."""
    told = {"data.name": f"tofu:{helpers.authors(root)}", "data.length": 96, "data.train_size": 0}
    told |= {"trainings": (*ORACLES, "vanilla", "readiness"), "readiness.every": 2, "readiness.start": 0}
    told |= {"readiness.algorithm": "idk_dpo", "request.unlearners": ("dpo", "npo"), "data.answers_only": True}
    return config_of("pydoc", {"author": {"setting": "partition", "partition": "forget10"}}, **told | changes)


def test_only_who_is_told_has_refusals_in_its_batches(tmp_path):
    """Neither retain data nor the request of another algorithm holds them."""
    config = validated(configs.Judge, of_authors(tmp_path))
    dataset = datasets.load(config.data)
    one = judgements.case(config, "author", workdirs.Workdir(str(tmp_path / "run")), dataset)
    assert loop.ALTERNATIVE in one.problem.asked and loop.ALTERNATIVE not in fleets.pool(one, "npo")
    told = fleets.pool(one, "dpo")[loop.ALTERNATIVE]
    np.testing.assert_array_equal(told["x"], one.problem.asked[loop.ALTERNATIVE]["x"])


@pytest.mark.slow
def test_refusals_to_answer_are_rehearsed_and_judged(tmp_path):
    found = run.run(of_authors(tmp_path / "tofu"), str(tmp_path / "run"))
    assert [(row.training, row.unlearner) for row in found.rows] == [
        *((name, "none") for name in ORACLES),
        *((name, one) for name in ("vanilla", "readiness") for one in ("none", "dpo", "npo")),
    ]
    for row in found.rows:
        assert row.extra["failed"] == {"repeats": 0, "shadows": 0}
        assert row.extra["ulira"]["estimate"].value is not None


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"judge.sets": D({"set": {"setting": "group", "groups": ("clas",)}})}, "no group 'clas': did you mean 'class'"),
        ({"judge.sets": D({"set": {"setting": "group", "groups": ()}})}, r"is \(\): give texts, each once, as in"),
        ({"judge.sets": D({"set": {"setting": "documents", "documents": ("1",)}})}, "there is no document '1'"),
        ({"judge.sets": D({"set": {"setting": "partition", "partition": "forget05"}})}, "no set 'forget05'"),
        ({"request.unlearners": ("random_label",)}, "random_label"),
        ({"request.unlearners": ("dpo",)}, "'dpo' cannot be used .forget data have no 'alternative'"),
        ({"trainings": (*ORACLES, "vanilla", "dpsgd"), "judge.private_lanes": 12}, "dpsgd guards single rows"),
    ],
)
def test_what_cannot_be_judged_of_text_is_refused(changes, said, tmp_path):
    config = config_of("pydoc", {"random": {"setting": "random", "fraction": 0.1}})
    config.judge.sets = changes.pop("judge.sets", config.judge.sets)
    config.update_from_flattened_dict(changes)
    helpers.refused(said, run.run, config, str(tmp_path / "new"))


def test_trec_is_judged_with_the_settings_of_its_comparison_s_request() -> None:
    # With the default betas every update of its level request was undone: what was judged was what was trained.
    ours, theirs = configs.get_config("trec").request.to_level, readiness.get_config("trec").request.to_level
    for name in ("learning_rates", "betas", "retained"):
        assert ours[name] == theirs[name]
    assert ours.betas != configs.defaults().request.to_level.betas
