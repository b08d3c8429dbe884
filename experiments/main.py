"""The command line: flags and dispatch.

python -m experiments.main --config=experiments/configs/readiness.py:digits --workdir=DIR [--config.key=value ...]
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.core.errors import ConfigError, UserError, line

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
}
INTERRUPTED = 130  # exit status, as a shell has it


def fail(error: object) -> int:
    """Say what is wrong, each mistake in one line; exit status 2."""
    for mistake in error.mistakes if isinstance(error, ConfigError) else (error,):
        print("error: " + " ".join(str(mistake).split()), file=sys.stderr)
    return 2


try:
    CONFIG = config_flags.DEFINE_config_file("config", None, "A config file, with its argument after a colon.")
except (flags.Error, ValueError) as error:  # a --flagfile is read already here
    sys.exit(fail(str(error).removeprefix("ERROR:: ")))
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of this run; made if missing.")


def main(argv: Sequence[str]) -> int:
    """Run what the config asks for; a mistake of the user's is one line on standard error and exit status 2."""
    logging.set_verbosity(logging.ERROR)  # TFDS and Orbax warn of what is not the user's to mend
    sys.unraisablehook = unraisable
    if len(argv) > 1:
        return fail(f"unexpected argument {argv[1]!r}: options look like --config.seed=1")
    if CONFIG.value is None or not WORKDIR.value:
        return fail("give --config=experiments/configs/readiness.py:digits and --workdir=DIR")
    import jax

    name = getattr(CONFIG.value, "runner", None)
    if name not in RUNNERS:
        return fail(f"config.runner {name!r} is unknown; choose one of {', '.join(RUNNERS)}")
    runner, reporter, large = RUNNERS[name]
    run = importlib.import_module(runner).run  # heavy, and only now: the flags are right, and no other runner is needed
    present = importlib.import_module(reporter).present
    try:
        jax.devices()
    except RuntimeError as error:  # of JAX_PLATFORMS, or of a device that cannot be used
        return fail(error)
    try:
        results = run(CONFIG.value, WORKDIR.value, shlex.join(["python", "-m", "experiments.main", *sys.argv[1:]]))
        text = present(WORKDIR.value, results)
    except (UserError, OSError) as error:  # a full or forbidden disk is the user's to mend, too
        return fail(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail(f"out of memory ({line(error)}): lower what makes it large ({large}) and use an empty --workdir")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    print(text)
    return 0


def unraisable(ignored: Any) -> None:
    """Report what Python ignores, save what reads of a damaged checkpoint tell a loop that is gone: its error is raised."""
    if str(ignored.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(ignored)


def parse(argv: Sequence[str]) -> list[str]:
    """Parse flags; an unknown key, a wrong type or a missing config ends in one line and exit status 2."""
    try:
        return flags.FLAGS(argv, known_only=False)
    except (KeyError, AttributeError) as error:
        # The key, in quotes, and perhaps a guess on a line of its own; a KeyError may come wrapped in an AttributeError.
        inner = error.args[0].args[0] if isinstance(error.args[0], KeyError) else error.args[0]
        key, _, guess = str(inner).partition("\n")
        paths = [a.split("=")[0].removeprefix("--config.") for a in argv if a.startswith("--config.")]
        key = next((path for path in paths if key.strip("'") in path.split(".") or key.endswith(f": {path}")), key)
        sys.exit(fail(f"the config has no key {key}: {guess or 'the keys and their meaning stand in the config file'}"))
    except (flags.Error, ValueError, TypeError, IndexError, OSError, SyntaxError) as error:
        # A config file's own error arrives as a traceback in the text: its last line says what was wrong.
        sys.exit(fail(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
