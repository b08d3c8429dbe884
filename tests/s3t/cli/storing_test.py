"""The command line deletes, verifies and tells the status, and names mistakes."""

import io
import subprocess
import sys
from pathlib import Path

from experiments.benchmarks import s3t_ledger
from s3t.cli import called, main
from s3t.service import verify
from s3t.store import certificates, deletions, disk, state
from s3t.store.ledger import database
from tests.helpers import commands, stores

ROOT = Path(__file__).resolve().parents[3]


def test_the_command_line_deletes_and_verifies(opened, capsys):
    root, (one, two) = opened.root, stores.ids_at(opened, 0, 1)[:2]
    status, done, err = commands.run(
        capsys, "delete", "--store", root, "--ids", f"{one},{two},{one},999", "--request-id", "R"
    )
    assert (status, err) == (0, "")
    assert {**done, "acknowledged_ms": 0} == {
        "request": "R", "state": "deactivated", "ids": [one, two], "already": [], "unknown": [999], "nodes_dropped": 4,
        "head": deletions.answer(opened.ledger, "R").head, "acknowledged_ms": 0,
    }  # fmt: skip
    assert stores.files_of(opened) == stores.live_files(opened) and state.status(opened)["requests"] == {"purged": 1}
    again = commands.run(capsys, "delete", "--store", root, "--ids", f"999,{two},{one}", "--request-id", "R")
    assert again[0] == 0 and {**again[1], "acknowledged_ms": 0} == {**done, "acknowledged_ms": 0}
    already = commands.run(capsys, "delete", "--store", root, "--ids", one)
    assert already[0] == 0 and (already[1]["ids"], already[1]["already"], already[1]["nodes_dropped"]) == ([], [one], 0)
    assert commands.run(capsys, "verify", "--store", root, "--expect-head", done["head"])[:2] == (
        0,
        verify.verify(opened.root),
    )
    assert commands.run(capsys, "status", "--store", root)[:2] == (0, state.status(opened))
    wrong = commands.run(capsys, "verify", "--store", root, "--expect-head", done["head"], "--expect-head", "0" * 64)
    assert wrong[0] == 1 and not wrong[1]["ok"] and "cut off" in wrong[1]["problems"][0]


def test_ids_are_read_from_a_file_or_standard_input(opened, capsys, tmp_path, monkeypatch):
    """A command line holds 128 KiB."""
    one, two, three = stores.ids_at(opened, 0, 1)[:3]
    path = tmp_path / "ids"
    path.write_text(f"{one}, {two}\n" + " ".join(map(str, range(10**6, 10**6 + 40_000))) + "\n")
    done = commands.run(capsys, "delete", "--store", opened.root, "--ids", f"@{path}")[1]
    assert done["ids"] == [one, two] and len(done["unknown"]) == 40_000
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{three}\n".encode())))
    assert commands.run(capsys, "delete", "--store", opened.root, "--ids", "@-")[1]["ids"] == [three]
    mistakes = (b" ,\n", "holds no whole number"), (b"1 x", "got 'x'"), (b"\xff", "cannot be read ("), (None, "No such")
    for text, message in mistakes:
        path.write_bytes(text) if text else path.unlink()
        status, out, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", f"@{path}")
        assert (status, out) == (2, None) and message in err and "nothing was changed" in err


def test_the_command_line_proves_who_was_trained_on_what(opened, capsys):
    gone, there = stores.ids_at(opened, 0, 1)[:2]
    disk.delete(opened, [gone], "R")
    disk.purge(opened)
    stores.fill(opened)
    status, result, _ = commands.run(capsys, "verify", "--store", opened.root, "--prove", f"{gone},{there}")
    assert status == 0 and [proof["id"] for proof in result["proofs"]] == [gone, there]
    for proof, holders in zip(result["proofs"], (0, 4), strict=True):
        assert len(proof["nodes"]) == 14 and sum(node["holds"] for node in proof["nodes"]) == holders
        for node in proof["nodes"]:
            check = certificates.check_inclusion if node["holds"] else certificates.check_exclusion
            assert check(certificates.from_json(node["certificate"]).ids_root, proof["id"], node["proof"])
    assert main(["verify", "--store", str(opened.root), "--prove", str(there)]) == 0
    assert f"id {there}: 4 of 14 serving nodes hold it" in capsys.readouterr().out


