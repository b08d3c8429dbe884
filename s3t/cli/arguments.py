"""The arguments of each command of `python -m s3t`, and how their text becomes values."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from s3t.cli import called
from s3t.plans import budgets
from s3t.plans.planners import PLANNERS

IDS = "12,alice.jpg,...|@FILE"
MOST_SHARDS = 1 << 20  # manifests.MOST, which brings safetensors
MOST_STREAMS, MOST_BURST = 1_000_000, 1_000  # simulate's, which brings scipy
MOST_REQUESTS = 10**15  # that a float counts
MOST_DAYS = 1_000 * 365.25  # more is a mistake and not an age
LARGEST = 1e9  # of a measured quality
IDENTITY_LENGTH = 64  # of a node
FROM_FILE = "@FILE reads them from a file, @- from standard input, between commas or white space"


def planner_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Arguments of every command that makes a plan."""
    parser.add_argument("--planner", required=required, choices=PLANNERS, help="how to choose what is trained")
    parser.add_argument("--slices", required=required, type=slices, metavar="L", help="slices of a shard")
    parser.add_argument(
        "--budget",
        type=number,
        metavar="B",
        help="sequences; for greedy FLOPs; of no use to a planner with plans of one size",
    )
    parser.add_argument(
        "--prior", type=numbers, metavar="p1,p2,...", help="probability that a deletion hits each slice; uniform by default"
    )


def simulate_arguments(parser: argparse.ArgumentParser) -> None:
    """A plan, and streams of deletions against it."""
    planner_arguments(parser)
    parser.add_argument("--shards", required=True, type=shards, metavar="m", help="models of the ensemble")
    parser.add_argument("--streams", type=streams, default=10_000, metavar="N", help="independent streams of deletions")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the streams")
    parser.add_argument(
        "--stream",
        default="independent",
        choices=("independent", "bursts", "adaptive"),  # simulate.STREAMS, which brings scipy
        help="requests independent of each other (default), in bursts on one shard, or those that do the most harm",
    )
    parser.add_argument("--burst", type=burst, default=1, metavar="K", help="requests of a burst")
    parser.add_argument(
        "--after", type=requests, default=[], metavar="k1,k2,...", help="tell the depth served after so many requests"
    )
    parser.add_argument(
        "--quality",
        type=qualities,
        metavar="F0,...,FL",
        help="what a shard is worth at each depth from 0 to L, as measured: tell its mean, too",
    )


def store_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of every command about a store."""
    parser.add_argument("--store", required=True, metavar="DIR", help="directory of the store")


def source_arguments(parser: argparse.ArgumentParser) -> None:
    """Where things lie on this machine."""
    parser.add_argument(
        "--arguments", type=json_object, default={}, metavar="JSON", help="keyword arguments of the store's factory"
    )
    parser.add_argument(
        "--trust-factory",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a function that the store names and that may run here; those of the project may; may be given several times",
    )


def log_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to log what happens."""
    parser.add_argument(
        "--log", metavar="FILE", help="append a line with its time for each event: no ids of examples, none of it printed"
    )


def head_arguments(parser: argparse.ArgumentParser) -> None:
    """What was acknowledged before."""
    parser.add_argument(
        "--expect-head",
        action=Heads,
        default=[],
        metavar="H|@FILE",
        help="a head from an earlier answer, or a file of such, which the ledger must still hold; may be repeated",
    )


