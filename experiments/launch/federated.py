"""`forethought federated`: a server that trains with real clients and keeps an archive, a client, and an erasure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.core.errors import UserError, blame_user
from experiments.federated import archives
from experiments.federated.engine import credentials, deployment, erasing, serving
from experiments.federated.engine import task as tasks
from experiments.federated.engine.credentials import TLS
from experiments.federated.engine.deployment import Participant, Service
from experiments.federated.log import ArchiveError
from experiments.federated.store import Store, check_user
from experiments.launch import arguments
from federated.archive import Scheme
from federated.rounds import WEIGHTINGS

DESCRIPTION = """\
Federated training with an archive of updates, by Flower (pip install 'forethought[federated]'), and erasure by the archive.
forethought federated COMMAND --help has the options of each; docs/federated.md has an example."""
FIELDS = ", ".join(Scheme._fields)


def command(argv: Sequence[str]) -> int:
    """Carry out `forethought federated COMMAND ARGUMENTS`; returns the exit status.

    Raises:
      UserError: what cannot be used, in one line.
    """
    args = parser().parse_args(argv)
    return int(args.carry_out(args))


def parser() -> argparse.ArgumentParser:
    """Of all three commands."""
    made = arguments.Parser(prog="forethought federated", description=DESCRIPTION)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about, add, carry_out in (
        ("server", "train with clients that come, and keep the archive", _server_options, serve),
        ("client", "take part, with this machine's data", _client_options, take_part),
        ("erase", "take a user out of the model by the archive alone", _erase_options, erase),
    ):
        sub = commands.add_parser(name, help=about, description=carry_out.__doc__)
        add(sub)
        sub.set_defaults(carry_out=carry_out)
    return made


def _server_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--task", type=Path, required=True, metavar="FILE", help="model, init, optimizer; see docs/federated.md"
    )
    sub.add_argument("--archive", type=Path, required=True, metavar="DIR", help="made if missing, gone on with if there")
    sub.add_argument("--rounds", type=arguments.number, required=True, metavar="N", help="until the archive has so many")
    sub.add_argument("--clients", type=arguments.number, default=2, metavar="N", help="that a round waits for (2)")
    sub.add_argument(
        "--per-round", type=arguments.number, metavar="N", help="clients asked in a round (all that are there)"
    )
    sub.add_argument("--weighting", choices=WEIGHTINGS, default="examples", help="of updates (examples)")
    sub.add_argument("--scheme", type=_fields, metavar="FIELD=VALUE,...", help=f"of a new archive: {FIELDS}")
    sub.add_argument("--seed", type=_seed, metavar="N", help="of a new archive (0)")
    sub.add_argument("--timeout", type=_seconds, default=3600.0, metavar="SECONDS", help="a round waits for updates (3600)")
    sub.add_argument("--host", default="127.0.0.1", help="to listen on (127.0.0.1)")
    sub.add_argument("--port", type=_port, default=8000, help="to listen on (8000)")
    sub.add_argument("--certificate", type=_file, metavar="PEM", help="of the server, with its host's name")
    sub.add_argument("--certificate-key", type=_file, metavar="PEM", help="its private key")
    sub.add_argument("--authority", type=_file, metavar="PEM", help="the certificate of who signed it")
    sub.add_argument("--keys", type=Path, metavar="DIR", help="USER.pub of each user: an ECDSA key as ssh-keygen makes it")
    sub.add_argument("--insecure", action="store_true", help="neither TLS nor keys: a trial on this machine alone")


def _client_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--task", type=Path, required=True, metavar="FILE", help="the server's, with this machine's load_data")
    sub.add_argument("--user", required=True, metavar="ID", help="the stable id, for which the server has the key")
    sub.add_argument("--server", type=_address, default=("127.0.0.1", 8000), metavar="HOST:PORT", help="(127.0.0.1:8000)")
    sub.add_argument("--authority", type=_file, metavar="PEM", help="who signed the server's certificate")
    sub.add_argument("--key", type=_file, metavar="FILE", help="the private key")
    sub.add_argument("--insecure", action="store_true", help="neither TLS nor key: a trial on this machine alone")


def _erase_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--archive", type=Path, required=True, metavar="DIR", help="of a server that does not run")
    sub.add_argument("--user", required=True, metavar="ID", help="who leaves")
    sub.add_argument("--alpha", type=float, default=0.0, help="how much a correction grows with each later round (0)")


# --- Commands ---------------------------------------------------------------------------------------------------------


def serve(args: argparse.Namespace) -> int:
    """Train with clients that come, and keep the archive; the same command goes on after a stop."""
    task = tasks.load(args.task)
    tls = _protection(args, ("certificate", "certificate_key", "authority", "keys"))
    if args.per_round and args.per_round > args.clients:
        raise UserError(f"--per-round is {args.per_round} of --clients {args.clients}: wait for as many as are asked")
    deployment.check_address(args.host, tls)
    certified = TLS(args.certificate, args.certificate_key, args.authority) if tls else None
    if certified:
        credentials.public_keys(args.keys)
        credentials.check_certificate(certified)
    with _archive(args, task) as opened:
        stands = serving.next_round(opened)
    if stands < args.rounds:
        service = Service(
            archive=args.archive,
            rounds=args.rounds,
            clients=args.clients,
            per_round=args.per_round,
            weighting=args.weighting,
            timeout=args.timeout,
            host=args.host,
            port=args.port,
            tls=certified,
            keys=args.keys if tls else None,
        )
        deployment.serve(service, _say)
    with serving.open_archive(args.archive) as opened:
        sizes = ", ".join(f"{name} {size:,}" for name, size in opened.sizes().items())
        print(f"{serving.next_round(opened)} rounds; bytes on the disk: {sizes}")
        print(f"model: {serving.model_path(args.archive, serving.model_digest(opened))}")
    return 0


def _archive(args: argparse.Namespace, task: tasks.Task) -> Store:
    """The archive that is there, if it is the one that is asked for; else a new one."""
    if not (args.archive / "log.jsonl").exists():
        with blame_user():
            scheme, seed = Scheme(**(args.scheme or {})), args.seed or 0
            return serving.create(args.archive, scheme, seed, tasks.initial(task, seed), tasks.structure(task))
    opened = serving.open_archive(args.archive)
    try:
        scheme = archives.scheme_of(opened)
        asked = {name: value for name, value in (args.scheme or {}).items() if getattr(scheme, name) != value}
        if asked or args.seed not in (None, opened.about["seed"]):
            raise ArchiveError(
                f"{args.archive} was begun with another --scheme or --seed: leave them out, or give another folder"
            )
        tasks.unravel(task, serving.read_model(opened))
        tasks.check_structure(task, opened.about.get("structure", ""))
    except BaseException:
        opened.close()
        raise
    return opened


def take_part(args: argparse.Namespace) -> int:
    """Take part with this machine's data until stopped; a client that starts again is the same user."""
    protected = _protection(args, ("authority", "key"))
    host, port = args.server
    deployment.check_address(host, protected)
    check_user(args.user)
    task = tasks.load(args.task)
    tasks.check_work(task, tasks.data_of(task, args.user))  # a mistake shows here, and not only in the first round
    parts = (args.authority, args.key) if protected else (None, None)
    deployment.take_part(Participant(args.task, args.user, host, port, *parts), _say)
    return 0


