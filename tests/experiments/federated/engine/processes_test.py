"""Children of commands: started, waited for, told apart by how they end, and gone with all of theirs."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from experiments.core.errors import UserError
from experiments.federated.engine import credentials, deployment, processes
from experiments.federated.engine.deployment import Participant, Service

CLIENT = Participant(Path("task.py"), "ann", "127.0.0.1", 80, None, None)


def test_a_child_ends_with_its_block_and_so_do_its_children(tmp_path):
    script = f"sleep 1000 & echo $! > {tmp_path}/child; wait"
    with processes.running(["sh", "-c", script], os.environ, tmp_path / "log") as child:
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.01)
    assert child.returncode is not None
    grandchild = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    end = time.monotonic() + 20
    while grandchild.exists() and " Z " not in grandchild.read_text():  # until init has seen it
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_program_of_another_session_ends_with_the_command(tmp_path):
    code = (
        "import sys, time; from experiments.federated.engine import processes; processes.end_with(int(sys.argv[1]), 0.01)"
    )
    with processes.running(["sleep", "1000"], os.environ, tmp_path / "log") as command:
        line = [sys.executable, "-c", f"{code}; print('watching', flush=True); time.sleep(1000)", str(command.pid)]
        watching = subprocess.Popen(
            line, env=processes.environment(tmp_path), stdout=subprocess.PIPE, start_new_session=True
        )
        assert watching.stdout.readline() == b"watching\n"
        time.sleep(0.1)
        assert watching.poll() is None
    assert watching.wait(60) == 1


def test_a_child_that_does_not_listen_is_told_in_one_line(tmp_path):
    port = processes.free_port()
    line = ["sh", "-c", "echo 'it broke'; exit 3"]
    with processes.running(line, os.environ, tmp_path / "log") as child:
        child.wait()
        with pytest.raises(UserError, match=r"SuperLink ended with status 3: it broke \(.*log\)"):
            processes.wait_for("127.0.0.1", port, child, tmp_path / "log", 60)
    with (
        processes.running(["sleep", "1000"], os.environ, tmp_path / "quiet") as child,
        pytest.raises(UserError, match=r"takes too long to start: see .*quiet"),
    ):
        processes.wait_for("127.0.0.1", port, child, tmp_path / "quiet", 0)


def test_a_port_in_use_and_a_program_that_is_missing_are_refused(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = Service(tmp_path, 1, 1, None, "equal", 1.0, "127.0.0.1", taken.getsockname()[1], None, None)
        with pytest.raises(UserError, match="is in use: give another --port, or end what a killed server left"):
            deployment.serve(service, print)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(processes.shutil, "which", lambda name, path: None)
    with pytest.raises(UserError, match=r"no flwr here: pip install 'forethought\[federated\]'$"):
        deployment.serve(service._replace(port=processes.free_port()), print)
    assert not list(tmp_path.glob("forethought-*")), "there are no logs to read"
    with pytest.raises(UserError, match=r"no flower-superduper here: pip install 'forethought\[federated\]'"):
        processes.program("flower-superduper", processes.environment(tmp_path))
    (tmp_path / "-odd.pub").touch()
    assert list(credentials.users_of(tmp_path)) == ["-odd"]
    (tmp_path / f"{10**18}.pub").touch()
    with pytest.raises(UserError, match="looks like an engine's node id"):
        credentials.users_of(tmp_path)


def test_a_client_tries_again_while_no_server_knows_it_and_stops_for_other_reasons(tmp_path, monkeypatch):
    said = ["Exit Code: 305", "Exit Code: 800 of an app; lost", "Exit Code: 302"]
    (tmp_path / "ends").write_text("\n".join(said) + "\n")
    code = f"head -n 1 {tmp_path}/ends; sed -i 1d {tmp_path}/ends; [ $(wc -l < {tmp_path}/ends) = 1 ]"
    script = f"sleep 1000 & {code}"  # what it leaves behind holds its output open
    monkeypatch.setattr(deployment, "supernode", lambda client, env: ["sh", "-c", script])
    monkeypatch.setattr(deployment, "AGAIN", 0.0)
    told = []
    with pytest.raises(UserError, match="SuperNode ended with its exit code 302"):
        deployment.take_part(CLIENT, told.append)
    waits = "no server at 127.0.0.1:80 that knows this key: trying again in 0 s"
    assert told == [said[0], waits, said[1], waits, said[2]]