class Heads(argparse.Action):
    """--expect-head: one more head, or those of a file."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, value: Any, option: str | None = None) -> None:
        """Add them to those given before."""
        try:
            heads = words_of(value[1:], "head") if value.startswith("@") else [value]
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), *heads])


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """A store, and what to make it from if there is none."""
    store_arguments(parser)
    log_arguments(parser)
    source_arguments(parser)
    planner_arguments(parser, required=False)
    parser.add_argument("--shards", type=shards, metavar="m", help="models of the ensemble")
    parser.add_argument("--factory", metavar="MODULE:FUNCTION", help="makes model and data")
    parser.add_argument("--hyper", type=json_object, metavar="JSON", help="what the factory calls its hyper-parameters")
    parser.add_argument(
        "--append", action="store_true", help="take in the examples that came to the data, and train anew what they touch"
    )
    parser.add_argument("--seed", type=seed, metavar="S", help="root key of every random draw; 0 by default")


def heal_arguments(parser: argparse.ArgumentParser) -> None:
    """A store."""
    store_arguments(parser)
    log_arguments(parser)
    source_arguments(parser)


def delete_arguments(parser: argparse.ArgumentParser) -> None:
    """Which examples, and the name of the request."""
    store_arguments(parser)
    parser.add_argument("--ids", type=called.ids, default=[], metavar=IDS, help=f"examples to delete; {FROM_FILE}")
    parser.add_argument(
        "--groups",
        type=called.labels,
        default=[],
        metavar="u003,u017,...|@FILE",
        help=f"groups whose examples to delete, all of them; may stand beside --ids; {FROM_FILE}; {called.QUOTED}",
    )
    parser.add_argument("--request-id", metavar="R", help="a request that is repeated under its id is carried out once")
    log_arguments(parser)
    sign_arguments(parser)


def sign_arguments(parser: argparse.ArgumentParser) -> None:
    """The operator's key."""
    parser.add_argument("--key", metavar="FILE", help="the operator's private key, to sign what is printed with --json")


def key_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a key is made."""
    parser.add_argument("--key", required=True, metavar="FILE", help="the private key to make; beside it FILE.pub is made")


def check_arguments(parser: argparse.ArgumentParser) -> None:
    """What an auditor was given."""
    parser.add_argument(
        "document",
        metavar="PROOF",
        nargs="+",
        help="a file with what delete --key or verify --prove printed; a receipt and a proof are held against each other",
    )
    parser.add_argument("--key", metavar="FILE", help="the operator's public key, from a hand that you trust")


def release_arguments(parser: argparse.ArgumentParser) -> None:
    """What the gate looks at."""
    store_arguments(parser)
    head_arguments(parser)
    parser.add_argument(
        "--replay", type=which_nodes, default=3, metavar="all|N|IDENTITY", help="nodes to train once more; 3 by default"
    )
    source_arguments(parser)


def purge_arguments(parser: argparse.ArgumentParser) -> None:
    """A store."""
    store_arguments(parser)
    log_arguments(parser)


def status_arguments(parser: argparse.ArgumentParser) -> None:
    """A store, when to call it a problem, and how to say it."""
    store_arguments(parser)
    parser.add_argument(
        "--max-age", type=seconds, metavar="SECONDS", help="a request that has waited longer to be healed is a problem"
    )
    parser.add_argument("--metrics", action="store_true", help="print the numbers in the text format of Prometheus")


def redact_arguments(parser: argparse.ArgumentParser) -> None:
    """A store, and how long healed requests keep their ids."""
    store_arguments(parser)
    parser.add_argument(
        "--older-than", type=days, default=0.0, metavar="DAYS", help="only of requests that were healed so long ago"
    )
    log_arguments(parser)


def backup_arguments(parser: argparse.ArgumentParser) -> None:
    """A store, and where its copy goes."""
    store_arguments(parser)
    parser.add_argument("destination", metavar="DEST", help="directory of the backup, which is made")


def restore_arguments(parser: argparse.ArgumentParser) -> None:
    """A backup, where the store goes, and what becomes of later deletions."""
    parser.add_argument("backup", metavar="BACKUP", help="directory of the backup")
    store_arguments(parser)
    head_arguments(parser)
    later = parser.add_mutually_exclusive_group()
    later.add_argument(
        "--replay-deletions",
        action="store_true",
        help="delete again in the restored store what was deleted in DIR since the backup, as far as DIR can be read",
    )
    later.add_argument(
        "--lose-deletions",
        action="store_true",
        help="restore although the backup lacks deletions of DIR, or may lack some",
    )
    log_arguments(parser)


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """What to check the store against."""
    store_arguments(parser)
    head_arguments(parser)
    parser.add_argument(
        "--replay", type=which_nodes, metavar="all|N|IDENTITY", help="train nodes once more and compare their bytes"
    )
    parser.add_argument(
        "--prove",
        type=called.ids,
        metavar=IDS,
        help="prove of each serving node whether it was trained on these examples",
    )
    sign_arguments(parser)
    source_arguments(parser)


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Which examples, and how the shards' answers become one."""
    store_arguments(parser)
    log_arguments(parser)
    source_arguments(parser)
    head_arguments(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--ids", type=called.ids, metavar=IDS, help=f"training examples, deleted ones too; {FROM_FILE}")
    asked.add_argument("--split", metavar="S", help="a split of the store's factory, such as test")
    parser.add_argument(
        "--aggregate",
        choices=("mean", "depth", "all"),  # ensemble.AGGREGATES, which brings jax
        default="mean",
        help="mean of the shards' logits (default), mean weighted by the depth served, or mean of all that survives",
    )


def version() -> str:
    """The version of the installed project, "unknown" where it runs from a folder."""
    import importlib.metadata  # a tenth of a second that other commands can do without

    try:
        return importlib.metadata.version("forethought")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# --- Values -----------------------------------------------------------------------------------------------------------


def number(text: str) -> float:
    """A finite number."""
    if not (_is_float(text) and math.isfinite(float(text))):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r:.80}")
    return float(text)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers between commas, got {text!r:.80}") from None


