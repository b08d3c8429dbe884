"""`forethought launch`: a run as a job of SLURM, Kubernetes, a TPU VM or SkyPilot, from the templates beside this file.

A script is an ordinary one of its system: print it by --dry-run, change it, and submit it by hand where that suits better.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from experiments.core.errors import UserError
from experiments.core.files import write_text
from experiments.core.machines import distributed
from experiments.launch import arguments

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 45  # of a name: a JobSet adds up to 17 characters to those of its pods, which have 63
NAME = rf"[a-z]([a-z0-9-]{{0,{LONGEST - 2}}}[a-z0-9])?"  # of a job, as Kubernetes and SkyPilot take it

DESCRIPTION = """\
Run the command that stands after -- as a job of a cluster: forethought launch slurm -- --config=... --workdir=DIR
forethought launch KIND --help has the options of each kind."""


class Option(NamedTuple):
    """An option of one kind of job, and whether there must be one."""

    help: str
    required: bool = False


class Kind(NamedTuple):
    """A system that runs jobs.

    about: in a few words.  suffix: of the script's file.  submit: the command that takes it.  options: by name.
    """

    about: str
    suffix: str
    submit: tuple[str, ...]
    options: dict[str, Option]


POD = {
    "image": Option("the container image, which has forethought", required=True),
    "claim": Option("the volume claim that is mounted where --workdir is", required=True),
}
KINDS = {
    "slurm": Kind("a batch job, requeued when it is asked to leave", "sh", ("sbatch",), {}),
    "kubernetes": Kind("an Indexed Job", "yaml", ("kubectl", "apply", "-f"), POD),
    "jobset": Kind("an Indexed Job in a JobSet, as for Kueue", "yaml", ("kubectl", "apply", "-f"), POD),
    "tpu": Kind(
        "a TPU VM that there is",
        "sh",
        ("bash",),
        {"tpu": Option("its name", required=True), "zone": Option("its zone", required=True)},
    ),
    "skypilot": Kind(
        "a managed job of SkyPilot",
        "yaml",
        ("sky", "jobs", "launch", "--yes"),
        {"accelerators": Option("of a node, as H100:1")},
    ),
}


def command(argv: Sequence[str]) -> int:
    """Carry out `forethought launch KIND ARGUMENTS -- RUN'S ARGUMENTS`; the exit status is that of what submits.

    Raises:
      UserError: arguments or a config that cannot be used, several nodes for a runner that does not share its work, or no
        such system here: nothing is submitted.
    """
    own, words = _parted(argv)
    args = parser().parse_args(own)
    if not words:
        raise UserError("give the run's arguments after --, as in: forethought launch slurm -- --config=... --workdir=DIR")
    checked(words)
    config, _, workdir = arguments.configured(words)
    if (nodes := getattr(args, "nodes", 1)) > 1 and config.runner not in distributed.RUNNERS:
        raise UserError(f"--nodes is {nodes}, and {distributed.why_alone(config.runner)}: leave it out")
    name = args.name or named(Path(workdir).name)
    script = rendered(args.kind, ["forethought", *words], workdir, {**vars(args), "name": name})
    return submit(args.kind, name, script, args.dry_run)


def _parted(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first --."""
    at = list(argv).index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def parser() -> argparse.ArgumentParser:
    """Of what stands before --."""
    made = arguments.Parser(prog="forethought launch", description=DESCRIPTION)
    kinds = made.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        sub = kinds.add_parser(name, help=kind.about)
        if name != "tpu":
            sub.add_argument(
                "--nodes",
                type=arguments.number,
                default=1,
                metavar="N",
                help="machines, a process on each (1)",
            )
        if name == "slurm":
            sub.add_argument(
                "--sbatch", action="append", type=_option, default=[], metavar="OPTION", help="as --sbatch=--partition=gpu"
            )
        for option, about in kind.options.items():
            sub.add_argument(f"--{option}", required=about.required, metavar=option.upper(), help=about.help)
        sub.add_argument("--name", type=_name, help="of the job and its script; as --workdir is called")
        sub.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    return made


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a job: give up to {LONGEST} small letters, digits and - between, a letter first"
        )
    return text


def _option(text: str) -> str:
    if not (text.startswith("-") and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r} is no option of sbatch: give one as --sbatch=--partition=gpu")
    return text


def named(folder: str) -> str:
    """The name of a job after a folder's."""
    words = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-") or "forethought"
    return (words if words[0].isalpha() else f"run-{words}")[:LONGEST].strip("-")


def checked(words: Sequence[str]) -> None:
    """Refuse what no script can hold.

    Raises:
      UserError: an argument with a line break or another character that is not printed.
    """
    for word in words:
        if not word.isprintable():
            raise UserError(f"{word!r} has a character that is not printed: put it into a config's file")


def rendered(kind: str, words: Sequence[str], workdir: str, values: dict[str, Any]) -> str:
    """The script of a job.

    Args:
      words: the command that it runs.
      workdir: of the run.
      values: of the kind's options.

    Raises:
      UserError: a workdir that is not below a folder of the container, where the volume is mounted.
    """
    mount = Path(workdir).parent
    if "claim" in KINDS[kind].options and not (Path(workdir).is_absolute() and mount.name):
        raise UserError(f"--workdir={workdir} is not in a folder where a volume can be mounted: give one as /runs/NAME")
    quoted = {name: shlex.quote(values[name]) for name in ("tpu", "zone") if name in values}
    known = {"points": (), "options": values.get("sbatch", ()), "mount": str(mount), "extras": _extras(values)}
    template = f"{kind}.{KINDS[kind].suffix}.jinja"
    return (
        _templates().get_template(template).render({**values, **known, **quoted, "words": words, "run": shlex.join(words)})
    )


def _extras(values: dict[str, Any]) -> str:
    """What is installed where nothing is: JAX for the accelerators, too."""
    accelerators = values.get("accelerators") or ""
    if not accelerators:
        return "experiments"
    return ("tpu" if accelerators.lower().startswith("tpu") else "cuda") + ",experiments"


def array(name: str, commands: Sequence[Sequence[str]]) -> str:
    """The script of a SLURM array, a task for each command."""
    points = [shlex.join(words) for words in commands]
    return _templates().get_template("slurm.sh.jinja").render(name=name, points=points, options=())


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["shell"] = shlex.quote
    environment.filters["quoted"] = functools.partial(json.dumps, ensure_ascii=False)  # a string of JSON is one of YAML
    return environment


def submit(kind: str, name: str, script: str, dry_run: bool) -> int:
    """Print a script, or write it beside where one stands and hand it to its system; the exit status.

    Raises:
      UserError: the system's command is not here, or the file cannot be written.
    """
    if dry_run:
        print(script, end="")
        return 0
    program = KINDS[kind].submit
    if shutil.which(program[0]) is None:
        raise UserError(f"{program[0]} is not here: launch where it is, or use --dry-run and submit the script by hand")
    file = Path(f"{name}.{kind}.{KINDS[kind].suffix}")
    write_text(file, script)
    print(f"{shlex.join([*program, str(file)])}", file=sys.stderr, flush=True)
    return subprocess.run([*program, str(file)], check=False).returncode
