"""The archive's compressor: what a decoder draws again, and each stage by itself with float32 values."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from federated import History, decoded, fedavg, stack_clients, train
from federated.archive import LATTICES, Scheme, archive, codebook
from tests.helpers import toys

USERS, SIZE, ROUNDS = 3, 1001, 2  # no multiple of 2 or 8
IDS, KEY = jnp.array([12, 5, 90]), jax.random.key(3)
SCALES = np.array([1e-3, 1.0, 30.0])[:, None]  # an update's size must not matter
UPDATES = (SCALES * np.random.default_rng(0).normal(size=(ROUNDS, USERS, SIZE))).astype(np.float32)
WEIGHTS = np.full((ROUNDS, USERS), 1 / USERS, np.float32)


@functools.partial(toys.quick_jit, static_argnums=0)
def encode(scheme, key, *rounds):
    keeper = archive(scheme, SIZE, key)
    of_round = lambda memory, given: keeper.encode(memory, given[1], given[2], IDS, given[0])  # noqa: E731
    return jax.lax.scan(of_round, keeper.init(USERS, SIZE), rounds)


@functools.partial(toys.quick_jit, static_argnums=0)
def decode(scheme, key, codes):
    history = History(jnp.zeros(SIZE), codes, jnp.zeros(codes.updates.factor.shape))
    return decoded(archive(scheme, SIZE, key), history, IDS).updates


def stored(scheme, updates=UPDATES, weights=WEIGHTS):
    """The codes of all rounds, stacked, and what the encoder's memory was at the end."""
    memory, codes = encode(scheme, KEY, jnp.arange(len(updates), dtype=jnp.int32), updates, weights)
    return codes, memory


def restored(scheme, codes, key=KEY):
    return np.asarray(decode(scheme, key, codes))


@pytest.mark.parametrize("lattice", LATTICES)
def test_a_decoder_draws_the_dither_again(lattice):
    """Its errors are a cell's in units of each update's own cell; with another key they are larger."""
    scheme = Scheme(lattice, rate=3.0)
    codes, _ = stored(scheme)
    side = np.asarray(codes.updates.side)[..., None]
    moment = LATTICES[lattice].second_moment
    error = np.mean(((restored(scheme, codes) - UPDATES) / side) ** 2, axis=2)
    np.testing.assert_allclose(error, moment, rtol=0.15)
    other = np.mean(((restored(scheme, codes, jax.random.key(4)) - UPDATES) / side) ** 2, axis=2)
    assert (other > 2.5 * moment).all() and not codes.updates.overload.any()
    expected = 2 * (2 + 3.0 / 5) * np.sqrt(np.mean(UPDATES**2, axis=2)) / 2**3
    np.testing.assert_allclose(codes.updates.side, expected, rtol=1e-4)


def test_dithers_of_users_and_rounds_differ():
    same = np.broadcast_to(UPDATES[0, 1], UPDATES.shape)
    symbols = np.asarray(stored(Scheme("scalar", rate=3.0), same)[0].updates.symbols).reshape(ROUNDS * USERS, -1)
    assert len({row.tobytes() for row in symbols}) == ROUNDS * USERS


def test_the_largest_entry_is_within_reach_and_small_symbols_take_a_byte():
    codes, _ = stored(Scheme("hexagonal", rate=6.0, scale="max"))
    np.testing.assert_allclose(codes.updates.side, 2 * np.abs(UPDATES).max(axis=2) / 2**6, rtol=1e-5)
    assert codes.updates.symbols.dtype == jnp.int8 and not codes.updates.overload.any()


def test_an_entry_that_16_bits_do_not_reach_is_overloaded():
    spike = jnp.zeros((1, 2500)).at[0, 0].set(1e6)
    keeper = archive(Scheme("hexagonal", rate=12.0), 2500, KEY)
    _, codes = toys.quick_jit(keeper.encode)((), spike, jnp.ones(1), jnp.arange(1), jnp.asarray(0))
    assert codes.updates.overload[0] == pytest.approx(1 / 1250)


