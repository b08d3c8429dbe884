"""Functions of a user's own, named on the command line as `module:function` and looked up once, at the edge."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from experiments.core.errors import UserError, kind


def resolve(reference: str, key: str) -> Callable[..., Any]:
    """The function that `module:function` names. Modules are found where Python finds them, and in the current folder.

    Importing a module runs it: name only what you would run.

    Args:
      key: of the config, for what an error says.

    Raises:
      UserError: no such module or function, or a module that fails while it is imported; one line that says what to do.
    """
    module_name, colon, name = reference.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise UserError(f"{key} is {reference!r}: give module:function, as in my_module:make, no path of a file")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that a folder of a known name hides nothing
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UserError(
                f"{key} {reference!r}: there is no module {module_name!r} in {here} or on PYTHONPATH: check its name"
            ) from error
        raise UserError(f"{key} {reference!r}: {module_name} needs {error.name!r}, which is not installed") from error
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        raise UserError(f"{key} {reference!r}: importing {module_name} fails ({kind(error)}): mend it") from error
    function = getattr(module, name, None)
    if function is None:
        raise UserError(f"{key} {reference!r}: {module_name} has no {name}: check its name")
    if not callable(function):
        raise UserError(f"{key} {reference!r}: {name} is a {type(function).__name__}: name a function")
    return function


def call(function: Callable[..., Any], what: str, *args: Any, **options: Any) -> Any:
    """What a user's function gives.

    Args:
      what: to call it in an error, as in "data.factory 'my:make'".

    Raises:
      UserError: it fails; one line with what it raised.
    """
    try:
        return function(*args, **options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        raise UserError(f"{what} fails ({kind(error)}): mend it") from error