def test_the_command_line_names_mistakes(opened, capsys, tmp_path):
    head = database.head(opened.ledger)
    for ids in ("x", "1,", "", "1.5", "1_2", "1e3", "٣", f"1,{2**63}", "0x10", "1 2", "9" * 5000):
        status, out, err = commands.run(capsys, "delete", "--store", opened.root, f"--ids={ids}")
        assert (status, out) == (2, None) and err.startswith("error: ") and len(err) < 300
    disk.delete(opened, [1], "R")
    for words, message in (
        (("delete", "--store", opened.root, "--ids", "2", "--request-id", "R"), "for other ids"),
        (("delete", "--store", opened.root, "--ids", "2", "--request-id", ""), "printable"),
        (("delete", "--store", tmp_path / "no", "--ids", "2"), "there is no store"),
        (("verify", "--store", tmp_path), "there is no store"),
        (("status",), "--store"),
    ):
        status, out, err = commands.run(capsys, *words)
        assert (status, out) == (2, None) and message in err
    assert [row for (row,) in opened.ledger.execute("SELECT kind FROM log WHERE seq > ?", head[:1])] == [
        "received", "deactivated",  # of R; what is refused finishes nothing
    ]  # fmt: skip


def test_the_command_line_in_words(opened, capsys):
    one = stores.ids_at(opened, 0, 1)[0]
    assert main(["delete", "--store", str(opened.root), "--ids", f"{one},999", "--request-id", "R"]) == 0
    assert "request R: 1 examples deleted, 4 nodes dropped\nunknown: 999\nhead: " in capsys.readouterr().out
    assert main(["status", "--store", str(opened.root)]) == 0
    assert "partial: depth served by shard 2, 3\nnodes: 10 live, 4 missing, 0 files" in capsys.readouterr().out
    assert main(["verify", "--store", str(opened.root)]) == 0
    assert "ok: none of 10 serving nodes holds one of 1 deleted examples" in capsys.readouterr().out
    assert main(["verify", "--store", str(opened.root), "--expect-head", "x"]) == 1
    assert "problem: the ledger never had the head x" in capsys.readouterr().out


def test_deleting_needs_no_jax():
    code = "import sys, s3t.store, s3t.__main__; sys.exit(bool({'jax', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_benchmark_prints_a_row(tmp_path):
    cells = s3t_ledger.row(tmp_path / "store", 60, 1000).split()
    assert cells[:2] == ["60", "1000"] and len(cells) == 9 and all(float(cell) >= 0 for cell in cells)


def test_a_file_of_ids_may_come_from_a_spreadsheet_and_must_end(opened, capsys, tmp_path):
    (tmp_path / "ids.csv").write_bytes(b"\xef\xbb\xbf3,\r\n5\r\n")
    status, answer, _ = commands.run(capsys, "delete", "--store", opened.root, "--ids", f"@{tmp_path / 'ids.csv'}")
    assert status == 0 and answer["ids"] == [3, 5]
    for data, message in ((b"id\n3\n", "got 'id'"), ("3\n5".encode("utf-16"), "cannot be read"), (b"\x00", "got '\\x00'")):
        (tmp_path / "odd").write_bytes(data)
        status, _, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", f"@{tmp_path / 'odd'}")
        assert status == 2 and message in err
    called.MOST_BYTES, before = 1000, called.MOST_BYTES
    try:
        status, _, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", "@/dev/zero")
    finally:
        called.MOST_BYTES = before
    assert status == 2 and "has more than 1000 bytes" in err
