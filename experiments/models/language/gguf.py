"""A GGUF file of the Llama architecture, as llama.cpp has it, made into a Hugging Face folder with its tokeniser.

Quantised tensors are taken for what their codes stand for. Query and key rows come in llama.cpp's order, in which the two
features that a rotation turns are neighbours; here, as in Hugging Face's files, they are half a head apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from experiments.core.errors import UserError, line
from experiments.models.language import folders, tensors
from experiments.models.language.decoder import DecoderConfig, llama

TOKENIZER = "tokenizer.json"
Tree = Any
CONTROL = 3  # GGUF's type of a token that is no text
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "blk.{i}.attn_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "blk.{i}.attn_q.weight": "model.layers.{i}.self_attn.q_proj.weight",
    "blk.{i}.attn_k.weight": "model.layers.{i}.self_attn.k_proj.weight",
    "blk.{i}.attn_v.weight": "model.layers.{i}.self_attn.v_proj.weight",
    "blk.{i}.attn_output.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.ffn_gate.weight": "model.layers.{i}.mlp.gate_proj.weight",
    "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.up_proj.weight",
    "blk.{i}.ffn_down.weight": "model.layers.{i}.mlp.down_proj.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# GGUF's names of sizes, ours.
SIZES = {
    "block_count": "depth",
    "embedding_length": "width",
    "feed_forward_length": "mlp",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.layer_norm_rms_epsilon": "norm_epsilon",
    "rope.freq_base": "rope_theta",
    "context_length": "positions",
    "vocab_size": "vocabulary",
}
IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}


class Gguf(NamedTuple):
    """What a file holds; each part is made when it is asked for, since whole models and tokenisers take seconds."""

    path: str | Path
    values: Mapping[str, Any]
    tensors: Mapping[str, Any]
    config: DecoderConfig


def convert(path: str | Path, folder: str | Path, dtype: Any = jnp.float32) -> None:
    """Write a GGUF file as a Hugging Face folder: `config.json`, `model.safetensors` and `tokenizer.json`.

    Args:
      path: the .gguf.
      folder: to be made.
      dtype: of the weights: jnp.float32 or jnp.bfloat16.

    Raises:
      UserError: no GGUF file, another architecture or tokeniser, or a tensor missing, too many or of another shape; one
        line that names it.
    """
    file = read(path)
    text, params = tokenizer(file), parameters(file, dtype)
    ids = {theirs: file.values[key] for name, theirs in IDS.items() if (key := f"tokenizer.ggml.{name}") in file.values}
    folders.save_folder(folder, file.config, params, values=ids)
    (Path(folder) / TOKENIZER).write_text(text, "utf-8")


def read(path: str | Path) -> Gguf:
    """The sizes of the model in a GGUF file, and what its parameters and its tokeniser are made of.

    Raises:
      UserError: no GGUF file, or another architecture; one line that names it.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError("GGUF files are read by the package gguf: pip install 'forethought[text]'") from error
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read as GGUF ({line(error)}): give a .gguf file") from error
    values = {name: field.contents() for name, field in reader.fields.items()}
    if (kind := values.get("general.architecture")) != "llama":
        raise UserError(f"{path} holds the architecture {kind!r}: only 'llama' is converted")
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    return Gguf(path, values, by_name, _config(path, values, tied="output.weight" not in by_name))


def parameters(file: Gguf, dtype: Any = jnp.float32) -> Tree:
    """The parameters of `decoder.Decoder(file.config)`, on the host.

    Raises:
      UserError: a tensor missing, too many or of another shape; one line that names it.
    """
    path, config, by_name = file.path, file.config, dict(file.tensors)
    leaves: dict[str, np.ndarray] = {}
    for theirs, entry in tensors.entries(tensors.FAMILIES["llama"], config.depth):
        name = _name_of(theirs)
        if name not in by_name and not (config.tied and theirs == tensors.TIED):
            raise UserError(f"{path} lacks {name}: it is not a whole model")
        if name in by_name:
            (leaves[entry.ours[0]],) = tensors.theirs_to_ours(entry, _weights(by_name.pop(name), config).astype(dtype))
    for name in by_name:
        raise UserError(f"{path} holds {name}, which a llama without scaled rotations does not: it is not converted")
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def undo_permutation(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * d, in] of pairs that are neighbours, as rows of pairs that are half a head apart.

    Example:
      >>> undo_permutation(np.array([[0], [2], [1], [3]]), heads=1)[:, 0]
      array([0, 1, 2, 3])
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _config(path: str | Path, values: Mapping[str, Any], tied: bool) -> DecoderConfig:
    sizes = {}
    for theirs, ours in SIZES.items():
        if not isinstance(value := values.get(f"llama.{theirs}"), int | float):
            raise UserError(f"{path}: llama.{theirs} is {value!r:.80}: it is to be a number")
        sizes[ours] = value
    sizes["norm_epsilon"] = float(f"{sizes['norm_epsilon']:.6g}")  # it was a float32
    try:
        config = llama(**sizes, tied=tied)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    turned = values.get("llama.rope.dimension_count", config.head_width)
    if turned != config.head_width:
        raise UserError(
            f"{path}: llama.rope.dimension_count is {turned}: only whole heads of {config.head_width} are turned"
        )
    return config


def _name_of(theirs: str) -> str:
    """GGUF's name of Hugging Face's tensor."""
    parts = theirs.split(".")
    block = next((part for part in parts if part.isdigit()), "")
    general = ".".join("{i}" if part.isdigit() else part for part in parts)
    return next(name for name, whole in NAMES.items() if whole == general).replace("{i}", block)


def _weights(tensor: Any, config: DecoderConfig) -> np.ndarray:
    from gguf.quants import dequantize

    rows = dequantize(tensor.data, tensor.tensor_type)
    if ".attn_q." in tensor.name:
        return undo_permutation(rows, config.heads)
    return undo_permutation(rows, config.kv_heads) if ".attn_k." in tensor.name else rows


def tokenizer(file: Gguf) -> str:
    """The byte-level BPE of a GGUF file whose digits are tokens of their own, as the text of a `tokenizer.json`.

    Raises:
      UserError: another tokeniser.
    """
    path, values = file.path, file.values
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise UserError(f"{path} has a tokeniser {kind}: only byte-level BPE as SmolLM's is converted")
    words = values["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    made.decoder = decoders.ByteLevel()
    types = values["tokenizer.ggml.token_type"]
    special = [word for word, of in zip(words, types, strict=True) if of == CONTROL]
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    return str(made.to_str(pretty=True))
