"""Pre-trained weights that a config names: a local Hugging Face folder, or SmolLM2 or MiniLM of the extra `weights`.

Decoders predict tokens. Encoders classify the mean of a document's tokens, as sentence embeddings are made, by a layer that
is drawn by the seed and trained with the rest, or beside adapters.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.core import files
from experiments.core.errors import UserError
from experiments.core.notices import LOG
from experiments.core.sections import FOLDER, MINILM, SMOLLM2, Model
from experiments.data.splits import Tokens
from experiments.models.functions import ModelFns
from experiments.models.language import adapted, gguf, packaged
from experiments.models.language.backbones import as_functions, init_head
from experiments.models.language.configs import Config
from experiments.models.language.decoder import Decoder
from experiments.models.language.encoder import Encoder, EncoderConfig
from experiments.models.language.folders import CONFIG, config_of, load_folder

Tree = Any
OPTIONS = ("remat",)  # sizes are those of the weights


class Weights(NamedTuple):
    """A pre-trained model, an encoder's without its head; `what` is how a line calls it."""

    what: str
    config: Config
    params: Tree


def build(section: Model, length: int, classes: int, tokens: Tokens | None = None) -> ModelFns:
    """The pre-trained model of a config's section `model`: all of it is trained or, with `model.lora`, adapters alone.

    Args:
      length: tokens in a row of the data.
      classes: to tell apart, or, of a decoder, the entries of the data's vocabulary.
      tokens: what an encoder reads.

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
    loaded = load(name, section.params, short and bool(section.lora.rank))
    what, config, params = loaded
    how: dict[str, Any] = {"dtype": jnp.bfloat16 if short else None, "dropout": float(section.dropout)}
    how["remat"] = bool(section.options.get("remat"))
    module: Decoder | Encoder
    if isinstance(config, EncoderConfig):
        if tokens is None:
            raise UserError(f"{what} is an encoder, which tells no next token: give a gpt2 or llama")
        _check_fits(loaded, length, tokens.vocabulary)
        # What fills rows up is the data's: it is never looked at.
        module = Encoder(dataclasses.replace(config, pad=tokens.pad), classes, "mean", **how)
    else:
        _check_fits(loaded, length, classes)
        module = Decoder(config, **how)
    if section.lora.rank:
        return adapted.build(module, params, section.lora)
    return as_functions(module)._replace(init=lambda key: _begun(module, params, key))


def _begun(module: Decoder | Encoder, params: Tree, key: jax.Array) -> Tree:
    """All parameters of a model that begins with pre-trained ones, and an encoder with a head drawn by the key."""
    head = {"head": init_head(module, key)} if isinstance(module, Encoder) else {}
    return jax.tree.map(jnp.asarray, params) | head


def check_length(length: int, config: Config, what: str) -> None:
    """Refuse rows of more tokens than a model has positions for.

    Args:
      what: how a line calls the model.

    Raises:
      UserError: they are too long.
    """
    positions = config.positions - (config.position_offset if isinstance(config, EncoderConfig) else 0)
    if length > positions:
        raise UserError(
            f"rows of {length} tokens are too long for the {positions} positions of {what}: set "
            f"--config.data.length to {positions} or less"
        )


def _check_fits(loaded: Weights, length: int, vocabulary: int) -> None:
    check_length(length, loaded.config, loaded.what)
    if vocabulary > loaded.config.vocabulary:
        raise UserError(
            f"the data have tokens up to {vocabulary - 1}, {loaded.what} knows {loaded.config.vocabulary}: leave "
            "--config.data.tokeniser empty for its own"
        )


def load(name: str, path: str, short: bool = False) -> Weights:
    """The weights, in bfloat16 if `short`.

    Raises:
      UserError: they are not there or cannot be read.
    """
    dtype = jnp.bfloat16 if short else jnp.float32
    if name == SMOLLM2:
        file = packaged.smollm2()
        return Weights("SmolLM2", file.config, gguf.parameters(file, dtype))
    found = load_folder(_folder(name, path), dtype)
    if "classifier" in (found.head or {}):
        LOG.warning("the classifier in %s is left out: one for the classes of these data is trained", path)
    return Weights("MiniLM" if name == MINILM else path, found.config, found.params)


def classifies(section: Model) -> bool:
    """Whether the weights are an encoder's, which classifies documents; a decoder predicts tokens.

    Raises:
      UserError: a folder whose config.json cannot be read, or tells of another kind of model.
    """
    return section.name == MINILM or (section.name == FOLDER and isinstance(config_of(section.params), EncoderConfig))


def _folder(name: str, path: str) -> Path:
    """The Hugging Face folder of weights that have one."""
    return packaged.minilm_folder() if name == MINILM else Path(path).expanduser()


def digest(section: Model) -> str:
    """SHA-256 of the files that a model begins with; '' if it begins with none.

    Raises:
      UserError: a file that cannot be read.
    """
    if section.name == SMOLLM2:
        return files.digest(str(packaged.smollm2_file()))
    if not section.is_pretrained:
        return files.digest(section.params)
    folder, sha = _folder(section.name, section.params), hashlib.sha256()
    for file in (folder / CONFIG, *sorted(folder.glob("*.safetensors*"))):
        sha.update(f"{file.name} {files.digest(str(file))}\n".encode())
    return sha.hexdigest()
