"""A server and clients on a network: Flower's SuperLink and SuperNodes as children of two commands.

Each client has a key of its own, which the server registers under the client's user id; TLS and that key bind every update
to a user. Without keys and TLS there is only a trial on one machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.core.errors import UserError, line
from experiments.core.files import write_text
from experiments.federated.engine import processes
from experiments.federated.engine.credentials import TLS, check_name, users_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where to listen -> where to reach it from here
# Flower's exit codes of a SuperNode that loses its server, and of one that finds none or is unknown to it; seconds.
LOST, UNREACHABLE, AGAIN = 0, 305, 10.0
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
START = 180.0  # seconds that a busy machine may take to start a SuperLink

PROJECT = """\
[project]
name = "forethought"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "forethought"

[tool.flwr.app.components]
serverapp = "forethought_server:app"
clientapp = "forethought_client:app"

[tool.flwr.app.config]
{config}
"""
CONNECTION = """\
[superlink]
default = "here"

[superlink.here]
address = {address}
{trust}
"""
MODULES = {
    # Flower looks for an assignment to `app` without importing the module.
    "forethought_server.py": "from experiments.federated.engine.flower import server\n\napp = server.app\n",
    "forethought_client.py": "from experiments.federated.engine.flower import client\n\napp = client.deployed()\n",
}


class Service(NamedTuple):
    """A server's settings.

    archive: its folder, which must be there.  rounds: until it has so many.
    clients, per_round, weighting, timeout: see `flower.strategy`.
    host, port: where it listens.
    tls: None without.  keys: a folder with USER.pub of each user; None without keys.
    """

    archive: Path
    rounds: int
    clients: int
    per_round: int | None
    weighting: str
    timeout: float
    host: str
    port: int
    tls: TLS | None
    keys: Path | None


def check_address(host: str, protected: bool) -> None:
    """Refuse a server or client without TLS and keys that talks beyond this machine.

    Raises:
      UserError: it would.
    """
    if not protected and host not in LOOPBACK:
        raise UserError(f"--insecure beyond this machine ({host}) shows every update: give certificates and keys instead")


# --- The server -------------------------------------------------------------------------------------------------------


def serve(service: Service, tell: Callable[[str], None]) -> None:
    """Start a SuperLink, register the users' keys, and train until the archive has its rounds.

    Raises:
      UserError: a port in use, a key that is refused, or a training that failed.
    """
    here = ANY.get(service.host, service.host)
    if processes.answers(here, service.port):
        raise UserError(f"port {service.port} of {here} is in use: give another --port, or end what a killed server left")
    folder = Path(tempfile.mkdtemp(prefix="forethought-"))
    try:
        env = processes.environment(folder / "home")
        trust = f"root-certificates = {_toml(service.tls.authority.resolve())}" if service.tls else "insecure = true"
        write_text(folder / "home/config.toml", CONNECTION.format(address=_toml(_address(here, service.port)), trust=trust))
        flwr = processes.program("flwr", env)
        with processes.running(superlink(service, env), env, folder / "superlink.log") as child:
            processes.wait_for(here, service.port, child, folder / "superlink.log", START)
            if service.tls:
                check_name(service.tls, here, service.port)
            for user, key in (users_of(service.keys) if service.keys else {}).items():
                _run_flower([flwr, "supernode", "register", str(key.resolve()), f"--name={user}"], env, f"the key {key}")
            tell(f"listening on {service.host}:{service.port}")
            _train(service, folder, env, child, tell)
    except (UserError, OSError) as error:
        if any(folder.glob("*.log")):
            raise UserError(f"{line(error, 400)}; Flower's logs are in {folder}") from error
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(line(error)) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def superlink(service: Service, env: dict[str, str]) -> list[str]:
    """The command line of the SuperLink."""
    words = [processes.program("flower-superlink", env), "--host", service.host, "--port", str(service.port)]
    words += ["--disable-runtime-dependency-installation"]
    if service.tls:
        words += ["--ssl-certfile", str(service.tls.certificate), "--ssl-keyfile", str(service.tls.key)]
        words += ["--ssl-ca-certfile", str(service.tls.authority)]
    else:
        words += ["--insecure"]
    return words + (["--enable-supernode-auth"] if service.keys else [])


def _run_flower(words: Sequence[str], env: dict[str, str], what: str) -> None:
    """A command of Flower's that must succeed."""
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(f"Flower refuses {what}: {_first_error(done.stderr or done.stdout)}")