def qualities(text: str) -> list[float]:
    """Measured qualities between commas."""
    values = numbers(text)
    if wrong := [value for value in values if not abs(value) <= LARGEST]:
        raise argparse.ArgumentTypeError(
            f"a quality curve is finite numbers from -{LARGEST:g} to {LARGEST:g}, got {wrong[0]:g}"
        )
    return values


def slices(text: str) -> int:
    """Slices of a shard."""
    return _count(text, f"1 to {budgets.MOST} slices", 1, budgets.MOST)


def shards(text: str) -> int:
    """Shards of an ensemble."""
    return _count(text, f"1 to {MOST_SHARDS} shards", 1, MOST_SHARDS)


def streams(text: str) -> int:
    """Streams of deletions, two for an interval."""
    return _count(text, f"2 to {MOST_STREAMS} streams", 2, MOST_STREAMS)


def burst(text: str) -> int:
    """Requests of a burst."""
    return _count(text, f"at least 1 request and at most {MOST_BURST}", 1, MOST_BURST)


def requests(text: str) -> list[int]:
    """Numbers of requests between commas."""
    values = whole_numbers(text)
    if wrong := [value for value in values if not 0 <= value <= MOST_REQUESTS]:
        raise argparse.ArgumentTypeError(f"expected requests, 0 or more and at most {MOST_REQUESTS}, got {wrong[0]}")
    return values


def _count(text: str, range_: str, least: int, most: int) -> int:
    """A whole number in a range, which is also given in words."""
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else -1  # int takes 1_2 for 12
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"expected {range_}, got {text!r:.80}")
    return value


def whole_numbers(text: str) -> list[int]:
    """Whole numbers between commas, or those of a file."""
    parts = words_of(text[1:]) if text.startswith("@") else [part.strip() for part in text.split(",")]
    for part in parts:
        if not (len(part) <= 20 and part.isascii() and part.removeprefix("-").isdecimal()):  # int takes 1_2 for 12
            raise argparse.ArgumentTypeError(
                f"expected whole numbers between commas, got {part!r:.80}: nothing was changed"
            )
    return [int(part) for part in parts]


def words_of(path: str, what: str = "whole number") -> list[str]:
    """What a file, or standard input for -, holds between commas or white space: a command line is short."""
    words = called.content(path).replace(",", " ").split()
    if not words:
        raise argparse.ArgumentTypeError(f"{path!r} holds no {what}: nothing was changed")
    return words


def seconds(text: str) -> float:
    """Seconds, from none to a thousand years."""
    return _time(text, "seconds", MOST_DAYS * 86400)


def days(text: str) -> float:
    """Days, from none to a thousand years."""
    return _time(text, "days", MOST_DAYS)


def _time(text: str, unit: str, most: float) -> float:
    value = float(text) if _is_float(text) else -1.0
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"expected {unit}, a number from 0 on and at most {most:.0f}, got {text!r:.80}")
    return value


def seed(text: str) -> int:
    """A whole number from 0 to 2^32 - 1: keys are distinct for all of them."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 1 << 32):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {(1 << 32) - 1}, got {text!r:.80}")
    return int(text)


def which_nodes(text: str) -> str | int:
    """All nodes, a number of them, or one by its identity."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    if len(text) != IDENTITY_LENGTH and _is_float(text):
        raise argparse.ArgumentTypeError(f"expected all, a number of nodes from 1 on, or an identity, got {text!r:.80}")
    return text


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text!r:.80}")
    return value
