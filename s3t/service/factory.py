"""The factory that a manifest names, resolved: it makes model, recipe and data of a store."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3t.store.disk import Store
from s3t.store.manifests import Manifest
from s3t.training.source import Source

FROM_STORE = "store:"  # begins an argument in a manifest that is a path from the store's directory


def source_of(factory: str, hyper: Mapping[str, Any], arguments: Mapping[str, Any]) -> Source:
    """What a manifest's factory makes.

    Raises:
      ValueError: no such function, arguments that it does not take, or something else than a source; what it raises itself.
    """
    module, _, function = factory.partition(":")
    if not module or not function:
        raise ValueError(f"a factory is named module:function, got {factory!r:.80}")
    try:
        make = getattr(importlib.import_module(module), function)
        inspect.signature(make).bind(hyper, **arguments)
    except SystemExit as error:
        raise ValueError(f"the factory {factory} cannot be found: its module ends the process, mend it") from error
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the factory {factory} cannot be found: {error}") from None
    except TypeError as error:
        raise ValueError(f"the factory {factory} does not take these arguments: {error}") from None
    try:
        source = make(hyper, **arguments)
    except SystemExit as error:
        raise ValueError(f"the factory {factory} ends the process instead of giving a source: mend it") from error
    except TypeError as error:
        if "Source.__init__" not in str(error):
            raise
        raise ValueError(f"the factory {factory} must name what it gives Source, as Source(backbone=..., ...)") from error
    if not isinstance(source, Source):
        raise ValueError(
            f"the factory {factory} gives a {type(source).__name__}: name one that gives an s3t.training.source.Source"
        )
    return source


def source_for(store: Store, arguments: Mapping[str, Any]) -> Source:
    """What the factory of a store makes; arguments given now come before those of the manifest.

    A text of the manifest that begins with "store:" is a path from the store's directory, such as
    "store:../pretrain/vit.npz": what lies beside a store may be moved with it.
    """
    manifest = store.manifest
    kept = {name: _from_store(store.root, value) for name, value in manifest.arguments.items()}
    return source_of(manifest.factory, source_hyper(manifest), {**kept, **arguments})


def _from_store(root: Path, value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FROM_STORE):
        return str(root / value.removeprefix(FROM_STORE))
    return value


def source_hyper(manifest: Manifest) -> dict[str, Any]:
    """What the factory of a store was called with."""
    if "source" not in manifest.hyper:
        raise ValueError("the store was not made by `python -m s3t train`: nothing says how to train its nodes")
    return dict(manifest.hyper["source"])
