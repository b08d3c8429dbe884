"""The command line of exact unlearning: `python -m s3t COMMAND --help`.

With --json a command prints one JSON object on standard output and nothing else. A mistake of the user's is one line on
standard error and exit status 2. When nobody reads any more, a command ends without a word and with exit status 141.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from s3t.cli import arguments, texts
from s3t.cli.texts import Result
from s3t.plans import structure
from s3t.plans.planners import PLANNERS

if TYPE_CHECKING:
    from s3t.store.disk import Draft, Store
    from s3t.store.manifests import Manifest

KEY_BYTES = 32  # of a new store's partition key
UNREAD = 128 + 13  # the exit status of who was stopped by SIGPIPE


class Command(NamedTuple):
    """One subcommand: what --help says, its arguments, what it does, and its result in words.

    A result whose "ok" is false ends with exit status 1. `tell` prints the answer.
    """

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    text: Callable[[Result], str]
    tell: Callable[[argparse.Namespace, Result, str], None] = lambda args, result, answer: say(answer)


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are one line and whose help is an answer like others."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with status 2."""
        sys.exit(fail(message))

    def print_help(self, file: Any = None) -> None:
        """Print the help now, so that nobody finds out when leaving that nobody reads it."""
        say(self.format_help().rstrip())


# --- plan, simulate ---------------------------------------------------------------------------------------------------


def make_plan(args: argparse.Namespace) -> structure.Plan:
    """The plan that the arguments describe."""
    return PLANNERS[args.planner](args.slices, args.budget, args.prior)


def run_simulate(args: argparse.Namespace) -> Result:
    """Streams of deletions against the plan that the arguments describe."""
    from s3t.plans import simulate  # brings scipy, which other commands can do without

    more = {"stream": args.stream, "burst": args.burst, "after": args.after, "curve": args.quality}
    return simulate.summary(make_plan(args), args.shards, args.streams, args.seed, args.prior, **more)


# --- status, delete, verify -------------------------------------------------------------------------------------------


def run_status(args: argparse.Namespace) -> Result:
    """What the store serves; nothing is changed."""
    from s3t.store import disk  # brings safetensors, which planning can do without

    opened = disk.look(args.store, still=True)
    result = disk.status(opened)
    disk.close(opened)
    return result


def run_delete(args: argparse.Namespace) -> Result:
    """A durable deletion, in force for every process that serves the store."""
    from s3t.store import disk

    opened = disk.look(args.store)  # what is left of earlier deletions must not keep this one waiting
    result = disk.delete(opened, args.ids, args.request_id)
    disk.close(opened)
    return result


def acknowledge(args: argparse.Namespace, result: Result, answer: str) -> None:
    """Acknowledge a deletion, then remove what it left without use: work that nobody who waits for the answer waits for.

    Raises:
      BrokenPipeError: all is done, but nobody read the answer.
      ValueError: one of the two failed; the deletion stands.
    """
    from s3t.store import disk

    steps = {
        "the answer could not be written": lambda: say(answer),
        "the purge is still to be done": lambda: disk.close(disk.open(args.store)),
    }
    failed: dict[str, Exception] = {}
    for failure, step in steps.items():
        try:
            step()
        except (ValueError, OSError, sqlite3.Error) as error:
            failed[failure] = error
    if [type(error) for error in failed.values()] == [BrokenPipeError]:
        raise BrokenPipeError
    if failed:
        done = "deleted" if result["ids"] else "nothing to delete"
        why = "; ".join(f"{failure}: {error}" for failure, error in failed.items())
        raise ValueError(f"{done} (request {result['request']}), but {why}")


def run_verify(args: argparse.Namespace) -> Result:
    """Proof from the ledger and the certificates, and by training anew; nothing is changed."""
    from s3t.service import verify

    result = verify.verify(args.store, *args.expect_head)
    from s3t.store import disk

    if args.prove and result["ok"]:  # certificates that are not those that were published prove nothing
        opened = disk.look(args.store, still=True)
        result["proofs"] = [verify.proofs(opened, one) for one in args.prove]
        disk.close(opened)
    if args.replay is None or "nodes" not in result:  # without a whole ledger there is nothing to train from
        return result
    from s3t.service import factory, replay

    check_device()
    opened = disk.look(args.store)
    found = replay.replay(opened, factory.source_for(opened.manifest, args.arguments), args.replay)
    disk.close(opened)
    problems = [*result["problems"], *(problem for problem in found["problems"] if problem not in result["problems"])]
    return {**result, "ok": result["ok"] and found["ok"], "problems": problems, "replay": found}


def check_device() -> None:
    """Refuse a platform that JAX cannot use here, before anything is done.

    Raises:
      ValueError: it cannot.
    """
    import jax

    try:
        jax.devices()
    except RuntimeError as error:  # of JAX_PLATFORMS, or of a device that cannot be used
        raise ValueError(error) from None


# --- predict ----------------------------------------------------------------------------------------------------------


def run_predict(args: argparse.Namespace) -> Result:
    """What the ensemble says of examples; nothing is changed."""
    from s3t.service import factory, serving
    from s3t.store import disk

    check_device()
    opened = disk.look(args.store, still=True)
    source = factory.source_for(opened.manifest, args.arguments)
    result = serving.predict(opened, source, args.ids, args.split, args.aggregate)
    disk.close(opened)
    return result


# --- train, heal ------------------------------------------------------------------------------------------------------


