"""Exact models before the judge: attacks on numbers made by hand, fleets that are really trained, and one small run."""

import dataclasses
import functools
import io

import jax
import numpy as np
import pytest

from experiments.configs import judge_exact
from experiments.core import files, progress, results_v1, workdirs
from experiments.core.errors import UserError
from experiments.core.results import Estimate
from experiments.exact.data import Data
from experiments.judge_exact import attacks, fleets, pooled, report, run
from experiments.judge_exact.attacks import Worlds
from experiments.judge_exact.fleets import HELDOUT, ORACLE, REPEATS, ROLES, SHADOWS
from s3t.plans import structure
from tests.helpers import kills, stacks
from tests.helpers.configs import changed
from unlearn.tree import bits_equal

MODELS = 6


# --- Fleets, on the toy backbone --------------------------------------------------------------------------------------


@functools.cache
def case(name):
    made = judge_exact.JudgeExact()
    exact = changed(made.exact, {"models": MODELS, "asked": 6, "same": 4, "apart": 4})
    source = dataclasses.replace(stacks.source(), most_lanes=5)
    x, y = source.fetch(source.ids)
    full_lora = changed(made.full_lora, {"epochs": 2})
    kind = fleets.make_kind(name, source, planner="lattice", slices=made.slices, train=made.train, full_lora=full_lora)
    return fleets.make_case(kind, Data("toy", source, x[:5], y[:5], 3), exact, made.seed)


@functools.cache
def trained(name, role):
    fleet = fleets.make_fleet(case(name), role)
    return fleet, fleets.train_fleet(case(name), fleet)


both = pytest.mark.parametrize("name", ["s3t", "sisa"])


def group(one, fleet):
    gone = np.zeros(fleet.member.shape, bool)
    gone[:, one.cast.asked] = True
    return gone


def test_the_group_lies_in_one_slice_and_the_others_in_another_under_every_key():
    one = case("s3t")
    assert len(np.unique(np.concatenate(one.cast))) == 14
    seen = []
    for role in ROLES:
        fleet = fleets.make_fleet(one, role)
        of_group = fleet.slice_of[:, np.concatenate([one.cast.asked, one.cast.same])]
        of_apart = fleet.slice_of[:, one.cast.apart]
        assert (of_group == of_group[:, :1]).all() and (of_apart == of_apart[:, :1]).all()
        assert (of_group[:, 0] != of_apart[:, 0]).all()
        seen.append(fleet.slice_of)
    assert len(np.unique(np.concatenate(seen), axis=0)) == len(ROLES) * MODELS, "no two models share a partition"


def test_who_is_trained_on_what():
    one = case("s3t")
    member = {role: fleets.make_fleet(one, role).member for role in ROLES}
    assert member[REPEATS].all()
    for role in (ORACLE, HELDOUT):
        assert not member[role][:, one.cast.asked].any() and np.delete(member[role], one.cast.asked, axis=1).all()
    assert np.array_equal(member[SHADOWS][:, one.cast.asked], one.included)
    keys = {jax.random.key_data(fleets.make_fleet(one, role).setup.key).tobytes() for role in ROLES}
    assert len(keys) == len(ROLES)


@both
def test_a_healed_model_is_to_the_bit_one_that_never_held_the_examples(name):
    one, (fleet, nodes) = case(name), trained(name, SHADOWS)
    gone = group(one, fleet)
    healed = fleets.heal(one, fleet, nodes, gone)
    fresh = fleets.train_fleet(one, fleets.without(fleet, gone))
    assert healed.keys() == fresh.keys()
    assert all(bits_equal(healed[job], fresh[job]) for job in fresh)
    hit = fleets.hits(fleet, gone)
    held = [job for job in fresh if not hit[job[0]].isdisjoint(job[1])]
    assert len(held) > 0 and not any(bits_equal(nodes[job], fresh[job]) for job in held), "the deleted had a part in them"
    assert fleets.audit(one, fleet, gone, healed, 2) == {"nodes": 2 * len(fleet.setup.plan.nodes)} | {
        "equal": 2 * len(fleet.setup.plan.nodes)
    }
    assert fleets.audit(one, fleet, gone, nodes, MODELS)["equal"] == len(fresh) - len(held)


