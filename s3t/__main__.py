"""The command line of exact unlearning: `python -m s3t COMMAND --help`.

With --json a command prints one JSON object on standard output and nothing else. A mistake of the user's is one line on
standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from s3t import plan as plans
from s3t.planners import PLANNERS

if TYPE_CHECKING:
    from s3t.source import Source

Result = dict[str, Any]


class Command(NamedTuple):
    """One subcommand: what --help says, its arguments, what it does, and its result in words.

    A result whose "ok" is false ends with exit status 1. `then` is work that nobody who waits for the result has to wait
    for.
    """

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    text: Callable[[Result], str]
    then: Callable[[argparse.Namespace], None] | None = None


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with status 2."""
        sys.exit(fail(message))


# --- plan -------------------------------------------------------------------------------------------------------------


def planner_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that makes a plan."""
    parser.add_argument("--planner", required=True, choices=PLANNERS, help="how to choose what is trained")
    parser.add_argument("--slices", required=True, type=int, metavar="L", help="slices of a shard")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="B",
        help="sequences; for greedy FLOPs; of no use to a planner with plans of one size",
    )
    parser.add_argument(
        "--prior", type=numbers, metavar="p1,p2,...", help="probability that a deletion hits each slice; uniform by default"
    )


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers between commas, got {text!r}") from None


def make_plan(args: argparse.Namespace) -> plans.Plan:
    """The plan that the arguments describe."""
    return PLANNERS[args.planner](args.slices, args.budget, args.prior)


def plan_text(result: Result) -> str:
    """A plan as a tree with its cost."""
    lines = [plans.render(tuple(node) for node in result["nodes"]), ""]
    lines += [f"stages: {result['stages']} in {len(result['sequences'])} sequences"]
    lines += [
        f"FLOPs: {result['flops_plain']:.6g}, {result['flops_cached']:.6g} with cached prefixes (forward passes per epoch)"
    ]
    if result["depth_served"] is not None:
        depths = ", ".join(f"{depth:.4g}" for depth in result["depth_served"].values())
        lines += [f"expected depth after 0, 1, ... distinct slices are gone: {depths}"]
    return "\n".join(lines)


# --- simulate ---------------------------------------------------------------------------------------------------------


def simulate_arguments(parser: argparse.ArgumentParser) -> None:
    """A plan, and streams of deletions against it."""
    planner_arguments(parser)
    parser.add_argument("--shards", required=True, type=int, metavar="m", help="models of the ensemble")
    parser.add_argument("--streams", type=int, default=10_000, metavar="N", help="independent streams of deletions")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the streams")


def seed(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


def run_simulate(args: argparse.Namespace) -> Result:
    """Streams of deletions against the plan that the arguments describe."""
    from s3t import simulate  # brings scipy, which other commands can do without

    return simulate.summary(make_plan(args), args.shards, args.streams, args.seed, args.prior)


def simulate_text(result: Result) -> str:
    """Requests survived, in words."""

    def shown(key: str) -> str:
        low, high = result[key]["ci95"]
        return f"{result[key]['mean']:.2f} (95%: {low:.2f} to {high:.2f})"

    return (
        f"requests until the first shard has no model: {shown('deletions_to_first_dead_shard')}\n"
        f"requests until no shard has a model: {shown('deletions_to_rebuild')}\n"
        f"expected by the closed form: {result['closed_form']:.2f}"
    )


# --- status, delete, verify -------------------------------------------------------------------------------------------


def store_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of every command about a store."""
    parser.add_argument("--store", required=True, metavar="DIR", help="directory of the store")


def run_status(args: argparse.Namespace) -> Result:
    """What the store serves; nothing is changed."""
    from s3t import store as stores  # brings safetensors, which planning can do without

    opened = stores.look(args.store)
    result = stores.status(opened)
    stores.close(opened)
    return result


def status_text(result: Result) -> str:
    """A store in a few lines."""
    nodes = result["nodes"]
    requests = ", ".join(f"{count} {state}" for state, count in result["requests"].items()) or "none"
    lines = [
        f"{result['state']}: depth served by shard {', '.join(map(str, result['depth']))}",
        f"nodes: {nodes['live']} live, {nodes['missing']} missing, {nodes['leftovers']} files to be removed",
        f"examples: {result['examples']}, {result['deleted']} of them deleted",
        f"requests: {requests}",
        f"head: {result['head']} after {result['rows']} rows",
    ]
    return "\n".join([*lines, *(f"problem: {problem}" for problem in result["problems"])])


def delete_arguments(parser: argparse.ArgumentParser) -> None:
    """Which examples, and the name of the request."""
    store_arguments(parser)
    parser.add_argument("--ids", required=True, type=whole_numbers, metavar="12,17,...", help="examples to delete")
    parser.add_argument("--request-id", metavar="R", help="a request that is repeated under its id is carried out once")


