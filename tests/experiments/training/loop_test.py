"""What sets the trainings of a comparison apart: who is trained on, at what weight, for how long, and with what noise."""

import functools
import types

import numpy as np
import pytest

from experiments.comparison import setup, trainings
from experiments.configs import readiness as configs
from experiments.data import datasets


@functools.cache
def digits(**overrides):
    """A bench of the digits, of three seeds from 4 on."""
    config = configs.get_config("digits")
    config.seed, config.seeds = 4, 3
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in overrides.items()})
    return setup.set_up(setup.resolved(config), None, datasets.load(config.data))


def fleet(name, variant="default", params=None, flops=0.0):
    spent = {"train_flops": flops, "step_flops": 1.0}
    return setup.Fleet(name, variant, types.SimpleNamespace(params=params), 3, spent, {})


def test_oracles_are_trained_on_everyone_but_the_forget_set():
    bench = digits()
    ways, forget = trainings._plain_ways(bench), np.asarray(bench.train["y"]) == 3
    for lane in ways.values():
        assert lane.member.shape == lane.weight.shape == (3, len(forget))
    for name in ("oracle", "heldout_oracle"):
        lane = ways[name, "default"]
        assert np.all(lane.member == ~forget) and np.all(lane.weight == 1)
    others = [lane for (name, _), lane in ways.items() if not name.endswith("oracle")]
    assert len(others) == 4 and all(np.all(lane.member) for lane in others)
    assert np.all(ways["vanilla", "default"].weight == 1)
    keys = {name: lane.key.tolist() for (name, variant), lane in ways.items() if variant == "default"}
    assert keys["oracle"] == keys["vanilla"] == keys["reweight"] and keys["oracle"] != keys["heldout_oracle"]


@pytest.mark.parametrize("revocable, told", [(-1, 3), (5, 5)])
def test_reweighting_holds_down_whom_training_was_told_of(revocable, told):
    bench = digits(forget__revocable=revocable)
    ways, is_told = trainings._plain_ways(bench), np.asarray(bench.train["y"]) == told
    weights = {variant: lane.weight for (name, variant), lane in ways.items() if name == "reweight"}
    assert set(weights) == {"default", "weight=0.1", "weight=0.02"}
    for variant, weight in (("default", 0.2), ("weight=0.1", 0.1), ("weight=0.02", 0.02)):
        np.testing.assert_array_equal(weights[variant], np.float32([np.where(is_told, weight, 1.0)] * 3))


def test_equal_flops_means_as_many_steps_as_readiness_paid_for(monkeypatch):
    """Readiness took 250 FLOPs where vanilla took 100 for its 1500 steps: 3750 steps."""
    trained = {}

    def train_plain(bench, name, steps, ways):
        trained[name] = steps, ways
        return [fleet(*key, flops=100.0) for key in ways]

    monkeypatch.setattr(trainings, "train_plain", train_plain)
    monkeypatch.setattr(trainings, "train_readiness", lambda *_: fleet("readiness", flops=250.0))
    mark = lambda one: one._replace(extra={"matched": True}) if one.variant == "weight=0.1" else one  # noqa: E731
    monkeypatch.setattr(trainings, "_mark_matched", lambda bench, plain, ready: list(map(mark, plain)))
    fleets = trainings.train_all(digits(trainings=("oracle", "vanilla", "reweight", "readiness")), [None])
    assert [steps for steps, _ in trained.values()] == [1500, 3750]
    longer = trained["equal_flops"][1]
    assert set(longer) == {("vanilla", "equal_flops"), ("reweight", "weight=0.1 equal_flops")}
    for (name, variant), lanes in longer.items():
        same = trained["plain"][1][name, variant.removesuffix("equal_flops").strip() or "default"]
        assert all(np.array_equal(a, b) for a, b in zip(lanes, same, strict=True))
    assert {("vanilla", "equal_flops"), ("readiness", "default")} < {(one.training, one.variant) for one in fleets}


@pytest.mark.parametrize("steps, share", [(1, 1), (4, 4), (0, 1)])
def test_the_inner_steps_share_the_length_of_a_rehearsal(steps, share):
    bench = digits(readiness__inner_steps=steps, readiness__step_size=(0.4, 0.8))
    rehearsing = trainings._rehearsing(bench, unroll=False)
    assert rehearsing.step_size == pytest.approx((0.4 / share, 0.8 / share)) and rehearsing.draw.inner_steps == steps


@pytest.mark.parametrize("fresh", [True, False])
def test_a_rehearsal_draws_as_the_config_says(fresh):
    draw = trainings._rehearsing(digits(readiness__fresh=fresh, readiness__fraction=0.125), unroll=False).draw
    assert (draw.fresh, draw.size, draw.anew, draw.retain, draw.recovery) == (fresh, 8, 0, False, False)
    draw = trainings._rehearsing(digits(readiness__requests="random", readiness__resistance=1.0), unroll=False).draw
    assert (draw.anew, draw.recovery) == (np.sum(np.asarray(digits().train["y"]) == 3), True)


def test_dp_sgd_has_the_clipping_and_the_noise_of_the_config(monkeypatch, tmp_path):
    bench = digits(dpsgd__clip=0.7, dpsgd__noise=0.3)
    monkeypatch.setattr(trainings, "train_fleet", lambda bench, way, lanes, name: (way, lanes))
    monkeypatch.setattr(trainings.cost, "of_training", lambda way, data: {})
    bench = bench._replace(workdir=types.SimpleNamespace(stage=lambda name, compute: compute()))
    way, lanes = trainings.train_private(bench).trained
    assert way.private == (0.7, 0.3) and np.all(lanes.member) and np.all(lanes.weight == 1)


def test_steps_are_counted_unrolled_since_a_scan_hides_its_trips(monkeypatch):
    monkeypatch.setattr(trainings, "make_readiness", lambda *_, unroll, **__: unroll)
    (rehearsal,) = trainings.plan(digits())
    assert [way.rehearsing.readiness for way in (rehearsal.way, rehearsal.counted)] == [False, True]
