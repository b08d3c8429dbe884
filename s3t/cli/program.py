"""The commands and how one is run: parse, run, print.

With --json a command prints one JSON object on standard output and nothing else. The exit status is 0 if all is well, 1
if the answer is a problem, 2 after a mistake of the user's, which is one line on standard error, 3 if nothing was proved,
and 4 if nothing was deleted because no id is known. When the reader of a pipe has gone, a command ends silently with 141.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from s3t.cli import (
    arguments,
    checking,
    copying,
    operating,
    planning,
    predicting,
    releasing,
    storing,
    terminal,
    texts,
    training,
)
from s3t.cli.texts import Result
from s3t.store import events

STATUS = {"nothing was proved": 3, "nothing was deleted": 4}  # of a verdict
UNREAD = 128 + 13  # the exit status of a process stopped by SIGPIPE


class Command(NamedTuple):
    """One subcommand.

    help: what --help says.
    arguments: adds its arguments to a parser.
    run: what it does. A result whose "ok" is false ends with the STATUS of its "verdict", or 1.
    lines: its result in words, as lines that may hold what others wrote.
    answer: prints the answer.
    """

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    lines: Callable[[Result], Sequence[str]]
    answer: Callable[[argparse.Namespace, Result, str], None] = lambda args, result, text: terminal.write(text)


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are one line and whose help is an answer like others."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with status 2."""
        sys.exit(terminal.fail(message))

    def print_help(self, file: Any = None) -> None:
        """Print the help now, so that a closed pipe is noticed here and not while leaving."""
        terminal.write(self.format_help().rstrip())


class Version(argparse.Action):
    """--version: print the version and leave."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the version and leave with status 0."""
        terminal.write(f"s3t {arguments.version()}")
        parser.exit()


COMMANDS = {
    "plan": Command(
        "what would be trained, what it costs, and how deep it serves",
        arguments.planner_arguments,
        planning.plan,
        texts.plan_lines,
    ),
    "simulate": Command(
        "how many deletions a plan survives",
        arguments.simulate_arguments,
        planning.simulate,
        texts.simulate_lines,
    ),
    "train": Command(
        "make a store and train its nodes, or go on with one",
        arguments.train_arguments,
        training.train,
        texts.trained_lines,
    ),
    "heal": Command(
        "train anew what deletions took away, and restore files that were lost or damaged",
        arguments.heal_arguments,
        training.heal,
        texts.trained_lines,
    ),
    "status": Command(
        "what a store serves, and what is deleted",
        arguments.status_arguments,
        operating.status,
        operating.status_lines,
        operating.print_status,
    ),
    "delete": Command(
        "delete examples durably, and purge what was trained on them",
        arguments.delete_arguments,
        storing.delete,
        texts.delete_lines,
        storing.acknowledge,
    ),
    "verify": Command(
        "prove that nothing served was trained on a deleted example, and that the record is whole",
        arguments.verify_arguments,
        storing.verify,
        texts.verify_lines,
    ),
    "purge": Command(
        "remove what serves no more, and say which deletions are done with",
        arguments.purge_arguments,
        operating.purge,
        operating.purge_lines,
    ),
    "redact": Command(
        "let the ids of deletions that are healed leave the ledger",
        arguments.redact_arguments,
        operating.redact,
        operating.redact_lines,
    ),
    "backup": Command(
        "copy a store, in use or not, whole or not at all",
        arguments.backup_arguments,
        copying.backup,
        copying.backup_lines,
    ),
    "restore": Command(
        "put a backup in a store's place, and lose no deletion on the way",
        arguments.restore_arguments,
        copying.restore,
        copying.restore_lines,
    ),
    "predict": Command(
        "labels and logits of the ensemble that survives",
        arguments.predict_arguments,
        predicting.predict,
        texts.predict_lines,
    ),
    "release": Command(
        "verify, train some nodes once more, and say of each claim about a store whether it is proved",
        arguments.release_arguments,
        releasing.release,
        texts.claims_lines,
    ),
    "check": Command(
        "what a receipt or a proof shows, without store, data or jax",
        arguments.check_arguments,
        checking.check,
        texts.claims_lines,
    ),
    "key": Command(
        "make the key that signs receipts and proofs",
        arguments.key_arguments,
        checking.key,
        texts.key_lines,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and print its result; returns the exit status."""
    try:
        return run(argv)
    except BrokenPipeError:
        terminal.drop_output()
        return UNREAD


def make_parser() -> Parser:
    """The parser of all commands."""
    installed = Path(sys.argv[0]).stem == "s3t"  # the console script
    prog = "s3t" if installed else "python -m s3t"
    parser = Parser(prog=prog, description="Exact unlearning by adapters that can be switched off.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and leave")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        command.arguments(subparser)
        subparser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(argv: Sequence[str] | None) -> int:
    """Run one command and print its result; returns the exit status.

    Raises:
      BrokenPipeError: the reader has closed the pipe, as `head` does when it has enough.
    """
    args = make_parser().parse_args(argv)
    command = COMMANDS[args.command]
    try:
        with events.appending_to(operating.log_of(args)):
            result = command.run(args)
            text = json.dumps(result, allow_nan=False) if args.json else terminal.in_words(command.lines(result))
            command.answer(args, result, text)
    except BrokenPipeError:
        raise
    except sqlite3.Error as error:  # in the middle of a command
        from s3t.store import disk  # bring safetensors, which planning can do without
        from s3t.store.ledger import database  # bring safetensors, which planning can do without

        return terminal.fail(database.explanation(Path(args.store) / disk.LEDGER, error))
    except (ValueError, OSError) as error:
        return terminal.fail(error)
    except MemoryError as error:
        return terminal.fail(f"out of memory ({error}): lower what makes it large")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0 if result.get("ok", True) else STATUS.get(result.get("verdict", ""), 1)
