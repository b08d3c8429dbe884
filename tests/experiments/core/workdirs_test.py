"""Workdirs: one config and one process at a time; what is damaged is named with what to do, and nothing is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from experiments.comparison import report
from experiments.configs import pretrain
from experiments.core import checkpoints, results, results_v1, workdirs
from experiments.core.workdirs import Workdir, WorkdirError
from experiments.models import vits
from experiments.pretrain import run
from tests.helpers.kills import ROOT
from unlearn import tree

CONFIG = {"seed": 1, "data": {"name": "digits"}}
DAMAGES = {"empty": b"", "cut": b'{"seed": 1, "ro', "bytes": b"\xff\xfe\x00{}", "a list": b"[1]", "null": b"null"}
ROW = dict.fromkeys(results_v1.ROW)  # of version 0.1

damaged = pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
def folder(tmp_path):
    """A run whose stage has finished, in one line and a bit of its log."""
    made = Workdir(tmp_path / "run")
    with made.claimed(CONFIG):
        made.stage("one", lambda: {"rows": 3})
        made.log("train", loss=0.5)
    return made


def refused(action, *said):
    with pytest.raises(WorkdirError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(text in message for text in said), message


def claim(made, config=CONFIG):
    with made.claimed(config):
        pass


@damaged
def test_damaged_results_are_named_and_their_stages_kept(folder, content):
    file = folder.path / "results.json"
    file.write_bytes(content)
    refused(lambda: folder.finished(CONFIG), str(file), "remove it and run again")
    refused(lambda: report.write(folder.path), str(file), "remove it and run again")
    file.unlink()
    assert folder.finished(CONFIG) is None
    with folder.claimed(CONFIG):
        assert folder.stage("one", lambda: pytest.fail("computed again")) == {"rows": 3}


@damaged
def test_a_damaged_stage_is_named_and_computed_again_once_it_is_removed(folder, content):
    file = folder.path / "stages" / "one.json"
    file.write_bytes(content)
    refused(lambda: folder.stage("one", lambda: pytest.fail("overwritten")), str(file), "remove it and run again")
    file.unlink()
    assert folder.stage("one", lambda: [4]) == [4]


@pytest.mark.parametrize("change", [lambda kept: kept["value"], lambda kept: kept | {"value": {"rows": 4}}, lambda kept: 3])
def test_a_stage_that_holds_another_value_is_named(folder, change):
    file = folder.path / "stages" / "one.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    refused(lambda: folder.stage("one", lambda: pytest.fail("overwritten")), str(file), "remove it and run again")


def test_a_stage_gives_back_the_bits_it_was_given(folder):
    """As JSON has them: lists for arrays, null for what is not finite."""
    value = {"a": [0.1 + 0.2, -0.0, 1e-320, 2**70], "π": np.float32(0.1), "none": [np.nan, None, True], "empty": []}
    kept = folder.stage("two", lambda: value)
    assert kept == {"a": value["a"], "π": float(np.float32(0.1)), "none": [None, None, True], "empty": []}
    assert folder.stage("two", lambda: pytest.fail("computed again")) == kept
    assert str(kept["a"][1]) == "-0.0"


@pytest.mark.parametrize("rows", [[], [{}], [1], [ROW, {**ROW, "seed": 1, "rows": []}, {"training": "vanilla"}]])
def test_rows_that_no_run_wrote_are_refused(folder, rows):
    file = folder.path / "results.json"
    file.write_text(json.dumps({"rows": [ROW]}))
    assert folder.finished(CONFIG).rows == [results_v1.row(ROW)]
    file.write_text(json.dumps({"rows": rows}))
    refused(lambda: folder.finished(CONFIG), str(file), "remove it and run again")


@damaged
def test_a_damaged_config_is_named(folder, content):
    file = folder.path / "config.json"
    file.write_bytes(content)
    for action in (lambda: claim(folder), lambda: folder.finished(CONFIG)):
        refused(action, str(file), "put a copy of config.json back, or use an empty --workdir")
    assert file.read_bytes() == content


@pytest.mark.parametrize("left", workdirs.PARTS)
def test_parts_of_a_run_without_its_config_are_not_adopted(tmp_path, left):
    if "." in left:
        (tmp_path / left).write_text("{}")
    else:
        (tmp_path / left).mkdir()
    for action in (lambda: claim(Workdir(tmp_path)), lambda: Workdir(tmp_path).finished(CONFIG)):
        refused(action, f"has {left} but no config.json", "put a copy of config.json back")
    assert not (tmp_path / "config.json").exists()


def test_another_config_is_refused(folder):
    for action in (lambda: claim(folder, CONFIG | {"seed": 2}), lambda: folder.finished(CONFIG | {"seed": 2})):
        refused(action, "another config (config.seed differ)")


def test_other_files_in_a_folder_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    claim(Workdir(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refused(lambda: claim(Workdir(tmp_path / "file" / "run")), "cannot write", "choose another --workdir")
    refused(lambda: claim(Workdir(tmp_path / "file")), "cannot write", "choose another --workdir")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    refused(lambda: Workdir(tmp_path / ("a" * 300)).finished(CONFIG), "File name too long: choose another")


# metrics.jsonl


def test_a_line_that_a_kill_cut_short_is_ended_and_passed_over(folder):
    file = folder.path / "metrics.jsonl"
    with file.open("a") as lines:
        lines.write('{"event": "sweep", "unlear')
    with folder.claimed(CONFIG):
        folder.log("sweep", unlearner="ascent")
    assert [entry["event"] for entry in workdirs.entries(file)] == ["train", "sweep"]
    assert len(file.read_text().splitlines()) == 3
    before = file.read_bytes()
    claim(folder)
    assert file.read_bytes() == before
    file.write_text("")
    claim(folder)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"other\n", b"[]\n", b"3\n", b"\x00\x00\x00", b"[" * 100_000])
def test_a_log_that_no_run_wrote_is_named(folder, content):
    file = folder.path / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + content)
    refused(lambda: list(workdirs.entries(file)), str(file), "remove it and results.json and run again")


def test_a_line_that_is_another_than_was_written_is_named(folder):
    file = folder.path / "metrics.jsonl"
    file.write_text(file.read_text().replace("0.5", "0.6"))
    refused(lambda: list(workdirs.entries(file)), f"line 1 of {file} is damaged", "remove it and results.json")


def test_a_line_of_before_there_were_checksums_is_taken(folder):
    file = folder.path / "metrics.jsonl"
    file.write_text('{"event": "train", "time": 1, "loss": null}\n')
    folder.log("train", loss=np.float32(np.nan))
    old, new = workdirs.entries(file)
    assert old | {"time": 0} == new | {"time": 0} == {"event": "train", "time": 0, "loss": None}


def test_a_log_that_cannot_be_written_is_named_with_the_reason(folder, monkeypatch):
    file = folder.path / "metrics.jsonl"
    file.unlink()
    file.mkdir()
    refused(lambda: folder.log("train"), f"cannot write {file}: Is a directory")
    refused(lambda: claim(folder), f"cannot write {file}: Is a directory")
    file.rmdir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of a write, which names no file

    monkeypatch.setattr(workdirs, "dumps", full)
    refused(lambda: folder.log("train"), f"cannot write {file}: No space left on device; make room")


# One process at a time


def test_a_second_process_is_refused_while_the_first_is_at_work(folder):
    with folder.claimed(CONFIG):
        for _ in range(2):
            refused(lambda: claim(Workdir(folder.path)), "another process works in", "wait for it")
        folder.log("train", loss=0.4)
    claim(Workdir(folder.path))
    with pytest.raises(KeyboardInterrupt), folder.claimed(CONFIG):
        raise KeyboardInterrupt
    claim(Workdir(folder.path))


def test_a_finished_run_is_read_while_another_process_is_at_work(folder):
    row = results.Row("vanilla", "default", "none", "class", "toys", 0, {}, {}, 0, "reached")
    with folder.claimed(CONFIG):
        folder.finish("command", [row])
        assert Workdir(folder.path).finished(CONFIG).rows == [row]


HOLD = """
import sys, time
sys.path.insert(0, {root!r})
from experiments.core.workdirs import Workdir
with Workdir(sys.argv[1]).claimed({config!r}):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_killed_lets_go(tmp_path):
    code = HOLD.format(root=str(ROOT), config=CONFIG)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        refused(lambda: claim(Workdir(tmp_path)), "another process works in")
    finally:
        process.kill()
        process.wait()
    claim(Workdir(tmp_path))


