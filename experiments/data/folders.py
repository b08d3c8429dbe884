"""A folder of images: one folder per class, its files the examples, their paths the ids.

    PATH/cat/1.png  PATH/cat/2.png  PATH/dog/1.png ...      or      PATH/train/cat/1.png ...  PATH/test/cat/9.png ...

An id is a hash of the path below PATH, so a file may come or go and no other example notices; a file that is renamed is
another example. Layers may be called Train, training, testing and so on. All images must have one size and one kind of
colour: nothing is scaled, cropped or converted unasked.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.core.archives import is_endless
from experiments.core.errors import DataError, line
from experiments.data.ids import Array, check_spelling, hashed_names, ids_of
from experiments.data.sources import Source, check_classes

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LAYERS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
}  # by lower case
VALIDATION = ("val", "valid", "validation", "dev")
NO_CLASS = (*LAYERS, *VALIDATION, "unlabeled", "unlabelled")  # a folder that holds such folders alone has layers
MODES = ("L", "RGB", "RGBA", "I;16")  # Pillow's, that are taken as they are


def read(root: Path) -> Source:
    """The images below `root`, decoded as they are asked for; classes are numbered by their names' order.

    Raises:
      DataError: no folder, no images, fewer than two classes, a file that is no image, images of several sizes.
    """
    folders = _folders(root)
    layers = _layers(root, [folder.name for folder in folders])
    layered = bool(layers)
    classes = sorted(itertools.chain(*map(_folders, folders)) if layered else folders)
    files = [(folder.name, file) for folder in classes for file in files_below(folder, SUFFIXES, "image")]
    if not files:
        raise DataError(f"{root} has no images: give one folder per class with {', '.join(SUFFIXES)} in it")
    names = sorted({name for name, _ in files})
    check_spelling(str(root), "class", names)
    if empty := sorted({folder.name for folder in classes} - {*names}):
        raise DataError(f"class {empty[0]!r} of {root} has no images: add some, or move its folder away")
    labels = np.array([names.index(name) for name, _ in files], np.int32)
    paths = [file for _, file in files]
    below = [file.relative_to(root) for file in paths]
    mend = "have names that differ in how an accent is written alone: rename one"
    called = [path.as_posix() for path in below]
    ids = ids_of(called, [str(path) for path in below], mend)
    names_of = hashed_names(ids, called)
    test = np.array([layers.get(path.parts[0]) == "test" for path in below])
    official = test if "test" in layers.values() else None
    check_classes(str(root), names, labels, test)
    order = np.argsort(ids)
    ids, labels, paths = ids[order], labels[order], [paths[i] for i in order]
    first = _decoded(paths[0])

    def images(asked: Array) -> tuple[Array, Array]:
        rows = np.searchsorted(ids, asked)
        x = np.empty((len(rows), *first.shape), first.dtype)
        for i, row in enumerate(rows):
            pixels = _decoded(paths[row])
            if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
                raise DataError(
                    f"{paths[row]} is {_described(pixels)}, {paths[0]} is {_described(first)}: bring all images to one "
                    "size and one kind of colour"
                )
            x[i] = pixels
        return x, labels[rows]

    return Source(images, ids, None if official is None else ids[official[order]], len(names), names_of)


def _layers(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Names of the folders of `root` -> 'train' or 'test', if they are layers above the classes; else nothing.

    Raises:
      DataError: layers that are not understood, among classes, or without one to train on.
    """
    known = [name for name in names if name.lower() in NO_CLASS]
    others = [name for name in names if name not in known]
    if not known or (others and len(known) == 1):  # a class may be called train, as buses and cars are
        return {}
    if others:
        raise DataError(
            f"{root} has {known[0]}/ and {known[1]}/ beside {others[0]}/: if these two are layers, move the others away; "
            "if all are classes, rename one of the two"
        )
    if held_out := [name for name in names if name.lower() in VALIDATION]:
        raise DataError(f"{root} has {held_out[0]}/: move its files into train/, from which validation is drawn by id")
    if odd := [name for name in names if name.lower() not in LAYERS]:
        raise DataError(f"{root} has {odd[0]}/, which is neither train/ nor test/: move it away")
    layers = {name: LAYERS[name.lower()] for name in names}
    for kind, what in (("train", "training"), ("test", "testing")):
        if len(same := [name for name in names if layers[name] == kind]) > 1:
            raise DataError(f"{root} has {same[0]}/ and {same[1]}/, which are both for {what}: keep one")
    if "train" not in layers.values():
        raise DataError(
            f"{root} has {names[0]}/ but no train/: add train/, or put the folders of classes into {root} itself"
        )
    return layers


def _folders(root: Path) -> list[Path]:
    """Folders of a folder, which holds nothing else; hidden files are passed over."""
    try:
        entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the folder {root} ({error.strerror}): check data.name") from error
    if strays := [entry for entry in entries if not entry.is_dir()]:
        raise DataError(f"{strays[0]} lies beside the folders of classes: move it into its class, or away")
    return entries


def files_below(folder: Path, suffixes: Sequence[str], kind: str) -> list[Path]:
    """The files of a folder and of those in it, by the order of their paths; hidden ones are passed over.

    Args:
      suffixes: of files, in lower case.
      kind: of a file, for an error.

    Raises:
      DataError: another file; a folder that cannot be read, or is a link.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename} ({error.strerror}): let it be read, or move it away")

    files: list[Path] = []
    for path, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for below in (Path(path, name) for name in folders):
            if below.is_symlink():  # followed, it might give an image twice, or have no end
                raise DataError(f"{below} is a link to a folder: put the folder itself there")
        files += [Path(path, name) for name in names if not name.startswith(".")]
    files.sort()
    for file in files:
        if file.suffix.lower() not in suffixes:
            raise DataError(f"{file} is no {kind} by its name ({', '.join(suffixes)}): rename it, or move it away")
        if is_endless(file):
            raise DataError(f"{file} is no file: move it away")
    return files


def _decoded(file: Path) -> Array:
    """An image as [height, width, channels], upright as its camera says; palettes become RGB, bits become greys.

    Raises:
      DataError: a file that cannot be decoded.
    """
    from PIL import Image, ImageOps  # slow

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            mode = {"P": "RGB", "1": "L"}.get(image.mode, image.mode)
            pixels = np.asarray(image.convert(mode) if mode != image.mode else image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {file} ({line(error, 100)}): replace it, or move it away") from error
    if mode not in MODES:
        raise DataError(f"{file} has colours of the kind {mode}: save it as grey or RGB")
    return pixels.reshape(*pixels.shape[:2], -1)


def _described(pixels: Array) -> str:
    height, width, channels = pixels.shape
    kind = {1: "grey", 3: "RGB", 4: "RGB with transparency"}.get(channels, f"of {channels} channels")
    return f"{height}x{width}, {kind}, {8 * pixels.dtype.itemsize} bits"
