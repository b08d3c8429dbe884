"""Federated erasure end to end: tiny federations of digits, their rows, and runs that are killed."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from experiments import models
from experiments.configs import federated as configs
from experiments.core import files
from experiments.core.config import validated
from experiments.core.errors import ConfigError, UserError
from experiments.core.results import Estimate
from experiments.data import datasets
from experiments.erasure import archives, calibration, methods, problem, report, rows, run, scoring, shown, trial
from experiments.erasure.training import train
from federated.archive import Scheme
from federated.erase import Erased, find_method, needs_of
from tests.helpers import kills, peers
from tests.helpers.configs import with_keys
from tests.helpers.pictures import undrawn  # noqa: F401
from unlearn.base import mean_loss

TINY = {
    "seeds": 2, "data.train_size": 120, "model.options.widths": (4,), "federation.clients": 5, "federation.rounds": 3,
    "federation.epochs": 1, "leaver.claim": 2.0, "archive.lattices": ("scalar",), "archive.rates": (2.0,),
    "archive.users": 0, "archive.threshold": 0.0, "archive.share": 0.0, "archive.coded": 1, "erase.calibrations": 1,
    "erase.alphas": (-0.1, 0.0), "erase.repairs": (1,),
}  # fmt: skip
QUICK = ("retrain", "rollback", "running_sums", "fast_fedul", "medu")


def config(name="digits", **changes):
    made = configs.get_config(name)
    return with_keys(made, TINY | {"erase.methods": QUICK} | changes)


@functools.cache
def made(name):
    section = validated(configs.Federated, config(name))
    return problem.make(section, datasets.load(section.data))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federated") / "run"
    return run.run(config("digits_backdoor"), str(folder), "a command"), folder


# --- Federations ------------------------------------------------------------------------------------------------------


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


# --- Archives ---------------------------------------------------------------------------------------------------------


def test_a_config_has_lattices_by_rates_and_the_main_one_sparser():
    names = archives.schemes(validated(configs.Federated, configs.get_config("digits")))
    assert len(names) == 3 * 3 + 3 * 3 + 2
    assert names["hexagonal 2, 10 users, threshold 0.5"] == Scheme(
        "hexagonal", 2.0, users=10, reference="last", entries="changed", amount=0.5
    )
    assert names["hexagonal 2, top 0.25"].entries == "top"


@pytest.mark.parametrize("rounds, coded", [(30, 3), (7, 3), (2, 3)])
def test_seeds_together_code_all_rounds_alike(rounds, coded):
    """A rate that codes the first round of each seed is too high where that alone has nothing to refer to."""
    chosen = [archives.coded_rounds(rounds, coded, (i + 0.5) / 70) for i in range(70)]
    assert {len(set(each)) for each in chosen} == {min(rounds, coded)}
    counts = np.bincount(np.concatenate(chosen), minlength=rounds)
    assert len(counts) == rounds and counts.max() - counts.min() <= 1 + counts.mean() * 0.25


def test_the_ratio_of_variances_by_hand():
    whole = np.array([0.0, 2.0])
    assert archives.ratio(whole, whole + np.array([0.1, -0.1])) == pytest.approx(2.0)
    assert np.isnan(archives.ratio(whole, whole))


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_answers_in_parts_are_those_at_once(monkeypatch):
    x, apply = np.random.default_rng(0).normal(size=(7, 3)), lambda vector, x: x * vector
    wanted = (x * -2).argmax(axis=1)
    for at_once in (1, 3, 7, 1000):
        monkeypatch.setattr(scoring, "AT_ONCE", at_once)
        np.testing.assert_array_equal(scoring.classes(apply, -2, x), wanted)


def test_the_least_mean_is_chosen_and_nothing_that_is_not_finite():
    assert calibration._best((1.0, 2.0, 3.0), [[3.0, 1.0, float("nan")], [1.0, 2.0, 0.0]]) == 2.0


# --- Rows -------------------------------------------------------------------------------------------------------------


def told_of(margins, reference):
    return {"ways": {"way": {"margins": margins}, "oracle": {"margins": reference}}}


@pytest.mark.parametrize("shift, low, high", [(0.0, 0.5, 0.5), (0.01, 0.4, 0.6), (9.0, 0.999, 1.001)])
def test_membership_is_chance_near_retraining_and_certain_far_from_it(shift, low, high):
    draw = np.random.default_rng(0)
    each = [draw.normal(size=20) for _ in range(12)]
    told = rows.membership("way", [told_of(margins + shift, margins) for margins in each])
    assert low <= told["estimate"].value <= high


@pytest.mark.parametrize("seeds", [6, 8, 16, 20])
def test_an_interval_is_that_of_seeds_whose_two_models_are_alike(seeds):
    """Its width beside how the AUC varies from fleet to fleet; of single models it is 3 times as wide with 8 seeds."""
    draw, found = np.random.default_rng(0), []
    for _ in range(40):
        each = [draw.normal(size=20) for _ in range(seeds)]
        told = [told_of(margins + 0.2 + 0.3 * draw.normal(size=20), margins) for margins in each]
        found.append(rows.membership("way", told)["estimate90"])
    half = np.mean([one.high - one.low for one in found]) / 2
    assert 1.2 < half / np.std([one.value for one in found], ddof=1) < 3


def test_membership_says_why_there_is_none():
    few = [told_of(np.ones(3), np.ones(3))] * 2
    assert rows.membership("way", few) == Estimate(reason="needs at least 6 seeds")
    assert "told apart from" in rows.membership("oracle", few).reason


def test_a_mean_over_seeds_by_hand():
    assert rows.over_seeds([1.0, None, 3.0]).value == 2.0
    assert rows.over_seeds([float("nan")]).reason == "not measured"


# --- A run ------------------------------------------------------------------------------------------------------------


def test_exact_ways_are_exact_and_equal_ways_are_equal(found):
    by_name = {row.variant: row for row in found[0].rows}
    assert by_name["rollback"].extra["distance"].value == pytest.approx(0, abs=1e-5)
    assert by_name["oracle"].extra["distance"].value == 0 and by_name["served"].extra["distance"].value == 1
    sums, rule = by_name["running_sums"].extra, by_name["fast_fedul alpha=0"].extra
    assert sums["each"]["distance"] == pytest.approx(rule["each"]["distance"], rel=1e-4)
    assert by_name["heldout_oracle"].extra["distance"].value > 0


def test_a_repair_asks_those_who_stay_and_nobody_else():
    """Leavers whose data are not numbers change nothing; one round of four clients is four updates."""
    one = made("digits")
    setup = problem.federation(one, 0)
    trained = train(one, setup)
    broken = dict(setup.data, x=setup.data["x"].at[0].set(np.nan))
    told = Erased(trained.model + 0.01, 2, 5)
    found, other = (
        methods.repaired(one, trained._replace(setup=setup._replace(data=data)), told, 1) for data in (setup.data, broken)
    )
    assert np.array_equal(found.model, other.model) and np.isfinite(found.model).all()
    assert (int(found.rounds), int(found.updates)) == (2 + 1, 5 + 4)
    assert not np.array_equal(found.model, told.model)


def test_a_repair_has_rows_after_nothing_the_rule_and_the_main_archive(found):
    repaired = {row.variant: row for row in found[0].rows if "repair" in row.facts}
    chosen = found[0].facts["calibration"]["chosen"]["alpha before 1"]
    names = ("served", f"fast_fedul alpha={chosen:g}", f"medu scalar 2, alpha={chosen:g}")
    assert list(repaired) == [f"{name}, repaired 1" for name in names]
    for row in repaired.values():
        assert row.extra["updates"].value == 4 and row.facts["helpers"] == "the remaining clients"
    assert repaired[f"{names[2]}, repaired 1"].extra["bits"].value > 0
    archive = next(row for row in found[0].rows if row.unlearner == "medu")
    assert repaired[f"{names[2]}, repaired 1"].unlearn_seconds > archive.unlearn_seconds, "the encoding, too"
    assert shown.label(repaired["served, repaired 1"]) == "Nothing done, then 1 round"


def test_an_archive_costs_what_the_coder_says_and_is_near_the_whole_history(found):
    by_name = {row.variant: row for row in found[0].rows}
    row, whole = by_name["medu scalar 2, alpha=0"], by_name["fast_fedul alpha=0"]
    updates, parameters = 3 * 5, found[0].facts["parameters"]
    assert row.storage_bytes == pytest.approx(row.extra["bits"].value / 8 * updates * parameters)
    assert whole.storage_bytes == 4 * updates * parameters
    assert row.extra["distance"].value == pytest.approx(whole.extra["distance"].value, rel=0.2)
    assert row.extra["ratio"].value > 1


def test_the_page_has_every_row_and_every_way_a_name_of_its_own(undrawn, found):  # noqa: F811
    page = report.write(found[1]).read_text()
    assert len({shown.label(row) for row in found[0].rows}) == len(found[0].rows)
    assert all(shown.label(row) in page for row in shown.main_rows(found[0].rows))
    assert "backdoor" in (found[1] / "tables" / "methods.csv").read_text()
    assert "at most 4 bits an entry" in " ".join(report.present(str(found[1]), found[0]).split())


def test_a_finished_run_is_read_back(found, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("read again"))
    again = run.run(config("digits_backdoor"), str(found[1]))
    assert again == found[0]


def test_a_run_of_an_older_version_without_requests_is_read_back(found, tmp_path, monkeypatch):
    shutil.copytree(found[1], tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    old = json.loads(file.read_text())
    for name in ("request", "label", "examples"):
        del old["leaver"][name]
    file.write_text(json.dumps(old))
    monkeypatch.setattr(run, "_trials", lambda *_: pytest.fail("it trains"))
    assert run.run(config("digits_backdoor"), str(tmp_path / "run")).rows == found[0].rows


def test_what_seeds_of_an_older_version_lack_has_no_row_and_is_told(found, tmp_path, caplog):
    folder, gone = tmp_path / "run", "served, repaired 1"
    shutil.copytree(found[1], folder)
    (folder / "results.json").unlink()
    file = folder / "stages" / "seed-1.json"
    told = json.loads(file.read_text())["value"]
    del told["ways"][gone]
    files.write_json(file, {"crc32": files.crc32(told), "value": told})
    again = run.run(config("digits_backdoor"), str(folder), "a command")
    assert again.rows == [row for row in found[0].rows if row.variant != gone]
    assert f"no rows of {gone}: seeds of an older version" in caplog.text


@pytest.mark.parametrize("before", [(), (1,)], ids=["from nothing", "after one seed"])
def test_processes_share_seeds_and_end_with_the_rows_of_one(before, found, tmp_path, monkeypatch):
    """Processes as threads: each makes one of two seeds, or of one that is lacking the first does."""
    tried = []
    made = trial.trial

    def recorded(programs, seed):
        tried.append((jax.process_index(), seed))
        return made(programs, seed)

    monkeypatch.setattr(trial, "trial", recorded)
    folder = tmp_path / "run"
    if before:
        shutil.copytree(found[1], folder)
        for file in ("results.json", *(f"stages/seed-{seed}.json" for seed in range(2) if seed not in before)):
            (folder / file).unlink()
    done = peers.together(monkeypatch, 2, lambda process: run.run(config("digits_backdoor"), str(folder), "a command"))
    assert [timeless(one.rows) for one in done] == [timeless(found[0].rows)] * 2
    assert sorted(tried) == ([(0, 0)] if before else [(0, 0), (1, 1)])


def timeless(rows):
    """Rows as JSON without seconds."""
    told = json.loads(json.dumps(files.plain(rows)))
    for row in told:
        for place in (row, row["extra"]):
            for name in [name for name in place if "seconds" in name]:
                del place[name]
    return told


# --- A class, and single examples -------------------------------------------------------------------------------------


def asking(request, **changes):
    """A problem of which a class or some examples are to go."""
    asked = {"leaver.request": request, "leaver.label": 3, "leaver.examples": 5, "federation.dirichlet": 0.5}
    section = validated(configs.Federated, config(**asked, **changes))
    return problem.make(section, datasets.load(section.data))


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
    assert rows["running_sums"].facts["exact"].startswith({"class": "never", "examples": "alpha = 0"}[request_])
    text = report.write(tmp_path).read_text()
    assert {"class": "class 0 goes", "examples": "5 examples of a client go"}[request_] in text


# --- All methods, all configs, kills ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", configs.EXPERIMENTS)
def test_every_shipped_config_runs_with_every_method(name, tmp_path):
    """Partial participation has two of five clients, of whom one or two leave. Data that are not at hand are digits."""
    changes = {"erase.methods": configs.get_config(name).erase.methods, "archive.users": 2, "archive.threshold": 0.5}
    if name == "digits_partial":
        changes |= {"federation.present": 3, "leaver.clients": 2}
    changes |= {"erase.warmup": 1, "erase.final": 0, "data.name": "digits", "data.validation_fraction": 0.2}
    if name == "digits_examples":
        changes |= {"leaver.examples": 8}
    if name.startswith("cifar10"):
        changes |= {"model.options.widths": (8,), "model.options.hidden": 8}
    done = run.run(config(name, **changes), str(tmp_path / "run"))
    assert {row.unlearner for row in done.rows} == {"served", *changes["erase.methods"]}
    refused = {row.unlearner for row in done.rows if row.extra["reason"]}
    wanted = configs.get_config(name).leaver.request
    unable = {method for method in changes["erase.methods"] if wanted not in needs_of(find_method(method)).requests}
    assert refused == ({"running_sums"} if name == "digits_partial" else unable)
    assert len(unable) == {"client": 0, "class": 6, "examples": 7}[wanted]
    assert report.write(tmp_path / "run").exists()
    ridge = {row.variant: row.extra["distance"].value for row in done.rows if row.unlearner == "ridge"}
    assert ridge["ridge"] < 1e-3 < ridge[trial.RIDGE_SERVED]


@pytest.mark.slow
def test_killed_runs_end_with_the_rows_of_one_that_never_was(tmp_path):
    code = (
        "import sys; from tests.experiments.erasure import run_test; "
        "run_test.run.run(run_test.config('digits'), sys.argv[1])"
    )
    kills.check_ends_the_same(code, tmp_path, ["stages/calibration.json", "stages/seed-0.json"])