def _train(
    service: Service, folder: Path, env: dict[str, str], link: subprocess.Popen[bytes], tell: Callable[[str], None]
) -> None:
    """Hand the run to the SuperLink and tell what happens until it has ended."""
    events, done = folder / "events", folder / "done"
    app = _app(service, folder / "forethought", events, done)
    words = [processes.program("flwr", env), "run", str(app), "here", "--stream"]
    with processes.running(words, env, folder / "run.log") as run:
        told = 0
        while True:
            ended = done.exists() or run.poll() is not None or link.poll() is not None
            lines = events.read_text().splitlines() if events.exists() else []
            for entry in lines[told:]:
                tell(entry)
            told = len(lines)
            if ended:
                break
            time.sleep(0.3)
    if not done.exists():
        why = failure(folder / "run.log", folder / "superlink.log")
        raise UserError(f"the training failed: {why}; mend it, and the same command goes on")
    if mistake := done.read_text():
        raise UserError(mistake)


def failure(*logs: Path) -> str:
    """What Flower's logs say of a failure: from the first line that names an error."""
    return _first_error("\n".join(log.read_text(errors="replace") for log in logs if log.exists()))


def _first_error(text: str) -> str:
    """A log's first line that names an error and is no mere information, and those after it, in one line."""
    lines = [" ".join(entry.strip("╭─╮│╰╯ ").split()) for entry in COLOUR.sub("", text).splitlines()]
    lines = [entry for entry in lines if not re.match(r"(\S+Z )?INFO\b", entry)]  # uvicorn.error is the name of a log
    start = next((i for i, entry in enumerate(lines) if "error" in entry.lower()), None)
    return "Flower does not say why" if start is None else " ".join(" ".join(lines[start:]).split())[:300]


def _app(service: Service, folder: Path, events: Path, done: Path) -> Path:
    """The app that Flower carries to server and clients: two lines that call what is installed there."""
    config = {
        "archive": str(service.archive.resolve()),
        "rounds": service.rounds,
        "clients": service.clients,
        "per-round": service.per_round or 0,
        "weighting": service.weighting,
        "timeout": service.timeout,
        "keys": str(service.keys.resolve()) if service.keys else "",
        "command": os.getpid(),
        "events": str(events),
        "done": str(done),
    }
    for name, content in MODULES.items():
        write_text(folder / name, content)
    lines = "\n".join(f"{name} = {_toml(value)}" for name, value in config.items())
    write_text(folder / "pyproject.toml", PROJECT.format(config=lines))
    return folder


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _toml(value: object) -> str:
    """A string, a number or a boolean as TOML has it, which is as JSON has it."""
    return json.dumps(value if isinstance(value, bool | int | float) else str(value), ensure_ascii=False)


# --- A client ---------------------------------------------------------------------------------------------------------


class Participant(NamedTuple):
    """A client's settings.

    task: its own file.  user: its stable id.  host, port: of the server.
    authority: who signed the server's certificate; None without TLS.  key: its private key; None without.
    """

    task: Path
    user: str
    host: str
    port: int
    authority: Path | None
    key: Path | None


def take_part(client: Participant, tell: Callable[[str], None]) -> None:
    """Run a SuperNode until this process is stopped; without a server that knows its key it tries again and again.

    Raises:
      UserError: the SuperNode ended for another reason.
    """
    with tempfile.TemporaryDirectory(prefix="forethought-") as name:
        env = processes.environment(Path(name))
        while (code := _participation(client, env, tell)) in (LOST, UNREACHABLE):
            tell(f"no server at {_address(client.host, client.port)} that knows this key: trying again in {AGAIN:g} s")
            time.sleep(AGAIN)
        raise UserError(f"Flower's SuperNode ended with its exit code {code}: its own words stand above")


def _participation(client: Participant, env: dict[str, str], tell: Callable[[str], None]) -> int:
    """A SuperNode's life; what it says is passed on. Returns Flower's exit code, which is more than a status."""
    child = subprocess.Popen(
        supernode(client, env),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    code = 1
    try:
        for said in processes.lines_of(child):  # the last code is its own: those of its children stand before
            tell(said)
            if match := re.search(r"Exit Code: (\d+)", said):
                code = int(match[1])
        return code if child.wait() else LOST
    finally:
        processes.stop(child)


def supernode(client: Participant, env: dict[str, str]) -> list[str]:
    """The command line of a client's SuperNode."""
    words = [processes.program("flower-supernode", env), "--superlink", _address(client.host, client.port)]
    words += ["--port", str(processes.free_port())]
    words += ["--root-certificates", str(client.authority)] if client.authority else ["--insecure"]
    words += ["--auth-supernode-private-key", str(client.key)] if client.key else []
    config = f"user={_toml(client.user)} task={_toml(client.task.resolve())}"
    return [*words, "--node-config", config]
