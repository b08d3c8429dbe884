"""The parser of the commands that stand beside runs, and what several of them check."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

import ml_collections
from absl import flags

from experiments import command_line, main
from experiments.core.config import Section, validated
from experiments.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose errors are a user's, of one line."""

    def __init__(self, **given: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **given)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong.

        Raises:
          UserError: always.
        """
        raise UserError(f"{message}: see {self.prog} --help")


def number(text: str, least: int = 1) -> int:
    """A count from a command line, up to 10,000."""
    if not (text.isascii() and text.isdigit() and least <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to 10000")
    return int(text)


def configured(arguments: Sequence[str]) -> tuple[ml_collections.ConfigDict, Section, str]:
    """The config of a run's command line, as flags leave it and as the run would take it, and the workdir.

    Raises:
      UserError: a command line or a config that a run would refuse.
    """
    config, workdir = command_line.parse(["forethought", *arguments], flags.FlagValues())
    runner = getattr(config, "runner", None)
    if runner not in main.MODELS:
        raise UserError(f"config.runner {runner!r} is unknown; choose one of {', '.join(main.MODELS)}")
    model = getattr(importlib.import_module(f"experiments.configs.{runner}"), main.MODELS[runner])
    return config, validated(model, config), workdir
