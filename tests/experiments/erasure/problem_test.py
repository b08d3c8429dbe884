"""What federations are made of: who has which examples, and what is refused."""

import jax
import numpy as np
import pytest

from experiments import models
from experiments.configs import federated as configs
from experiments.core.config import validated
from experiments.core.errors import ConfigError, UserError
from experiments.data import datasets
from experiments.erasure import problem, run
from tests.helpers.erasures import config, made
from tests.helpers.pictures import undrawn  # noqa: F401


@pytest.mark.parametrize("name", ["digits", "digits_dirichlet"])
def test_leavers_are_the_same_in_all_seeds_and_the_others_share_the_rest(name):
    one = made(name)
    owned = []
    for seed in problem.seeds(one.config):
        setup = problem.federation(one, seed)
        real = np.asarray(setup.data["weight"]) > 0
        ids = np.asarray(setup.data["id"])
        assert sorted(ids[0][real[0]]) == sorted(one.dataset.train.id[one.leaving[0]])
        assert sorted(ids[real]) == sorted(one.dataset.train.id)
        owned.append(ids[1][real[1]].tolist())
    assert owned[0] != owned[1]


def test_settings_are_chosen_without_the_leavers_data():
    one = made("digits")
    setup = problem.calibration(one, 0)
    used = np.asarray(setup.data["id"])[np.asarray(setup.data["weight"]) > 0]
    assert not set(used) & set(one.dataset.train.id[one.leaving[0]])
    assert sorted(used) == sorted(one.dataset.train.id[one.others])


def test_the_forgotten_are_the_leavers_examples_without_padding():
    one = made("digits_backdoor")
    batch = problem.forgotten(one, problem.federation(one, 0))
    assert sorted(batch["id"]) == sorted(one.dataset.train.id[one.leaving[0]])
    assert (batch["weight"] == 2).all() and (batch["y"] == 0).sum() >= len(batch["y"]) / 2


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"leaver.clients": 4}, "config.leaver.clients is 4 of 5 clients: at least two have to stay, set fewer"),
        ({"federation.present": 6}, "config.federation.present is 6 of 5 clients: set at most all, or 0"),
        ({"archive.users": 6}, "config.archive.users is 6 of 5 clients in a round: set at most all, or 0"),
        (
            {"archive.users": 4, "federation.present": 3},
            "config.archive.users is 4 of 3 clients in a round: set at most all, or 0",
        ),
        (
            {"erase.methods": ("fedrecover",), "erase.final": 1, "erase.warmup": 2},
            "config.erase.warmup is 2, and final 1, of 3 rounds: none is left to estimate, lower one",
        ),
        (
            {"erase.methods": ("fedrecover",), "erase.final": 0, "erase.warmup": 1, "erase.correct": 1},
            "config.erase.correct is 1: all would be asked in every round, as by retraining, raise it",
        ),
        (
            {"erase.methods": ("federaser",), "erase.interval": 3},
            "config.erase.interval is 3 of 3 rounds: FedEraser would redo none, lower it",
        ),
        (
            {"erase.repairs": (1, 3)},
            "config.erase.repairs are up to 3 rounds of 3: retraining takes no more, give fewer",
        ),
        (
            {"leaver.request": "class", "leaver.backdoor": True},
            "config.leaver.backdoor is of clients that leave, not of request class: unset one",
        ),
        (
            {"leaver.request": "examples", "leaver.clients": 5},
            "config.leaver.clients is 5 of 5 clients: at least one has to lose none, set fewer",
        ),
        (
            {"leaver.request": "examples", "federation.weighting": "equal"},
            "config.federation.weighting is equal, and what a client has left changes its weight: set examples",
        ),
        ({"erase.methods": ("medu", "medu")}, "config.erase.methods is ('medu', 'medu'): give each once"),
    ],
)
def test_a_bad_value_is_one_line(changes, told, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run.run(config(**changes), str(tmp_path / "run"))
    assert list(caught.value.mistakes) == [told] and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"federation.clients": 100}, "are too few for 100 clients"),
        ({"data.validation_fraction": 1e-9}, "there are no validation examples"),
        ({"leaver.backdoor": True, "leaver.stamp": 8}, "set one below 8"),
        (
            {"leaver.request": "class", "leaver.label": 10},
            "no training example is of class 10: set",
        ),
        (
            {"leaver.request": "examples", "leaver.examples": 500},
            "500 examples are to go of a client that has 24: set fewer",
        ),
        ({"federation.dirichlet": 1e-4, "federation.clients": 30, "leaver.clients": 12}, "only 8 of 30 clients would have"),
        (
            {"federation.present": 1, "federation.rounds": 2},
            "nobody who has what is to go is present in any of 2 rounds of seed 0",
        ),
    ],
)
def test_data_that_will_not_do_are_one_line(changes, told, tmp_path):
    with pytest.raises(UserError, match=told):
        run.run(config(**changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_is_set_of_a_backdoor_and_not_read_is_told(caplog):
    run.tell_what_is_not_read(configs.Leaver(), "equal")
    run.tell_what_is_not_read(configs.Leaver(backdoor=True, target=3), "equal")
    run.tell_what_is_not_read(configs.Leaver(backdoor=True, claim=3.0), "examples")
    assert not caplog.records
    run.tell_what_is_not_read(configs.Leaver(target=3, claim=1.0), "examples")
    assert "leaver.target, leaver.claim: of a backdoor alone" in caplog.text
    run.tell_what_is_not_read(configs.Leaver(backdoor=True, claim=3.0), "equal")
    assert "leaver.claim: counts where examples weigh" in caplog.text and len(caplog.records) == 2


def test_a_claim_counts_where_examples_weigh():
    """Nobody asks how many examples a client has where all clients weigh alike."""
    for weighting, weight in (("examples", 2), ("equal", 1)):
        section = validated(configs.Federated, config("digits_backdoor", **{"federation.weighting": weighting}))
        one = problem.make(section, datasets.load(section.data))
        assert (problem.forgotten(one, problem.federation(one, 0))["weight"] == weight).all()


def test_ridge_heads_of_a_model_without_features_are_refused(monkeypatch):
    section = validated(configs.Federated, config(**{"erase.methods": ("ridge",)}))
    build = models.build
    monkeypatch.setattr(models, "build", lambda *given: build(*given)._replace(features=None))
    with pytest.raises(UserError, match="leave ridge out"):
        problem.make(section, datasets.load(section.data))


def test_clients_of_a_convolutional_net_are_matrix_products_on_a_cpu():
    one = problem.make(
        validated(configs.Federated, config("cifar10", **{"data.name": "digits", "model.options.widths": (8,)})),
        made("digits").dataset,
    )
    program = str(jax.make_jaxpr(lambda flat, x: one.model.apply(one.unravel(flat), x, None))(
        np.zeros(one.parameters, np.float32), one.dataset.train.x[:1]
    ))  # fmt: skip
    assert ("conv_general_dilated" in program) == (jax.default_backend() != "cpu")


def test_raw_data_are_a_byte_a_pixel_and_four_a_number_of_a_table():
    one = made("digits")
    train = one.dataset.train
    table = one._replace(dataset=one.dataset._replace(train=train._replace(x=train.x.reshape(-1, 64))))
    sizes = [run.facts(each, {}, [])["raw_bytes"] for each in (one, table)]
    assert sizes == [120 * (64 + 1), 120 * (4 * 64 + 1)]
