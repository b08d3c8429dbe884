"""Updates as bytes: back to the same code, at the rate that entropy says; damaged bytes are told in one line."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.federated import coding
from federated.archive import Scheme, entropy_bits
from tests.helpers.updates import random_code

pytest.importorskip("constriction", reason="no constriction on this machine: the extra `federated` has it")

SIZE = 20_001
SCHEMES = [
    Scheme("scalar", rate=1.0), Scheme("hexagonal", rate=2.0), Scheme("E8", rate=3.0), Scheme("D2", finite=True),
    Scheme("hexagonal", entries="top", amount=0.1), Scheme("E8", entries="random", amount=0.3),
    Scheme("none", entries="top", amount=0.05),
]  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_bytes_hold_the_update_at_the_rate_of_its_entropy(scheme):
    code = random_code(scheme, SIZE)
    content = coding.pack(scheme, SIZE, code)
    back = coding.unpack(scheme, SIZE, content)
    for name in ("factor", "side", "mask", "symbols"):
        np.testing.assert_array_equal(getattr(back, name), getattr(code, name))
    bits = entropy_bits(scheme, SIZE, code)
    assert bits / 8 < len(content) < 1.005 * bits / 8 + 200  # bytes of tables


def test_what_is_not_stored_takes_its_header():
    code = random_code(SCHEMES[0], SIZE)._replace(factor=np.float32(0))
    content = coding.pack(SCHEMES[0], SIZE, code)
    assert len(content) == 10
    back = coding.unpack(SCHEMES[0], SIZE, content)
    assert back.factor == 0 and not back.symbols.any()


def test_an_update_of_one_value_needs_no_message():
    code = random_code(SCHEMES[0], SIZE)._replace(symbols=np.full((SIZE, 1), -3, np.int16))
    content = coding.pack(SCHEMES[0], SIZE, code)
    assert len(content) < 40
    np.testing.assert_array_equal(coding.unpack(SCHEMES[0], SIZE, content).symbols, code.symbols)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31])
def test_numbers_come_back(number):
    assert coding._read_varint(coding._varint(number), 0) == (number, len(coding._varint(number)))
    for signed in (number, -number):
        assert coding._signed(coding._unsigned(signed)) == signed


def test_damaged_bytes_are_told_in_one_line():
    content = coding.pack(SCHEMES[1], SIZE, random_code(SCHEMES[1], SIZE))
    with pytest.raises(UserError, match="version 9 cannot be read"):
        coding.unpack(SCHEMES[1], SIZE, b"\x09" + content[1:])
    for cut in (content[:5], content[:12], content[:-1]):
        with pytest.raises(UserError, match="damaged, or of another scheme"):
            coding.unpack(SCHEMES[1], SIZE, cut)
