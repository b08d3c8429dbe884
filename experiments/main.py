"""The command line: flags and dispatch.

python -m experiments.main --config=experiments/configs/readiness.py:digits --workdir=DIR [--config.key=value ...]
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "A config file, with its argument after a colon.")
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of this run; made if missing.")


def main(argv: Sequence[str]) -> int:
    """Run what the config asks for; a mistake of the user's is one line on standard error and exit status 2."""
    logging.set_verbosity(logging.WARNING)  # orbax tells of every save
    if len(argv) > 1:
        return fail(f"unexpected argument {argv[1]!r}: options look like --config.seed=1")
    if CONFIG.value is None or WORKDIR.value is None:
        return fail("give --config=experiments/configs/readiness.py:digits and --workdir=DIR")
    from experiments import report, run_pretrain, run_readiness, run_s3t  # heavy: only once the flags are right

    runners = {"readiness": (run_readiness.run, report.present), "pretrain": (run_pretrain.run, run_pretrain.present)}
    runners |= {"s3t": (run_s3t.run, run_s3t.present)}
    config = CONFIG.value
    run, present = runners[config.runner]
    try:
        results = run(config, WORKDIR.value, shlex.join(["python", "-m", "experiments.main", *sys.argv[1:]]))
        text = present(WORKDIR.value, results)
    except (ValueError, TypeError, OSError) as error:
        return fail(error)
    print(text)
    return 0


def fail(error: object) -> int:
    """Say what is wrong in one line; exit status 2."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 2


def parse(argv: Sequence[str]) -> list[str]:
    """Parse flags; an unknown key, a wrong type or a missing config ends in one line and exit status 2."""
    try:
        return flags.FLAGS(argv, known_only=False)
    except (KeyError, AttributeError) as error:
        key = str(error.args[0]).strip("\"'")
        flag = next((a for a in argv if a.startswith("--config.") and key in a.split("=")[0].split(".")), key)
        sys.exit(fail(f"the config has no key {flag.split('=')[0]}: the keys and their meaning stand in the config file"))
    except (flags.Error, ValueError, TypeError, OSError, SyntaxError) as error:
        # A config file's own error arrives as a traceback in the text: its last line says what was wrong.
        sys.exit(fail(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
