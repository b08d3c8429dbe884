"""`forethought sweep`: every point of a grid is a run with a workdir of its own, and one table tells of all of them.

    DIR/points/NAME   the workdir of a point    DIR/logs/NAME.log   what it printed    DIR/table.csv   all numbers
    DIR/sweep         config.json and the lock of the sweep itself

Nothing is remembered about which points have finished: their own workdirs tell.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import operator
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
from absl.flags import FlagValues
from ml_collections.config_flags import config_path

import experiments
from experiments import command_line
from experiments.core import workdirs
from experiments.core.config import Section
from experiments.core.errors import UserError, line
from experiments.core.files import write_text
from experiments.launch import arguments, grid, jobs, scripts, table
from experiments.launch.grid import Point
from experiments.reporting import exports, terminal

DESCRIPTION = """\
Run every point of a grid, each in a workdir of its own, and make one table of all. The same command goes on after a kill:
what has finished is not run again."""
EPILOG = """\
other arguments, as --config and --config.key=value, are those of every run.

values are given as flags take them, with commas between; commas in brackets or quotes belong to a value:
  --grid 'readiness.every=2,4,8'                         three numbers
  --grid 'request.unlearners=("level",),("npo","rmu")'   two tuples
  --grid 'seed=0,10'                                     the table has intervals over seeds"""


MOST = 10_000  # points of a grid, each of which is checked before anything runs


class Sweep(NamedTuple):
    """A sweep that was understood.

    folder: its own.  common: arguments of all runs.  model: of their config.  points: of the grid, all accepted.
    owner: what the folder belongs to: the common config, and which keys vary. Values may be added later.
    """

    folder: Path
    common: Sequence[str]
    model: type[Section]
    points: Sequence[Point]
    owner: dict[str, Any]

    def workdir(self, point: Point) -> Path:
        """Of a point."""
        return self.folder / "points" / point.name

    def arguments(self, point: Point) -> list[str]:
        """Of the command that runs a point."""
        return [*self.common, *point.flags, f"--workdir={self.workdir(point)}"]

    def has_finished(self, point: Point) -> bool:
        """Whether there are results of a point."""
        return (self.workdir(point) / "results.json").exists()


def command(argv: Sequence[str]) -> int:
    """Carry out `forethought sweep ARGUMENTS`; the exit status: 0 if every point has finished, else 1.

    Raises:
      UserError: a grid, a config or a folder that cannot be used; nothing has run.
    """
    args, common = parser().parse_known_args(argv)
    sweep = understood(args.grid, common, args.workdir)
    if args.dry_run and not args.slurm:
        print(plan(sweep))
        return 0
    if args.slurm and args.dry_run:
        return submit(sweep, dry_run=True)
    with workdirs.Workdir(sweep.folder / "sweep", defaults=sweep.model().model_dump()).claimed(sweep.owner):
        return submit(sweep) if args.slurm else carry_out(sweep, args.workers)


def parser() -> argparse.ArgumentParser:
    """Of the arguments that are the sweep's own."""
    made = arguments.Parser(prog="forethought sweep", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("--grid", action="append", required=True, metavar="KEY=VALUE,...", help="an axis; may be repeated")
    made.add_argument("--workdir", required=True, metavar="DIR", help="the folder of the sweep; made if missing")
    made.add_argument("--workers", type=workers, default=1, metavar="N", help="runs at a time (1); 0: the table alone")
    made.add_argument("--slurm", action="store_true", help="submit what has not finished as an array of SLURM")
    made.add_argument("--dry-run", action="store_true", help="print the commands, or the array's script, and run nothing")
    return made


def workers(text: str) -> int:
    """How many runs at a time; 0 is none."""
    return arguments.number(text, 0)


def understood(axes: Sequence[str], common: Sequence[str], workdir: str) -> Sweep:
    """The sweep that was asked for, every point of it accepted by the config.

    Raises:
      UserError: one line for each mistake.
    """
    if not workdir:
        raise UserError("--workdir is empty: give the folder of the sweep")
    folder, values = Path(workdir), grid.parse(axes)
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is the workdir of a run: give the sweep a folder of its own")
    for key in values:
        if any(word.lstrip("-").partition("=")[0] == f"config.{key}" for word in common):
            raise UserError(f"config.{key} stands in the grid and beside it: leave one out")
    place = f"--workdir={folder}"
    if (count := math.prod(map(len, values.values()))) > MOST:
        raise UserError(f"--grid has {count} points: give at most {MOST}")
    usual, _ = command_line.parse(["forethought", *common, place], FlagValues())  # it need not do without the grid
    sections: list[Section] = []
    points: dict[str, Point] = {}
    for override in grid.overrides(values):
        flags = grid.flags(override)
        config, section, _ = arguments.configured([*common, *flags, place])
        as_read = {key: str(config_path.get_value(_path(key), config)) for key in values}
        point = Point(grid.name(as_read), as_read, flags)
        if point.name in points:
            raise UserError(f"{' '.join(flags)} is the same point as {' '.join(points[point.name].flags)}: leave one out")
        points[point.name] = point
        sections.append(section)
    _check_seeds(sections[0], list(points.values()))
    owner = {**_without(values, sections[0], usual), "grid": sorted(values)}
    return Sweep(folder, tuple(common), type(sections[0]), list(points.values()), owner)


def _path(key: str) -> str:
    """A key as ml_collections finds it."""
    return command_line.quoted(f"--config.{key}").removeprefix("--config.")


def _without(keys: Iterable[str], section: Section, usual: ml_collections.ConfigDict) -> dict[str, Any]:
    """The values of a point, those of the grid's keys as they are without the grid."""
    whole = section.model_dump()
    for key in keys:
        *way, last = config_path.split(_path(key))
        part = functools.reduce(operator.getitem, way, whole)
        if last in part:  # a tracker, say, is no part of what a folder belongs to
            value = config_path.get_value(_path(key), usual)
            part[last] = value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value
    return whole


def _check_seeds(section: Section, points: Sequence[Point]) -> None:
    """Refuse seeds of which several points would count one."""
    alike: dict[tuple[str, ...], list[Point]] = {}  # points that differ in nothing but their seed
    for point in points if table.SEED in points[0].values else ():
        alike.setdefault(tuple(value for key, value in point.values.items() if key != table.SEED), []).append(point)
    for group in alike.values():
        each = int(group[0].values.get("seeds", getattr(section, "seeds", 1)))
        seeds = sorted(int(point.values[table.SEED]) for point in group)
        if any(b - a < each for a, b in itertools.pairwise(seeds)):
            raise UserError(
                f"every run has {each} seeds, so that those of the grid overlap: give them at least {each} apart"
            )


def plan(sweep: Sweep) -> str:
    """The commands of all points, and which have finished."""
    return "\n".join(
        f"{'# finished: ' if sweep.has_finished(point) else ''}{shlex.join(['forethought', *sweep.arguments(point)])}"
        for point in sweep.points
    )


def submit(sweep: Sweep, dry_run: bool = False) -> int:
    """Hand an array of what has not finished to SLURM; the exit status.

    Raises:
      UserError: there is no SLURM here, or nothing to submit.
    """
    left = [point for point in sweep.points if not sweep.has_finished(point)]
    if not left:
        raise UserError("every point has finished: leave --slurm out for the table")
    commands = [["forethought", *sweep.arguments(point)] for point in left]
    for words in commands:
        scripts.checked(words)
    name = scripts.named(sweep.folder.name)
    return scripts.submit("slurm", name, scripts.array(name, commands), dry_run)


def carry_out(sweep: Sweep, workers: int) -> int:
    """Run what has not finished, write the table and print it, and name what failed; the exit status."""
    left = [point for point in sweep.points if not sweep.has_finished(point)]
    tell(f"points: {len(sweep.points)}, finished before: {len(sweep.points) - len(left)}")
    root = str(Path(experiments.__file__).parents[1])  # where a source tree was not installed
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    waiting = [job(sweep, point) for point in left] if workers else []
    ended = jobs.run(waiting, workers, tell, {**os.environ, "PYTHONPATH": path})
    failed = {end.job.name: end.said for end in ended if end.status}
    unfinished = [] if workers else [point.name for point in left]
    finished = []
    for point in sweep.points:
        if point.name in (*failed, *unfinished):
            continue
        try:
            finished.append(table.Finished(point.values, rows(sweep.workdir(point))))
        except UserError as error:
            failed[point.name] = line(error)
    if finished:
        whole = table.make(finished)
        write_text(sweep.folder / "table.csv", exports.to_csv(whole))
        print(terminal.to_text(table.shown(whole), terminal.width()))
        print(f"± is half of the 95% t-interval over seeds. All numbers: {sweep.folder / 'table.csv'}")
    for name, said in failed.items():
        print(f"failed: {name}: {said} (see {sweep.folder / 'logs' / name}.log)", file=sys.stderr)
    if unfinished:
        tell(f"{len(unfinished)} of {len(sweep.points)} points have not finished: {', '.join(unfinished)}")
    if failed:
        print(f"{len(failed)} of {len(sweep.points)} points failed: the same command runs them again", file=sys.stderr)
    return 1 if failed or unfinished else 0


def job(sweep: Sweep, point: Point) -> jobs.Job:
    """The process of a point."""
    program = [sys.executable, "-P", "-m", "experiments.launch.worker"]
    log = sweep.folder / "logs" / f"{point.name}.log"
    return jobs.Job(point.name, (*program, *sweep.arguments(point)), sweep.workdir(point), log)


def rows(workdir: Path) -> list[dict[str, object]]:
    """Of a finished point, as flat dicts.

    Raises:
      UserError: its results cannot be read.
    """
    from experiments.loading import load  # brings all models, and only a table needs it

    return load(workdir).table()


def tell(words: str) -> None:
    """A line about the queue, apart from the table."""
    print(words, file=sys.stderr, flush=True)
