"""A class and single examples: what goes, who can take it out, and what is checked."""

import jax
import numpy as np
import pytest

from experiments.configs import federated as configs
from experiments.core.config import validated
from experiments.core.errors import UserError
from experiments.data import datasets
from experiments.erasure import methods, problem, report, run, trial
from experiments.erasure.training import train
from federated.erase import Erased
from tests.helpers.erasures import QUICK, asking, config, made
from tests.helpers.pictures import undrawn  # noqa: F401
from unlearn.base import mean_loss


@pytest.mark.parametrize("request_", ["class", "examples"])
def test_what_goes_is_the_same_in_all_seeds_and_settings_are_chosen_without_it(request_):
    one = asking(request_)
    wanted = sorted(one.dataset.train.id[one.going])
    labels = one.dataset.train.y[one.going]
    assert (
        ((labels == 3).all() and (one.dataset.train.y == 3).sum() == len(labels))
        if request_ == "class"
        else len(labels) == 5
    )
    order = []
    for seed in problem.seeds(one.config):
        setup = problem.federation(one, seed)
        real, ids = np.asarray(setup.data["weight"]) > 0, np.asarray(setup.data["id"])
        assert sorted(ids[real]) == sorted(one.dataset.train.id) and not setup.going[~real].any()
        assert sorted(ids[np.asarray(setup.going)]) == wanted
        shares = np.asarray(setup.going).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
        np.testing.assert_allclose(setup.leavers, shares, rtol=1e-6)
        order.append(problem.forgotten(one, setup)["id"].tolist())
    assert order[0] == order[1] and sorted(order[0]) == wanted
    elsewhere = problem.calibration(one, 0)
    real = np.asarray(elsewhere.data["weight"]) > 0
    assert not set(np.asarray(elsewhere.data["id"])[real]) & set(wanted)
    gone = np.asarray(elsewhere.data["y"])[np.asarray(elsewhere.going)]
    assert len(set(gone)) == 1 and 3 not in gone if request_ == "class" else 0 < len(gone) <= 5


@pytest.mark.parametrize("request_", ["class", "examples"])
def test_retraining_is_the_training_of_clients_that_never_had_what_goes(request_):
    one = asking(request_)
    setup = problem.federation(one, 0)
    trained = train(one, setup)
    weight = np.where(setup.going, 0, setup.data["weight"])
    never = train(one, setup._replace(data={**setup.data, "weight": weight}))
    np.testing.assert_allclose(methods.retrained(one, trained, setup.key).model, never.model, atol=1e-6)
    assert np.abs(trained.model - never.model).max() > 1e-3


@pytest.mark.parametrize("request_", ["class", "examples"])
def test_a_run_without_a_class_or_examples_says_who_cannot(request_, undrawn, tmp_path):  # noqa: F811
    every = (*QUICK, "ridge", "federaser", "mpu")
    asked = {"leaver.request": request_, "leaver.examples": 5, "erase.methods": every}
    done = run.run(config(**asked), str(tmp_path))
    rows = {row.variant: row for row in done.rows}
    assert {row.unlearner for row in done.rows} == {"served", *every} and {row.setting for row in done.rows} == {request_}
    refused = {row.unlearner for row in done.rows if row.extra["reason"]}
    assert refused == ({"federaser", "mpu"} if request_ == "class" else {"running_sums", "fast_fedul", "medu", "federaser"})
    assert rows["federaser"].extra["reason"].startswith(f"federaser removes client and no {request_}: ")
    assert rows["rollback"].extra["distance"].value == 0 and rows["rollback"].extra["test_gap"].value == 0
    assert rows["ridge"].extra["distance"].value < 1e-3
    message = rows["ridge"].extra["stored"].value
    assert rows["ridge"].extra["sent"].value == message * {"class": 5, "examples": 1}[request_], "from each who has some"
    assert rows[trial.RIDGE_SERVED].extra["sent"].value == 0
    assert rows["rollback"].facts["helpers"] == "all clients", "nobody leaves"
    assert rows["running_sums"].facts["exact"].startswith({"class": "never", "examples": "alpha = 0"}[request_])
    text = report.write(tmp_path).read_text()
    assert {"class": "class 0 goes", "examples": "5 examples of a client go"}[request_] in text


def test_what_is_set_of_another_request_and_not_read_is_told(caplog):
    run.tell_what_is_not_read(configs.Leaver(request="class", clients=2, label=3, examples=4), "examples")
    run.tell_what_is_not_read(configs.Leaver(request="class", target=3, claim=2.0), "examples")
    assert [record.getMessage() for record in caplog.records] == [
        "leaver.clients: not of request class; set leaver.request=client, or leave it out",
        "leaver.examples: not of request class; set leaver.request=examples, or leave it out",
        "leaver.target, leaver.claim: of a backdoor, which clients have that leave; leave it out",
    ]


def test_what_a_request_does_not_use_is_not_checked():
    """FedRecover and FedEraser take out whole clients, and of a class no client leaves."""
    of_clients = {"erase.methods": ("fedrecover", "federaser"), "erase.interval": 3, "erase.warmup": 3}
    made = config(**{"leaver.request": "class", "leaver.clients": 5}, **of_clients)
    assert validated(configs.Federated, made).leaver.request == "class"


def test_of_two_classes_none_can_go():
    one = made("digits")
    of_two = one.dataset.train.y < 2
    train = type(one.dataset.train)(*(None if leaf is None else leaf[of_two] for leaf in one.dataset.train))
    section = validated(configs.Federated, config(**{"leaver.request": "class"}))
    with pytest.raises(UserError, match="without the class only one is left"):
        problem.make(section, one.dataset._replace(train=train, classes=2))


def test_somebody_who_has_the_class_has_to_be_there():
    few = {"federation.present": 1, "federation.rounds": 2, "federation.dirichlet": 0.01, "federation.clients": 12}
    section = validated(configs.Federated, config(**{"leaver.request": "class", "erase.repairs": ()}, **few))
    with pytest.raises(UserError, match="nobody who has what is to go is present in any of 2 rounds of"):
        problem.make(section, datasets.load(section.data))


def test_the_walk_ascends_on_examples_by_their_share_of_what_the_client_has(monkeypatch):
    one = asking("examples")
    trained = train(one, problem.federation(one, 0))
    given = {}
    monkeypatch.setattr(methods.erase, "rr_du", lambda *args, **_: given.update(forget=args[3]) or Erased(args[0], 0, 0))
    methods.rr_du(one, trained, 0.1)
    going, data = np.asarray(trained.setup.going[0]), dict(trained.setup.data)
    batch = {name: leaf[0][going] for name, leaf in data.items()}
    slope = jax.grad(lambda flat: mean_loss(one.model, one.unravel(flat), batch, None))(trained.model)
    share = going.sum() / (np.asarray(data["weight"][0]) > 0).sum()
    assert 0 < share < 1
    np.testing.assert_allclose(given["forget"](trained.model, 0, None), share * slope, atol=1e-6)