@both
def test_what_is_served_with_the_slice_off_never_saw_it(name):
    """In the world without the examples, under equal keys and with the same slice off, the same is served."""
    one, (fleet, nodes) = case(name), trained(name, SHADOWS)
    gone = group(one, fleet)
    off = fleets.switched_off(fleet, fleets.hits(fleet, gone))
    without = fleets.without(fleet, gone)
    never = fleets.train_fleet(one, without)
    served, same = (fleets.answers(one, fleet, those, off) for those in (nodes, never))
    assert bits_equal(served, same)
    whole = [structure.served(fleet.setup.plan, ())] * MODELS
    assert not bits_equal(*(fleets.answers(one, fleet, those, whole) for those in (nodes, never)))


@both
def test_states_are_what_is_served_by_the_slices_that_are_off(name):
    one, (fleet, nodes) = case(name), trained(name, REPEATS)
    states = fleets.states(one, fleet, nodes)
    slices = fleet.setup.plan.slices
    assert states.margin.shape[:2] == (1 << slices, MODELS) and states.silent[-1].all() and not states.correct[-1].any()
    mask = 1 << fleet.slice_of[:, one.cast.asked[0]]
    off = fleets.switched_off(fleet, fleets.hits(fleet, group(one, fleet)))
    assert bits_equal(
        fleets.Answers(*(leaf[mask, np.arange(MODELS)] for leaf in states)), fleets.answers(one, fleet, nodes, off)
    )
    for model, node in enumerate(off):
        assert states.silent[mask[model], model] == (not node), "SISA without its first slice has nothing to serve"


# --- Attacks ----------------------------------------------------------------------------------------------------------


def test_auc_by_hand():
    assert attacks.auc(np.array([3.0, 1.0]), np.array([0.0, 2.0])) == 3 / 4
    assert attacks.auc(np.array([1.0]), np.array([1.0, 1.0])) == 1 / 2


