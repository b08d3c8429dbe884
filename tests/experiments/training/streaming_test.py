"""Images that stay on disk: the same batches as in memory, few images at a time, and errors of one line.

Batches are compared bit for bit, parameters within 1e-6: rounding may differ between the two programs.
"""

import functools
import threading
import time
import weakref

import jax
import numpy as np
import pytest

from experiments.comparison import run
from experiments.comparison.checks import resolved
from experiments.configs import readiness as configs
from experiments.core.machines import fleet
from experiments.data import datasets, prefetch
from experiments.training import loop, streaming
from tests.experiments.comparison.run_test import shrink
from tests.experiments.core.machines import fleet_test
from tests.helpers import comparisons, tiny, toys
from tests.helpers.kills import settled
from unlearn import tree

TOLERANCE = 1e-6

every_kind = pytest.mark.parametrize("kind", tiny.KINDS)
stream = tiny.run_epochs


def drawn_on_the_way(way, lanes, monkeypatch):
    """What `fill` gave for each step of a training, in order."""
    seen = []
    fill = streaming.fill
    monkeypatch.setattr(prefetch, "THREADS", 1)
    monkeypatch.setattr(streaming, "fill", lambda images, drawn: seen.append(fill(images, drawn)) or seen[-1])
    stream(way, lanes, tiny.on_disk())
    return seen


@every_kind
def test_every_step_gets_the_batches_that_memory_gives(kind, monkeypatch):
    """Two epochs of three steps; readiness rehearses on steps 1, 3 and 5, with all of its batches."""
    way, lanes, whole = tiny.way(kind), tiny.lanes([4, 7]), tiny.data()
    seen = drawn_on_the_way(way, lanes, monkeypatch)
    assert len(seen) == way.steps

    @functools.partial(jax.jit, static_argnums=3)
    def draw(lane, epoch, row, rehearse):
        rows = loop.epoch_rows(lane, whole["id"], epoch, way.per_epoch, way.batch_size)[row]
        return loop.draw(way, lane, whole, tiny.pools(), rows, epoch * way.per_epoch + row, rehearse)

    for step, filled in enumerate(seen):
        rehearse = kind == "readiness" and step % 2 == 1
        assert (filled.meta is not None) == rehearse
        for i in range(2):
            got, expected = fleet.lane(filled, i), draw(fleet.lane(lanes, i), *divmod(step, way.per_epoch), rehearse)
            assert tree.bits_equal(got._replace(step_size=None), expected._replace(step_size=None))
            assert not rehearse or float(got.step_size) == pytest.approx(float(expected.step_size))


@every_kind
@pytest.mark.parametrize("loops", [False, True])
def test_training_ends_as_in_memory(kind, loops):
    way, lanes = tiny.way(kind), tiny.lanes([4, 7])
    params, losses = tiny.run_epochs(way, lanes, tiny.data(), loops=loops)
    streamed, its_losses = stream(way, lanes, tiny.on_disk(), loops=loops)
    toys.assert_close(streamed, params, TOLERANCE)
    np.testing.assert_allclose(its_losses, losses, rtol=TOLERANCE)


def test_a_resumed_run_ends_with_the_bytes_of_one_never_stopped(tmp_path):
    train = functools.partial(fleet_test.train, kind="readiness", data=tiny.on_disk(), save_every=0.0)
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(fleet_test.Stop):
        train(tmp_path / "stopped", stop_after=3)
    resumed, reports = train(tmp_path / "stopped")
    assert [entry["step"] for entry in reports] == [9, 11]
    assert tree.bits_equal(resumed.params, whole.params) and tree.bits_equal(resumed.losses, whole.losses)


def test_a_record_that_cannot_be_read_stops_the_run_and_the_repaired_one_ends_the_same(tmp_path):
    reads = []

    def break_in_the_third_epoch(ids):
        reads.append(ids)
        if len(reads) == 8:
            raise datasets.DataError("cannot read record 3")

    train = functools.partial(fleet_test.train, kind="plain")
    with pytest.raises(datasets.DataError) as caught:
        train(tmp_path / "run", data=tiny.on_disk(break_in_the_third_epoch))
    assert str(caught.value) == "cannot read record 3"
    resumed, reports = train(tmp_path / "run", data=tiny.on_disk())
    assert [entry["step"] for entry in reports] == [9, 11]
    whole, _ = train(tmp_path / "whole", data=tiny.on_disk())
    assert tree.bits_equal(resumed.params, whole.params)


# How much is read


def reads_of(lanes, kind="plain"):
    reads = []
    stream(tiny.way(kind), lanes, tiny.on_disk(reads.append))
    return reads


