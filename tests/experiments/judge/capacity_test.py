"""Fleets in parts by a budget of memory and on several devices, which need a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.configs import judge as configs
from experiments.core import workdirs
from experiments.core.config import validated
from experiments.core.machines import fleet
from experiments.judge import capacity, fleets
from experiments.judge.fleets import REPEATS
from experiments.training import epochs, loop
from tests.helpers import judgements, tiny

ROOT = Path(__file__).resolve().parents[3]
DEVICES = 4


def case(folder, memory_bytes):
    config = configs.get_config("digits")
    config.trainings = ("oracle", "heldout_oracle", "vanilla")
    config.update_from_flattened_dict(
        {"judge.lanes": 12, "judge.memory_bytes": memory_bytes, "train.steps": 5, "model.options.widths": (8,)}
    )
    config.request.unlearners = ("ascent",)
    return judgements.case(validated(configs.Judge, config), "class", workdirs.Workdir(folder), tiny.digits())


def judged(folder, memory_bytes):
    """Parameters of 12 lanes, trained and then made to forget, and their margins; how they were divided."""
    folder.mkdir(exist_ok=True)
    one = case(folder, memory_bytes)
    lanes = fleets._lanes(one, "vanilla", REPEATS)
    way = one.trainer.way()
    params = capacity.train(one, way, lanes, "some").params
    ((after, *_),) = fleets.forget(one, params, "vanilla", REPEATS, "ascent", 0.01, (2,))
    batch = {name: leaf[:20] for name, leaf in one.scorer.sets.test.items()}
    margins = capacity.statistics(one, after, batch).margin
    divided = [len(leaf.sharding.device_set) for leaf in jax.tree.leaves(capacity.spread(params))]
    return params, margins, sorted(set(divided))


@pytest.mark.parametrize("devices, total, most, expected", [
    (1, 12, 100, [12]),
    (1, 12, 5, [4, 4, 4]),
    (1, 5, 1, [1] * 5),
    (4, 536, 200, [180, 180, 176]),
    (4, 10, 4, [4, 4, 2]),
    (4, 3, 8, [3]),
])  # fmt: skip
def test_parts_are_even_and_few_and_fit_the_devices(devices, total, most, expected):
    found = list(capacity.parts(total, most, devices))
    assert [part.stop - part.start for part in found] == expected
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(total))


def test_a_judgement_that_goes_on_with_other_devices_keeps_its_parts(tmp_path, monkeypatch):
    """10 lanes of 6 at once are 5 + 5 on one device; on four they would be 6 + 4, and the checkpoints of no use."""
    one = case(tmp_path, 2**31)
    one.workdir.stage("lanes", lambda: 6)
    before = list(capacity._parts(one, 10))
    monkeypatch.setattr(capacity.jax, "device_count", lambda: 4)
    assert list(capacity._parts(one, 10)) == before == [slice(0, 5), slice(5, 10)]


def test_a_lane_takes_about_what_each_more_adds_to_a_program(tmp_path):
    """The rule, from one-lane steps without the data, beside XLA's own count of whole epochs in 4 and in 8 lanes."""
    one = case(tmp_path, 2**31)
    way = one.trainer.way()
    lanes = fleets._lanes(one, "vanilla", REPEATS)
    rule = capacity.training_costs(one)["vanilla"]["lane_bytes"]

    def whole(count):
        some = fleet.lane(lanes, slice(count))
        states = loop.init_lanes(way, some)
        epoch = epochs.make(way._replace(per_epoch=2), one.trainer.devices)
        program = jax.jit(lambda s, ln, data: epoch(s, ln, data, None, 0, 2)).lower(states, some, one.trainer.data)
        return capacity.environment.peak_bytes(program.compile())

    assert (whole(8) - whole(4)) / 4 == pytest.approx(rule, rel=0.5)


@pytest.mark.slow
def test_lanes_on_several_devices_are_those_of_one(tmp_path):
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    child = subprocess.run(
        [sys.executable, "-m", "tests.experiments.judge.capacity_test", str(tmp_path / "several")],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-2000:]
    told = json.loads(child.stdout.splitlines()[-1])
    assert told["divided"] == [DEVICES] and told["again"] and told["parts"] == 3
    _, margins, divided = judged(tmp_path / "one", 2**31)
    assert divided == [1]
    np.testing.assert_allclose(told["margins"], margins, rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    first = judged(folder, 1)  # a lane on each device at a time
    again = judged(folder, 1)  # restored from checkpoints
    same = all(np.array_equal(a, b) for a, b in zip(*(jax.tree.leaves(one[0]) for one in (first, again)), strict=True))
    parts = len(list((folder / "checkpoints").iterdir()))
    print(json.dumps({"divided": first[2], "again": same, "parts": parts, "margins": first[1].tolist()}))
