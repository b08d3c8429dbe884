"""Trackers: what is sent, where it ends up, going on after a kill, and packages that are missing."""

import resource
import struct
import time
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from experiments.configs import comparison, judge, pretrain
from experiments.core import trackers, workdirs
from experiments.core.config import as_config, describe, validated
from experiments.core.errors import ConfigError, UserError
from experiments.core.machines.preemption import Preempted

OWNER = {"runner": "none", "seed": 3}


def events(folder):
    """(step, name, value) in a folder, read by hand: records with their length in front."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


def test_numbers_of_an_entry_have_a_name_for_each_training():
    fields = {"training": "plain", "lanes": 6, "step": 15, "steps": 22, "seconds": 0.5, "loss": 1.5, "rates": [1, 2]}
    assert trackers.numbers("train", fields) == {"train/plain/loss": 1.5}
    assert trackers.numbers("train", {"step": 3, "loss": None, "norm": 2}) == {"train/norm": 2.0}


def test_tensorboard_gets_the_steps_of_all_processes_of_a_run_and_jsonl_is_as_without(tmp_path):
    for step in (1, 2):  # two processes, one after the other
        folder = workdirs.Workdir(tmp_path)
        with folder.claimed(OWNER, tracker=("jsonl", "tensorboard")):
            folder.log("data", name="digits", train=7)  # of no step
            folder.log("train", training="plain", step=step, loss=0.5 * step)
    assert sorted(events(tmp_path / "tensorboard")) == [(1, "train/plain/loss", 0.5), (2, "train/plain/loss", 1.0)]
    assert [entry["event"] for entry in workdirs.entries(tmp_path / "metrics.jsonl")] == ["data", "train"] * 2
    folder.log("train", step=3, loss=1.0)  # nobody's turn any more: jsonl alone
    assert len(events(tmp_path / "tensorboard")) == 2


def test_without_a_tracker_there_is_jsonl_alone(tmp_path):
    folder = workdirs.Workdir(tmp_path)
    with folder.claimed(OWNER):
        folder.log("train", step=1, loss=1.0)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "lock", "metrics.jsonl"}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_one_line_that_names_the_extra_and_binds_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda module: None)
    said = rf"config.tracker has {name}, which needs \w+: pip install 'forethought\[{name}\]'"
    folder = workdirs.Workdir(tmp_path / "new")
    with pytest.raises(UserError, match=said), folder.claimed(OWNER, tracker=("jsonl", name)):
        pass
    assert not (tmp_path / "new").exists()


def test_a_tracker_that_cannot_begin_is_one_line(tmp_path, monkeypatch):
    def refuse(folder, owner):
        raise RuntimeError("no API key\nconfigured")

    monkeypatch.setitem(trackers.MAKERS, "tensorboard", refuse)
    said = r"tensorboard of config.tracker cannot begin \(no API key configured\): make room"
    with pytest.raises(UserError, match=said), trackers.opened(("tensorboard",), tmp_path, OWNER):
        pass


def test_a_tracker_that_fails_later_ends_the_run_with_one_line_and_is_closed(tmp_path, monkeypatch):
    closed = []

    def fail(step, values):
        raise ConnectionError("no route")

    monkeypatch.setitem(trackers.MAKERS, "mlflow", lambda *_: trackers.Tracker(fail, lambda: closed.append(True)))
    monkeypatch.setattr(trackers, "check", lambda names: None)
    folder = workdirs.Workdir(tmp_path)
    said = r"mlflow of config.tracker cannot go on \(no route\): set MLFLOW_TRACKING_URI"
    with pytest.raises(UserError, match=said), folder.claimed(OWNER, tracker=("jsonl", "mlflow")):
        folder.log("train", step=1, loss=1.0)
    assert closed == [True] and len(list(workdirs.entries(tmp_path / "metrics.jsonl"))) == 1


def test_a_tracker_that_cannot_end_is_one_line_but_hides_no_other_end(tmp_path, monkeypatch):
    def fail():
        raise ConnectionError("no route")

    monkeypatch.setitem(trackers.MAKERS, "wandb", lambda *_: trackers.Tracker(lambda *_: None, fail))
    monkeypatch.setattr(trackers, "check", lambda names: None)
    said = r"wandb of config.tracker cannot end \(no route\)"
    with pytest.raises(UserError, match=said), trackers.opened(("wandb",), tmp_path, OWNER):
        pass
    with pytest.raises(Preempted), trackers.opened(("wandb",), tmp_path, OWNER):
        raise Preempted


def test_what_tensorboard_gets_is_in_its_file_at_once_and_a_full_disk_is_one_line(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = r"tensorboard of config.tracker cannot go on .*File too large.*: make room"
    with pytest.raises(UserError, match=said), trackers.opened(("tensorboard",), tmp_path, OWNER) as log:
        log(3, {"loss": 0.5})
        assert events(tmp_path / "tensorboard") == [(3, "loss", 0.5)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            log(4, {"loss": 0.25})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("model", [comparison.Comparison, judge.Judge, pretrain.Pretrain])
def test_the_key_is_a_run_s_and_no_part_of_what_a_workdir_is_bound_to(model):
    config = as_config(model())
    config.tracker = ("jsonl", "tensorboard")
    made = validated(model, config)
    assert made.tracker == ("jsonl", "tensorboard") and made.model_dump() == model().model_dump()
    assert "config.tracker: jsonl, which reports are made of, and any of" in describe(model)
    for bad in (("tensorboard",), ("jsonl", "jsonl"), ("jsonl", "comet"), "jsonl"):
        config = config.copy_and_resolve_references()
        with config.ignore_type():
            config.tracker = bad
        with pytest.raises(ConfigError, match=r"config.tracker is .* give jsonl, which reports are made of"):
            validated(model, config)


def test_a_run_has_one_identity_however_often_it_goes_on(tmp_path):
    one = trackers.identity(tmp_path / "a", OWNER)
    assert one == trackers.identity(tmp_path / "a", dict(reversed(OWNER.items())))
    assert (
        len({one, trackers.identity(tmp_path / "b", OWNER), trackers.identity(tmp_path / "a", {**OWNER, "seed": 4})}) == 3
    )


def test_wandb_offline_keeps_its_files_in_the_workdir(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (5, 2):  # a training that begins anew
        with trackers.opened(("jsonl", "wandb"), tmp_path, OWNER) as log:
            log(step, {"train/plain/loss": 1.5})
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    deadline = time.monotonic() + 20  # a process of its own writes them, somewhat later
    while not all(b"train/plain/loss" in file.read_bytes() for file in files) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(files) == 2 and all(b"train/plain/loss" in file.read_bytes() for file in files)


def test_two_runs_that_make_mlflow_s_experiment_at_once_share_it():
    class Client:
        made = None

        def get_experiment_by_name(self, name):
            return self.made

        def create_experiment(self, name):
            self.made = SimpleNamespace(experiment_id="7")  # the other run was first
            raise RuntimeError("RESOURCE_ALREADY_EXISTS")

    assert trackers._experiment(Client()) == "7"


def test_mlflow_has_one_run_with_the_steps_of_both_processes(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "50% of? #é"
    folder.mkdir()
    for step in (5, 7):
        with trackers.opened(("jsonl", "mlflow"), folder, OWNER) as log:
            log(step, {"train/plain (a)/loss": step / 2})
    client = mlflow.MlflowClient(f"sqlite:///{quote(str(folder / 'mlflow.db'))}")
    (run,) = client.search_runs([client.get_experiment_by_name("forethought").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/plain _a_/loss")
    assert [(metric.step, metric.value) for metric in history] == [(5, 2.5), (7, 3.5)] and run.info.status == "FINISHED"
