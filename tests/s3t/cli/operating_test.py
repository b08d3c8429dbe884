"""What an operator asks for: a status that can be alarmed on, metrics, purges, and a log without ids."""

import contextlib
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s3t.cli import main, operating
from s3t.store import disk, events, state
from s3t.store.ledger import database
from tests.helpers import commands, stores

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = re.compile(r'(?P<name>[a-z_:][a-z0-9_:]*)(?P<labels>\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"\})? (?P<value>\S+)')


@contextlib.contextmanager
def aged(opened, seconds):
    """Let a store's rows be older than they are; the chain does not fit then, which status does not look at."""
    times = opened.ledger.execute("SELECT at, seq FROM log").fetchall()
    earlier = "UPDATE log SET at = strftime('%Y-%m-%dT%H:%M:%fZ', julianday(at) - ? / 86400.0) WHERE seq > 1"
    opened.ledger.execute(earlier, (float(seconds),))
    yield
    opened.ledger.executemany("UPDATE log SET at = ? WHERE seq = ?", times)


def parsed(text):
    """Samples by name and labels; every line is known, and each family has its HELP and TYPE right before it."""
    samples, family = {}, None
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert len(line.split(" ")) > 3 and next(lines) == f"# TYPE {family} gauge"
            continue
        match = SAMPLE.fullmatch(line)
        assert match and match["name"] == family, line
        samples[match["name"] + (match["labels"] or "")] = float(match["value"])
    return samples


# status


def test_a_request_that_waits_too_long_is_a_problem(opened, capsys):
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "R")
    store = "--store", opened.root
    assert commands.run(capsys, "status", *store, "--max-age", 3600)[0] == 0
    with aged(opened, 5000):
        assert commands.run(capsys, "status", *store)[0] == 0  # nobody said that it is too long
        status, result, _ = commands.run(capsys, "status", *store, "--max-age", 3600)
    assert status == 1 and not result["ok"] and result["oldest_open"]["request"] == "R" and result["last_heal"] is None
    (problem,) = result["problems"]
    assert re.fullmatch(r"request R has waited 500\d s to be healed, more than 3600: heal the store", problem)
    disk.purge(opened)
    stores.fill(opened)
    assert state.mark_healed(opened) == ("R",)
    status, result, _ = commands.run(capsys, "status", *store, "--max-age", 0)
    assert (status, result["oldest_open"]) == (0, None) and result["last_heal"].endswith("Z")


@pytest.mark.parametrize("text", ["-1", "x", "nan", "inf", ""])
def test_an_age_is_a_number_of_seconds(opened, capsys, text):
    status, out, err = commands.run(capsys, "status", "--store", opened.root, f"--max-age={text}")
    assert (status, out) == (2, None) and "expected seconds, a number from 0 on" in err


def test_a_store_that_others_may_read_is_warned_of(opened, capsys):
    """Stores of 0.1 were 0755 and 0644."""
    subprocess.run(["chmod", "-R", "go=", opened.root], check=True)
    assert state.status(opened)["warnings"] == []
    for path, mode in ((opened.root, 0o755), (opened.root / "nodes", 0o750), (opened.root / "ledger.sqlite", 0o644)):
        before = path.stat().st_mode
        path.chmod(mode)
        status, result, _ = commands.run(capsys, "status", "--store", opened.root)
        assert (status, result["ok"]) == (0, True)
        assert result["warnings"] == [f"others may read {opened.root} or files in it: chmod -R go= {opened.root}"]
        assert main(["status", "--store", str(opened.root)]) == 0
        assert f"\nwarning: {result['warnings'][0]}\n" in capsys.readouterr().out
        path.chmod(before)


# metrics


def test_the_metrics_are_what_the_status_says(opened, capsys):
    one, two = stores.ids_at(opened, 0, 1)[:2]
    disk.delete(opened, [one], "R")
    disk.purge(opened)
    disk.delete(opened, [two], "S")
    with aged(opened, 100):
        assert main(["status", "--store", str(opened.root), "--metrics"]) == 0
    samples = parsed(capsys.readouterr().out)
    assert 100 <= samples.pop("s3t_oldest_open_request_seconds") < 200
    rows = database.head(opened.ledger).rows
    assert samples == {
        "s3t_ok": 1, "s3t_examples": 60, "s3t_deleted": 2, "s3t_ledger_rows": rows,
        's3t_requests{state="deactivated"}': 1, 's3t_requests{state="purged"}': 1, 's3t_requests{state="healed"}': 0,
        's3t_depth{shard="0"}': 2, 's3t_depth{shard="1"}': 3,
        's3t_nodes{state="live"}': 10, 's3t_nodes{state="missing"}': 4, 's3t_nodes{state="leftover"}': 0,
    }  # fmt: skip
    stores.fill(opened)
    disk.purge(opened)
    before = datetime.now(UTC).timestamp() - 1
    state.mark_healed(opened)
    assert main(["status", "--store", str(opened.root), "--metrics"]) == 0
    samples = parsed(capsys.readouterr().out)
    assert samples["s3t_last_heal_timestamp_seconds"] > before and samples["s3t_oldest_open_request_seconds"] == 0