def test_a_step_reads_its_own_examples_alone_and_each_once():
    reads = reads_of(tiny.lanes([4, 7]))
    assert len(reads) == 6 and all(6 < len(ids) <= 12 for ids in reads)
    assert all(len(np.unique(ids)) == len(ids) for ids in reads)
    rehearsing = reads_of(tiny.lanes([4, 7]), "readiness")
    assert sorted(len(ids) > 12 for ids in rehearsing) == [False] * 3 + [True] * 3


def test_lanes_that_share_a_batch_share_its_reading():
    lanes = fleet.concatenate([tiny.lanes([4]), tiny.lanes([4], weight=np.where(tiny.FORGET, 0.1, 1.0))])
    assert {len(ids) for ids in reads_of(lanes)} == {6}


def test_no_more_is_read_ahead_than_there_are_threads():
    made, lock = [], threading.Lock()

    def make(i):
        with lock:
            made.append(i)
        return i

    for taken, i in enumerate(datasets.ahead(make, 60)):
        assert taken == i
        time.sleep(0.002)
        assert len(made) <= i + 1 + prefetch.THREADS
    assert sorted(made) == list(range(60))


def test_images_of_a_step_are_let_go(monkeypatch):
    """Of 60 steps, only the images of those at hand are alive at any time."""
    alive, fill = [], streaming.fill

    def counted(images, drawn):
        filled = fill(images, drawn)
        alive.append(1)
        weakref.finalize(filled.batch["x"], alive.pop)
        most.append(len(alive))
        return filled

    most = []
    monkeypatch.setattr(streaming, "fill", counted)
    stream(tiny.way("plain", steps=60, per_epoch=60), tiny.lanes([4, 7]), tiny.on_disk())
    assert len(most) == 60 and max(most) <= 2 * prefetch.THREADS + 3


# Whole runs


@pytest.mark.parametrize(
    "name, trainings",
    [
        ("digits_random", ("oracle", "vanilla")),
        pytest.param("digits", ("oracle", "vanilla", "reweight", "dpsgd", "readiness"), marks=pytest.mark.slow),
        pytest.param("cifar10_random", ("oracle", "vanilla", "readiness"), marks=pytest.mark.slow),
    ],
)
def test_a_streamed_run_ends_as_one_in_memory(name, trainings, tmp_path):
    """Scores, curves and stops; costs differ by what it takes to draw and gather on the device."""
    outcomes = []
    for streamed in (False, True):
        config = shrink(configs.get_config(name))
        config.data.stream = streamed
        config.trainings = trainings
        config.equal_flops = False
        run.run(config, str(tmp_path / str(streamed)))
        outcomes.append(settled(tmp_path / str(streamed)))
    for row, streamed in zip(*outcomes, strict=True):
        assert (row["stop"], row["steps"]) == (streamed["stop"], streamed["steps"])
        for when in ("before", "after"):
            assert streamed[when] == pytest.approx(row[when], rel=1e-3)
        for attack, curve in row["extra"]["relearning"].items():
            np.testing.assert_allclose(streamed["extra"]["relearning"][attack], curve, atol=1e-3)
        assert streamed["train_flops"] == pytest.approx(row["train_flops"], rel=0.05)


def test_recovery_data_that_all_images_decide_are_refused(tmp_path):
    config = shrink(configs.get_config("digits"))
    config.data.stream = True
    config.readiness.resistance = 1.0
    with pytest.raises(ValueError, match=r"set --config\.readiness\.recovery=stable$"):
        run.run(config, str(tmp_path))
    config.readiness.recovery = "stable"
    assert [one.variant for one in comparisons.parts(config).plan.rehearsals] == ["default", "paper"]


def test_samples_do_not_move_when_an_example_goes():
    """Who is scored follows from ids: a deleted example makes room for one other and moves none."""
    config = shrink(configs.get_config("digits"))
    config.data.score_examples = 40
    config = resolved(config)
    whole = datasets.load(config.data)
    before = comparisons.problem_of(config, whole).sets
    gone = before.retain["id"][3]
    kept = whole.train.id != gone
    left = whole._replace(train=datasets.Split(*(leaf[kept] for leaf in whole.train)))
    after = comparisons.problem_of(config, left).sets
    np.testing.assert_array_equal(after.forget["id"], before.forget["id"])
    assert len(after.forget["id"]) == len(after.retain["id"]) == 40
    assert set(before.retain["id"]) - set(after.retain["id"]) == {gone}
    assert whole.train.id[whole.train.y == config.forget.target].size > 40
