"""Several processes of one run: what they tell each other, a step on all their devices, and a run that two share.

Real processes find each other on the loopback interface, with JAX's collectives of a CPU (gloo).
"""

import contextlib
import functools
import json
import os
import signal
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments.core.errors import UserError
from experiments.core.machines import distributed, preemption, processes
from tests.helpers import kills, peers, ranks

# One process


def test_alone_nobody_is_asked(monkeypatch):
    monkeypatch.delattr(processes, "exchange")
    assert processes.first(lambda: 3) == 3 and processes.anyone(True) and not processes.anyone(False)
    processes.check_same({"seed": 1}, "config")
    assert processes.is_first() and processes.share(lambda lanes: lanes)(5) == 5
    assert processes.everyone(5) == [5] and processes.part(5) == 5 and processes.whole(5, 1) == 5


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("lanes", [1, 4, 5])
def test_shared_lanes_are_all_lanes_in_order(monkeypatch, count, lanes):
    """Every process gives its part; all of them get -0, NaN and whole numbers as they were."""
    values = jnp.asarray(np.where(np.arange(lanes) % 3 == 1, -0.0, np.nan), jnp.float32)
    tree = {"a": values, "b": jnp.arange(2 * lanes, dtype=jnp.uint32).reshape(lanes, 2)}
    shared = processes.share(lambda tree, power: {"a": -tree["a"], "b": tree["b"] ** power})
    given = []
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(processes, "exchange", lambda content: given.append(content) or [content] * count)
    for process in range(count):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shared(tree, 2)
    monkeypatch.setattr(processes, "exchange", lambda content: given)
    made = shared(tree, 2)
    assert np.array_equal(np.asarray(made["a"]).view(np.uint32), np.asarray(-values).view(np.uint32))
    assert np.array_equal(made["b"], np.arange(2 * lanes).reshape(lanes, 2) ** 2)


# Calls that take turns


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("calls", [0, 1, 4, 5])
def test_each_process_makes_its_calls_and_gets_all_in_order(monkeypatch, count, calls):
    made = []

    def call(i):
        made.append((jax.process_index(), i))
        return np.float32([-0.0, np.nan, i])

    program = lambda process: list(processes.turns([functools.partial(call, i) for i in range(calls)]))  # noqa: E731
    ends = peers.together(monkeypatch, count, program)
    expected = [np.float32([-0.0, np.nan, i]).tobytes() for i in range(calls)]
    assert [[value.tobytes() for value in end] for end in ends] == [expected] * count
    assert sorted(made) == sorted((i % count, i) for i in range(calls))


def test_alone_a_call_is_made_when_it_is_asked_for():
    made = []
    first = next(processes.turns([lambda: made.append(1), lambda: made.append(2)]))
    assert first is None and made == [1]


def test_processes_with_other_numbers_of_devices_are_refused(monkeypatch):
    """Nothing could be exchanged, and so each has to see it by itself."""
    owners = [0, 0, 1, 1, 2]
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(process_index=owner) for owner in owners])
    with pytest.raises(UserError, match="process 2 has 1 devices and process 0 has 2: give each process as many"):
        processes.check_devices()
    owners.append(2)
    processes.check_devices()


def test_a_mistake_of_one_call_is_everybody_s_after_the_calls_before_it(monkeypatch):
    def program(process):
        for value in processes.turns([lambda: 1, lambda: 2, lambda: _mistake("the third"), lambda: 4]):
            got[process].append(value)

    got = [[], []]
    for end in peers.together(monkeypatch, 2, program):
        assert isinstance(end, UserError) and str(end) == "of process the third"
    assert got == [[1, 2], [1, 2]]


def test_a_signal_to_one_ends_all_once_what_was_made_is_taken(monkeypatch):
    """It comes while process 1 makes its first call."""

    def call(i):
        made.append(i)
        if i == 1:
            monkeypatch.setattr(preemption._state, "asked", True)
        return i

    @contextlib.contextmanager
    def postponed():  # of one process, as each has its own signals
        yield lambda: jax.process_index() == 1 and preemption._state.asked

    def program(process):
        for value in processes.turns([functools.partial(call, i) for i in range(6)]):
            got[process].append(value)

    made, got = [], [[], [], []]
    monkeypatch.setattr(preemption, "postponed", postponed)
    ends = peers.together(monkeypatch, 3, program)
    assert [type(end) for end in ends] == [preemption.Preempted] * 3
    assert got == [[0, 1, 2]] * 3 and sorted(made) == [0, 1, 2]


