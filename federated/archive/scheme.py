"""The compressor of an archive: users sampled, entries thresholded, the rest on a lattice with subtractive dither.

After MEDU (2505.03388), whose text and code are not public. Of its three stages only the names and the dithered lattice are
known; each reconstructed choice is a field of `Scheme`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from federated.archive import lattices, sampling, sparsify
from federated.archive.draws import Draw, draw_key
from federated.archive.lattices import Lattice
from federated.history import Array
from federated.rounds import Compressor

SCALES = ("std", "max")
REFERENCES = ("zero", "last", "mean")
ENTRIES = ("all", "changed", "top", "random")
EXACT = "none"  # in the place of a lattice: float32 values


class Scheme(NamedTuple):
    """How an archive stores updates.

    lattice: "scalar", "hexagonal", "D2", "E8", or "none" for float32 values.
    rate: R; the cell's side is 2 g / 2^R, so that 2^R cells an entry reach from -g to g. What is really spent is measured.
    scale: g, of each update: "std", (2 + R / 5) times the root mean square of the stored entries, after UVeQFed's code but
      per entry whatever the dimension; or "max", the largest by amount.
    finite: only the 2^(dR) points nearest to 0 are used, at R bits an entry at most; else all, at what a coder takes.
    users: how many users' updates of a round are stored, on average; None for all.
    unbiased: they are sampled by norm and divided by their probability; False: the largest, as they are.
    reference: what of an update is stored is its difference from "zero", from the user's update as "last" stored, or from
      the round's "mean", the server's step, which is stored too (m floats a round; methods that need differences between
      users alone can do without).
    entries: of the difference are stored "all"; those "changed" by more than `amount` root mean squares of the update; the
      "top" or "random" share `amount` of them. The others are those of the reference. Random ones are divided by the share.
    """

    lattice: str = "hexagonal"
    rate: float = 2.0
    scale: str = "std"
    finite: bool = False
    users: int | None = None
    unbiased: bool = True
    reference: str = "zero"
    entries: str = "all"
    amount: float = 0.0


class Code(NamedTuple):
    """An update as it is stored; a leading axis for many. The rest is drawn again from the archive's key, user and round.

    Its arrays are JAX's where updates are encoded and decoded, and NumPy's where bytes are made of them.

    factor: what the decoded update is multiplied by; 0 if it is not stored.
    side: of a cell, float32.
    mask: [parameters] bool, which entries are stored; None if that needs no telling.
    symbols: [blocks, d], the integers of the lattice points, or float32 values; 0 beyond the stored entries.
    overload: the share of blocks whose nearest point is not among those used; told and not stored.
    """

    factor: Any
    side: Any
    mask: Any
    symbols: Any
    overload: Any


class Codes(NamedTuple):
    """What is stored of a round: a `Code` with a leading axis of clients, and the mean if it is the reference, or None."""

    updates: Code
    mean: Array | None


def check_scheme(scheme: Scheme) -> None:
    """Refuse a scheme that cannot work.

    Raises:
      ValueError: one line that says what to give.
    """
    for name, choices in (("scale", SCALES), ("reference", REFERENCES), ("entries", ENTRIES)):
        if getattr(scheme, name) not in choices:
            raise ValueError(f"{name} is {getattr(scheme, name)!r}: choose from {', '.join(choices)}")
    if scheme.lattice == EXACT:
        if scheme.finite:
            raise ValueError("float32 values have no codebook: choose a lattice, or finite=False")
    else:
        lattice = lattices.find_lattice(scheme.lattice)
        if not 0 < scheme.rate <= 12:
            raise ValueError(f"rate is {scheme.rate}: give more than 0 and at most 12 bits an entry")
        if scheme.finite:
            _book(scheme, lattice)
    if scheme.users is not None and scheme.users < 1:
        raise ValueError(f"users is {scheme.users}: give at least 1, or None for all")
    if scheme.entries in ("top", "random") and not 0 < scheme.amount <= 1:
        raise ValueError(f"amount is {scheme.amount}: give the share of entries to store, above 0 and at most 1")
    if scheme.entries == "changed" and not scheme.amount > 0:
        raise ValueError(f"amount is {scheme.amount}: give a threshold above 0 in root mean squares of an update")


def _book(scheme: Scheme, lattice: Lattice) -> Any:
    bits = len(lattice.steps) * scheme.rate
    if bits != int(bits):
        step = f"1/{len(lattice.steps)}"
        raise ValueError(f"a codebook of 2^{bits:g} points has no whole number of bits: give a rate in steps of {step}")
    return lattices.codebook(lattice, int(bits))


def stored_share(scheme: Scheme, parameters: int) -> int:
    """How many entries "top" and "random" store."""
    return max(1, round(scheme.amount * parameters))


def archive(scheme: Scheme, parameters: int, key: Array) -> Compressor:
    """The compressor of a scheme, for `federated.rounds.fedavg` and `decoded`.

    Args:
      scheme: how updates are stored.
      parameters: how many an update has.
      key: of the archive; whoever decodes needs it.

    Raises:
      ValueError: a scheme that cannot work.

    Example:
      >>> updates = jax.random.normal(jax.random.key(1), (1, 4000))
      >>> keeper = archive(Scheme("E8", rate=4.0), 4000, jax.random.key(0))
      >>> _, codes = keeper.encode((), updates, jnp.ones(1), jnp.arange(1), jnp.asarray(0))
      >>> _, decoded = keeper.decode((), codes, jnp.arange(1), jnp.asarray(0))
      >>> print(f"{jnp.mean((decoded - updates) ** 2) / codes.updates.side[0] ** 2:.3f}")  # the second moment of its cell
      0.072
    """
    check_scheme(scheme)

    def init(clients: int, size: int) -> Any:
        if size != parameters:
            raise ValueError(f"the archive is of {parameters} parameters and the model has {size}: make one for the model")
        return jnp.zeros((clients, parameters)) if scheme.reference == "last" else ()

    def encode(memory: Any, updates: Array, weights: Array, ids: Array, round: Array) -> tuple[Any, Codes]:
        mean = weights @ updates if scheme.reference == "mean" else None
        references = _references(memory, mean, updates.shape)
        one = lambda update, reference, user: _encode(scheme, key, update, reference, user, round)  # noqa: E731
        stored = jax.vmap(one)(updates, references, ids)
        norms = jnp.where(weights > 0, jnp.linalg.norm(updates, axis=1), 0.0)
        codes = Codes(stored._replace(factor=_factors(scheme, key, norms, ids, round)), mean)
        return decode(memory, codes, ids, round)[0], codes

    def decode(memory: Any, codes: Codes, ids: Array, round: Array) -> tuple[Any, Array]:
        factors = codes.updates.factor[:, None]
        references = _references(memory, codes.mean, (len(ids), parameters))
        one = lambda code, user: _decode(scheme, key, parameters, code, user, round)  # noqa: E731
        stored = references + jax.vmap(one)(codes.updates, ids)
        updates = jnp.where(factors > 0, factors * stored, 0.0)
        return jnp.where(factors > 0, stored, memory) if scheme.reference == "last" else (), updates

    return Compressor(init, encode, decode)


def _references(memory: Any, mean: Array | None, shape: tuple[int, ...]) -> Array:
    """[clients, parameters]: what each update is compared with, the same when it is stored and when it is read."""
    if mean is not None:
        return jnp.broadcast_to(mean, shape)
    return memory if isinstance(memory, jax.Array) else jnp.zeros(shape)


def _factors(scheme: Scheme, key: Array, norms: Array, ids: Array, round: Array) -> Array:
    if scheme.users is None:
        return jnp.where(norms > 0, 1.0, 0.0)
    if scheme.unbiased:
        return sampling.sampled(key, norms, scheme.users, ids, round)
    return sampling.largest(norms, scheme.users)


# --- One update -------------------------------------------------------------------------------------------------------


def _encode(scheme: Scheme, key: Array, update: Array, reference: Array, user: Array, round: Array) -> Code:
    difference = update - reference
    mask = _mask(scheme, key, update, reference, user, round)
    entries, used = difference, jnp.asarray(difference.size)
    if mask is not None:
        used = jnp.sum(mask)
        entries = jnp.where(jnp.arange(mask.size) < used, difference[jnp.argsort(~mask)], 0.0)
    if scheme.entries == "random":
        entries = entries * (difference.size / stored_share(scheme, difference.size))
    told = None if scheme.entries == "random" else mask
    if scheme.lattice == EXACT:
        return Code(jnp.ones(()), jnp.ones(()), told, entries.astype(jnp.float32)[:, None], jnp.zeros(()))
    side = _side(scheme, entries, used)
    symbols, overload = _quantised(scheme, key, entries / jnp.where(side > 0, side, 1.0), used, user, round)
    return Code(jnp.ones(()), side, told, symbols, overload)


def _mask(scheme: Scheme, key: Array, update: Array, reference: Array, user: Array, round: Array) -> Array | None:
    """Which entries are stored; None for all."""
    if scheme.entries == "changed":
        return sparsify.changed(update, reference, scheme.amount)
    if scheme.entries == "top":
        return sparsify.largest_entries(update - reference, stored_share(scheme, update.size))
    if scheme.entries == "random":
        return sparsify.random_entries(key, update.size, stored_share(scheme, update.size), user, round)
    return None


def _side(scheme: Scheme, entries: Array, used: Array) -> Array:
    """The side of a cell, 2 g / 2^R; 0 where nothing but zeros is to be stored."""
    if scheme.scale == "max":
        reach = jnp.max(jnp.abs(entries))
    else:
        reach = (2 + scheme.rate / 5) * jnp.sqrt(jnp.sum(entries**2) / jnp.maximum(used, 1))
    return (2 * reach / 2**scheme.rate).astype(jnp.float32)


def _quantised(scheme: Scheme, key: Array, scaled: Array, used: Array, user: Array, round: Array) -> tuple[Array, Array]:
    """The integers of the points nearest to blocks plus dither, and the share of blocks that are overloaded."""
    lattice = lattices.find_lattice(scheme.lattice)
    d = len(lattice.steps)
    blocks = jnp.pad(scaled, (0, -scaled.size % d)).reshape(-1, d)
    moved = blocks + _dither(lattice, key, len(blocks), user, round)
    free = lattices.nearest(lattice, moved)
    if scheme.finite:
        symbols = lattices.nearest_of(lattice, _book(scheme, lattice), moved)
    else:
        most = jnp.iinfo(_symbol_type(scheme)).max
        symbols = jnp.clip(free, -most, most)
    stored = jnp.arange(len(blocks)) * d < used
    overloaded = jnp.any(symbols != free, axis=1) & stored
    symbols = jnp.where(stored[:, None], symbols, 0).astype(_symbol_type(scheme))
    return symbols, jnp.sum(overloaded) / jnp.maximum(jnp.sum(stored), 1)


def _dither(lattice: Lattice, key: Array, blocks: int, user: Array, round: Array) -> Array:
    return lattices.cell_dither(lattice, draw_key(key, Draw.DITHER, user, round), (blocks,), jnp.float32)


def _symbol_type(scheme: Scheme) -> Any:
    """int8 where the integers are known to be small: 2^R cells of the widest lattice, dither included."""
    bounded = scheme.finite or scheme.scale == "max"
    return jnp.int8 if bounded and scheme.rate <= 6 else jnp.int16


def _decode(scheme: Scheme, key: Array, parameters: int, code: Code, user: Array, round: Array) -> Array:
    """The difference from the reference, 0 where nothing is stored, [parameters]."""
    entries: Array
    if scheme.lattice == EXACT:
        entries = code.symbols[:, 0]
    else:
        lattice = lattices.find_lattice(scheme.lattice)
        dither = _dither(lattice, key, len(code.symbols), user, round)
        entries = ((lattices.points(lattice, code.symbols, dither.dtype) - dither) * code.side).ravel()
    mask = code.mask
    if scheme.entries == "random":
        mask = sparsify.random_entries(key, parameters, stored_share(scheme, parameters), user, round)
    if mask is None:
        return entries[:parameters]
    return jnp.where(mask, entries[jnp.cumsum(mask) - 1], 0.0)