def run_train(args: argparse.Namespace) -> Result:
    """Create the store if there is none, and train what is missing."""
    from s3t.store import disk

    check_device()
    if not disk.exists(args.store):
        return trained(create(args), args)
    opened = disk.look(args.store)
    check_as_made(opened.manifest, args)
    return trained(opened, args)


def create(args: argparse.Namespace) -> Store:
    """A new store, as the arguments describe it."""
    lacking = [f"--{name}" for name in ("factory", "planner", "slices", "shards") if getattr(args, name) is None]
    if lacking:
        raise ValueError(f"there is no store at {args.store}; to make one, give {' and '.join(lacking)}")
    from s3t.service import factory, healing

    source = factory.source_of(args.factory, args.hyper or {}, args.arguments)
    key = os.urandom(KEY_BYTES)
    made = {"factory": args.factory, "arguments": args.arguments}
    return healing.create(args.store, source, make_plan(args), args.shards, args.seed or 0, key, **made)


def check_as_made(manifest: Manifest, args: argparse.Namespace) -> None:
    """Refuse to go on with a store that was made otherwise than asked for now; what is left out is as it was made."""
    from s3t.service import factory

    hyper = factory.source_hyper(manifest)
    asked = {
        "factory": manifest.factory,
        "slices": manifest.slices,
        "shards": manifest.shards,
        "seed": manifest.root_key,
        "hyper": args.hyper and {name: hyper.get(name) for name in args.hyper},
    }
    for name, made in asked.items():
        if getattr(args, name) not in (None, made):
            raise ValueError(f"the store was made with another --{name} ({made}): leave it out or choose another directory")
    described = [f"--{name}" for name in ("planner", "budget", "prior") if getattr(args, name) is not None]
    lacking = [f"--{name}" for name in ("planner", "slices") if getattr(args, name) is None]
    if described and lacking:  # the manifest holds the plan alone, not what it was made from
        raise ValueError(f"{described[0]} says nothing without {' and '.join(lacking)}: give that too, or leave both out")
    if args.planner and make_plan(args).nodes != manifest.nodes:
        raise ValueError(f"made for another plan: leave {' and '.join(described)} out or choose another directory")


def run_heal(args: argparse.Namespace) -> Result:
    """Train anew what deletions took away."""
    from s3t.store import disk

    check_device()
    return trained(disk.look(args.store), args)


def trained(opened: Store, args: argparse.Namespace) -> Result:
    """Train what a store misses; what it serves then."""
    from s3t.service import factory, healing
    from s3t.store import disk

    source = factory.source_for(opened.manifest, args.arguments)
    healing.register(opened, source)  # if the store's creation was killed before it
    done = healing.heal(opened, source, say=(lambda made: None) if args.json else show)
    result = {**disk.status(opened), **done}
    disk.close(opened)
    return result


def show(made: Draft) -> None:
    """Say that a node serves."""
    print(f"shard {made.shard}: {' '.join(map(str, made.slices))} ({len(made.ids)} examples)", file=sys.stderr, flush=True)


# --- The command line -------------------------------------------------------------------------------------------------

COMMANDS = {
    "plan": Command(
        "what would be trained, what it costs, and how deep it serves",
        arguments.planner_arguments,
        lambda args: structure.summary(make_plan(args), args.prior),
        texts.plan_text,
    ),
    "simulate": Command(
        "how many deletions a plan survives",
        arguments.simulate_arguments,
        run_simulate,
        texts.simulate_text,
    ),
    "train": Command(
        "make a store and train its nodes, or go on with one",
        arguments.train_arguments,
        run_train,
        texts.trained_text,
    ),
    "heal": Command(
        "train anew what deletions took away, and restore files that were lost or damaged",
        arguments.heal_arguments,
        run_heal,
        texts.trained_text,
    ),
    "status": Command(
        "what a store serves, and what is deleted",
        arguments.store_arguments,
        run_status,
        texts.status_text,
    ),
    "delete": Command(
        "delete examples durably, and purge what was trained on them",
        arguments.delete_arguments,
        run_delete,
        texts.delete_text,
        acknowledge,
    ),
    "verify": Command(
        "prove that nothing served was trained on a deleted example, and that the record is whole",
        arguments.verify_arguments,
        run_verify,
        texts.verify_text,
    ),
    "predict": Command(
        "labels and logits of the ensemble that survives",
        arguments.predict_arguments,
        run_predict,
        texts.predict_text,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and print its result; returns the exit status."""
    try:
        return run(argv)
    except BrokenPipeError:
        give_up()
        return UNREAD


def run(argv: Sequence[str] | None) -> int:
    """Run one command and print its result; returns the exit status.

    Raises:
      BrokenPipeError: who reads has closed the pipe, as `head` does when it has enough.
    """
    parser = Parser(prog="python -m s3t", description="Exact unlearning by adapters that can be switched off.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        command.arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    command = COMMANDS[args.command]
    try:
        result = command.run(args)
        command.tell(args, result, json.dumps(result, allow_nan=False) if args.json else command.text(result))
    except BrokenPipeError:
        raise
    except (ValueError, OSError, sqlite3.Error) as error:
        return fail(error)
    except MemoryError as error:
        return fail(f"out of memory ({error}): lower what makes it large")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0 if result.get("ok", True) else 1


def say(answer: str) -> None:
    """Print an answer now.

    Raises:
      OSError: it cannot be written.
    """
    try:
        print(answer, flush=True)
    except OSError:
        give_up()
        raise


def give_up() -> None:
    """Let go of what cannot be written, so that leaving does not try once more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(error: object) -> int:
    """Say what is wrong in one line; exit status 2."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