def test_what_process_0_has_open_no_other_gets(monkeypatch):
    assert processes.kept(lambda: 3) == 3
    assert peers.together(monkeypatch, 2, lambda process: processes.kept(object().__str__))[1] is None
    for end in peers.together(monkeypatch, 2, lambda process: processes.kept(lambda: _mistake(process))):
        assert isinstance(end, UserError) and str(end) == "of process 0"


@pytest.mark.parametrize("of_folder", [True, False])
def test_files_of_process_0_are_copied_to_the_others_for_a_while(monkeypatch, tmp_path, of_folder):
    path = tmp_path / "model"
    if of_folder:
        (path / "part").mkdir(parents=True)
    for file in (path / "part" / "a.npz", path / "b") if of_folder else (path,):
        file.write_bytes(file.name.encode() * 3)

    def program(process):
        with processes.copied(path) as copy:
            files = (copy, *copy.rglob("*"))
            return copy, {str(file.relative_to(copy)): file.read_bytes() for file in files if file.is_file()}

    (first, content), (second, copied) = peers.together(monkeypatch, 2, program)
    assert first == path and second.name == "model" and second != path and not second.exists()
    assert content == copied == ({"part/a.npz": b"a.npz" * 3, "b": b"bbb"} if of_folder else {".": b"model" * 3})
    assert program(0) == (path, content)


# In a child: two processes talk


def talk():
    """What process 0 says, its mistake, a signal of the other, and more bytes than are sent at once."""
    distributed.begin(os.environ, "readiness")
    processes.MOST = 1 << 14
    me = jax.process_index()
    contents = processes.exchange(bytes([me]) * (40_000 * me))
    told = {"lengths": [len(content) for content in contents], "last": contents[1][-1]}
    told["first"] = processes.first(lambda: ("of", me))
    told["anyone"] = [processes.anyone(me == 1), processes.anyone(False)]
    try:
        processes.first(lambda: _mistake(me))
    except UserError as error:
        told["mistake"] = str(error)
    processes.check_same({"config.seed": 1}, "config")
    try:
        processes.check_same({"config.seed": 1, "config.rate": me, "config.trainings": ("a",) * me}, "config")
    except UserError as error:
        told["other"] = str(error)
    return told


def _mistake(process):
    raise UserError(f"of process {process}")


def test_two_processes_tell_each_other():
    ends = ranks.ended(ranks.start(2, "-m", "tests.experiments.core.machines.processes_test", "talk"))
    assert [status for status, _, _ in ends] == [0, 0], ends[0][2][-2000:] + ends[1][2][-2000:]
    for _, out, _ in ends:
        assert json.loads(out.splitlines()[-1]) == {
            "lengths": [0, 40_000], "last": 1, "first": ["of", 0], "anyone": [True, False], "mistake": "of process 0",
            "other": "process 1 has other values of config.rate, config.trainings than process 0: start all with the same "
            "config",
        }  # fmt: skip


# In a child: steps on the devices of all processes


def steps():
    """Errors of a step over all devices against one device, through the second order, by case and mode."""
    from tests.experiments.core.machines import execution_test as cases

    distributed.begin(os.environ, "readiness")
    cases.sharding.SMALL, cases.DEVICES = 1, jax.device_count()
    cases.MODES = ("jit", "fsdp")
    cases.make = lambda mode, **options: cases.execution.make(
        "jit",
        jax.devices() if mode else jax.local_devices()[:1],
        fsdp=2 if mode == "fsdp" else 1,
        **options,
    )
    of_mode = cases.meta_gradient

    def gathered(mode, *rest):
        program = of_mode(mode, *rest)
        return lambda *args: multihost_utils.process_allgather(program(*args), tiled=True) if mode else program(*args)

    cases.meta_gradient = gathered
    jax.config.update("jax_enable_x64", True)
    return {name: cases.errors_of(**cases.CASES[name]()) for name in (*cases.SOME, "inner cap above the mean")}


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_over_two_processes_is_one_device_s(devices):
    """Caps are active on some devices only, and a device has only padding."""
    ends = ranks.ended(ranks.start(2, "-m", "tests.experiments.core.machines.processes_test", "steps", devices=devices))
    for status, out, err in ends:
        assert status == 0, err[-3000:]
        for name, errors in json.loads(out.splitlines()[-1]).items():
            assert errors["jit"] < 1e-10 and errors["fsdp"] < 1e-10 and errors["averaged"] > 0.05, (name, errors)


