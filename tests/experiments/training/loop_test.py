"""What sets the trainings of a comparison apart: who is trained on, at what weight, for how long, and with what noise."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import checks, rehearsals, trainings
from experiments.configs import readiness as configs
from experiments.core import notices, sections
from experiments.training import cost, fleets, loop
from readiness import Draw, make_pools
from tests.helpers import comparisons


@functools.cache
def digits(**overrides):
    """The parts of a comparison of the digits, of three seeds from 4 on."""
    config = configs.get_config("digits")
    config.seed, config.seeds, config.reweight.others = 4, 3, (0.1, 0.02)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in overrides.items()})
    return comparisons.parts(checks.resolved(config))


def fleet(name, variant="default", params=None, flops=0.0):
    spent = {"train_flops": flops, "step_flops": 1.0}
    return trainings.Fleet(name, variant, types.SimpleNamespace(params=params), 3, spent, {})


def test_oracles_are_trained_on_everyone_but_the_forget_set():
    parts = digits()
    ways, forget = trainings.plain_ways(parts.plan, parts.problem), np.asarray(parts.trainer.data["y"]) == 3
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
    parts = digits(forget__revocable=revocable)
    ways, is_told = trainings.plain_ways(parts.plan, parts.problem), np.asarray(parts.trainer.data["y"]) == told
    weights = {variant: lane.weight for (name, variant), lane in ways.items() if name == "reweight"}
    assert set(weights) == {"default", "weight=0.1", "weight=0.02"}
    for variant, weight in (("default", 0.2), ("weight=0.1", 0.1), ("weight=0.02", 0.02)):
        np.testing.assert_array_equal(weights[variant], np.float32([np.where(is_told, weight, 1.0)] * 3))


def test_equal_flops_means_as_many_steps_as_readiness_paid_for(monkeypatch):
    """Readiness took 250 FLOPs where vanilla took 100 for its 1500 steps: 3750 steps."""
    trained = {}

    def train_plain(trainer, name, steps, ways, facts):
        trained[name] = steps, ways
        return [fleet(*key, flops=100.0) for key in ways]

    monkeypatch.setattr(trainings, "train_plain", train_plain)
    monkeypatch.setattr(trainings, "train_readiness", lambda *_: fleet("readiness", flops=250.0))
    mark = lambda one: one._replace(facts={"matched": True}) if one.variant == "weight=0.1" else one  # noqa: E731
    monkeypatch.setattr(trainings, "_mark_matched", lambda scorer, plain, ready: list(map(mark, plain)))
    parts = digits(trainings=("oracle", "vanilla", "reweight", "readiness"))
    trained_fleets = trainings.train_all(parts.trainer, parts.scorer, parts.problem, parts.plan)
    assert [steps for steps, _ in trained.values()] == [1500, 3750]
    longer = trained["equal_flops"][1]
    assert set(longer) == {("vanilla", "equal_flops"), ("reweight", "weight=0.1 equal_flops")}
    for (name, variant), lanes in longer.items():
        same = trained["plain"][1][name, variant.removesuffix("equal_flops").strip() or "default"]
        assert all(np.array_equal(a, b) for a, b in zip(lanes, same, strict=True))
    assert {("vanilla", "equal_flops"), ("readiness", "default")} < {(one.training, one.variant) for one in trained_fleets}


@pytest.mark.parametrize("steps, share", [(1, 1), (4, 4), (0, 1)])
def test_the_inner_steps_share_the_length_of_a_rehearsal(steps, share):
    parts = digits(readiness__inner_steps=steps, readiness__step_size=(0.4, 0.8))
    rehearsing = parts.plan.rehearsals[0].way.rehearsing
    assert rehearsing.step_size == pytest.approx((0.4 / share, 0.8 / share)) and rehearsing.draw.inner_steps == steps


@pytest.mark.parametrize("fresh", [True, False])
def test_a_rehearsal_draws_as_the_config_says(fresh):
    drawn = lambda **overrides: digits(**overrides).plan.rehearsals[0].way.rehearsing.draw  # noqa: E731
    draw = drawn(readiness__fresh=fresh, readiness__fraction=0.125)
    assert (draw.fresh, draw.size, draw.anew, draw.retain, draw.recovery) == (fresh, 8, 0, True, False)
    assert not drawn(readiness__algorithm="ascent").retain
    draw = drawn(readiness__requests="random", readiness__resistance=1.0)
    assert (draw.anew, draw.recovery) == (np.sum(np.asarray(digits().trainer.data["y"]) == 3), True)


def test_dp_sgd_has_the_clipping_and_the_noise_of_the_config(monkeypatch, tmp_path):
    parts = digits(dpsgd__clip=0.7, dpsgd__noise=0.3)
    monkeypatch.setattr(fleets.Trainer, "fleet", lambda trainer, way, lanes, name: (way, lanes))
    monkeypatch.setattr(cost, "of_training", lambda way, data: {})
    trainer = parts.trainer._replace(workdir=types.SimpleNamespace(path=tmp_path, stage=lambda name, compute: compute()))
    vanilla = trainings.plain_ways(parts.plan, parts.problem)["vanilla", "default"]
    way, lanes = trainings.train_private(trainer, parts.plan.dpsgd, vanilla).trained
    assert way.private == (0.7, 0.3) and np.all(lanes.member) and np.all(lanes.weight == 1)


def test_settings_that_others_leave_without_effect_are_told(monkeypatch):
    said, parts = [], digits()
    monkeypatch.setattr(notices.LOG, "warning", lambda text, *values: said.append(text % values))
    for optimizer in ("sgd", "adamw"):
        section = sections.Train(weight_decay=0.1, optimizer=optimizer)
        fleets.make(parts.trainer.model, parts.trainer.devices, parts.problem.dataset.train, section, parts.trainer.workdir)
    checks.check_problem(parts.problem, 0.0, 1, 0.2)
    assert said == [
        "train.weight_decay is of adamw alone: sgd trains without it",
        "request.overlap is of several request.parts: a request of one part goes without it",
    ]


def test_steps_are_counted_unrolled_since_a_scan_hides_its_trips(monkeypatch):
    monkeypatch.setattr(rehearsals, "make_readiness", lambda *_, unroll, **__: unroll)
    parts = digits()
    section = checks.resolved(configs.get_config("digits")).readiness
    rehearsal = rehearsals.rehearsal("default", section, parts.trainer, parts.problem)
    assert [way.rehearsing.readiness for way in (rehearsal.way, rehearsal.counted)] == [False, True]


def test_random_requests_of_text_are_for_whole_documents_as_many_as_are_forgotten():
    config = configs.get_config("pydoc")
    config.readiness.requests, config.model.options = "random", {"width": 8, "depth": 1, "heads": 1}
    parts = comparisons.parts(checks.resolved(config))
    rehearsal, documents = parts.plan.rehearsals[0], parts.problem.dataset.asked_as
    assert not rehearsal.way.rehearsing.draw.anew
    asked = []
    for row, count in zip(rehearsal.pools.forget, rehearsal.pools.forget_count, strict=True):
        asked.append(np.unique(documents[row[:count]]))
        assert len(asked[-1]) == len(np.unique(parts.problem.units)) and count == np.isin(documents, asked[-1]).sum()
    assert len(np.unique(np.concatenate(asked))) > 40  # of 60


def test_a_level_that_moves_is_warned_of_where_relearning_pulls_at_it(monkeypatch):
    said, parts = [], digits()
    monkeypatch.setattr(rehearsals.LOG, "warning", said.append)
    section = checks.resolved(configs.get_config("digits")).readiness
    for levels in ("own", "proxy"):
        moving = section.model_copy(update={"relearning": 1.0, "levels": levels})
        rehearsals.rehearsal("mine", moving, parts.trainer, parts.problem)
    assert len(said) == 1 and said[0].startswith("config.variants.mine.relearning pulls at a level that moves")


def test_alternatives_go_with_whom_is_rehearsed_and_with_no_ordinary_batch():
    x = jnp.arange(12).reshape(6, 2)
    data = {"x": x, "y": x, "id": jnp.arange(6), "weight": jnp.ones(6), loop.ALTERNATIVE: {"x": 10 * x, "y": 10 * x}}
    due = loop.Rehearsing(None, Draw(4, retain=True, relearn_steps=2), 1, 0, (0.1, 0.1))
    lane = jax.tree.map(lambda leaf: leaf[0], loop.make_lanes([0], np.ones(6, bool), np.ones(6)))
    pools = make_pools(np.arange(6)[None] < 3)
    drawn = loop.draw(loop.Way(None, None, 2, 2, 2, due), lane, data, pools, jnp.arange(2), jnp.asarray(0), True)
    assert drawn.batch.keys() == data.keys() - {loop.ALTERNATIVE}
    for batch in (drawn.meta.requests.forget, drawn.meta.forget, drawn.meta.relearn.forget):
        np.testing.assert_array_equal(batch[loop.ALTERNATIVE]["x"], 10 * batch["x"])
