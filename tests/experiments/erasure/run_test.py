"""Federated erasure end to end: archives, rows, whole runs of tiny federations, and runs that are killed."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments.configs import federated as configs
from experiments.core import files
from experiments.core.config import validated
from experiments.core.results import Estimate
from experiments.data import datasets
from experiments.erasure import archives, calibration, methods, problem, report, rows, run, scoring, shown, trial
from experiments.erasure.training import train
from federated.archive import Scheme
from federated.erase import Erased, find_method, needs_of
from tests.helpers import kills, peers
from tests.helpers.erasures import config, made
from tests.helpers.pictures import undrawn  # noqa: F401


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federated") / "run"
    return run.run(config("digits_backdoor"), str(folder), "a command"), folder


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
@pytest.mark.parametrize("name", ["digits", "digits_class"])
def test_killed_runs_end_with_the_rows_of_one_that_never_was(name, tmp_path):
    code = (
        "import sys; from experiments.erasure import run; from tests.helpers.erasures import config; "
        f"run.run(config({name!r}), sys.argv[1])"
    )
    kills.check_ends_the_same(code, tmp_path, ["stages/calibration.json", "stages/seed-0.json"])
