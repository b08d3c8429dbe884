"""What methods declare, what they can be asked, and one line for what they cannot."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from federated.erase import METHODS, REQUESTS, check_request, class_shares, find_method, needs_of, removed_shares
from federated.erase.contract import SERVER


@pytest.mark.parametrize("name", METHODS)
def test_what_is_declared_is_so(name):
    method = METHODS[name]
    needs, parameters = needs_of(method), inspect.signature(method).parameters
    assert find_method(name) is method and method.__name__ == name and method.__doc__
    assert set(needs.requests) <= set(REQUESTS) and needs.exact and needs.source
    read = {"statistics": "total"}  # the argument's name where it is not the kept thing's
    assert all(read.get(kept, kept) in parameters for kept in needs.reads)
    asks = {"update", "step", "forget", "unlearn"} & set(parameters)
    assert bool(asks) == (not needs.helpers.startswith(SERVER))


def test_shares_by_hand():
    counts = jnp.array([[1, 3], [2, 0], [0, 0]])
    np.testing.assert_allclose(class_shares(counts, 1), [0.75, 0, 0])
    np.testing.assert_allclose(removed_shares(jnp.array([1, 0]), jnp.array([4, 0])), [0.25, 0])
    with pytest.raises(ValueError, match="class 2 of counts"):
        class_shares(counts, 2)
    with pytest.raises(ValueError, match="more examples are to go"):
        removed_shares(jnp.array([5]), jnp.array([4]))


def test_requests_that_a_method_cannot_carry_out():
    for name, method in METHODS.items():
        for request in REQUESTS:
            if request in needs_of(method).requests:
                check_request(method, request)
            else:
                with pytest.raises(ValueError, match=rf"^{name} removes .*: choose ridge or rollback, or ask for "):
                    check_request(method, request)
    for name in ("ridge", "rollback"):
        check_request(METHODS[name], "examples")
    with pytest.raises(ValueError, match="request 'user' is unknown"):
        check_request(METHODS["ridge"], "user")


def test_a_method_that_there_is_not():
    with pytest.raises(ValueError, match="did you mean federaser"):
        find_method("fed_eraser")
