"""What training reads of a store, and the digest of it that a certificate states."""

import ml_dtypes
import numpy as np
import pytest

from s3t.plans.partition import Places
from s3t.service import inputs
from s3t.training import arrangement


def digest(x, rows=6):
    zeros = np.zeros(rows, np.int32)
    return inputs.digests_of(arrangement.arrange(x, zeros, np.arange(rows), Places(zeros, zeros), 1, 1, 8), 1)(0, (0,))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16, "M8[s]", "m8[ns]", bool, "U3"])
def test_inputs_of_every_type_have_a_digest(dtype):
    """NumPy hands out the buffer of bfloat16 and of dates only as bytes."""
    x = np.zeros((6, 2), dtype)
    other = x.copy()
    other[5, 1] = np.ones((), dtype)
    assert digest(x) == digest(x.copy()) != digest(other)
    assert digest(x[:0], 0) != digest(x)


def test_the_digests_that_certificates_state_stay_what_they_are():
    assert digest(np.arange(12, dtype=np.float32).reshape(6, 2)) == GOLDEN


GOLDEN = "ecff9eb151080d1f1ee71fd38db7d91b5f7516250d2f6a42f09f54204a958485"