def test_a_finite_codebook_says_what_is_overloaded():
    scheme = Scheme("hexagonal", rate=2.0, finite=True)
    codes, _ = stored(scheme)
    book = {tuple(row) for row in codebook(LATTICES["hexagonal"], 4)}
    assert {tuple(row) for row in np.asarray(codes.updates.symbols).reshape(-1, 2)} == book
    assert (codes.updates.overload > 0).all() and (codes.updates.overload < 0.2).all()
    endless, _ = stored(scheme._replace(finite=False))
    differ = np.any(np.asarray(codes.updates.symbols) != np.asarray(endless.updates.symbols), axis=-1)
    np.testing.assert_allclose(codes.updates.overload, differ.mean(axis=-1), rtol=1e-5)
    error, least = (np.mean((restored(scheme, made) - UPDATES)[:, 1] ** 2) for made in (codes, endless))
    assert error > least


def test_absent_and_unsampled_users_have_no_update():
    weights = WEIGHTS.copy()
    weights[1, 0] = 0
    scheme = Scheme("none", users=1, unbiased=False)
    codes, _ = stored(scheme, weights=weights)
    np.testing.assert_array_equal(restored(scheme, codes), UPDATES * np.array([0, 0, 1])[:, None])
    codes, _ = stored(Scheme("scalar", rate=3.0), np.zeros_like(UPDATES))
    assert not restored(Scheme("scalar", rate=3.0), codes).any()


def test_sampled_updates_are_divided_by_their_probability():
    """Of norms 1, 2 and 3 two are stored on average: with probability 1/3, 2/3 and 1."""
    scheme = Scheme("none", users=2)
    updates = np.ones((60, USERS, SIZE), np.float32) * np.array([1, 2, 3], np.float32)[:, None]
    codes, _ = stored(scheme, updates, np.full((60, USERS), 1 / 3, np.float32))
    factors, chances = np.asarray(codes.updates.factor), np.array([1 / 3, 2 / 3, 1])
    for user, chance in enumerate(chances):
        assert set(np.round(factors[:, user], 3)) <= {0, np.float32(np.round(1 / chance, 3))}
    assert (abs((factors > 0).mean(axis=0) - chances) <= 4 * np.sqrt(chances * (1 - chances) / 60)).all()
    np.testing.assert_allclose(restored(scheme, codes), updates * factors[..., None], rtol=1e-6)