def test_a_line_of_the_log_is_one_line_whatever_is_in_it(tmp_path):
    with events.appending_to(str(tmp_path / "log")):
        events.LOGGER.warning("damaged %s", "a\nserving depth=3\x1b[8m")
    assert (tmp_path / "log").read_text().endswith("Z damaged a\\nserving depth=3\\x1b[8m\n")


def test_metrics_of_a_store_with_a_problem_end_with_1(opened, capsys):
    next((opened.root / "nodes").iterdir()).unlink()
    assert main(["status", "--store", str(opened.root), "--metrics"]) == 1
    assert parsed(capsys.readouterr().out)["s3t_ok"] == 0


def test_metrics_and_json_are_not_asked_for_at_once(opened, capsys):
    assert main(["status", "--store", str(opened.root), "--metrics", "--json"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_labels_are_escaped():
    label = operating._label("state", 'a"b\\c\nd')
    assert label == '{state="a\\"b\\\\c\\nd"}' and SAMPLE.fullmatch(f"x{label} 1")


# purge


def test_a_purge_names_the_requests_that_it_finished(opened, capsys):
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "R 1")
    assert main(["purge", "--store", str(opened.root)]) == 0
    head = database.head(opened.ledger)
    assert capsys.readouterr().out == f"purged: R 1\nhead: {head.digest} after {head.rows} rows\n"
    assert stores.files_of(opened) == stores.live_files(opened)
    status, result, _ = commands.run(capsys, "purge", "--store", opened.root)
    assert (status, result) == (0, {"purged": [], "rows": head.rows, "head": head.digest})
    (opened.root / "nodes" / "notes").touch()
    status, out, err = commands.run(capsys, "purge", "--store", opened.root)
    assert (status, out) == (2, None) and "notes is nothing that the store made" in err


# log


def test_every_committed_row_is_a_line_without_ids(opened, capsys, tmp_path):
    log = tmp_path / "log"
    ids = [id_ for id_ in stores.ids_at(opened, 0, 1) if id_ > 9][:2]
    words = "delete", "--store", opened.root, "--ids", f"{ids[0]},{ids[1]},98765", "--request-id", "R 1", "--log", log
    status, done, err = commands.run(capsys, *words)
    assert (status, err, log.stat().st_mode & 0o777) == (0, "", 0o600)
    lines = log.read_text().splitlines()
    start = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    rows = [row[0] for row in opened.ledger.execute("SELECT digest FROM log ORDER BY seq DESC LIMIT 3")][::-1]
    told = ["received ids=3", "deactivated already=0 ids=2 nodes=4 unknown=1", "purged nodes=4"]
    told = [line.replace(" ", ' request="R 1" ', 1) for line in told]
    assert len(lines) == 3
    last = database.head(opened.ledger).rows
    for line, what, row, digest in zip(lines, told, range(last - 2, last + 1), rows, strict=True):
        assert re.fullmatch(f"{start}{re.escape(what)} row={row} head={digest}", line)
    assert "98765" not in log.read_text() and rows[1] == done["head"]
    assert commands.run(capsys, *words)[0] == 0  # repeated: nothing new
    assert log.read_text().splitlines() == lines


def test_what_is_not_committed_is_not_logged(opened, caplog):
    with caplog.at_level("INFO", "s3t"):
        with pytest.raises(ValueError, match="odd"), database.writing(opened.ledger):
            database.append(opened.ledger, "received", "R", {"ids": [1]})
            raise ValueError("odd")
        assert caplog.messages == []
        disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "S")
    assert [message.split()[:2] for message in caplog.messages] == [
        ["received", 'request="S"'], ["deactivated", 'request="S"']
    ]  # fmt: skip


def test_a_log_that_cannot_be_opened_stops_the_command_before_it_begins(opened, capsys, tmp_path):
    head = database.head(opened.ledger)
    for log, message in (
        (tmp_path / "no" / "log", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (opened.root / "ledger.sqlite", "lies in the store: choose a file elsewhere"),
    ):
        status, out, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", 1, "--log", log)
        assert (status, out) == (2, None) and message in err and str(log) in err
    assert database.head(opened.ledger) == head


def test_a_log_that_cannot_be_written_is_named_once_and_stops_nothing(opened):
    one = str(stores.ids_at(opened, 0, 1)[0])
    words = [sys.executable, "-m", "s3t", "delete", "--store", str(opened.root), "--ids", one, "--log", "/dev/full"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "1 examples deleted" in done.stdout
    assert done.stderr == "warning: the log /dev/full cannot be written: [Errno 28] No space left on device\n"
    assert state.status(opened)["requests"] == {"purged": 1}


def test_nothing_is_printed_without_a_log(opened):
    one = str(stores.ids_at(opened, 0, 1)[0])
    words = [sys.executable, "-m", "s3t", "delete", "--store", str(opened.root), "--ids", one, "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