def test_which_of_two_checkpoints_examples_was_deleted():
    before = np.array([[5.0, 4.0, 4.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    after = np.array([[1.0, 4.0, 1.0, 1.0], [2.0, 0.0, 2.0, 1.0]])  # falls: 4 0 3 0, and 0 2 0 1
    deleted = np.array([[True, False, False, False]] * 2)
    others = np.array([[False, True, True, False], [False, False, True, True]])
    found = attacks.which_deleted(before, after, deleted, others)
    assert found.value == pytest.approx((1 + 1 / 4) / 2)
    assert (found.low, found.high) == (0.0, 1.0), "two models say little, and no probability lies outside"


def test_tiers_are_thirds_by_memorisation():
    rng = np.random.default_rng(1)
    tier = attacks.tiers(rng.normal(size=(40, 60)) + 1 + (np.arange(60) >= 30), rng.normal(size=(40, 60)))
    assert (np.bincount(tier) == 20).all() and (tier[:30] < 2).mean() > 0.9, "the second half is memorised twice as much"


# --- Streams ----------------------------------------------------------------------------------------------------------


def worlds():
    """Two worlds of five examples in two slices: with slice s off, the margins of its examples are 0.

    Both have margins 5, 4, 3, 2, 1; slices are 0 1 1 0 1 in one world and 0 0 1 1 0 in the other.
    """
    margin = np.tile(np.arange(5.0, 0.0, -1.0), (2, 1))
    slice_of = np.array([[0, 1, 1, 0, 1], [0, 0, 1, 1, 0]])
    states = [np.where(np.isin(slice_of, [s for s in (0, 1) if mask >> s & 1]), 0.0, margin) for mask in range(4)]
    return Worlds(np.stack(states), np.array([2, 1, 1, 0]), slice_of)


PLAIN = attacks.Siblings(np.zeros(5), np.ones(5))
ALL = np.ones(5, bool)


def test_a_stream_sees_what_is_served_and_nothing_else():
    one = worlds()
    confident = attacks.stream(one, PLAIN, ALL, "confident", 3)
    # First example 0; then the best of the slice that is on; then all are off, and the first of those left is taken.
    assert confident.tolist() == [[0, 1, 2], [0, 2, 1]]
    mates = attacks.stream(one, PLAIN, ALL, "mates", 3)
    assert mates.tolist() == [[0, 3, 1], [0, 1, 4]], "who lost confidence with the first lies in its slice"
    few = np.array([False, True, True, True, True])
    assert attacks.stream(one, PLAIN, few, "confident", 1).tolist() == [[1], [1]]
    assert attacks.off(one, mates[:, :2]).tolist() == [1, 1]
    assert attacks.off(one, confident).tolist() == [3, 3]


def test_confidence_on_the_deleted_is_counted_in_deviations_of_siblings():
    known = attacks.siblings(np.array([[0.0, 1.0], [2.0, 5.0]]))
    np.testing.assert_allclose(known.mean, [1, 3])
    np.testing.assert_allclose(known.deviation, np.sqrt([2, 8]))
    margins = np.array([[1 + np.sqrt(2), 3.0], [1.0, 3 + 2 * np.sqrt(8)]])
    np.testing.assert_allclose(attacks.told_by(margins, known, np.array([[0, 1], [1, 1]])), [0.5, 2.0])


def test_worlds_are_told_apart_by_a_number():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 200))
    assert attacks.apart(one + 1, other, 0, 50).value == pytest.approx(0.76, abs=0.05)  # Phi(1 / sqrt 2)
    low, high = (getattr(attacks.apart(one, other, 0, 50), end) for end in ("low", "high"))
    assert low < 0.5 < high
    assert attacks.apart(np.ones(20), np.ones(20), 0, 50) == Estimate(0.5, 0.5, 0.5, 20)


# --- The run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exact.models": 11}, "config.exact.models is 11: give a whole number from 12 to 100000"),
        ({"exact.asked": 3}, "config.exact.asked is 3, too few for 64 models: set 4 or more"),
        ({"kinds": ("lora",)}, "config.kinds is ('lora',): give one or more of s3t, sisa"),
        ({"planner": "odd"}, "config.planner is 'odd': choose sisa, cyclic"),
        ({"slices": 1}, "config.slices is 1: give a whole number from 2 to 6"),
        ({"exact.audited": 65}, "config.exact.audited is 65 of 64 models: set fewer"),
        ({"pretrain.classes": (4, 5)}, "config.pretrain.classes has examples that s3t is to unlearn"),
        ({"slices": 4}, "slices is 4, but model 'mini' has 3 blocks: set fewer slices"),
        ({"exact.same": 900}, "set fewer, or a larger --config.data.train_size"),
        ({"lora.targets": ("odd",)}, "no layer is called 'odd'"),
        ({"data.validation_fraction": 0.0}, "config.data.validation_fraction is 0.0"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, changes, told):
    config = judge_exact.get_config("digits")
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as refused:
        run.run(config, str(tmp_path / "run"))
    assert told in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_there_is_one_config():
    with pytest.raises(ValueError, match="choose digits"):
        judge_exact.get_config("odd")


def small():
    config = judge_exact.get_config("digits")
    config.exact.update({"models": 12, "asked": 20, "same": 6, "apart": 6, "requests": 2, "resamples": 20, "audited": 1})
    config.train.epochs = config.full_lora.epochs = 2
    config.pretrain.train.steps = 20
    config.kinds = ("s3t",)
    return config


CHILD = """
import sys
from tests.experiments.judge_exact.run_test import run, small
run.run(small(), sys.argv[1], "test")
"""


def judgement(folder, seed, models, value, half, **changes):
    """The workdir of a run whose only row has a 90% interval of this half width."""
    config = {"runner": "judge_exact", "seed": seed, "exact": {"models": models, "asked": 64}, **changes}
    accuracy = {"value": 0.5, "interval": [0.4, 0.6]}
    ulira = {"value": value, "interval90": [value - half, value + half], "balanced_accuracy": accuracy}
    row = (
        {name: "" for name in results_v1.ROW}
        | {"setting": "group"}
        | {"training": "s3t", "variant": "default", "unlearner": "heal"}
    )
    folder.mkdir()
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "results.json", {"rows": [row | {"extra": {"ulira": ulira}}]})
    return str(folder)


