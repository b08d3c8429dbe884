"""Mistakes that a user can mend, told in one line; any other error is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class UserError(ValueError):
    """What was given cannot be used; the message is one line that says what to do."""


class ConfigError(UserError):
    """A config that cannot be used; `mistakes` are lines of their own, each of which names its key and what to give."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class WorkdirError(UserError):
    """A workdir that cannot be used as asked; the message is one line that says what to do."""


class UnwritableError(WorkdirError):
    """A disk that is full, or a folder that may not be written; the message is one line with the path and the reason."""


class DataError(UserError):
    """Data that cannot be used as asked; the message is one line that says what to do."""


@contextmanager
def blame_user() -> Iterator[None]:
    """Where config, data, model and workdir are resolved: what fails here fails for what was given.

    Raises:
      UserError: instead of an error that a library or a pure room raises for a value it cannot use.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError) as error:
        raise UserError(line(error)) from error


def line(error: BaseException, most: int = 300) -> str:
    """What an error says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."


def kind(error: BaseException, most: int = 200) -> str:
    """What an error of a user's own code is and says, in one line."""
    return f"{type(error).__name__}: {line(error, most)}"
