"""A run from Python or a notebook, as the command line has it: a bar, the table, and what `load` reads of it.

from experiments import run

done = run("readiness:digits", "runs/digits", {"seeds": 3, "train.steps": 500})  # prints the command line's table
done.table()                                                                      # see `experiments.loading`
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import command_line, main
from experiments.loading import Run, load


def run(config: str, workdir: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Run:
    """Run or resume what a config asks for; a finished workdir is read back instead.

    The same call goes on after an interruption, and so does the command line, `forethought --config=... --workdir=...`.

    Args:
      config: NAME:EXPERIMENT of a packaged config, or the path of a config file, as `--config` takes it.
      workdir: the folder of this run; made if missing.
      overrides: values by their keys in the config, as in {"train.steps": 500}.

    Raises:
      UserError: a config that cannot be run; one line that says what to do.
    """
    given = [f"--config.{key}={value}" for key, value in (overrides or {}).items()]
    arguments = ["forethought", f"--config={config}", *given, f"--workdir={os.fspath(workdir)}"]
    parsed, folder = command_line.parse(arguments, flags.FlagValues())
    print(main.carry_out(parsed, folder, shlex.join(arguments), sys.stdout))
    return load(folder)