def test_independent_runs_are_taken_together_by_hand(tmp_path, capsys, monkeypatch):
    """A third of .50 +- .03 and two thirds of .53 +- .06: .52, and sqrt(.01 ** 2 + .04 ** 2) = .041 to either side."""
    monkeypatch.setenv("COLUMNS", "170")
    runs = judgement(tmp_path / "a", 0, 64, 0.50, 0.03), judgement(tmp_path / "b", 1, 128, 0.53, 0.06)
    assert pooled.main(runs) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[:2] == ["s3t", "Healed"] and "0.520 [0.479, 0.561]" in line and line.endswith("open")
    mistakes = {
        "two finished exact judgements": runs[:1],
        "have one seed": (runs[0], judgement(tmp_path / "c", 0, 64, 0.5, 0.1)),
        "(slices differ)": (runs[0], judgement(tmp_path / "d", 2, 64, 0.5, 0.1, slices=4)),
        "are no exact judgements": (runs[0], judgement(tmp_path / "e", 2, 64, 0.5, 0.1, runner="judge")),
        "no config.json": (runs[0], str(tmp_path / "nowhere")),
        "judge them anew": (runs[0], judgement(tmp_path / "f", 2, 64, float("nan"), 0.1)),
        "together (could not convert": (runs[0], judgement(tmp_path / "g", 2, "x", 0.5, 0.1)),
    }
    for told, folders in mistakes.items():
        assert pooled.main(folders) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and told in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_judgement_killed_with_kill_9_ends_with_the_same_rows(tmp_path):
    kills.check_ends_the_same(CHILD, tmp_path, ("pretrain/*", "answers/s3t-shadows*", "stages/fleet-s3t-oracle*"))


@pytest.mark.slow
def test_a_small_judgement_runs_to_the_end_and_is_read_back(tmp_path):
    config = small()
    stream = io.StringIO()
    with progress.shown(stream):
        found = run.run(config, str(tmp_path))
    told = dict.fromkeys(line.split("% judge exact: ")[1].split(",")[0] for line in stream.getvalue().splitlines())
    fleets_told = [f"s3t: {who}" for who in ("shadows", "repeats", "oracles", "held-out oracles", "attacks")]
    assert list(told) == ["pre-train", "score the pre-trained", *fleets_told, "done"]
    entries = [(row.training, row.variant, row.unlearner) for row in found.rows]
    assert len(entries) == len(set(entries)) == 7
    for row in found.rows:
        assert {"estimate", "estimate90", "groups"} <= row.extra["ulira"].keys()
        assert row.training == "oracle" or row.extra["klom"].keys() >= {"forget", "same", "apart", "validation"}
    healed = found.rows[-1].extra
    assert healed["audit"] == {"nodes": 7, "equal": 7}
    assert [row.extra["silent"] for row in found.rows if "silent" in row.extra] == [{"shadows": 0, "repeats": 0}]
    assert "Held-out oracle" in report.present(str(tmp_path), found)
    for part in ("results.json", "stages/rows-s3t.json"):
        (tmp_path / part).unlink()
    again = run.run(config, str(tmp_path))
    assert again.rows == found.rows
    kept = dict(np.load(tmp_path / "answers" / "s3t-shadows.npz"))
    silent = {**kept, "off.margin": np.full_like(kept["off.margin"], -np.log(9))}
    np.savez(tmp_path / "answers" / "s3t-shadows.npz", **silent)
    for part in ("results.json", "stages/rows-s3t.json"):
        (tmp_path / part).unlink()
    with pytest.raises(UserError, match=r"^s3t cannot be judged by these models \(.*copies\): set --config.exact.models"):
        run.run(config, str(tmp_path))
    (tmp_path / "answers" / "s3t-oracle.npz").write_bytes(b"")
    with pytest.raises(workdirs.WorkdirError, match=r"s3t-oracle\.npz cannot be read"):
        run.run(config, str(tmp_path))
