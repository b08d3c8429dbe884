"""A vision transformer as s3t's backbone, and Google's published checkpoints of it.

Parameters have the names of the published files (`vision_transformer`, `.npz`), so a checkpoint is its own tree. GELU is
the exact one and LayerNorm's epsilon 1e-12, as in the PyTorch implementation of `transformers`; the checkpoints themselves
were trained with GELU's tanh approximation and 1e-6.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from experiments.core import files, keys
from experiments.core.archives import Header
from s3t.training.adapters import Adapter, adapt
from s3t.training.backbone import Backbone

Tree = Any
Adapters = Mapping[str, Adapter]

# "Ti/16" to "L/16" are the published ones; "mini" and "digits" are for 8x8 images, "small" for 28x28 and 32x32.
VITS: dict[str, dict[str, Any]] = {
    "Ti/16": {"patch": 16, "width": 192, "depth": 12, "heads": 3, "mlp_dim": 768},
    "S/16": {"patch": 16, "width": 384, "depth": 12, "heads": 6, "mlp_dim": 1536},
    "B/16": {"patch": 16, "width": 768, "depth": 12, "heads": 12, "mlp_dim": 3072},
    "L/16": {"patch": 16, "width": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096},
    "mini": {"patch": 4, "width": 32, "depth": 3, "heads": 2, "mlp_dim": 64},
    "digits": {"patch": 2, "width": 64, "depth": 4, "heads": 4, "mlp_dim": 128},
    "small": {"patch": 4, "width": 96, "depth": 8, "heads": 4, "mlp_dim": 192},
}
ATTENTION, MLP = "MultiHeadDotProductAttention_1", "MlpBlock_3"
POSITIONS = "Transformer/posembed_input/pos_embedding"
HEAD = "head/kernel", "head/bias"
LARGEST_GRID, MOST_CLASSES = 128, 1 << 16  # of a checkpoint whose grid and classes may be others than the model's

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-12, use_fast_variance=False)


class Patches(nn.Module):
    """Square patches to tokens: a strided convolution, written as the matrix product it is."""

    patch: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, height, width, channels = x.shape
        p = self.patch
        if height % p or width % p:
            raise ValueError(f"images of {height}x{width} cannot be cut into patches of {p}; choose another model")
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, channels, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x = x.reshape(n, height // p, p, width // p, p, channels).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(n, -1, p * p * channels) @ kernel.reshape(-1, self.width) + bias


class PositionEmbeddings(nn.Module):
    """Adds one learnt vector per token."""

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        return h + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *h.shape[1:]))


class Attention(nn.Module):
    """Self-attention with heads; each of its four products may carry an adapter."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, adapters: Adapters) -> jax.Array:
        *lead, width = x.shape

        def project(name: str) -> jax.Array:
            y = nn.DenseGeneral((self.heads, width // self.heads), name=name)(x)
            return adapt(y.reshape(x.shape), x, adapters.get(f"{ATTENTION}/{name}")).reshape(y.shape)

        query, key, value = project("query"), project("key"), project("value")
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / math.sqrt(width // self.heads)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), value)
        y = nn.DenseGeneral(width, axis=(-2, -1), name="out")(mixed)
        return adapt(y, mixed.reshape(*lead, width), adapters.get(f"{ATTENTION}/out"))


class MlpBlock(nn.Module):
    """Two dense layers with GELU between them."""

    mlp_dim: int

    @nn.compact
    def __call__(self, x: jax.Array, adapters: Adapters) -> jax.Array:
        h = nn.gelu(adapt(nn.Dense(self.mlp_dim, name="Dense_0")(x), x, adapters.get(f"{MLP}/Dense_0")), approximate=False)
        return adapt(nn.Dense(x.shape[-1], name="Dense_1")(h), h, adapters.get(f"{MLP}/Dense_1"))


class EncoderBlock(nn.Module):
    """Attention and perceptron, each after a LayerNorm and beside a residual connection."""

    heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, h: jax.Array, adapters: Adapters) -> jax.Array:
        h = h + Attention(self.heads, name=ATTENTION)(LayerNorm(name="LayerNorm_0")(h), adapters)
        return h + MlpBlock(self.mlp_dim, name=MLP)(LayerNorm(name="LayerNorm_2")(h), adapters)


class Encoder(nn.Module):
    """What the checkpoints call Transformer: positions, blocks, and the last LayerNorm."""

    depth: int
    heads: int
    mlp_dim: int

    def setup(self) -> None:
        self.posembed_input = PositionEmbeddings()
        self.encoderblock = [EncoderBlock(self.heads, self.mlp_dim) for _ in range(self.depth)]
        self.encoder_norm = LayerNorm()

    def positions(self, h: jax.Array) -> jax.Array:
        return self.posembed_input(h)

    def block(self, h: jax.Array, i: int, adapters: Adapters) -> jax.Array:
        return self.encoderblock[i](h, adapters)

    def norm(self, h: jax.Array) -> jax.Array:
        return self.encoder_norm(h)


class VisionTransformer(nn.Module):
    """A ViT with a class token (2010.11929); images are [examples, height, width, channels]."""

    classes: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int

    def setup(self) -> None:
        self.embedding = Patches(self.patch, self.width)
        self.cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
        self.Transformer = Encoder(self.depth, self.heads, self.mlp_dim)
        self.head = nn.Dense(self.classes)

    def embed(self, x: jax.Array) -> jax.Array:
        token = jnp.broadcast_to(self.cls, (x.shape[0], 1, self.width))
        return self.Transformer.positions(jnp.concatenate([token, self.embedding(x)], axis=1))

    def block(self, h: jax.Array, i: int, adapters: Adapters) -> jax.Array:
        return self.Transformer.block(h, i, adapters)

    def logits(self, h: jax.Array) -> jax.Array:
        return self.head(self.Transformer.norm(h[:, 0]))

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.embed(x)
        for i in range(self.depth):
            h = self.block(h, i, {})
        return self.logits(h)


def vit(name: str, classes: int) -> VisionTransformer:
    """The ViT called `name` in VITS.

    Raises:
      ValueError: no such name.
    """
    if name not in VITS:
        raise ValueError(f"ViT {name!r} is unknown; choose one of {', '.join(VITS)}")
    return VisionTransformer(classes, **VITS[name])


@functools.lru_cache
def as_backbone(module: VisionTransformer) -> Backbone:
    """The module behind s3t's contract; its frozen parameters are all but the head, see `split_head`.

    Equal modules give one Backbone, so that programs compiled for it are found again.
    """
    width, mlp_dim = module.width, module.mlp_dim
    attention = [(f"{ATTENTION}/{name}", width, width) for name in ("query", "key", "value", "out")]
    mlp = [(f"{MLP}/Dense_0", width, mlp_dim), (f"{MLP}/Dense_1", mlp_dim, width)]

    def embed(frozen: Tree, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        return _apply(module, frozen, x, method="embed")

    def block(frozen: Tree, i: int, h: jax.Array, adapters: Adapters) -> jax.Array:
        return _apply(module, frozen, h, i, adapters, method="block")

    def head(frozen: Tree, head_params: Tree, h: jax.Array) -> jax.Array:
        return _apply(module, {**frozen, "head": head_params}, h, method="logits")

    def init_head(key: jax.Array) -> Tree:
        return nn.Dense(module.classes).init(key, jnp.zeros((1, width)))["params"]

    return Backbone(embed, block, head, init_head, ((*attention, *mlp),) * module.depth)


def _apply(module: VisionTransformer, params: Tree, *inputs: Any, method: str) -> Any:
    return module.apply({"params": params}, *inputs, method=method)


def init(module: VisionTransformer, key: jax.Array, x: Any) -> Tree:
    """Random parameters for images like x.

    Raises:
      ValueError: a table.
    """
    _check_image(x.shape[1:])
    return module.init(key, jnp.asarray(x[:1]))["params"]


def _check_image(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise ValueError(f"a ViT looks at images, these data are a table of {shape}: use images [height, width, channels]")


def split_head(params: Tree) -> tuple[Tree, Tree]:
    """(frozen parameters, head) of a module's parameters."""
    return {name: part for name, part in params.items() if name != "head"}, params["head"]


def load_npz(path: str | Path, module: VisionTransformer, image: tuple[int, ...]) -> tuple[Tree, Tree | None]:
    """A published checkpoint: (frozen parameters for images of this size, the file's own head or None).

    Position embeddings of another grid are resized bilinearly, corner to corner, the class token's kept. A representation
    layer ('pre_logits') belongs to the old head and is left out with it, so that head is only given without one.

    Args:
      path: the .npz file.
      module: the ViT it should hold; its classes do not matter.
      image: height, width and channels.

    Raises:
      ValueError: a table; not a checkpoint of this module: the message names the file and what is wrong with it.
    """
    _check_image(image)
    want, grid = _shapes(module, image), (image[0] // module.patch, image[1] // module.patch)
    arrays = _read_npz(path, lambda headers: _fitting(path, headers, want, module.width))
    head = {name.split("/")[1]: arrays.pop(name) for name in HEAD if name in arrays}
    arrays[POSITIONS] = _resized(arrays[POSITIONS], want[POSITIONS], grid)
    with np.errstate(over="ignore"):  # what is beyond single precision becomes infinite, and is refused
        frozen = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    for name, array in frozen.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path} is no checkpoint to begin with: {name} is not finite in single precision")
    return flax.traverse_util.unflatten_dict(frozen, sep="/"), head or None


def save_npz(path: str | Path, params: Tree) -> None:
    """Write a module's parameters as a checkpoint of the published layout; a kill leaves the old file or the new one."""
    arrays = {name: np.asarray(leaf) for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}
    files.write_arrays(Path(path), arrays)


def _read_npz(path: str | Path, wanted: Callable[[Mapping[str, Header]], Collection[str]]) -> dict[str, np.ndarray]:
    return files.read_arrays(Path(path), "give an .npz checkpoint of the published layout", wanted)


def _fitting(
    path: str | Path, headers: Mapping[str, Header], want: Mapping[str, tuple[int, ...]], width: int
) -> Collection[str]:
    """Names of what is to be read of a checkpoint: parameters of the model, and its head if that is of use.

    Nothing is read before: a small file may unpack to more than memory has room for.
    """
    of_old_head = {*HEAD, *(name for name in headers if name.startswith("pre_logits/"))}
    for missing in sorted(want.keys() - headers.keys()):
        raise ValueError(f"{path} is not a checkpoint of this ViT: it has no {missing}")
    for more in sorted(headers.keys() - want.keys() - of_old_head):
        raise ValueError(f"{path} is not a checkpoint of this ViT: it has {more}, which the model does not")
    for name, shape in want.items():
        header = headers[name]
        if header.dtype.kind not in "biuf":
            raise ValueError(f"{path} is not a checkpoint of this ViT: {name} is of {header.dtype!s:.40}, not of numbers")
        if name == POSITIONS and len(header.shape) == 3 and header.shape[0] == 1 and header.shape[2] == width:
            _check_positions(path, header.shape[1])
        elif header.shape != shape:
            raise ValueError(f"{path} is not a checkpoint of this ViT: {name} is {header.shape}, not {shape}")
    kernel, bias = (headers[name].shape if name in headers else () for name in HEAD)
    has_head = of_old_head == {*HEAD} and kernel == (width, *bias) and len(bias) == 1 and bias[0] <= MOST_CLASSES
    return [*want, *(HEAD if has_head and all(headers[name].dtype.kind in "biuf" for name in HEAD) else ())]


def _shapes(module: VisionTransformer, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each frozen parameter by its name in a file."""
    params = jax.eval_shape(module.init, keys.unused(), jax.ShapeDtypeStruct((1, *image), jnp.float32))["params"]
    frozen = flax.traverse_util.flatten_dict(split_head(params)[0], sep="/")
    return {name: leaf.shape for name, leaf in frozen.items()}


def _check_positions(path: str | Path, count: int) -> None:
    """Refuse position embeddings that are not of a class token and a square grid."""
    side = math.isqrt(max(count - 1, 0))
    if count < 2 or side * side != count - 1:
        raise ValueError(f"{path} has {count} positions: expected a class token and a square grid")
    if side > LARGEST_GRID:
        raise ValueError(
            f"{path} has a grid of {side} x {side} positions: at most {LARGEST_GRID} x {LARGEST_GRID} are read"
        )


def _resized(positions: np.ndarray, want: tuple[int, ...], grid: tuple[int, int]) -> np.ndarray:
    """Position embeddings [1, 1 + tokens, width] for a grid."""
    if positions.shape == want:
        return positions
    side = math.isqrt(positions.shape[1] - 1)
    old = positions[0, 1:].reshape(side, side, -1)
    new = ndimage.zoom(old, (grid[0] / side, grid[1] / side, 1), order=1)
    return np.concatenate([positions[:, :1], new.reshape(1, -1, positions.shape[2])], axis=1)
