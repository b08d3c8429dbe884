"""Data of a user's own: folders of images, tables and arrays, and the sections that load them."""

import csv
import struct
import zlib

import numpy as np
from PIL import Image

from experiments.core import sections
from experiments.data import datasets

LABELS = ("a", "b", "c")


def config(name, **changes):
    """A section past the door's checks: what loading refuses itself is tested here."""
    return sections.StreamedData(name=name).model_copy(update=changes)


def load(name, **changes):
    return datasets.load(config(name, **changes))


def placed(name, **changes):
    """id -> split."""
    _, splits = datasets.raw(config(name, **changes))
    return {int(i): split for split, found in splits.items() for i in found}


def draw(i, size=(3, 4, 3)):
    return np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def folder(root, layers=("",), count=6, suffix="png"):
    for layer in layers:
        for k, name in enumerate(LABELS):
            for i in range(count):
                save(root / layer / name / f"{i}.{suffix}", draw(100 * k + i))
    return root


def rows(count=18):
    rng = np.random.default_rng(0)
    return [[f"u{i}", *rng.normal(size=2).round(3), LABELS[i % 3]] for i in range(count)]


def write(path, lines, header=("who", "age", "pay", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines] if header else lines)
    return path


def png(width, height):
    """The header of an image of any size, and next to nothing of it."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
