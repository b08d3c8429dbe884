"""Local Hugging Face folders: `config.json` beside `model.safetensors` or its shards, read a tensor at a time; no pickle.

A folder of PyTorch's pickled `.bin` files is refused: reading one would run what is in it.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import files
from experiments.core.errors import UserError, line
from experiments.models.language import configs, tensors
from experiments.models.language.configs import Config
from experiments.models.language.decoder import Decoder, DecoderConfig
from experiments.models.language.encoder import Encoder
from experiments.models.language.tensors import Entry

Tree = Any
Shape = tuple[int, ...]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r".+-\d+-of-\d+\.safetensors")
FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names
ROWS = 4096  # of a tensor that are compared at once


class Pretrained(NamedTuple):
    """What a folder holds.

    config: sizes and choices; `decoder.Decoder(config)` or `encoder.Encoder(config)` is the model.
    params: of the module, but for an encoder's `head`.
    head: an encoder's `head`, whole or BERT's pooler alone, as the file has it; None of a decoder, or where there is none.
    values: the whole of `config.json`.
    """

    config: Config
    params: Tree
    head: Tree | None
    values: Mapping[str, Any]


class _Tensor(NamedTuple):
    """Where a tensor stands."""

    path: Path
    name: str
    shape: Shape
    dtype: str


def load_folder(folder: str | Path, dtype: Any = jnp.float32) -> Pretrained:
    """A model from a local folder, in the wanted precision.

    Tensors are read and put on the device one by one, the largest first: beside the model in the wanted precision there is
    never more in memory than one tensor that is still to be placed.

    Args:
      folder: with `config.json` of a gpt2, llama, bert or roberta.
      dtype: of the parameters.

    Raises:
      UserError: a folder that is not of this kind, another model, or a tensor missing, too many or of another shape; one
        line that names it.
    """
    folder = Path(folder).expanduser()
    values = _read_json(folder / CONFIG)
    kind, config = configs.read(folder / CONFIG, values)
    family = tensors.FAMILIES[kind]
    found = _whole_names(family, _tensors(folder))
    wanted = _wanted(folder, family, config, found)
    if _is_tied(config) and tensors.TIED in found:
        _check_repeated(found[tensors.TIED], found[tensors.embedding(family)])
    leaves: dict[str, jax.Array] = {}
    for tensor, entry in sorted(wanted, key=lambda pair: -math.prod(pair[0].shape)):
        for path, leaf in zip(entry.ours, tensors.theirs_to_ours(entry, _read(tensor, dtype)), strict=True):
            leaves[path] = jnp.asarray(leaf)
    params = flax.traverse_util.unflatten_dict(leaves, sep="/")
    head = params.pop("head", None)
    return Pretrained(config, params, head, values)


def config_of(folder: str | Path) -> Config:
    """The sizes and choices that a folder's `config.json` tells; raises as `load_folder` does of it."""
    path = Path(folder).expanduser() / CONFIG
    return configs.read(path, _read_json(path))[1]


