"""A real SLURM of this one machine, on the loopback interface, for as long as a block lasts; nothing of it stays.

    python -m tools.slurm_cluster    installs Debian's packages where they are missing, and where it may

`make slurm` does that, and then runs the tests that need a cluster. Configuration, key, state and logs of the daemons lie
in a folder that is given. The daemons need no root.
"""

from __future__ import annotations

import getpass
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")  # of Debian and Ubuntu
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
SBIN = ("/usr/sbin", "/usr/local/sbin")  # where daemons lie, and which a user's PATH may lack
NODES = ("127.0.0.1", "127.0.0.2")  # their names are addresses: JAX asks the first for the coordinator
PATIENCE = 60.0  # seconds for a daemon to start, or to end
CONFIG = """\
ClusterName=forethought
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
FirstJobId={job}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
{nodes}
PartitionName=one Nodes=ALL Default=YES MaxTime=60 State=UP
"""


class ClusterError(Exception):
    """There is no cluster; the message says why, in one line."""


def program(name: str) -> str | None:
    """Where a program lies, those of administrators included."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN)))


def missing() -> list[str]:
    """Programs of SLURM that are not here."""
    return [name for name in PROGRAMS if program(name) is None]


def install() -> None:
    """Install Debian's packages, where programs are missing.

    Raises:
      ClusterError: this is no Debian, not root, or apt-get failed.
    """
    if not missing():
        return
    by_hand = f"install {', '.join(PACKAGES)} (22.05 or newer) and run make slurm again"
    if shutil.which("apt-get") is None:
        raise ClusterError(f"SLURM is not here, and neither is apt-get: {by_hand}")
    if os.geteuid() != 0:
        raise ClusterError(f"SLURM is not here, and only root may add it: {by_hand}")
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *PACKAGES]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print("Installing", *PACKAGES, flush=True)
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode or missing():
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ClusterError(f"apt-get could not install SLURM ({said}): {by_hand}")


@contextmanager
def running(folder: Path, cpus: int = 1) -> Iterator[dict[str, str]]:
    """A cluster of two nodes in a folder; what is to be added to the environment of its users.

    Args:
      folder: for all of its files; of a short name, since it holds a socket.
      cpus: that each node claims to have, whatever there are: so many jobs, or processes of one, run on it at a time.

    Raises:
      ClusterError: a daemon that does not start.
    """
    (folder / "state").mkdir()
    folder.chmod(0o755)  # munged looks
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    config, env = folder / "slurm.conf", {"SLURM_CONF": str(folder / "slurm.conf")}
    config.write_text(configuration(folder, cpus))
    up = lambda: " is UP" in _said(["scontrol", "ping"], env)  # noqa: E731
    idle = lambda: _said(["sinfo", "-h", "-o", "%T %D"], env) == f"idle {len(NODES)}"  # noqa: E731
    with ExitStack() as daemons:
        start = lambda *words: daemons.enter_context(_daemon(words, folder, env))  # noqa: E731
        own = [
            f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "key-file", "pid-file", "seed-file")
        ]
        _wait(start("munged", "--foreground", "--force", *own), (folder / "munge.socket").exists, folder)
        _wait(start("slurmctld", "-D", "-i"), up, folder)
        for process in [start("slurmd", "-D", "-N", node) for node in NODES]:
            _wait(process, idle, folder)
        daemons.callback(_empty, env)
        yield env


def _empty(env: dict[str, str]) -> None:
    """End all jobs: they would outlive their daemons."""
    _said(["scancel", f"--user={getpass.getuser()}"], env)
    deadline = time.monotonic() + PATIENCE
    while _said(["squeue", "-h", "-o", "%i"], env) and time.monotonic() < deadline:
        time.sleep(0.1)


def configuration(folder: Path, cpus: int) -> str:
    """What slurm.conf has."""
    controller, *daemons = _free_ports(1 + len(NODES))
    host, user = socket.gethostname(), getpass.getuser()
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN"
        for node, port in zip(NODES, daemons, strict=True)
    )
    job = random.SystemRandom().randrange(1, 60_000)
    return CONFIG.format(host=host, user=user, controller=controller, folder=folder, job=job, nodes=nodes)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


@contextmanager
def _daemon(words: Sequence[str], folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in the foreground, which is ended with the block."""
    with (folder / f"{words[0]}.out").open("ab") as out:
        path = program(words[0])
        if path is None:
            raise ClusterError(f"{words[0]} is not here: run make slurm, which installs it")
        process = subprocess.Popen(
            [path, *words[1:]], env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said(words: Sequence[str], env: dict[str, str]) -> str:
    """What a command prints, and nothing where it fails."""
    done = subprocess.run(words, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _wait(daemon: subprocess.Popen[bytes], ready: Callable[[], bool], folder: Path) -> None:
    """Wait until a daemon is ready.

    Raises:
      ClusterError: it has ended, or is late.
    """
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if daemon.poll() is not None or time.monotonic() > deadline:
            name = Path(daemon.args[0]).name  # type: ignore[index, arg-type]
            said = (folder / f"{name}.out").read_text(errors="replace").strip().splitlines()
            raise ClusterError(f"{name} does not start: {said[-1] if said else 'it says nothing'}")
        time.sleep(0.1)


def main() -> int:
    """Install what is missing; the exit status."""
    try:
        install()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
