"""The command line of exact unlearning: `python -m s3t COMMAND --help`.

With --json a command prints one JSON object on standard output and nothing else. A mistake of the user's is one line on
standard error and exit status 2. When nobody reads any more, a command ends without a word and with exit status 141.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from s3t import plan as plans
from s3t.planners import PLANNERS

if TYPE_CHECKING:
    from s3t.source import Source
    from s3t.store import Draft, Manifest, Store

Result = dict[str, Any]

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


# --- plan -------------------------------------------------------------------------------------------------------------


def planner_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Arguments of every command that makes a plan."""
    parser.add_argument("--planner", required=required, choices=PLANNERS, help="how to choose what is trained")
    parser.add_argument("--slices", required=required, type=int, metavar="L", help="slices of a shard")
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
    """A whole number from 0 to 2^32 - 1, of which keys tell all apart."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 1 << 32):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {(1 << 32) - 1}, got {text!r:.80}")
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

    opened = stores.look(args.store, still=True)
    result = stores.status(opened)
    stores.close(opened)
    return result


def status_text(result: Result) -> str:
    """A store in a few lines."""
    nodes = result["nodes"]
    requests = ", ".join(f"{count} {state}" for state, count in result["requests"].items()) or "none"
    depth = ", ".join(map(str, result["depth"]))
    lines = [
        f"{'ok' if result['ok'] else 'not ok'}, {result['state']}: depth served by shard {depth}",
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

    opened = stores.look(args.store)  # what is left of earlier deletions must not keep this one waiting
    result = stores.delete(opened, args.ids, args.request_id)
    stores.close(opened)
    return result


def acknowledge(args: argparse.Namespace, result: Result, answer: str) -> None:
    """Acknowledge a deletion, then remove what it left without use: work that nobody who waits for the answer waits for.

    Raises:
      BrokenPipeError: all is done, but nobody read the answer.
      ValueError: one of the two failed; the deletion stands.
    """
    from s3t import store as stores

    steps = {
        "the answer could not be written": lambda: say(answer),
        "the purge is still to be done": lambda: stores.close(stores.open(args.store)),
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
    parser.add_argument(
        "--replay", type=which_nodes, metavar="all|N|IDENTITY", help="train nodes once more and compare their bytes"
    )
    source_arguments(parser)


def which_nodes(text: str) -> str | int:
    """All nodes, a number of them, or one by its identity."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def run_verify(args: argparse.Namespace) -> Result:
    """Proof from the ledger and the certificates, and by training anew; nothing is changed."""
    from s3t import verify

    result = verify.verify(args.store, args.expect_head)
    if args.replay is None or "nodes" not in result:  # without a whole ledger there is nothing to train from
        return result
    from s3t import replay
    from s3t import store as stores

    opened = stores.look(args.store)
    found = replay.replay(opened, source_for(opened.manifest, args.arguments), args.replay)
    stores.close(opened)
    problems = [*result["problems"], *(problem for problem in found["problems"] if problem not in result["problems"])]
    return {**result, "ok": result["ok"] and found["ok"], "problems": problems, "replay": found}


def verify_text(result: Result) -> str:
    """A proof in words."""
    lines = [f"problem: {problem}" for problem in result["problems"]]
    if result["ok"]:
        lines += [
            f"ok: none of {result['nodes']} serving nodes holds one of {result['deleted']} deleted examples",
            f"head: {result['head']} after {result['rows']} rows",
        ]
    if found := result.get("replay"):
        kinds = ("identical", "differs", "damaged", "not replayable here")
        lines += ["replayed: " + ", ".join(f"{len(found[kind])} {kind}" for kind in kinds)]
        lines += [f"not replayable here: {reason}" for reason in found["reasons"]]
    return "\n".join(lines)


# --- predict ----------------------------------------------------------------------------------------------------------


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Which examples, and how the shards' answers become one."""
    store_arguments(parser)
    source_arguments(parser)
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

    opened = stores.look(args.store, still=True)
    source = source_for(opened.manifest, args.arguments)
    result = serving.predict(opened, source, args.ids, args.split, args.aggregate)
    stores.close(opened)
    return result


def predict_text(result: Result) -> str:
    """Predicted labels, and what predicted them."""
    lines = [f"{one}: {label}" for one, label in zip(result["ids"], result["labels"], strict=True)]
    lines += [f"problem: {problem}; heal the store" for problem in result["problems"]]
    return "\n".join([*lines, f"depth served by shard {', '.join(map(str, result['depth']))}", f"head: {result['head']}"])


# --- The factory ------------------------------------------------------------------------------------------------------