def whole_numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (len(part) <= 20 and part.isascii() and part.removeprefix("-").isdecimal()):  # int takes 1_2 for 12
            raise argparse.ArgumentTypeError(
                f"expected whole numbers between commas, got {part!r:.80}: nothing was changed"
            )
    return [int(part) for part in parts]


def run_delete(args: argparse.Namespace) -> Result:
    """A durable deletion, in force for every process that serves the store."""
    from s3t import store as stores

    opened = stores.open(args.store)
    result = stores.delete(opened, args.ids, args.request_id)
    stores.close(opened)
    return result


def purge(args: argparse.Namespace) -> None:
    """Remove what the deletion left without use."""
    from s3t import store as stores

    stores.close(stores.open(args.store))


def delete_text(result: Result) -> str:
    """A deletion in words."""
    lines = [f"request {result['request']}: {len(result['ids'])} examples deleted, {result['nodes_dropped']} nodes dropped"]
    lines += [f"{what}: {', '.join(map(str, result[what]))}" for what in ("already", "unknown") if result[what]]
    return "\n".join([*lines, f"head: {result['head']} (acknowledged in {result['acknowledged_ms']:.2f} ms)"])


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """What to hold against the store."""
    store_arguments(parser)
    parser.add_argument(
        "--expect-head", metavar="H", help="a head from an earlier answer, which the ledger must still hold"
    )


def run_verify(args: argparse.Namespace) -> Result:
    """Proof from the ledger and the certificates; nothing is changed."""
    from s3t import store as stores

    return stores.verify(args.store, args.expect_head)


def verify_text(result: Result) -> str:
    """A proof in words."""
    if not result["ok"]:
        return "\n".join(f"problem: {problem}" for problem in result["problems"])
    return (
        f"ok: none of {result['nodes']} serving nodes holds one of {result['deleted']} deleted examples\n"
        f"head: {result['head']} after {result['rows']} rows"
    )


# --- predict ----------------------------------------------------------------------------------------------------------


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Which examples, and how the shards' answers become one."""
    store_arguments(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--ids", type=whole_numbers, metavar="12,17,...", help="training examples, deleted ones too")
    asked.add_argument("--split", metavar="S", help="a split of the store's factory, such as test")
    parser.add_argument(
        "--aggregate",
        choices=("mean", "depth", "all"),  # serve.AGGREGATES, which brings jax
        default="mean",
        help="mean of the shards' logits (default), mean weighted by the depth served, or mean of all that survives",
    )


def run_predict(args: argparse.Namespace) -> Result:
    """What the ensemble says of examples; nothing is changed."""
    from s3t import serving
    from s3t import store as stores

    opened = stores.look(args.store)
    made = opened.manifest
    source = source_of(made.factory, made.hyper.get("source", {}), made.arguments)
    result = serving.predict(opened, source, args.ids, args.split, args.aggregate)
    stores.close(opened)
    return result


def predict_text(result: Result) -> str:
    """Predicted labels, and what predicted them."""
    lines = [f"{one}: {label}" for one, label in zip(result["ids"], result["labels"], strict=True)]
    return "\n".join([*lines, f"depth served by shard {', '.join(map(str, result['depth']))}", f"head: {result['head']}"])


# --- The factory ------------------------------------------------------------------------------------------------------


def source_of(factory: str, hyper: Mapping[str, Any], arguments: Mapping[str, Any]) -> Source:
    """What a manifest's factory makes.

    Raises:
      ValueError: no such function, or arguments that it does not take; what it raises itself.
    """
    module, _, function = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
        inspect.signature(make).bind(hyper, **arguments)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the factory {factory} cannot be found: {error}") from None
    except TypeError as error:
        raise ValueError(f"the factory {factory} does not take these arguments: {error}") from None
    return make(hyper, **arguments)


COMMANDS = {
    "plan": Command(
        "what would be trained, what it costs, and how deep it serves",
        planner_arguments,
        lambda args: plans.summary(make_plan(args), args.prior),
        plan_text,
    ),
    "simulate": Command(
        "how many deletions a plan survives",
        simulate_arguments,
        run_simulate,
        simulate_text,
    ),
    "status": Command(
        "what a store serves, and what is deleted",
        store_arguments,
        run_status,
        status_text,
    ),
    "delete": Command(
        "delete examples durably, and purge what was trained on them",
        delete_arguments,
        run_delete,
        delete_text,
        purge,
    ),
    "verify": Command(
        "prove that nothing served was trained on a deleted example, and that the record is whole",
        verify_arguments,
        run_verify,
        verify_text,
    ),
    "predict": Command(
        "labels and logits of the ensemble that survives",
        predict_arguments,
        run_predict,
        predict_text,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and print its result; returns the exit status."""
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
        print(json.dumps(result, allow_nan=False) if args.json else command.text(result), flush=True)
        if command.then:
            command.then(args)
    except (ValueError, OSError, sqlite3.Error) as error:
        return fail(error)
    return 0 if result.get("ok", True) else 1


def fail(error: object) -> int:
    """Say what is wrong in one line; exit status 2."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
