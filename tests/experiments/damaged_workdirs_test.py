"""A finished workdir whose files were altered: a reader tells the same as before, or names the file in one line."""

import json
import shutil

import numpy as np
import pytest

from experiments import loading
from experiments.comparison import tried
from experiments.core import results, workdirs
from experiments.core.errors import UnwritableError, WorkdirError
from experiments.reporting import pages

CONFIG = {"seed": 1, "data": {"name": "digits"}, "rates": [0.1, 0.2], "quick": True}
AFTER = {"relearning": {"part": [0.1, 0.2]}, "mia": results.Estimate(0.5, 0.4, 0.6, 8)}
ROWS = [
    results.Row(
        "vanilla", "default", "ascent", "class", "digits", seed, {"a": 0.9}, {"a": 0.8}, 4, "reached", extra=AFTER
    )
    for seed in range(3)
]  # fmt: skip
TRIAL = {"learning_rate": 0.1, "clip": 0.0, "reached": 1, "steps": [3], "validation_retain_accuracy": 0.7}
FILES = ("results.json", "config.json", "metrics.jsonl")
STRANGE = (None, True, "word", -1, 1e308, [], {}, [1], 2**70)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = workdirs.Workdir(tmp_path_factory.mktemp("finished") / "run")
    with folder.claimed(CONFIG):
        folder.log("sweep", unlearner="ascent", trials=[TRIAL], chosen={"learning_rate": 0.1, "clip": 0.0})
        folder.finish("the command", ROWS)
    return folder.path


def told(folder):
    """What every reader of a finished run makes of it."""
    found = workdirs.Workdir(folder).finished(CONFIG)
    loaded = loading.load(folder)
    swept = [[one[name] for name in ("unlearner", "trials", "chosen")] for one in tried.sweeps(folder / "metrics.jsonl")]
    return found, loaded.results, loaded.csv(), swept


def is_whole_or_named(folder, before):
    """Whether readers tell what they told of the whole folder, or name it in one line."""
    try:
        found = told(folder)
    except WorkdirError as error:
        return "\n" not in str(error) and str(folder) in str(error)
    # Without its log a run is read all the same: a user may delete it, and a report then has no sweep.
    return found[:3] == before[:3] and found[3] in (before[3], [])


def replaced(file, content):
    file.unlink()
    if content is not None:
        file.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_or_emptied_or_something_else(whole, tmp_path, name):
    content, before = (whole / name).read_bytes(), told(whole)
    others = [None, b"", b"{}", b"[1]", b"null", b"\x00" * len(content), b"[" * 100_000, b"\xff\xfe", b'{"rows": []}']
    cuts = [content[: len(content) * i // 8] for i in range(1, 8)] + [content[:-2], content + content]
    for i, other in enumerate([*others, *cuts]):
        copy = shutil.copytree(whole, tmp_path / str(i))
        replaced(copy / name, other)
        assert is_whole_or_named(copy, before), other
    for i, swap in enumerate((lambda file: file.mkdir(), lambda file: file.symlink_to(file.name))):
        copy = shutil.copytree(whole, tmp_path / f"swap {i}")
        replaced(copy / name, None)
        swap(copy / name)
        with pytest.raises(WorkdirError, match=str(copy)):
            told(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_a_bit_flipped(whole, tmp_path, name):
    content, rng, before = (whole / name).read_bytes(), np.random.default_rng(0), told(whole)
    copy = shutil.copytree(whole, tmp_path / "copy")
    for bit in rng.choice(8 * len(content), min(300, 8 * len(content)), replace=False):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        (copy / name).write_bytes(bytes(changed))
        assert is_whole_or_named(copy, before), bit


def places(value, at=()):
    """The keys of every entry of a JSON value."""
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


def with_entry(value, at, new):
    if not at:
        return new
    entries = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    entries[at[0]] = with_entry(value[at[0]], at[1:], new)
    return entries if isinstance(value, dict) else list(entries.values())


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_another_value_anywhere(whole, tmp_path, name):
    value, before = json.loads((whole / name).read_text()), told(whole)
    copy = shutil.copytree(whole, tmp_path / "copy")
    for i, at in enumerate(places(value)):
        for new in (STRANGE[i % len(STRANGE)], STRANGE[(i + 4) % len(STRANGE)]):
            (copy / name).write_text(json.dumps(with_entry(value, at, new)))
            assert is_whole_or_named(copy, before), (at, new)


def test_a_report_that_cannot_be_written_does_not_keep_results_from_being_read():
    def full(_):
        raise UnwritableError("cannot write there: No space left on device; make room")

    assert pages.told(full, "there") == "report: none, cannot write there: No space left on device; make room"
    assert pages.told(lambda folder: f"{folder}/report.html", "there") == "report: there/report.html"