def source_of(factory: str, hyper: Mapping[str, Any], arguments: Mapping[str, Any]) -> Source:
    """What a manifest's factory makes.

    Raises:
      ValueError: no such function, arguments that it does not take, or something else than a source; what it raises itself.
    """
    from s3t.source import Source

    module, _, function = factory.partition(":")
    if not module or not function:
        raise ValueError(f"a factory is named module:function, got {factory!r:.80}")
    try:
        make = getattr(importlib.import_module(module), function)
        inspect.signature(make).bind(hyper, **arguments)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the factory {factory} cannot be found: {error}") from None
    except TypeError as error:
        raise ValueError(f"the factory {factory} does not take these arguments: {error}") from None
    source = make(hyper, **arguments)
    if not isinstance(source, Source):
        raise ValueError(f"the factory {factory} gives a {type(source).__name__}: name one that gives an s3t.source.Source")
    return source


def source_arguments(parser: argparse.ArgumentParser) -> None:
    """Where things lie on this machine."""
    parser.add_argument(
        "--arguments", type=json_object, default={}, metavar="JSON", help="keyword arguments of the store's factory"
    )


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text!r:.80}")
    return value


def source_for(manifest: Manifest, arguments: Mapping[str, Any]) -> Source:
    """What the factory of a store makes; arguments given now come before those of the manifest."""
    return source_of(manifest.factory, source_hyper(manifest), {**manifest.arguments, **arguments})


def source_hyper(manifest: Manifest) -> dict[str, Any]:
    """What the factory of a store was called with."""
    if "source" not in manifest.hyper:
        raise ValueError("the store was not made by `python -m s3t train`: nothing says how to train its nodes")
    return manifest.hyper["source"]


# --- train, heal ------------------------------------------------------------------------------------------------------


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """A store, and what to make it from if there is none."""
    store_arguments(parser)
    source_arguments(parser)
    planner_arguments(parser, required=False)
    parser.add_argument("--shards", type=int, metavar="m", help="models of the ensemble")
    parser.add_argument("--factory", metavar="MODULE:FUNCTION", help="makes model and data")
    parser.add_argument("--hyper", type=json_object, metavar="JSON", help="what the factory calls its hyper-parameters")
    parser.add_argument("--seed", type=seed, metavar="S", help="root key of every random draw; 0 by default")


def run_train(args: argparse.Namespace) -> Result:
    """Create the store if there is none, and train what is missing."""
    from s3t import store as stores

    if not stores.exists(args.store):
        return trained(create(args), args)
    opened = stores.open(args.store)
    check_as_made(opened.manifest, args)
    return trained(opened, args)


def create(args: argparse.Namespace) -> Store:
    """A new store, as the arguments describe it."""
    lacking = [f"--{name}" for name in ("factory", "planner", "slices", "shards") if getattr(args, name) is None]
    if lacking:
        raise ValueError(f"there is no store at {args.store}; to make one, give {' and '.join(lacking)}")
    from s3t import heal

    source = source_of(args.factory, args.hyper or {}, args.arguments)
    key = os.urandom(KEY_BYTES)
    made = {"factory": args.factory, "arguments": args.arguments}
    return heal.create(args.store, source, make_plan(args), args.shards, args.seed or 0, key, **made)


def check_as_made(manifest: Manifest, args: argparse.Namespace) -> None:
    """Refuse to go on with a store that was made otherwise than asked for now; what is left out is as it was made."""
    hyper = source_hyper(manifest)
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


def heal_arguments(parser: argparse.ArgumentParser) -> None:
    """A store."""
    store_arguments(parser)
    source_arguments(parser)


def run_heal(args: argparse.Namespace) -> Result:
    """Train anew what deletions took away."""
    from s3t import store as stores

    return trained(stores.open(args.store), args)


def trained(opened: Store, args: argparse.Namespace) -> Result:
    """Train what a store misses; what it serves then."""
    from s3t import heal
    from s3t import store as stores

    source = source_for(opened.manifest, args.arguments)
    heal.register(opened, source)  # if the store's creation was killed before it
    done = heal.heal(opened, source, say=(lambda made: None) if args.json else show)
    result = {**stores.status(opened), **done}
    stores.close(opened)
    return result


def show(made: Draft) -> None:
    """Say that a node serves."""
    print(f"shard {made.shard}: {' '.join(map(str, made.slices))} ({len(made.ids)} examples)", file=sys.stderr, flush=True)


def trained_text(result: Result) -> str:
    """What was trained, and what is served."""
    lines = [f"trained: {result['trained']} nodes, {result['discarded']} in vain; {result['skipped']} have no examples"]
    lines += [f"healed: {', '.join(result['healed'])}"] if result["healed"] else []
    return "\n".join([*lines, status_text(result)])


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
    "train": Command(
        "make a store and train its nodes, or go on with one",
        train_arguments,
        run_train,
        trained_text,
    ),
    "heal": Command(
        "train anew what deletions took away, and restore files that were lost or damaged",
        heal_arguments,
        run_heal,
        trained_text,
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
        acknowledge,
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
