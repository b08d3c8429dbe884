"""Pre-trained weights that a config names: a local Hugging Face folder, or SmolLM2 of the extra `weights`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.core import files
from experiments.core.errors import UserError
from experiments.core.sections import FOLDER, SMOLLM2, Model
from experiments.models.functions import ModelFns
from experiments.models.language import adapted, gguf, packaged
from experiments.models.language.backbones import as_functions
from experiments.models.language.decoder import Decoder, DecoderConfig
from experiments.models.language.folders import CONFIG, load_folder

Tree = Any
OPTIONS = ("remat",)  # sizes are those of the weights


class Weights(NamedTuple):
    """A pre-trained decoder; `what` is how a line calls it."""

    what: str
    config: DecoderConfig
    params: Tree


def build(section: Model, length: int, vocabulary: int) -> ModelFns:
    """The pre-trained decoder of a config's section `model`: all of it is trained or, with `model.lora`, adapters alone.

    Args:
      length, vocabulary: tokens in a row of the data, and entries of their tokeniser.

    Raises:
      UserError: weights that cannot be read, or that are not for such data; one line that says what to do.
    """
    name = section.name
    for option, value in section.options.items():
        if option not in OPTIONS or not isinstance(value, bool):
            raise UserError(
                f"option {option!r} of model {name!r} is {value!r}: its sizes are those of its weights, set "
                "--config.model.options='{}' or '{\"remat\": True}'"
            )
    short = section.dtype == "bfloat16"
    what, config, params = load(name, section.params, short and bool(section.lora.rank))
    if length > config.positions:
        raise UserError(
            f"rows of {length} tokens are too long for the {config.positions} positions of {what}: set "
            f"--config.data.length to {config.positions} or less"
        )
    if vocabulary > config.vocabulary:
        raise UserError(
            f"the data have tokens up to {vocabulary - 1}, {what} knows {config.vocabulary}: leave --config.data.tokeniser "
            "empty for its own"
        )
    remat = bool(section.options.get("remat"))
    module = Decoder(config, jnp.bfloat16 if short else None, remat, float(section.dropout))
    if section.lora.rank:
        return adapted.build(module, params, section.lora)
    return as_functions(module)._replace(init=lambda key: jax.tree.map(jnp.asarray, params))


def load(name: str, path: str, short: bool = False) -> Weights:
    """The weights, in bfloat16 if `short`.

    Raises:
      UserError: they are not there or cannot be read, or are no decoder's.
    """
    dtype = jnp.bfloat16 if short else jnp.float32
    if name == SMOLLM2:
        file = packaged.smollm2()
        return Weights("SmolLM2", file.config, gguf.parameters(file, dtype))
    found = load_folder(path, dtype)
    if not isinstance(found.config, DecoderConfig):
        raise UserError(
            f"model.params {path} holds a {found.values['model_type']}, which tells no next token: give a gpt2 or llama"
        )
    return Weights(path, found.config, found.params)


def digest(section: Model) -> str:
    """SHA-256 of the files that a model begins with; '' if it begins with none.

    Raises:
      UserError: a file that cannot be read.
    """
    if section.name == SMOLLM2:
        return files.digest(str(packaged.smollm2_file()))
    if section.name != FOLDER:
        return files.digest(section.params)
    folder, sha = Path(section.params).expanduser(), hashlib.sha256()
    for file in (folder / CONFIG, *sorted(folder.glob("*.safetensors*"))):
        sha.update(f"{file.name} {files.digest(str(file))}\n".encode())
    return sha.hexdigest()
