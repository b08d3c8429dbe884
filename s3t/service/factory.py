"""The factory that a manifest names, resolved: it makes model, recipe and data of a store.

A factory is code, and its name stands in a file that may come from somebody else. So a name is looked at before anything is
imported: a store's factory is called if it is one of the project's own or one that the caller trusts by name. A mark on the
function would come too late, for whoever gives a store away can give a marked module with it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3t.store.disk import Store
from s3t.store.manifests import Manifest, is_factory
from s3t.training.source import Source

OURS = ("experiments.exact.factory:make", "experiments.s3t_factory:make")  # the second is 0.1's name of the first
FUNCTION = "factory:"  # begins a text in hyper or arguments that names a function, which a factory may call
LONGEST_NAME = 200  # of a function that a store may name
WRITES = ("cache_dir",)  # arguments of our own factories that say where to write: a command may, a store may not
FROM_STORE = "store:"  # begins an argument in a manifest that is a path from the store's directory


def source_of(factory: str, hyper: Mapping[str, Any], arguments: Mapping[str, Any]) -> Source:
    """What a factory makes, which the caller trusts.

    Raises:
      ValueError: no such function, arguments that it does not take, or something else than a source; what it raises itself.
    """
    if not is_factory(factory):
        raise ValueError(f"a factory is named module:function, got {factory!r:.80}")
    module, _, function = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
        if not inspect.isfunction(make):
            raise ValueError(f"the factory {factory} is no function of Python's: name one that gives an s3t Source")
        inspect.signature(make).bind(hyper, **arguments)
    except SystemExit as error:
        raise ValueError(f"the factory {factory} cannot be found: its module ends the process, mend it") from error
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the factory {factory} cannot be found: {error}") from None
    except TypeError as error:
        raise ValueError(f"the factory {factory} does not take these arguments: {error}") from None
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever its module raises while it is imported
        raise ValueError(f"the factory {factory} cannot be found: {type(error).__name__}: {error}") from error
    try:
        source = make(hyper, **arguments)
    except SystemExit as error:
        raise ValueError(f"the factory {factory} ends the process instead of giving a source: mend it") from error
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        if "Source.__init__" in str(error):
            raise ValueError(
                f"the factory {factory} must name what it gives Source, as Source(backbone=..., ...)"
            ) from error
        raise ValueError(f"the factory {factory} failed: {type(error).__name__}: {error}") from error
    if not isinstance(source, Source):
        raise ValueError(
            f"the factory {factory} gives a {type(source).__name__}: name one that gives an s3t.training.source.Source"
        )
    return source


def source_for(store: Store, arguments: Mapping[str, Any], trusted: Collection[str] = ()) -> Source:
    """What the factory of a store makes; arguments given now come before those of the manifest.

    A text of the manifest that begins with "store:" is a path from the store's directory, such as
    "store:../pretrain/vit.npz": what lies beside a store may be moved with it. What would say where to write is left out
    of the manifest's arguments: no store leads to a file that is written outside of it.

    Args:
      store: the store.
      arguments: the factory's keyword arguments on this machine.
      trusted: functions `module:function` that may be called beside the project's own factories.

    Raises:
      ValueError: a function that is not trusted, none was imported; as `source_of`.
    """
    manifest = store.manifest
    hyper = source_hyper(manifest)
    for name in (manifest.factory, *_functions_in([hyper, manifest.arguments])):
        if not is_factory(name) or len(name) > LONGEST_NAME:
            raise ValueError(
                f"the store names the function {name!r:.120}, which is no module:function: do not use the store"
            )
        if name not in (*OURS, *trusted):
            raise ValueError(
                f"the store names the function {name}, which would run here: if you trust it and whoever gave you the "
                f"store, repeat the command with --trust-factory {name}"
            )
    hidden = WRITES if manifest.factory in OURS else ()
    kept = {name: _from_store(store.root, value) for name, value in manifest.arguments.items() if name not in hidden}
    return source_of(manifest.factory, hyper, {**kept, **arguments})


def _functions_in(value: Any) -> Iterator[str]:
    """Names of functions anywhere in a JSON value."""
    if isinstance(value, str) and value.startswith(FUNCTION):
        yield value.removeprefix(FUNCTION)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _functions_in(inner)


def _from_store(root: Path, value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FROM_STORE):
        return str(root / value.removeprefix(FROM_STORE))
    return value


def source_hyper(manifest: Manifest) -> dict[str, Any]:
    """What the factory of a store was called with."""
    if "source" not in manifest.hyper:
        raise ValueError("the store was not made by `python -m s3t train`: nothing says how to train its nodes")
    return dict(manifest.hyper["source"])
