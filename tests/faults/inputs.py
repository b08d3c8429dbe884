"""Inputs: bad bytes, JSON, texts and arrays for every parser of a file or a word that may come from elsewhere.

Each is taken, or refused by an error of one line that the command line tells; no other exception, no memory without bound,
and no proof of what is not so.
"""

import argparse
import contextlib
import json
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from experiments.core import results, workdirs
from experiments.core.errors import UserError
from experiments.data import tables
from experiments.exact.sources import placement
from experiments.judge import metrics
from experiments.judge_exact import answer_files
from experiments.models import params, vits
from s3t.cli import arguments
from s3t.store import certificates, disk, files, manifests, publishing
from s3t.store.ledger import hash_chain
from tests.faults import odd, victims
from tests.faults.arrays import ARRAYS, altered_arrays
from tests.helpers import stores

REFUSED = (ValueError,)  # UserError, DataError and WorkdirError are such
IDS = list(range(0, 40, 3))


class Door(NamedTuple):
    """A parser: what it is called, its errors for users, and knock(rng), which hands it something bad."""

    name: str
    allowed: tuple
    knock: object


def attack(room, rng, limit, tally):
    """One bad input for each door in turn."""
    victims.prepare()
    doors = made(room)
    for number in limit:
        for door in doors:
            with tally.trial(f"{door.name} {number}", *door.allowed):
                if wrong := door.knock(rng):
                    tally.bad("wrong", f"{door.name} {number}: {wrong}"[:500])


def made(room):
    """All doors; files that they read lie in the room."""
    opened = stores.fill(stores.make(room.store))
    node = publishing.live(opened)[0]
    node_file = disk.file_of(opened, node.identity)
    recorded = publishing.load(opened, node)[0]
    rows = [hash_chain.Row(*row) for row in opened.ledger.execute("SELECT * FROM log ORDER BY seq")]
    manifest = json.loads((room.store / disk.MANIFEST).read_text())
    disk.close(opened)
    file = room.folder / "input"
    return [
        Door("manifest", REFUSED, lambda rng: of_manifest(rng, manifest)),
        Door("certificate", REFUSED, lambda rng: of_certificate(rng, json.loads(certificates.to_json(recorded)))),
        Door("proof", (), of_proof),
        Door("ledger row", (), lambda rng: of_row(rng, rows)),
        Door("node file", REFUSED, of_node(file.with_suffix(".safetensors"), node_file.read_bytes(), node.certificate)),
        Door("node header", REFUSED, of_header(file.with_suffix(".safetensors"), recorded)),
        Door("numbers of a command", (argparse.ArgumentTypeError,), of_words),
        Door("file of numbers", (argparse.ArgumentTypeError,), of_list(file.with_suffix(".txt"))),
        Door("groups and risks", REFUSED, of_placement(file.with_suffix(".csv"))),
        Door("table", (UserError,), of_table(file.with_suffix(".csv"))),
        Door("arrays", (UserError,), of_arrays(file.with_suffix(".npz"), tables.read_npz, ARRAYS)),
        Door("parameters", (UserError,), of_arrays(file.with_suffix(".npz"), params.read, ARRAYS)),
        Door("answers", (UserError,), of_arrays(file.with_suffix(".npz"), answer_files.read, ARRAYS)),
        Door("statistics", (UserError,), of_arrays(file.with_suffix(".npz"), _statistics, ARRAYS)),
        Door("vision transformer", REFUSED, of_vit(file.with_suffix(".npz"))),
        Door("results", (UserError,), of_results(file.with_suffix(".json"))),
        Door("log of a run", (UserError,), of_log(file.with_suffix(".jsonl"))),
        *prepared_door(room.folder / "prepared"),
    ]


# --- Of a store -------------------------------------------------------------------------------------------------------


def of_manifest(rng, manifest):
    if rng.random() < 0.3:
        text = odd.altered_bytes(rng, json.dumps(manifest).encode())
    else:
        text = odd.text_of(rng, odd.altered_value(rng, manifest)).encode(errors="replace")
    found = manifests.checked(manifests.parse(text, "manifest.json"))
    manifests.plan_of(found)
    certificates.canonical(vars(found))