# Checkpoints

STATE = {"kernel": np.arange(90_000, dtype=np.float32).reshape(300, 300), "steps": np.zeros(())}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints of the same shapes: STATE under 1, its double under 2."""
    path = tmp_path_factory.mktemp("saved")
    with checkpoints.open_folder(path) as manager:
        for step in (1, 2):
            checkpoints.save(manager, step, jax.tree.map(lambda leaf, step=step: step * leaf, STATE))
    step, state = restored(path)
    assert step == 2 and tree.bits_equal(state["kernel"], 2 * STATE["kernel"])
    return path


def restored(path):
    with checkpoints.open_folder(path) as manager:
        return checkpoints.restore_or(manager, STATE)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def largest(files):
    return max(files, key=lambda file: file.stat().st_size)


def in_step(name, change):
    return lambda path: change(path / "2" / name)


BREAKS = {
    "a bit of an array": lambda path: flip(largest(file for file in (path / "2").rglob("*") if file.is_file())),
    "no arrays": lambda path: largest(file for file in (path / "2").rglob("*") if file.is_file()).unlink(),
    "no structure": in_step("default/_METADATA", lambda file: file.unlink()),
    "half a manifest": in_step("default/manifest.ocdbt", lambda file: file.write_bytes(file.read_bytes()[:50])),
    "a bit of its own description": in_step("_CHECKPOINT_METADATA", flip),
}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_kept(saved, tmp_path, damage):
    copy = shutil.copytree(saved, tmp_path / "copy")
    damage(copy)
    refused(lambda: restored(copy), str(copy), "run again, which goes on from the")
    (copy / "2").rename(tmp_path / "2")
    step, state = restored(copy)
    assert step == 1 and tree.bits_equal(state["kernel"], STATE["kernel"])


def test_what_is_loaded_of_a_finished_run_is_told_with_its_results(saved, tmp_path):
    """A finished run is read back and not run again unless its results.json goes, too."""
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        refused(lambda path=path: checkpoints.restore_raw(path), str(path), "remove results.json of that run and run again")
    copy = shutil.copytree(saved, tmp_path / "copy")
    BREAKS["half a manifest"](copy)
    refused(lambda: checkpoints.restore_raw(copy), str(copy / "2"), "remove it and results.json of that run and run again")


def test_what_a_kill_left_of_a_checkpoint_is_removed_by_the_next_run_and_by_no_reader(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    left = copy / "3.orbax-checkpoint-tmp"
    (left / "default.orbax-checkpoint-tmp").mkdir(parents=True)
    checkpoints.restore_raw(copy)
    assert left.exists()
    assert restored(copy)[0] == 2 and not left.exists()


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_nothing(saved, tmp_path, monkeypatch):
    copy = shutil.copytree(saved, tmp_path / "copy")

    def full(manager, step, **_):
        (copy / f"{step}.orbax-checkpoint-tmp").mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: Error\nwriting: No space left on device [os_error_code='28']")

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "save", full)

    def save():
        with checkpoints.open_folder(copy) as manager:
            checkpoints.save(manager, 3, STATE)

    refused(save, f"cannot write {copy}: No space left on device; make room")
    assert not list(copy.glob("*tmp*")) and restored(copy)[0] == 2


def test_what_ends_a_training_is_told_and_not_what_its_saves_say(saved, tmp_path, monkeypatch):
    copy = shutil.copytree(saved, tmp_path / "copy")

    def full(_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "close", full)
    with pytest.raises(KeyboardInterrupt), checkpoints.open_folder(copy):
        raise KeyboardInterrupt


def test_what_a_failed_read_tells_a_closed_loop_is_not_shown(saved, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    checkpoints._hide_repetitions.cache_clear()
    restored(saved)
    closed, other = (types.SimpleNamespace(exc_value=RuntimeError(text)) for text in ("Event loop is closed", "other"))
    sys.unraisablehook(closed)
    sys.unraisablehook(other)
    assert told == [other]


@pytest.mark.slow
def test_a_run_names_its_damaged_checkpoint_and_ends_the_same_without_it(tmp_path, monkeypatch):
    monkeypatch.setitem(vits.VITS, "tiny", {"patch": 4, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 16})
    config = pretrain.get_config("digits")
    config.model, config.checkpoint_seconds, config.train.steps = "tiny", 0.0, 30
    pretrained = lambda: run.run(config, str(tmp_path))  # noqa: E731
    pretrained()
    whole = (tmp_path / "vit.npz").read_bytes()
    (tmp_path / "results.json").unlink()
    latest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (latest / "default" / "manifest.ocdbt").write_bytes(b"")
    refused(pretrained, str(latest), "remove that folder and run again")
    assert not (tmp_path / "results.json").exists()
    latest.rename(tmp_path / "moved")
    pretrained()
    assert (tmp_path / "vit.npz").read_bytes() == whole


def test_a_key_of_a_later_version_that_is_empty_changes_nothing():
    old, new = {"data": {"name": "digits"}}, {"data": {"name": "digits", "label": "", "share": 0.0, "more": {}}}
    assert not list(workdirs.differences(old, new))
    assert list(workdirs.differences(old, {"data": {"name": "digits", "label": "kind"}})) == ["config.data.label"]
    assert list(workdirs.differences(new, old)) and list(workdirs.differences({"a": None}, {"a": 0})) == ["config.a"]


def test_a_key_of_a_later_version_that_is_as_usual_changes_nothing():
    """And one that an older version had counts, whatever is usual now."""
    usual = {"data": {"share": 0.5, "size": 3}}
    differ = lambda old, new: list(workdirs.differences(old, new, defaults=usual))  # noqa: E731
    assert not differ({"data": {}}, {"data": {"share": 0.5}}) and not differ({}, usual)
    assert differ({"data": {}}, {"data": {"share": 0.6}}) == ["config.data.share"]
    assert differ({"data": {"share": 0.4}}, {"data": {"share": 0.5}}) == ["config.data.share"]
    assert differ({"data": {"share": 0.5}}, {"data": {}}) == ["config.data.share"]
    assert differ({}, {"others": {"share": 0.5}}) == ["config.others"]


def test_what_a_folder_was_begun_with_is_read_as_it_is(tmp_path):
    assert Workdir(tmp_path / "new").begun() is None
    (tmp_path / "config.json").write_text('{"of": "an older version"}')
    assert Workdir(tmp_path).begun() == {"of": "an older version"}


# What a run is made of.


def test_other_inputs_than_a_run_began_with_are_refused(tmp_path):
    made, first = Workdir(tmp_path), {"data": "1", "parameters": "2"}

    def claim_with(inputs):
        with made.claimed(CONFIG, inputs):
            pass

    claim_with(first)
    claim_with(first)
    kept = (tmp_path / "inputs.json").read_bytes()
    refused(lambda: claim_with(first | {"data": "3"}), "other data", "put the old data back, or use an empty --workdir")
    refused(lambda: claim_with({"data": "3", "parameters": "3"}), "other data and parameters")
    assert (tmp_path / "inputs.json").read_bytes() == kept


def test_a_folder_of_an_older_version_takes_the_inputs_it_is_resumed_with(folder):
    assert not (folder.path / "inputs.json").exists()
    with folder.claimed(CONFIG, {"data": "1", "parameters": ""}):
        pass
    assert json.loads((folder.path / "inputs.json").read_text()) == {"data": "1"}
