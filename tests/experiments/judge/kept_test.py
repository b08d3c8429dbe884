"""What a judgement keeps of its models: statistics without an axis of classes, and files of older versions."""

import numpy as np
import pytest

from experiments.core import workdirs
from experiments.core.machines import fleet
from experiments.judge import fleets, metrics, old_logits, population, run
from experiments.judge.fleets import REPEATS, SHADOWS
from experiments.reporting.estimates import at
from experiments.scoring import evaluation
from experiments.training import loop
from tests.helpers import fleets as made
from tests.helpers.judging import LANES, case


def test_of_fewer_models_alike_klom_and_epsilon_are_larger():
    """Why DP-SGD's rows have a floor of their own."""
    rng = np.random.default_rng(0)
    one, oracle = (made.kept(rng.normal(size=(5, 40, 60))) for _ in range(2))
    many, few = (metrics.distances(one, oracle, made.first(60, 30), most) for most in (None, 12))
    assert few["klom"]["forget"]["estimate"].value > many["klom"]["forget"]["estimate"].high


def test_models_with_logits_that_are_not_finite_are_kept_and_counted(tmp_path):
    margins = {kind: np.zeros((4, 3)) for kind in (*metrics.SETS, "shadows")}
    margins["test"][1, 0], margins["shadows"][3, 2] = np.nan, np.inf
    file = tmp_path / "statistics" / "some.npz"
    witnesses = {"features": np.arange(3)[:, None, None] * np.ones((3, 5, 7)), "divergence": np.zeros((3, 5))}
    metrics.keep(file, metrics.flat({kind: made.of_margins(of) for kind, of in margins.items()}) | witnesses)
    included = np.arange(4)[:, None] < np.array([1, 2, 3])
    kept = metrics.load(file, included)
    assert kept.failed == {"repeats": 1, "shadows": 1} and len(kept.pool.loss) == 3 == len(kept.shadows.entropy)
    assert len(kept.divergence) == 2
    assert kept.features[:, 0, 0].tolist() == [0, 2], "of the first three models without the second"
    assert kept.second.tolist() == [False, False, True] and np.array_equal(kept.included, included[:3])


def test_a_damaged_file_of_statistics_is_named_in_one_line(tmp_path):
    file, rng = tmp_path / "statistics" / "some.npz", np.random.default_rng(0)
    statistics = metrics.flat({kind: made.of_margins(rng.normal(size=(4, 30))) for kind in (*metrics.SETS, "shadows")})
    metrics.keep(file, statistics | {"features": rng.normal(size=(4, 30, 5)), "divergence": np.zeros((4, 30))})
    whole, included = file.read_bytes(), np.ones((4, 30), bool)
    half = len(whole) // 2
    damaged = {f"a bit at {at}": whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in (90, 200, half, half + 99)}
    for data in (*damaged.values(), whole[:-40], whole[:half], b"", b"PK"):
        file.write_bytes(data)
        with pytest.raises(workdirs.WorkdirError, match=r"some\.npz cannot be read") as caught:
            metrics.load(file, included)
        assert "\n" not in str(caught.value) and "remove it and run again" in str(caught.value)
    file.write_bytes(whole)
    assert len(metrics.load(file, included).pool.loss) == 4
    with pytest.raises(workdirs.WorkdirError, match="4 shadows instead of 3"):
        metrics.load(file, included[:3])


def carried_out(tmp_path, monkeypatch):
    """An entry of the class whose models are untrained: its case, and where it was kept."""
    one = case("class")
    one = one._replace(trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    lanes = fleets._lanes(one, "vanilla", REPEATS)
    params = loop.init_lanes(one.trainer.way(1), lanes).params
    trained = fleets.Fleets({("vanilla", role): params for role in (REPEATS, SHADOWS)}, {}, {})
    monkeypatch.setattr(run, "relearn", lambda *_: {})
    run.carried_out(one, trained, "vanilla", "none", None)
    return one, params, run._file(one, "vanilla", "none")


def test_nothing_kept_has_an_axis_of_classes(tmp_path, monkeypatch):
    one, _, file = carried_out(tmp_path, monkeypatch)
    kept = {path.relative_to(tmp_path).as_posix(): metrics.read(path) for path in tmp_path.rglob("*.npz")}
    assert list(kept) == [file.relative_to(tmp_path).as_posix()]
    shapes = {name: leaf.shape for name, leaf in kept.popitem()[1].items()}
    classes, width = one.problem.dataset.classes, shapes["features"][-1]
    assert classes not in (LANES, width, len(one.pool), len(one.scorer.sets.test["id"]))
    assert not any(classes in shape for shape in shapes.values())
    assert [name for name, shape in shapes.items() if len(shape) != 2] == ["features"]


def test_logits_that_an_older_version_kept_are_read_as_statistics(tmp_path, monkeypatch):
    """What a file of logits is turned into is what the device reduces, and metrics see no difference."""
    one, params, file = carried_out(tmp_path, monkeypatch)
    fresh = metrics.read(file)
    few, points = fleet.lane(params, slice(len(one.shared.seeds))), run.points_of(one)
    predict = evaluation.make_predict(one.scorer.model, one.scorer.devices)
    logits = {kind: predict(params, batch["x"]) for kind, batch in points.items()}
    logits |= {"shadows": logits["pool"], "features": population.features(one, few)}
    old = tmp_path / "logits" / file.name
    metrics.keep(old, logits)
    file.unlink()
    old_logits.convert(one, old, file, points)
    converted = metrics.read(file)
    assert converted.keys() == fresh.keys()
    for name, leaf in fresh.items():
        np.testing.assert_allclose(converted[name], leaf, rtol=1e-5, atol=1e-5, err_msg=name)
    metrics.keep(old, {})
    old_logits.convert(one, old, file, points)  # which has been done: nothing is read
    file.unlink()
    with pytest.raises(workdirs.WorkdirError, match=r"none\.npz cannot be read"):
        old_logits.convert(one, old, file, points)


def test_fleets_are_told_apart_by_what_they_know():
    """Shadows that keep a margin of 3 on what they were trained on are found; those that forgot are not."""
    rng = np.random.default_rng(0)
    lanes, pool = 40, 60
    included = np.argsort(np.argsort(rng.random((2, lanes // 2, pool)), axis=1), axis=1).reshape(lanes, pool) < lanes // 4

    def fleet_of(shift):
        margins = rng.normal(size=(5, lanes, pool))
        margins[0, :, :30] += shift
        margins[4] += shift * included
        return made.kept(margins, included)

    oracle, floor, knows = fleet_of(0.0), fleet_of(0.0), fleet_of(3.0)
    found, none = (metrics.judged(one, oracle, made.first(pool, 30)) for one in (knows, floor))
    assert found["ulira"]["estimate"].value > 0.95 and abs(none["ulira"]["estimate"].value - 0.5) < 0.05
    assert found["klom"]["forget"]["estimate"].value > none["klom"]["forget"]["estimate"].high
    assert found["klom"]["retain"]["estimate"].value == pytest.approx(none["klom"]["retain"]["estimate"].value, abs=0.3)
    assert found["epsilon"]["estimate"].value > none["epsilon"]["estimate"].value
    for metric in (lambda one: one["klom"]["forget"], lambda one: one["epsilon"]):
        assert at(metric(found), ("published",)).value > at(metric(none), ("published",)).value > 0
