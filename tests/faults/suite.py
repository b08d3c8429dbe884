"""The attacks: which there are, how each is run, and the table of what they counted."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.tallies import BAD, GOOD, Limit, Room, Tally

# The module of each attack, whose attack(room, rng, limit, tally) is it, and its share of the seconds.
ATTACKS = {
    "kills": ("kills", 4),
    "copies": ("copies", 1),
    "trainings": ("trainings", 1),
    "stops": ("stops", 1),
    "crowds": ("crowds", 1),
    "disks": ("disks", 1),
    "damage": ("damage", 3),
    "forged": ("forged", 2),
    "inputs": ("inputs", 2),
    "configs": ("configs", 1),
}
SECONDS = 1200.0  # of all


def attack(name, limit, seed):
    """Run one attack in this process."""
    tally, began = Tally(name), time.monotonic()
    module = importlib.import_module(f"tests.faults.{ATTACKS[name][0]}")
    told = contextlib.redirect_stdout(sys.stderr)  # what libraries print while they are imported
    with told, tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as folder:
        module.attack(Room.make(Path(folder).resolve()), random.Random(f"{seed} {name}"), limit, tally)
    tally.seconds = time.monotonic() - began
    return tally


def apart(function, *arguments):
    """What a function gives in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def counted(name, limit, seed):
    """Run one attack in a process of its own; one that dies is a traceback."""
    try:
        return apart(attack, name, limit, seed)
    except Exception as error:
        tally = Tally(name)
        tally.bad("tracebacks", f"the attack itself ended: {error!r} {error.__cause__ or ''}")
        return tally


def table(tallies):
    """One line for each attack, and one for all."""
    columns = ("attack", *GOOD, *BAD, "seconds")
    total = Tally("all")
    for tally in tallies:
        for name in (*GOOD, *BAD, "seconds"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    rows = [dataclasses.asdict(tally) | {"seconds": round(tally.seconds)} for tally in (*tallies, total)]
    cells = [columns, *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def make_parser():
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Attack stores, workdirs and parsers.")
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--seconds", type=float, help=f"of all attacks together; {SECONDS:g} if nothing is given")
    how_long.add_argument("--rounds", type=int, help="of each attack")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=ATTACKS, metavar="NAME", help=f"one of {', '.join(ATTACKS)}")
    return parser


def main(argv=None):
    """Run attacks and print the table; the exit status."""
    args = make_parser().parse_args(argv)
    names = args.only or list(ATTACKS)
    shares = sum(ATTACKS[name][1] for name in names)
    tallies = []
    for name in names:
        seconds = None if args.rounds else (args.seconds or SECONDS) * ATTACKS[name][1] / shares
        tallies.append(counted(name, Limit(args.rounds, seconds), args.seed))
        for note in tallies[-1].notes[:20]:
            print(note, file=sys.stderr)
    print(table(tallies))
    return int(any(tally.faults for tally in tallies))
