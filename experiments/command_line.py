"""What a command line says: a config with its overrides, the folder of a run, and what is wrong with either."""

from __future__ import annotations

import keyword
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.core import catalogue
from experiments.core.errors import UserError, kind, line
from experiments.core.machines import distributed

if TYPE_CHECKING:
    import ml_collections
    from absl import flags

BESIDE_FACTORY = {"data": ("name", "validation_fraction"), "model": ("name", "options")}  # of no use to a factory
EXTRA = {  # what the extra `experiments` brings and the pure rooms do without
    "absl", "array_record", "flax", "grain", "jinja2", "matplotlib", "ml_collections", "orbax", "pydantic",
    "tensorflow_datasets", "tqdm",
}  # fmt: skip
CONFIG_MODULE = "config_config"  # as which ml_collections loads the file that --config names


def parse(argv: Sequence[str], values: flags.FlagValues | None = None) -> tuple[ml_collections.ConfigDict, str]:
    """The config, overrides applied, and the workdir that a command line gives.

    Raises:
      UserError: an unknown key, a wrong type, a missing config or workdir, or a stray word.
    """
    from absl import flags
    from ml_collections import ConfigDict, config_flags

    values = flags.FLAGS if values is None else values
    try:
        argv = [quoted(one) for one in with_paths(_with_flagfiles(argv))]
        config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        workdir = flags.DEFINE_string("workdir", None, "The folder of this run; made if missing.", flag_values=values)
        for name, variable in distributed.VARIABLES.items():
            flags.DEFINE_string(name, None, f"Of several processes of a run; as {variable}.", flag_values=values)
        rest = values(argv, known_only=False)
        getattr(config.value, "runner", None)  # where the file raised an OSError, it comes only now
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's file raises what it likes
        if isinstance(error, ModuleNotFoundError) and package(error) in EXTRA:
            raise
        if told := _in_config_file(error):
            raise UserError(told) from error
        if isinstance(error, KeyError | AttributeError):
            raise UserError(_unknown_key(error, argv)) from error
        if not isinstance(error, flags.Error | ValueError | TypeError | IndexError | OSError | SyntaxError):
            raise
        # A config file's own error arrives as a traceback in the text: its last line says what was wrong.
        last = str(error).strip().splitlines()[-1]
        raise UserError(last.removeprefix("ERROR:: ").removeprefix("ValueError: ")) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: options look like --config.seed=1")
    if values["config"].present and not isinstance(config.value, ConfigDict):
        raise UserError(f"get_config gives a {type(config.value).__name__}: return an ml_collections.ConfigDict")
    if config.value is None or not workdir.value:
        raise UserError("give --config=readiness:digits and --workdir=DIR; forethought --list names all configs")
    _check_meant(config.value, argv)
    return config.value, workdir.value


def processes_told(values: flags.FlagValues | None = None) -> dict[str, str | None]:
    """What the flags of a command line that was parsed say of several processes."""
    from absl import flags

    values = flags.FLAGS if values is None else values
    return {name: values[name].value for name in distributed.VARIABLES}


def quoted(argument: str) -> str:
    """A flag whose key has a part that is a word of Python's, as flags take it: config.suited['class'].retention."""
    flag, equals, value = argument.partition("=")
    first, *parts = flag.split(".")
    if first.lstrip("-") != "config" or first == "config":
        return argument
    return first + "".join(f"[{part!r}]" if keyword.iskeyword(part) else f".{part}" for part in parts) + equals + value


def _with_flagfiles(argv: Sequence[str]) -> list[str]:
    """The command line with what its flagfiles hold; a byte order mark, which some editors write, is none of a flag.

    Raises:
      UserError: a flagfile that is no text.
    """
    from absl import flags

    try:
        return [one.removeprefix("\ufeff") for one in flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)]
    except UnicodeDecodeError as error:
        raise UserError(f"a --flagfile is no text in UTF-8 ({error.reason}): save it as that") from error


def _check_meant(config: ml_collections.ConfigDict, argv: Sequence[str]) -> None:
    """Refuse options that are typed beside a factory which takes no notice of them; that a config has them is no matter."""
    typed = [argument.partition("=")[0].lstrip("-") for argument in argv]
    for section, names in BESIDE_FACTORY.items():
        ignored = [flag for flag in typed if flag.startswith(tuple(f"config.{section}.{name}" for name in names))]
        if ignored and (config.get(section) or {}).get("factory"):
            raise UserError(
                f"--{ignored[0]} means nothing beside --config.{section}.factory, which makes its own: leave one out"
            )


def with_paths(argv: Sequence[str]) -> list[str]:
    """The command line with the path of a config's file in place of its name.

    Raises:
      UserError: neither a packaged config nor a file.
    """
    made: list[str] = []
    for argument in argv:
        flag, equals, given = argument.partition("=")
        if made and re.fullmatch("--?config", made[-1]):
            made.append(catalogue.resolve(argument))
        elif equals and re.fullmatch("--?config", flag):
            made.append(f"{flag}={catalogue.resolve(given)}")
        else:
            made.append(argument)
    return made


def _in_config_file(error: BaseException) -> str | None:
    """What is wrong with the config's own file, and in which line; None if the error does not come from there."""
    causes = [error]  # flags wrap errors of a file, some of them twice
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in reversed(causes):
        if str(cause) == f"module {CONFIG_MODULE!r} has no attribute 'get_config'":
            return "the config's file has no get_config: define get_config(), which returns an ml_collections.ConfigDict"
        if isinstance(cause, SyntaxError) and Path(cause.filename or "").is_file():
            return f"{cause.filename}, line {cause.lineno}, is no Python ({cause.msg}): mend it"
        frames = traceback.extract_tb(cause.__traceback__)
        inside = [frame.f_globals.get("__name__") == CONFIG_MODULE for frame, _ in traceback.walk_tb(cause.__traceback__)]
        if any(inside):
            if isinstance(cause, UserError) or (isinstance(cause, ValueError) and inside[-1] and _raises(frames[-1])):
                return line(cause)  # the file's own refusal
            at = next(frame for frame, own in zip(reversed(frames), reversed(inside), strict=True) if own)
            return f"{at.filename}, line {at.lineno}, fails ({kind(cause)}): mend it"
    return None


def _raises(frame: traceback.FrameSummary) -> bool:
    return (frame.line or "").startswith("raise ")


def _unknown_key(error: KeyError | AttributeError, argv: Sequence[str]) -> str:
    """What ml_collections says of a key that a config lacks: the key, in quotes, and perhaps a guess on the next line."""
    inner = error.args[0].args[0] if isinstance(error.args[0], KeyError) else error.args[0]  # it may come wrapped
    key, _, guess = str(inner).partition("\n")
    paths = [a.split("=")[0].removeprefix("--config.") for a in argv if a.startswith("--config.")]
    key = next((path for path in paths if key.strip("'") in path.split(".") or key.endswith(f": {path}")), key)
    return f"the config has no key {key}: {guess or 'the keys and their meaning stand in the config file'}"


def package(missing: ModuleNotFoundError) -> str:
    """The package whose absence an error tells."""
    return (missing.name or "").partition(".")[0]