@pytest.mark.parametrize("reference", ["last", "mean"])
def test_entries_that_changed_little_are_the_reference_s(reference):
    """Stored ones are exact, and no other is farther off than the threshold: no error adds up over rounds."""
    scheme = Scheme("none", reference=reference, entries="changed", amount=0.5)
    updates = np.random.default_rng(5).normal(size=(4, USERS, SIZE)).astype(np.float32) * 0.3 + UPDATES[0, 1]
    codes, memory = stored(scheme, updates, np.full((4, USERS), 1 / 3, np.float32))
    made, mask = restored(scheme, codes), np.asarray(codes.updates.mask)
    limits = 0.5 * np.sqrt(np.mean(updates**2, axis=2, keepdims=True))
    assert (np.abs(made - updates) <= limits + 1e-5).all() and 0.02 < mask[1:].mean() < 0.6
    np.testing.assert_allclose(made[mask], updates[mask], atol=1e-5)
    if reference == "last":
        np.testing.assert_array_equal(memory, made[-1])
        still = ~mask[1:]
        np.testing.assert_array_equal(made[1:][still], made[:-1][still])
    else:
        np.testing.assert_allclose(codes.mean, updates.mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(made[~mask], np.broadcast_to(codes.mean[:, None], made.shape)[~mask], atol=1e-6)


def test_who_was_not_stored_keeps_the_reference():
    """The second round stores nothing of user 0, whose third update is compared with the first."""
    scheme = Scheme("none", reference="last", users=2, unbiased=False, entries="changed", amount=1e-6)
    norms = np.array([[3, 2, 1], [1, 2, 3], [3, 2, 1]], np.float32)[..., None]
    updates = norms * np.ones((3, USERS, SIZE), np.float32)
    codes, _ = stored(scheme, updates, np.full((3, USERS), 1 / 3, np.float32))
    np.testing.assert_array_equal(np.asarray(codes.updates.mask)[2, 0], False)
    np.testing.assert_array_equal(restored(scheme, codes)[:, 0, 0], [3, 0, 3])


@pytest.mark.parametrize("lattice", ["none", "E8"])
def test_the_top_share_is_stored_and_a_random_share_is_unbiased(lattice):
    scheme = Scheme(lattice, rate=4.0, entries="top", amount=0.1)
    codes, _ = stored(scheme)
    made, mask = restored(scheme, codes), np.asarray(codes.updates.mask)
    assert (mask.sum(axis=2) == 100).all() and (made[~mask] == 0).all()
    least = np.min(np.where(mask, np.abs(UPDATES), np.inf), axis=2)
    assert (least >= np.max(np.where(mask, 0, np.abs(UPDATES)), axis=2)).all()
    side = np.asarray(codes.updates.side)[..., None]
    error = (made - UPDATES) / side if lattice == "E8" else made - UPDATES
    assert np.mean(error[mask] ** 2) == pytest.approx(LATTICES["E8"].second_moment if lattice == "E8" else 0, rel=0.1)
    scheme = scheme._replace(entries="random")
    codes, _ = stored(scheme)
    made = restored(scheme, codes)
    assert codes.updates.mask is None
    kept = made != 0
    assert (kept.sum(axis=2) == 100).all()
    if lattice == "none":
        np.testing.assert_allclose(made[kept], UPDATES[kept] * 10.01, rtol=1e-5)


def test_a_training_keeps_a_compressed_history():
    generator = np.random.default_rng(0)
    batches = [dict(x=generator.normal(size=(4, 40)).astype(np.float32), weight=np.ones(4, np.float32)) for _ in range(2)]
    loss = lambda params, batch, key: jnp.mean((params - batch["x"]) ** 2)  # noqa: E731
    clients, key = stack_clients([3, 8], batches), jax.random.key(0)
    keeper, history = archive(Scheme("hexagonal", rate=6.0), 40, jax.random.key(1)), {}
    for name, more in {"codes": {"compressor": keeper}, "plain": {}}.items():
        algorithm = fedavg(loss, optax.sgd(2.0), **more)
        state = algorithm.init(jnp.zeros(40), clients)
        _, history[name] = train(algorithm, state, clients, jnp.ones((3, 2), bool), key)
    made = decoded(keeper, history["codes"], clients.ids)
    error = made.updates - history["plain"].updates
    sides = history["codes"].updates.updates.side
    assert 0.2 < np.sqrt(np.mean((error / sides[..., None]) ** 2)) < 0.35  # .283 expected, of 240 entries
    with pytest.raises(ValueError, match="of 40 parameters and the model has 41"):
        algorithm = fedavg(loss, optax.sgd(2.0), compressor=keeper)
        algorithm.init(jnp.zeros(41), clients)


@pytest.mark.parametrize(
    "mistake, line",
    [
        ({"lattice": "leech"}, "choose from scalar"),
        ({"lattice": "none", "finite": True}, "have no codebook"),
        ({"rate": 0.0}, "more than 0 and at most 12"),
        ({"rate": float("nan")}, "more than 0 and at most 12"),
        ({"rate": 1.3, "finite": True}, "steps of 1/2"),
        ({"lattice": "E8", "rate": 3.0, "finite": True}, "cannot be searched"),
        ({"scale": "l2"}, "scale is 'l2': choose from std, max"),
        ({"reference": "first"}, "choose from zero, last, mean"),
        ({"entries": "bottom"}, "choose from all, changed, top, random"),
        ({"entries": "top"}, "the share of entries"),
        ({"entries": "changed"}, "a threshold above 0"),
        ({"users": 0}, "at least 1, or None"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(mistake, line):
    with pytest.raises(ValueError, match=line):
        archive(Scheme(**mistake), SIZE, KEY)
