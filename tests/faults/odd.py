"""Odd values and how to alter things: bytes, JSON values, texts. Everything is a function of a random.Random."""

import copy
import json

DEEP = {"a": [[[[[[[[]]]]]]]]}
NUMBERS = [
    0,
    -1,
    1,
    2,
    0.5,
    1e308,
    -0.0,
    1 << 31,
    1 << 32,
    1 << 63,
    1 << 64,
    -(1 << 63),
    10**400,
    float("nan"),
    float("inf"),
]
TEXTS = ["", "x", "0" * 64, "\x00", "\ud800", "é", "../../x", "-1", "1_0", "١٢", "nan", "A" * 5000, "\n", "{}", "1e999"]
OTHERS = [None, True, False, [], {}, [[]], [{}], {"": {}}, DEEP, ["x"] * 1000, [0] * 3, {"x": None}]
ODD = [*NUMBERS, *TEXTS, *OTHERS]


def altered_bytes(rng, data, other=b""):
    """Data with a flipped bit, a cut, a hole of zeros, a foreign part, a part twice, or random bytes."""
    data = bytearray(data)
    at = rng.randrange(len(data)) if data else 0
    size = rng.choice([1, 1, 2, 8, 64, 512, 4096])
    how = rng.randrange(8)
    if not data or how == 0:
        return rng.randbytes(rng.choice([0, 1, 8, 100]))
    if how in (1, 2):
        data[at] ^= 1 << rng.randrange(8)
    elif how == 3:
        del data[at:]
    elif how == 4:
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif how == 5:
        data[at : at + size] = (other or rng.randbytes(size))[at : at + size] or rng.randbytes(size)
    elif how == 6:
        data[at:at] = data[at : at + size]
    else:
        data[at : at + size] = rng.randbytes(size)
    return bytes(data)


def altered_value(rng, value):
    """A JSON value with something in it lost, added, repeated or of another kind."""
    value = copy.deepcopy(value)
    spots = list(_spots(value))
    if not spots or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(ODD))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        where, key = rng.choice(spots)
        how = rng.randrange(6)
        if isinstance(where, dict):
            if how == 0:
                where.pop(key, None)
            elif how == 1:
                where[rng.choice(TEXTS)] = copy.deepcopy(rng.choice(ODD))
            else:
                where[key] = near(rng, where.get(key))
        elif key < len(where):
            if how == 0:
                del where[key]
            elif how == 1:
                where.insert(key, copy.deepcopy(where[key]))
            else:
                where[key] = near(rng, where[key])
    return value


def near(rng, value):
    """An odd value, or one that is almost the old one."""
    if isinstance(value, bool) or value is None or rng.random() < 0.6:
        return copy.deepcopy(rng.choice(ODD))
    if isinstance(value, int | float):
        return rng.choice([value + 1, value - 1, -value, value * 1000, str(value), [value]])
    if isinstance(value, str):
        return rng.choice([value + "x", value[:-1], value.upper(), value[::-1], [value], value * 3])
    return rng.choice([[], {}, [value], {"x": value}, None])


def _spots(value):
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _spots(value[key])


def text_of(rng, value):
    """JSON text, perhaps with what Python's parser takes beyond JSON, or nested too deeply."""
    try:
        text = json.dumps(value)
    except (ValueError, TypeError):
        text = "{}"
    if rng.random() < 0.03:
        text = rng.choice(["[" * 100_000, '{"a":' * 5000, text + text, text[:-1], "\ufeff" + text, "nan"])
    return text


def altered_text(rng, text):
    """A text with a part lost, twice, or odd."""
    at, to = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    return rng.choice([
        text[:at] + text[to:],
        text[:at] + rng.choice(TEXTS) + text[at:],
        text[:at] + str(rng.choice(NUMBERS))[:400] + text[to:],
        text[:to] + text[at:],
        rng.choice(TEXTS),
        text.replace(",", rng.choice([";", "\t", ",,", "\n", ", "])),
    ])  # fmt: skip