def save_folder(
    folder: str | Path, config: Config, params: Tree, head: Tree | None = None, values: Mapping[str, Any] | None = None
) -> None:
    """Write a model as a folder that `load_folder` and `transformers` read; parameters keep their precision.

    Args:
      params, head: as of `Pretrained`; a head within params will do as well.
      values: more of `config.json`, as `Pretrained.values`; what follows from `config` wins.

    Raises:
      ValueError: a config that is of no family, parameters that are not those of the config, or a head in part.
      UnwritableError: the folder cannot be written.
    """
    folder = Path(folder).expanduser()
    told, more = configs.write(config), dict(values or {})
    kind = told["model_type"]
    leaves = flax.traverse_util.flatten_dict({**params, **({} if head is None else {"head": head})}, sep="/")
    theirs: dict[str, np.ndarray] = {}
    for name, entry in tensors.entries(tensors.FAMILIES[kind], config.depth):
        if all(path in leaves for path in entry.ours):
            theirs[name] = tensors.ours_to_theirs(entry, tuple(np.asarray(leaves.pop(path)) for path in entry.ours))
        elif not (tensors.is_of_head(entry) or (name == tensors.TIED and _is_tied(config))):
            raise ValueError(f"the parameters lack {entry.ours[0]}: give all of a {kind} of this config")
    for path in leaves:
        raise ValueError(f"the parameters hold {path}, which a {kind} of this config does not")
    if lacking := tensors.missing_of_head(tensors.FAMILIES[kind], theirs):
        raise ValueError(f"the head lacks {lacking}: give all of a {kind}'s head, or none")
    classes = next((len(theirs[name]) for name in tensors.CLASSIFIERS if name in theirs), None)
    names = more.get("id2label")
    if classes is not None and not (isinstance(names, Mapping) and len(names) == classes):
        told |= {"id2label": {str(i): f"LABEL_{i}" for i in range(classes)}}
        told |= {"label2id": {f"LABEL_{i}": i for i in range(classes)}}
    more.pop("rope_parameters", None)  # the same as `rope_theta` and `rope_scaling`
    told["dtype"] = told["torch_dtype"] = str(next(iter(theirs.values())).dtype)  # by its new and its old name
    _write_tensors(folder / WEIGHTS, theirs)
    files.write_json(folder / CONFIG, {**more, **told}, indent=2)


