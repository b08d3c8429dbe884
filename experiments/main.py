"""Train, forget and judge: the command line of Forethought's experiments.

  forethought --config=readiness:digits --workdir=DIR [--config.key=value ...]
  forethought sweep --config=... --grid 'seed=0,10' --workdir=DIR    many runs and one table; sweep --help
  forethought launch slurm -- --config=... --workdir=DIR             a job of a cluster; launch --help
  forethought federated server|client|erase                          real clients, an archive; federated --help
  forethought --list                 the packaged configs, each with one line
  forethought --describe=readiness   all fields of a config: type, range, default, meaning
  forethought --version

--config takes the name of a packaged config, or the path of a file of your own (my_config.py:argument). The same command
resumes a run that was stopped, and prints the results of one that has finished. On a cluster the processes of a run find
each other; by hand each gets --coordinator=HOST:PORT, --processes=N and --process=I as well.

`python -m experiments.main` is the same command. It looks for modules in the current folder first, so a folder named
`experiments` there gets in its way. `forethought` looks there last: modules of your own are found and hide nothing.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from experiments.command_line import EXTRA, package, parse, processes_told
from experiments.core import catalogue
from experiments.core.errors import UserError, line
from experiments.core.machines import distributed, preemption

if TYPE_CHECKING:
    import ml_collections
    from absl import flags

RUNNERS = {  # name -> what runs it, what reports it, and which settings make its programs large
    "readiness": (
        "experiments.comparison.run",
        "experiments.comparison.report",
        "train.batch_size, seeds, model.options, request.max_steps",
    ),
    "pretrain": ("experiments.pretrain.run", "experiments.pretrain.run", "train.batch_size, model"),
    "s3t": ("experiments.exact.run", "experiments.exact.run", "train.batch_size, lanes, cache_bytes, model"),
    "judge": ("experiments.judge.run", "experiments.judge.report", "judge.memory_bytes, train.batch_size, model.options"),
    "judge_exact": (
        "experiments.judge_exact.run",
        "experiments.judge_exact.report",
        "exact.models, lanes, cache_bytes, model",
    ),
    "federated": (
        "experiments.erasure.run",
        "experiments.erasure.report",
        "federation.clients, federation.rounds, model.options",
    ),
}
MODELS = {  # packaged config -> its model, which describes the fields
    "federated": "Federated",
    "judge": "Judge",
    "judge_exact": "JudgeExact",
    "pretrain": "Pretrain",
    "readiness": "Comparison",
    "s3t": "S3TStudy",
}
COMMANDS = {  # what starts runs, and what is no run
    "sweep": "experiments.launch.sweep",
    "launch": "experiments.launch.scripts",
    "federated": "experiments.launch.federated",
}
INTERRUPTED = 130  # the exit status that a shell gives Ctrl-C


def main() -> int:
    """The console script `forethought` and `python -m experiments.main`; returns the exit status."""
    faulthandler.enable()
    sys.path.append("")  # the current folder, last
    preemption.listen()
    try:
        status = command(sys.argv)
    except Exception:  # a fault of the program, or memory that ran out
        if not distributed.joined():
            raise
        traceback.print_exc()
        status = 1
    if status in (INTERRUPTED, preemption.STATUS) or (status and distributed.joined()):
        # Programs may be at work on what Python would take away as it ends: a segmentation fault, and another status.
        # And a process of several would wait for those that wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def command(argv: Sequence[str], values: flags.FlagValues | None = None) -> int:
    """Answer a question, or run what a config asks for; a mistake of the user's is one line and exit status 2.

    Args:
      argv: the program and its arguments.
      values: where flags are defined; None: absl's own.
    """
    try:
        if argv[1:2] and argv[1] in COMMANDS:
            return int(importlib.import_module(COMMANDS[argv[1]]).command(argv[2:]))
        answer = answered(argv[1:])
        if answer is not None:
            print(answer)
            return 0
        config, workdir = parse(argv, values)
        told = processes_told(values)
        program = ["forethought"] if Path(argv[0]).name == "forethought" else ["python", "-m", "experiments.main"]
        return execute(config, workdir, shlex.join([*program, *argv[1:]]), told)
    except (UserError, OSError) as error:  # a path that is too long, say, or may not be looked at
        return fail(error)
    except KeyboardInterrupt as error:  # before or after what `execute` runs
        return interrupted(error)
    except ModuleNotFoundError as error:
        if package(error) not in EXTRA:
            raise
        return fail(
            f"the command line needs {package(error)}, which is not installed: pip install 'forethought[experiments]'"
        )


def answered(arguments: Sequence[str]) -> str | None:
    """The answer to a question about Forethought itself; None if a run is asked for.

    Raises:
      UserError: a description of no config that there is.
    """
    answers: dict[str, Callable[[str], str]] = {
        "help": lambda _: (__doc__ or "").rstrip(),
        "version": lambda _: f"forethought {version()}",
        "list": lambda _: catalogue.listing(),
        "describe": described,
    }
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name.startswith("-") and name.lstrip("-") in answers:
            following = [other for other in arguments[i + 1 : i + 2] if not other.startswith("-")]
            return answers[name.lstrip("-")](value or "".join(following))
    return None


def version() -> str:
    """Of the installed distribution."""
    from experiments import __version__

    return __version__


def described(name: str) -> str:
    """All fields of a config, with type, range, default and meaning.

    Raises:
      UserError: no such config, or one without descriptions.
    """
    chosen = catalogue.module(name)
    try:
        from experiments.core.config import describe
    except ModuleNotFoundError as error:
        if error.name != "experiments.core.config":
            raise
        raise UserError(f"the fields of {name} are described in {chosen.__file__} alone") from None
    return describe(getattr(chosen, MODELS[name.partition(":")[0]]))


def execute(
    config: ml_collections.ConfigDict, workdir: str, command: str, told: Mapping[str, str | None] | None = None
) -> int:
    """Run what the config asks for and print its results; returns the exit status; see `carry_out`.

    Args:
      told: of several processes, by flags.

    Raises:
      UserError: this is one of several processes, which the runner does not share its work between.
    """
    try:
        _, _, large = _runner(config)
    except UserError as error:
        return fail(error)
    choice = distributed.begin(os.environ, config.runner, told)
    if choice.processes != 1:
        print(f"forethought: {choice.words()}", file=sys.stderr)
    import jax

    from experiments.core.machines import processes

    try:
        text = carry_out(config, workdir, command, sys.stderr)
    except (UserError, OSError) as error:  # a full or forbidden disk is the user's to mend, too
        return fail(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail(f"out of memory ({line(error)}): lower what makes it large ({large}) and use an empty --workdir")
    except KeyboardInterrupt as error:
        return interrupted(error)
    if processes.is_first():
        print(text)
    return 0


def _runner(config: ml_collections.ConfigDict) -> tuple[str, str, str]:
    name = getattr(config, "runner", None)
    if name not in RUNNERS:
        raise UserError(f"config.runner {name!r} is unknown; choose one of {', '.join(RUNNERS)}")
    return RUNNERS[name]


def carry_out(config: ml_collections.ConfigDict, workdir: str, command: str, stream: TextIO) -> str:
    """Run what the config asks for, progress shown on `stream`, and write its report; the text to print of it.

    Raises:
      UserError: a config that cannot be run, or an environment that it cannot run in.
    """
    runner, reporter, _ = _runner(config)
    import jax
    from absl import logging

    from experiments.core import notices, progress
    from experiments.core.machines import processes, switches

    logging.use_absl_handler()
    logging.set_verbosity(logging.FATAL)  # TFDS and Orbax warn of what is not the user's to mend, and raise what is
    run = importlib.import_module(runner).run  # heavy, and only now: the flags are right, and no other runner is needed
    present = importlib.import_module(reporter).present
    switches.check_devices()
    if (count := jax.process_count()) > 1:  # a TPU knows without being told
        distributed.check(config.runner, f"one of {count} processes (JAX's devices)")
        processes.check_same({f"config.{name}": value for name, value in config.to_dict().items()}, "command")
    with ExitStack() as shown:
        if processes.is_first():
            shown.enter_context(progress.shown(stream))
            shown.enter_context(notices.shown(stream))
        with progress.waiting("reading data, model and config"):
            results = run(config, workdir, command)
        with progress.waiting("writing the report"):
            return str(processes.first(lambda: present(workdir, results)))


def interrupted(error: KeyboardInterrupt) -> int:
    """Say that a run can go on; the exit status: of Ctrl-C as a shell has it, else one that asks for another try."""
    lost = isinstance(error, preemption.Lost)
    why = (
        f"another process of this run is gone ({error}): the same commands go"
        if lost
        else "interrupted: the same command goes"
    )
    print(f"{why} on from the last checkpoint", file=sys.stderr)
    return preemption.STATUS if isinstance(error, preemption.Preempted) else INTERRUPTED


def fail(error: object) -> int:
    """Say what is wrong, one line for each mistake; exit status 2."""
    for mistake in getattr(error, "mistakes", (error,)):
        print("error: " + " ".join(str(mistake).split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
