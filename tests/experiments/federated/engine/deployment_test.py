"""A real deployment on loopback: TLS, registered keys, a client that is killed, and the erasure of another afterwards."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

pytest.importorskip("flwr", reason="no Flower on this machine: the extra `federated` has it")
pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from experiments.federated import archives, log, store
from experiments.federated.engine import processes, serving
from experiments.federated.engine import task as tasks
from federated import decoded, fedavg, stack_clients, train
from federated.erase import medu
from tests.helpers.certificates import certificates

ROOT = Path(__file__).resolve().parents[4]
USERS, ROUNDS, SEED, SLOW = ["alice", "bob", "carol"], 3, 5, "carol"
TASK = """\
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from unlearn import classifier

FOLDER = Path(__file__).parent


def logits(params, x, key):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def init(key):
    return {"w": jax.random.normal(key, (8, 6)) / 3, "v": jnp.zeros((6, 3))}


def load_data(user):
    if user == "carol" and (FOLDER / "hang").exists():
        (FOLDER / "hanging").touch()
        time.sleep(10_000)
    generator = np.random.default_rng([*user.encode()])
    y = np.arange(12) % 3
    x = generator.normal(size=(12, 8)).astype(np.float32) + y[:, None]
    return dict(x=x, y=y, id=np.arange(12), weight=np.ones(12, np.float32))


model, optimizer, epochs, batch_size = classifier(logits), optax.sgd(0.2), 2, 6
"""


def node_keys(folder):
    (folder / "keys").mkdir()
    for user in USERS:
        key = ec.generate_private_key(ec.SECP384R1())
        ssh = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (folder / "keys" / f"{user}.pub").write_bytes(ssh + b"\n")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        (folder / user).write_bytes(private)
        (folder / user).chmod(0o600)


def forethought(folder, *words):
    """A command of Forethought's in the background, in a session of its own, its output in a file."""
    name = f"{words[0]}-{words[words.index('--user') + 1]}" if "--user" in words else words[0]
    (folder / name).mkdir(exist_ok=True)
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "TMPDIR": str(folder / name)}
    line = [sys.executable, "-m", "experiments.main", "federated", *map(str, words)]
    with (folder / f"{name}.log").open("ab") as output:
        return subprocess.Popen(line, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True)


def client(folder, user, port):
    address, authority = f"127.0.0.1:{port}", folder / "ca.pem"
    secured = ["--authority", authority, "--key", folder / user]
    return forethought(folder, "client", "--task", folder / "task.py", "--user", user, "--server", address, *secured)


def wait_until(what, condition, seconds, *children):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {seconds} s"
        assert all(child.poll() is None for child in children), f"a process ended while {what}"
        time.sleep(0.2)


def descendants(folder):
    """Processes whose environment names the folder, by id."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill(folder, number):
    for process in descendants(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    certificates(tmp_path)
    node_keys(tmp_path)
    yield tmp_path
    for number in (signal.SIGTERM, signal.SIGKILL):
        kill(tmp_path, number)
        time.sleep(3)


def rows_of(archive, kind):
    if not (archive / "log.jsonl").exists():
        return []
    return [row for row in log.read(archive / "log.jsonl", mend=False) if row["kind"] == kind]


@pytest.mark.slow
def test_a_client_is_killed_the_rounds_go_on_and_another_is_erased(folder, capfd):
    port = processes.free_port()
    archive = folder / "archive"
    secured = [
        "--certificate",
        folder / "server.pem",
        "--certificate-key",
        folder / "server.key",
        "--keys",
        folder / "keys",
    ]
    server = forethought(
        folder, "server", "--task", folder / "task.py", "--archive", archive, "--rounds", ROUNDS, "--clients", 3,
        "--seed", SEED, "--scheme", "lattice=hexagonal,rate=4", "--port", port, *secured, "--authority", folder / "ca.pem",
    )  # fmt: skip
    wait_until("the server's start", lambda: b"listening" in (folder / "server.log").read_bytes(), 300, server)
    clients = {user: client(folder, user, port) for user in USERS}
    rounds = lambda: [{update["user"] for update in row["updates"]} for row in rows_of(archive, "round")]  # noqa: E731
    wait_until("the first round", lambda: len(rounds()) == 1, 600, server, *clients.values())
    (folder / "hang").touch()
    wait_until("the last client's next round", (folder / "hanging").exists, 300, server, *clients.values())
    kill(folder / f"client-{SLOW}", signal.SIGKILL)  # all of it, as if its machine had gone
    others = [clients[user] for user in USERS if user != SLOW]
    wait_until("the round's end without it", lambda: len(rounds()) == 2, 600, server, *others)
    (folder / "hang").unlink()
    clients[SLOW] = client(folder, SLOW, port)
    wait_until("the end of the rounds", lambda: server.poll() is not None, 900, *clients.values())
    assert server.returncode == 0, (folder / "server.log").read_text()
    for process in clients.values():
        process.terminate()
        process.wait(120)

    told = (folder / "server.log").read_text()
    took_part = rounds()
    assert took_part == [set(USERS), set(USERS) - {SLOW}, set(USERS)], "a client that starts again is the same user"
    assert f"round 1: without {SLOW}: " in told and "round 1: 2 of 3 clients" in told and "waiting for clients" in told

    before = np.frombuffer(Path(re.search(r"^model: (.*)$", told, re.MULTILINE)[1]).read_bytes(), "<f4")
    history, expected = in_process(folder, took_part)
    np.testing.assert_allclose(before, expected, rtol=0, atol=1e-5)
    erasing = forethought(folder, "erase", "--archive", archive, "--user", "bob")
    assert erasing.wait(300) == 0, (folder / "erase-bob.log").read_text()
    erased = medu(expected, history, jnp.array([user == "bob" for user in USERS]))
    opened = store.open_store(archive)
    # One code may fall to the next cell where updates differ in their last bits: a cell's side times its weight.
    np.testing.assert_allclose(serving.read_model(opened), erased.model, rtol=0, atol=1e-2)
    store.check_certificate(opened, json.loads(next((archive / "certificates").iterdir()).read_text()))
    assert "bob" not in {user for users in opened.rounds.values() for user in users}
    wait_until("the end of all processes", lambda: not descendants(folder), 120)
    with capfd.disabled():
        print("\n" + told + (folder / "erase-bob.log").read_text())


def in_process(folder, took_part):
    """The history and the model of the same rounds in one program."""
    task = tasks.load(folder / "task.py")
    opened = store.open_store(folder / "archive")
    keeper, users = archives.compressor(opened), USERS
    clients = stack_clients(archives.numbers(users).tolist(), [task.load_data(user) for user in users])
    algorithm = fedavg(task.model, task.optimizer, epochs=task.epochs, batch_size=task.batch_size, compressor=keeper)
    plan = jnp.array([[user in present for user in users] for present in took_part])
    start = tasks.unravel(task, tasks.initial(task, SEED))
    state, codes = train(algorithm, algorithm.init(start, clients), clients, plan, tasks.training_key(SEED))
    return decoded(keeper, codes, clients.ids), ravel_pytree(state.params)[0]