def erase(args: argparse.Namespace) -> int:
    """Take a user out of the model by the archive alone, delete the user's history, and certify it."""
    erased = erasing.erase(args.archive, args.user, args.alpha)
    print(f"{args.user} is out of the model: {erased.rounds} rounds of {args.user}, {erased.bytes:,} bytes, were deleted")
    print(f"the model moved by {erased.distance:.6g}: {erased.model}")
    print(f"certificate: {erased.certificate}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


# --- Arguments --------------------------------------------------------------------------------------------------------


def _protection(args: argparse.Namespace, names: Sequence[str]) -> bool:
    """Whether TLS and keys are asked for; half of them is a mistake, and so is none without saying so."""
    missing = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) is None]
    if args.insecure and len(missing) < len(names):
        raise UserError("--insecure has neither certificates nor keys: leave one or the other out")
    if not args.insecure and missing:
        raise UserError(f"give {', '.join(missing)}, or --insecure for a trial on this machine alone")
    return not args.insecure


def _fields(text: str) -> dict[str, Any]:
    """Fields of a `Scheme`, of the types that its defaults have."""
    fields: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in Scheme._fields:
            raise argparse.ArgumentTypeError(f"{part!r} is no field of a scheme: choose from {FIELDS}")
        if name in fields:
            raise argparse.ArgumentTypeError(f"{name} is given twice: give it once")
        default = Scheme._field_defaults[name]
        try:
            if isinstance(default, bool):
                fields[name] = {"true": True, "false": False}[value.lower()]
            else:
                fields[name] = (int if name == "users" else type(default))(value)
        except (KeyError, ValueError):
            example = "3" if name == "users" else str(default).lower()
            raise argparse.ArgumentTypeError(f"{part!r} has no value for {name}: give one as {name}={example}") from None
    return fields


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: give a whole number from 0 to 2147483647")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e7:
        raise argparse.ArgumentTypeError(f"{text!r} are no seconds: give a number from 1 to 1e7")
    return seconds


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: give HOST:PORT")
    return host.strip("[]"), _port(port)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path.resolve()