def of_certificate(rng, value):
    found = certificates.from_json(odd.text_of(rng, odd.altered_value(rng, value)))
    certificates.identity_of(found)
    certificates.certificate_digest(found)
    certificates.to_json(found)


def of_proof(rng):
    """An altered proof may show what is so, never what is not."""
    ids = rng.sample(IDS, rng.randint(0, len(IDS)))
    tree, one = certificates.merkle_tree(ids), rng.choice([*IDS, 1, 2, 40, -1])
    proof = odd.altered_value(rng, certificates.prove(tree, rng.choice([one, one, rng.choice(IDS)])))
    root = rng.choice([certificates.root_of(tree)] * 5 + odd.ODD)
    inside = certificates.check_inclusion(root, one, proof)
    outside = certificates.check_exclusion(root, one, proof)
    if type(inside) is not bool or type(outside) is not bool:
        return f"no verdict of {proof}"
    if root == certificates.root_of(tree) and ((inside and one not in ids) or (outside and one in ids)):
        return f"{one} of {ids} proved wrongly by {proof}"
    return ""


def of_row(rng, rows):
    """A row of other JSON and other types, its digest right."""
    at = rng.randrange(len(rows))
    row = rows[at]
    row = row._replace(detail=odd.text_of(rng, odd.altered_value(rng, json.loads(row.detail))))
    if rng.random() < 0.4:
        row = row._replace(**{rng.choice(hash_chain.Row._fields): rng.choice([*odd.ODD, b"\xff"])})
    if rng.random() < 0.7:
        with contextlib.suppress(ValueError):  # of a field that no digest covers
            row = row._replace(digest=hash_chain.link(rows[at - 1].digest if at else hash_chain.START, *row[:5]))
    hash_chain.read_on(hash_chain.start(), [*rows[:at], row, *rows[at + 1 :]])


def of_node(path, data, certificate):
    def knock(rng):
        path.write_bytes(odd.altered_bytes(rng, data))
        files.read(path, certificate)

    return knock


def of_header(path, recorded):
    """A header that says other types, shapes and offsets than the bytes have, under a certificate that was published."""
    data = save({"x": np.zeros(8, np.float32), "y": np.zeros((2, 2))}, {"certificate": certificates.to_json(recorded)})
    size = int.from_bytes(data[:8], "little")
    header, body, published = json.loads(data[8 : 8 + size]), data[8 + size :], certificates.certificate_digest(recorded)

    def knock(rng):
        text = odd.text_of(rng, odd.altered_value(rng, header)).encode(errors="replace")
        length = rng.choice([len(text)] * 6 + [0, 1, 1 << 40, (1 << 64) - 1])
        path.write_bytes(length.to_bytes(8, "little") + text + body)
        files.read(path, published)

    return knock


# --- Of a command line ------------------------------------------------------------------------------------------------


def of_words(rng):
    parse = rng.choice(
        [arguments.whole_numbers, arguments.numbers, arguments.seed, arguments.json_object, arguments.which_nodes]
    )
    text = odd.altered_text(rng, rng.choice(["12,17,19", "0.5,0.25", "7", '{"a": [1]}', "all", "@nowhere"]))
    parse(text if text != "@-" else "@")


def of_list(path):
    def knock(rng):
        text = odd.altered_text(rng, ",\n".join(map(str, range(50))))
        path.write_bytes(odd.altered_bytes(rng, text.encode(errors="replace")))
        arguments.whole_numbers(f"@{path}")

    return knock


# --- Of data ----------------------------------------------------------------------------------------------------------


def of_placement(path):
    def knock(rng):
        what = rng.choice(["groups", "risks"])
        lines = [f"{one},{'a' if what == 'groups' else 0.25}" for one in range(8)]
        text = "\n".join(odd.altered_text(rng, line) if rng.random() < 0.3 else line for line in lines)
        path.write_bytes(
            odd.altered_bytes(rng, text.encode(errors="replace")) if rng.random() < 0.4 else text.encode(errors="replace")
        )
        groups, risks = (str(path), "") if what == "groups" else ("", str(path))
        placement.make(np.arange(8), np.arange(8), groups, risks, (0.5,) if risks else (), (1, 1) if risks else ())

    return knock