def _write_tensors(path: Path, theirs: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    temporary = path.with_name(f"{path.name}.tmp")
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(theirs, temporary, metadata={"format": "pt"})  # how `transformers` tells whose layout it is
        os.replace(temporary, path)


def _read_json(path: Path) -> dict[str, Any]:
    return files.read_json(path, dict, f"give a Hugging Face folder with {CONFIG} and {WEIGHTS}")


def _tensors(folder: Path) -> dict[str, _Tensor]:
    """Every tensor of a folder by its name; only headers are read."""
    if (folder / INDEX).exists():
        return _sharded(folder)
    if not (folder / WEIGHTS).exists():
        raise _without_weights(folder)
    return {tensor.name: tensor for tensor in _headers(folder / WEIGHTS)}


def _without_weights(folder: Path) -> UserError:
    """What is said of a folder by what it holds instead."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if shard := next((name for name in others if SHARD.fullmatch(name)), None):
        return UserError(f"{folder} has shards, as {shard}, but no {INDEX}, which says what is where: add that file")
    pickled = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind))
    held = "it holds no weights"
    if pickled:
        held = f"it holds pickled {pickled[0]}, which could run code when read"
    elif others:
        held = f"it holds {others[0]}"
    return UserError(f"{folder} has no {WEIGHTS} ({held}): save the model as safetensors")


def _sharded(folder: Path) -> dict[str, _Tensor]:
    """Tensors of the files that an index names; each is where it says, and there are no others."""
    named = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(v, str) and v == Path(v).name for v in named.values()):
        raise UserError(f"{folder / INDEX} has no weight_map of tensors to files beside it: download the folder again")
    held = [tensor for shard in sorted(set(named.values())) for tensor in _headers(folder / shard)]
    for name, shard in sorted(named.items() ^ {(tensor.name, tensor.path.name) for tensor in held}):
        raise UserError(f"{folder / INDEX} and {shard} differ about {name}: download the folder again")
    return {tensor.name: tensor for tensor in held}


def _headers(path: Path) -> Iterator[_Tensor]:
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118  # no mapping
            cut = file.get_slice(name)
            yield _Tensor(path, name, tuple(cut.get_shape()), cut.get_dtype())


def _read(tensor: _Tensor, dtype: Any) -> np.ndarray:
    """A tensor in the wanted precision.

    The file is opened for it alone: what is mapped into memory is let go of with it.
    """
    with _opened(tensor.path) as file:
        array = file.get_tensor(tensor.name)
    with np.errstate(over="ignore"):  # what is beyond the precision becomes infinite, and is refused
        cast = array.astype(dtype, copy=False)
    if not np.isfinite(cast).all():
        raise UserError(
            f"{tensor.path}: {tensor.name} is not finite as {np.dtype(dtype)}: choose another precision or file"
        )
    return cast


def _check_repeated(output: _Tensor, embedding: _Tensor) -> None:
    """Refuse an output layer of its own where the config ties it to the embedding: one of the two is wrong.

    Rows are compared some at a time, so that neither tensor is held whole.
    """
    same = output.shape == embedding.shape
    with _opened(output.path) as file, _opened(embedding.path) as other:
        one, two = file.get_slice(output.name), other.get_slice(embedding.name)
        for start in range(0, output.shape[0] if same else 0, ROWS):
            rows = slice(start, min(start + ROWS, output.shape[0]))
            same = same and np.array_equal(one[rows], two[rows])
    if not same:
        raise UserError(
            f"{output.path}: {output.name} differs from {embedding.name}, to which its {CONFIG} ties it: set "
            f"tie_word_embeddings to false there, or leave {output.name} out"
        )


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "numpy")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({line(error)}): download the folder again") from error


def _whole_names(family: tensors.Family, found: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Tensors by the names of the whole model: a file of the bare one lacks the prefix."""
    known = {name for name, _ in tensors.entries(family, 1)}
    if any(name.startswith(family.base) for name in found):
        return dict(found)
    return {name if name in known else f"{family.base}{name}": tensor for name, tensor in found.items()}


def _wanted(
    folder: Path, family: tensors.Family, config: Config, found: Mapping[str, _Tensor]
) -> list[tuple[_Tensor, Entry]]:
    """What is to be read; every difference between a folder and the model is refused."""
    _check_whole(folder, family, config, found)
    shapes, wanted, used = _shapes(config), [], set()
    for name, entry in tensors.entries(family, config.depth):
        if _is_tied(config) and name == tensors.TIED:
            continue
        used.add(name)
        if name not in found:  # of a head that is not there
            continue
        tensor = found[name]
        shape = _their_shape(entry, [shapes[path] for path in entry.ours])
        free = name in tensors.CLASSIFIERS  # a classifier has as many classes as its file says
        if tensor.shape != shape and not (free and tensor.shape[1:] == shape[1:]):
            raise UserError(f"{tensor.path}: {name} is {list(tensor.shape)}, its {CONFIG} tells {list(shape)}")
        if tensor.dtype not in FLOATS:
            raise UserError(f"{tensor.path}: {name} is of {tensor.dtype}: give one of {', '.join(FLOATS)}")
        wanted.append((tensor, entry))
    for name in sorted(found.keys() - used):
        if not tensors.is_harmless(family, name, _is_tied(config)):
            raise UserError(f"{found[name].path} holds {name}, which the model that its {CONFIG} tells does not")
    return wanted


def _check_whole(folder: Path, family: tensors.Family, config: Config, found: Mapping[str, _Tensor]) -> None:
    """Refuse a folder that lacks a tensor, before anything is made of the sizes that it tells."""
    for name, entry in tensors.entries(family, config.depth):
        if name not in found and not tensors.is_of_head(entry) and not (_is_tied(config) and name == tensors.TIED):
            raise UserError(f"{folder} lacks {name}: it is not the whole of the model that its {CONFIG} tells")
    if lacking := tensors.missing_of_head(family, found):
        raise UserError(f"{folder} lacks {lacking}, and holds others of the head: add it, or leave out the whole head")


@functools.lru_cache
def _shapes(config: Config) -> dict[str, Shape]:
    """The shape of every parameter by its path; of a classifier of two classes."""
    decodes = isinstance(config, DecoderConfig)
    module: Any = Decoder(config) if isinstance(config, DecoderConfig) else Encoder(config)
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    made = jax.eval_shape(module.init, jax.random.key(0), tokens if decodes else {"tokens": tokens})["params"]
    return {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(made, sep="/").items()}


def _their_shape(entry: Entry, ours: list[Shape]) -> Shape:
    shape = (*ours[0][:-1], sum(shape[-1] for shape in ours))
    return shape[::-1] if entry.transposed else shape


def _is_tied(config: Config) -> bool:
    return isinstance(config, DecoderConfig) and config.tied
