"""Histories through an archive on a disk: what is read is what the compressor's decoder makes, bit for bit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.federated import archives, store
from experiments.federated.log import ArchiveError
from federated import decoded, fedavg, models, stack_clients, train, without
from federated.archive import Scheme, archive
from tests.helpers import toys

pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")

USERS, SIZE = ["7", "12", "ann"], 301
PLAN = jnp.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], bool)
START = jnp.full(SIZE, 0.5)
SCHEMES = (
    Scheme("hexagonal", rate=4.0),
    Scheme("scalar", reference="mean", entries="changed", amount=0.5, users=2),
    Scheme("D2", reference="last", entries="top", amount=0.2),
)


@functools.cache
def trained(scheme):
    """A training whose updates go through an archive's compressor: its last model, its history as codes and decoded."""
    key = jax.random.key(5, impl=archives.IMPL)
    generator = np.random.default_rng(0)
    batches = [dict(x=generator.normal(size=(4, SIZE)).astype(np.float32), weight=np.ones(4, np.float32)) for _ in USERS]
    loss = lambda params, batch, key: jnp.sum((params - batch["x"]) ** 2) / 8  # noqa: E731
    clients = stack_clients(archives.numbers(USERS).tolist(), batches)
    keeper = archive(scheme, SIZE, key)
    algorithm = fedavg(loss, optax.sgd(0.2), compressor=keeper)
    run = toys.quick_jit(train, static_argnums=0)
    state, history = run(algorithm, algorithm.init(START, clients), clients, PLAN, jax.random.key(1))
    return state.params, history, toys.quick_jit(lambda codes: decoded(keeper, codes, clients.ids))(history)


def filled(folder, scheme):
    opened = archives.create(folder / "archive", scheme, 5, START)
    model, codes, history = trained(scheme)
    size = archives.add_history(opened, codes, USERS)
    return opened, model, history, size


def test_numbers_of_users_are_their_digits_or_a_hash():
    numbers = archives.numbers(USERS)
    assert numbers[:2].tolist() == [7, 12] and numbers[2] == archives.numbers(["ann"])[0] != archives.numbers(["bob"])[0]


@pytest.mark.parametrize("scheme", SCHEMES, ids=["hexagonal", "changed from the mean", "top of the change"])
def test_what_is_read_is_what_was_encoded(tmp_path, scheme):
    opened, model, history, size = filled(tmp_path, scheme)
    with opened:
        assert opened.sizes()["users"] + opened.sizes()["shared"] == size
    again, users = archives.read_history(store.open_store(tmp_path / "archive"))
    assert users == sorted(USERS, key=str)
    columns = [USERS.index(user) for user in users]
    np.testing.assert_allclose(again.updates, history.updates[:, columns], atol=1e-6)
    np.testing.assert_array_equal(again.weights, history.weights[:, columns])
    np.testing.assert_array_equal(again.start, START)
    if scheme.lattice == "hexagonal":
        assert abs(models(again)[-1] - model).max() < 0.3 and size < 3 * 3 * SIZE * 5 / 8


def test_without_an_erased_user_the_others_share(tmp_path):
    opened, model, history, _ = filled(tmp_path, SCHEMES[0])
    with opened:
        certificate = archives.erase(opened, "12", "test", model, model - 1)
        assert certificate["model_before"] == archives.model_digest(model) != certificate["model_after"]
        again, users = archives.read_history(opened)
    assert users == ["7", "ann"]
    np.testing.assert_allclose(again.weights, without(history.weights, jnp.arange(3) == 1)[:, jnp.array([0, 2])], rtol=1e-6)
    np.testing.assert_allclose(again.updates, history.updates[:, jnp.array([0, 2])], atol=1e-6)


def test_old_rounds_go_and_the_history_begins_later(tmp_path):
    opened, _, history, _ = filled(tmp_path, SCHEMES[0])
    with opened:
        archives.drop_before(opened, 2, models(history)[2])
        again, users = archives.read_history(opened)
    present = [USERS.index(user) for user in users]
    assert users == ["12", "ann"]
    np.testing.assert_array_equal(again.start, models(history)[2])
    np.testing.assert_allclose(again.updates, history.updates[2:, jnp.array(present)], atol=1e-6)


def test_what_cannot_be_is_told_in_one_line(tmp_path):
    opened, _, history, _ = filled(tmp_path, SCHEMES[2])
    with opened, pytest.raises(ArchiveError, match="keep all rounds"):
        archives.drop_before(opened, 2, models(history)[2])
    with store.create(tmp_path / "other", b"", {"rate": 2}) as other, pytest.raises(ArchiveError, match="no scheme"):
        archives.read_history(other)
    with pytest.raises(ValueError, match="choose from scalar"):
        archives.create(tmp_path / "leech", Scheme("leech"), 0, START)
    assert not (tmp_path / "leech").exists()