def of_table(path):
    def knock(rng):
        lines = ["id,a,b,label", *(f"{one},{one / 3},{-one},{one % 2}" for one in range(8))]
        text = "\n".join(odd.altered_text(rng, line) if rng.random() < 0.2 else line for line in lines)
        data = text.encode(errors="replace")
        path.write_bytes(odd.altered_bytes(rng, data) if rng.random() < 0.4 else data)
        tables.read_csv(
            path, rng.choice(["label", "label", "", "a", "nowhere"]), rng.choice(["", "", "id", "b", "nowhere"])
        )

    return knock


def of_arrays(path, read, arrays):
    def knock(rng):
        altered_arrays(rng, path, arrays)
        read(path)

    return knock


def _statistics(path):
    return metrics.load(path, np.ones(4, bool))


def of_vit(path):
    """Google's layout, of a ViT of a few thousand parameters."""
    import jax

    module, image = vits.vit("mini", 10), (8, 8, 1)
    tree = vits.init(module, jax.random.key(0), np.zeros((1, *image), np.float32))
    vits.save_npz(path, tree)
    with np.load(path) as found:
        arrays = {name: found[name] for name in found.files}

    def knock(rng):
        altered_arrays(rng, path, arrays)
        vits.load_npz(path, module, image)

    return knock


# --- Of runs ----------------------------------------------------------------------------------------------------------


def of_results(path):
    """Rows of a run, with the checksum that belongs to the forged ones, or as an old version wrote them."""
    run = results.Run("forethought", {"python": "3"}, [], {})
    content = json.loads(results.to_json(run))
    row = {"facts": {"name": "vanilla", "seed": 0}, "scores": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}}

    def knock(rng):
        value = odd.altered_value(rng, {**content, "rows": [row, row]})
        if isinstance(value, dict) and rng.random() < 0.8:
            if rng.random() < 0.3:
                value |= {"schema": rng.choice([1, 1.0, "1", 99, None, True])}
                value.pop("sha256", None)
            with contextlib.suppress(ValueError):  # of NaN
                value["sha256"] = results.checksum({name: part for name, part in value.items() if name != "sha256"})
        path.write_text(odd.text_of(rng, value), errors="replace")
        workdirs.read_results(path)

    return knock


def of_log(path):
    lines = [json.dumps({"step": step, "loss": 0.5}) for step in range(5)]

    def knock(rng):
        text = "\n".join(odd.altered_text(rng, line) if rng.random() < 0.4 else line for line in lines)
        path.write_bytes(
            odd.altered_bytes(rng, text.encode(errors="replace")) if rng.random() < 0.5 else text.encode(errors="replace")
        )
        list(workdirs.entries(path))

    return knock


def prepared_door(root):
    """A data set as TFDS prepared it, whose dataset_info.json or features.json is altered."""
    from experiments.core.sections import Data
    from experiments.data import readers
    from tests.helpers import images

    images.prepare(root, "tiny", {"train": images.labelled(12), "test": images.labelled(4, 12)})
    folder = root / "tiny" / "1.0.0"
    texts = {name: (folder / name).read_text() for name in ("dataset_info.json", "features.json")}
    config = Data(name="tiny", data_dir=str(root))

    def knock(rng):
        for name, text in texts.items():
            (folder / name).write_text(text)
        name = rng.choice(["dataset_info.json", "dataset_info.json", "features.json"])
        if rng.random() < 0.7:
            (folder / name).write_text(odd.text_of(rng, odd.altered_value(rng, json.loads(texts[name]))), errors="replace")
        else:
            (folder / name).write_bytes(odd.altered_bytes(rng, texts[name].encode()))
        source = readers.open_source(config)
        source.read(source.ids[:2])

    return [Door("prepared data", (UserError,), knock)]