# A run


RUN = (
    "-m", "experiments.main", "--config=readiness:digits", "--config.seeds=3", "--config.train.steps=60",
    "--config.variants={}", "--config.equal_flops=False", "--config.checkpoint_seconds=0", "--config.relearn.steps=3",
    "--config.request.unlearners=('ascent',)", "--config.request.learning_rates=(0.05,)", "--config.request.max_steps=8",
)  # fmt: skip
NUMBERS = ("test_accuracy", "retain_accuracy", "forget_accuracy", "forget_loss", "test_loss")


def run(folder, count, *trainings):
    folder.mkdir(exist_ok=True)
    words = f"--config.trainings={('oracle', 'vanilla', *trainings)}", f"--workdir={folder / 'run'}"
    return ranks.start(count, *RUN, *words, folder=folder)


def words(folder, process):
    return (folder / f"out.{process}").read_text(), (folder / f"err.{process}").read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run that has one process."""
    folder = tmp_path_factory.mktemp("alone")
    assert [status for status, *_ in ranks.ended(run(folder, 1, "readiness"))] == [0], words(folder, 0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_run_that_several_processes_share_is_one_process_s(tmp_path, alone, count):
    """With four, the six models of a program do not divide: the last process computes one of them once more."""
    ends = ranks.ended(run(tmp_path, count, "readiness"), seconds=900)
    assert [status for status, *_ in ends] == [0] * count, words(tmp_path, count - 1)
    assert f"process 1 of {count} (as told)" in words(tmp_path, 1)[1]
    assert ["report: " in words(tmp_path, process)[0] for process in range(count)] == [True] + [False] * (count - 1)
    rows = [kills.settled(folder / "run") for folder in (alone, tmp_path)]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, shared in zip(*rows, strict=True):
        assert (one["training"], one["unlearner"], one["seed"]) == (shared["training"], shared["unlearner"], shared["seed"])
        for when in ("before", "after"):
            for name in NUMBERS:
                assert one[when][name] == pytest.approx(shared[when][name], rel=1e-3, abs=1e-4), (when, name)


@pytest.mark.slow
@pytest.mark.parametrize("process, number", [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGUSR1)])
def test_a_run_of_which_one_process_is_ended_goes_on_to_the_same_end(tmp_path, process, number):
    """The other one ends by itself, with a status that asks for another try, or aborted by JAX where it lost process 0."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert [status for status, *_ in ranks.ended(run(whole, 2))] == [0, 0]
    started = run(broken, 2)
    while not any((broken / "run" / "checkpoints").glob("plain/1")) and started[process].poll() is None:
        time.sleep(0.01)
    started[process].send_signal(number)
    statuses = [status for status, *_ in ranks.ended(started, seconds=120)]
    assert statuses[process] == (75 if number == signal.SIGUSR1 else -number), words(broken, process)[1][-3000:]
    expected = (75, -signal.SIGABRT) if process == 0 else (75,)
    assert statuses[1 - process] in expected, words(broken, 1 - process)[1][-3000:]
    assert not (broken / "run" / "results.json").exists()
    assert [status for status, *_ in ranks.ended(run(broken, 2))] == [0, 0], words(broken, 1)
    assert kills.settled(broken / "run") == kills.settled(whole / "run")


if __name__ == "__main__":
    print(json.dumps({"talk": talk, "steps": steps}[sys.argv[1]]()))
