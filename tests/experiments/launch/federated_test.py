"""`forethought federated`: mistakes in one line, archives begun and gone on with, an erasure; no process starts."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import main
from experiments.core.errors import UserError
from experiments.federated import archives
from experiments.federated.engine import deployment, processes, serving
from experiments.federated.engine.credentials import TLS
from experiments.federated.engine.rounds import Reply, Server
from experiments.federated.store import check_certificate
from experiments.launch import federated as launcher
from federated.archive import Scheme
from tests.helpers.certificates import certificates

TASK = """\
import jax.numpy as jnp
import numpy as np
import optax

model = lambda params, batch, key: jnp.sum(params ** 2) * (1 / (len(batch["weight"]) - 1))
init = lambda key: jnp.ones(2)
load_data = lambda user: {"weight": np.ones({"ann": 3, "eve": 1}.get(user, 0))}
optimizer = optax.sgd(0.1)
"""

KEY = (
    "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAA"
    "BhBO6UMVCbMvf2GGU4rHwX4QRc9UsSuBO0R78sL53/yCqh4xxTtGXrWlcayrrqvNs7J/FTWqRZv32LzynBIykoLC5jNzpJTbHy6W"
    "llBzAw5qM/kE5YJ4Z9IfyRk++UXi7OPA==\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ann.pub").write_text(KEY)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/ann.pub").write_text("ecdsa")
    (tmp_path / "twice").mkdir()
    for user in ("ann", "bob"):
        (tmp_path / "twice" / f"{user}.pub").write_text(KEY)
    (tmp_path / "pem").write_text("")
    certificates(tmp_path)
    return tmp_path


def called(*words):
    return main.command(["forethought", "federated", *map(str, words)])


SECURED = ("--certificate", "server.pem", "--certificate-key", "server.key", "--authority", "ca.pem", "--keys", "keys")
SERVER = ("server", "--task", "task.py", "--archive", "archive", "--rounds", "3")


@pytest.mark.parametrize("name", ["server", "client", "erase"])
def test_help_explains_every_option(name, capsys):
    with pytest.raises(SystemExit) as ended:
        called(name, "--help")
    told = " ".join(capsys.readouterr().out.split())
    (commands,) = (action for action in launcher.parser()._actions if action.dest == "command")
    assert ended.value.code == 0 and name in commands.choices
    for action in commands.choices[name]._actions:
        assert action.help and " ".join(action.help.split()) in told, f"{action.option_strings} is not explained"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "COMMAND"),
        (["sever"], "invalid choice: 'sever'"),
        (
            [*SERVER],
            "give --certificate, --certificate-key, --authority, --keys, or --insecure for a trial on this machine",
        ),
        ([*SERVER, "--insecure", "--keys", "keys"], "--insecure has neither certificates nor keys"),
        ([*SERVER, "--insecure", "--host", "0.0.0.0"], "--insecure beyond this machine (0.0.0.0) shows every update"),
        ([*SERVER, *SECURED[:-1], "nowhere"], "there is no USER.pub in nowhere"),
        ([*SERVER, *SECURED[:-1], "bad"], "ann.pub is no public key: give what ssh-keygen -t ecdsa writes"),
        ([*SERVER, *SECURED[:-1], "twice"], "bob and ann have one key: give each its own"),
        ([*SERVER, "--authority", "pem", *SECURED[:4], *SECURED[6:]], "pem is no certificate in PEM"),
        ([*SERVER, "--certificate", "nowhere.pem"], "there is no file nowhere.pem"),
        ([*SERVER, "--insecure", "--scheme", "rat=2"], "'rat=2' is no field of a scheme: choose from lattice, rate"),
        ([*SERVER, "--insecure", "--scheme", "finite=2"], "'finite=2' has no value for finite: give one as finite=false"),
        ([*SERVER, "--insecure", "--scheme", "users=all"], "'users=all' has no value for users: give one as users=3"),
        ([*SERVER, "--insecure", "--scheme", "rate=2,rate=3"], "rate is given twice"),
        ([*SERVER[:4], "task.py", *SERVER[5:], "--insecure"], "task.py is no folder: give another"),
        ([*SERVER, "--insecure", "--scheme", "lattice=E9"], "E9"),
        ([*SERVER, "--insecure", "--scheme", "reference=last"], "give reference=zero or reference=mean"),
        ([*SERVER, "--insecure", "--per-round", "3"], "--per-round is 3 of --clients 2: wait for as many as are asked"),
        ([*SERVER, "--insecure", "--port", "70000"], "'70000' is no port"),
        ([*SERVER, "--insecure", "--timeout", "soon"], "'soon' are no seconds"),
        ([*SERVER, "--insecure", "--seed", "-1"], "'-1' is no seed"),
        (["client", "--task", "no.py", "--user", "ann", "--insecure"], "there is no task file no.py"),
        (["client", "--task", "task.py", "--user", "bob", "--insecure"], "load_data('bob') gives no example"),
        (["client", "--task", "task.py", "--user", "eve", "--insecure"], "the task cannot train on what load_data gives"),
        (["client", "--task", "task.py", "--user", "ann"], "give --authority, --key, or --insecure"),
        (["client", "--task", "task.py", "--user", "ann", "--server", "here"], "'here' is no address: give HOST:PORT"),
        (["client", "--task", "task.py", "--user", "ann", "--server", "a.b:80", "--insecure"], "beyond this machine (a.b)"),
        (["erase", "--archive", "archive", "--user", "ann"], "archive is no archive"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_starts(folder, capsys, monkeypatch, words, why):
    monkeypatch.setattr(processes, "running", None)
    monkeypatch.setattr(processes, "program", None)
    assert called(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and why in told


def test_an_archive_is_begun_gone_on_with_and_never_mixed(folder, capsys, monkeypatch):
    served = []

    def serve(service, tell):
        served.append(service)
        tell("listening")
        with serving.open_archive(service.archive) as opened:
            server = Server(opened, service.weighting)
            while server.round < service.rounds:
                update = np.array([server.round, 1], np.float32)
                server.take({user: Reply(0, user, update * sign, 1.0) for user, sign in (("ann", 1), ("bob", -2))})

    pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")
    monkeypatch.setattr(deployment, "serve", serve)
    scheme = ("--scheme", "lattice=none,users=2,finite=false,amount=0.5")
    assert called(*SERVER, *scheme, "--seed", 4, *SECURED) == 0
    assert "3 rounds; bytes on the disk: users" in capsys.readouterr().out
    assert (served[0].keys.name, served[0].tls.key.name, served[0].port, served[0].host) == (
        "keys",
        "server.key",
        8000,
        "127.0.0.1",
    )
    assert called(*SERVER, *SECURED) == 0 and len(served) == 1, "it has its rounds"
    assert called(*SERVER[:-1], 5, "--insecure", "--seed", 4, "--scheme", "lattice=none") == 0 and served[1].tls is None
    for other in (("--seed", 5), ("--scheme", "lattice=scalar")):
        assert called(*SERVER, "--insecure", *other) == 2
        assert "was begun with another --scheme or --seed" in capsys.readouterr().err
    (folder / "task.py").write_text(TASK.replace("ones(2)", "ones((2, 1))"))
    assert called(*SERVER, "--insecure") == 2
    assert "other names or shapes than the server's: use one task" in capsys.readouterr().err
    (folder / "task.py").write_text(TASK.replace("ones(2)", "ones(3)"))
    assert called(*SERVER, "--insecure") == 2
    assert "the model has shape (2,) and the task 3 parameters" in capsys.readouterr().err

    assert called("erase", "--archive", "archive", "--user", "ann") == 0
    told = capsys.readouterr().out
    assert "ann is out of the model: 5 rounds of ann" in told
    with serving.open_archive(folder / "archive") as opened:
        assert archives.scheme_of(opened) == Scheme("none", users=2, amount=0.5) and opened.about["seed"] == 4
        certificate = json.loads((folder / told.split("certificate: ")[1].strip()).read_text())
        check_certificate(opened, certificate)
        path = serving.model_path(folder / "archive", certificate["model_after"])
        assert path.exists() and certificate["model_before"] != certificate["model_after"]
        by_hand = 1 + jnp.sum(jnp.array([[t, 1.0] for t in range(5)]) * -2, axis=0)
        np.testing.assert_allclose(serving.read_model(opened), by_hand, rtol=1e-6)


def test_what_is_started_is_quiet_installs_nothing_and_has_a_home_of_its_own(folder, monkeypatch):
    monkeypatch.setattr(processes, "program", lambda name, env: name)
    env = processes.environment(folder / "home")
    assert env["FLWR_HOME"] == str(folder / "home") and env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == env["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    path = folder / "pem"
    secured = TLS(path, path, path)
    service = deployment.Service(path, 1, 1, None, "equal", 1.0, "127.0.0.1", 80, secured, folder)
    words = deployment.superlink(service, env)
    assert "--disable-runtime-dependency-installation" in words and "--enable-supernode-auth" in words
    assert "--insecure" not in words and "--insecure" in deployment.superlink(service._replace(tls=None, keys=None), env)
    odd = deployment.Participant(folder / "task.py", 'a "user"', "::1", 80, path, path)
    words = deployment.supernode(odd, env)
    assert words[1:3] == ["--superlink", "[::1]:80"] and 'user="a \\"user\\""' in words[-1] and "--insecure" not in words


def test_flower_s_own_words_are_found_in_its_logs(folder):
    log = folder / "run.log"
    log.write_text("INFO fine\n╭─ Error ───╮\n│ The thing    │\n│ is wrong. │\n╰───╯\n")
    assert deployment.failure(log) == "Error The thing is wrong."
    with pytest.raises(UserError, match=r"Flower refuses the key: Error The thing is wrong\.$"):
        deployment._run_flower(["sh", "-c", f"cat {log}; exit 1"], {}, "the key")
    log.write_text("2026-11-27T01:23:22.184Z INFO [uvicorn.error] Started\n\x1b[92mINFO \x1b[0m:   no error\n")
    assert deployment.failure(log) == "Flower does not say why"
    with log.open("a") as more:
        more.write("\x1b[91mERROR \x1b[0m:   Exit Code: 500\n\x1b[92mINFO \x1b[0m:  bye\nMore.\n")
    assert deployment.failure(log) == "ERROR : Exit Code: 500 More."
    assert deployment.failure(folder / "none.log") == "Flower does not say why"
