"""Files of a store that claim any size or layout: refused in one line, and never held in memory."""

import dataclasses
import json
import os
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save

from s3t.service import verify
from s3t.store import certificates, disk, files, publishing
from s3t.store.ledger import records
from tests.helpers import stores

# size


def test_a_file_of_absurd_size_is_not_read(opened):
    """A hole of a terabyte after a whole node, and one that the header calls a tensor."""
    node, other = publishing.live(opened)[:2]
    path = disk.file_of(opened, node.identity)
    os.truncate(path, 1 << 40)
    with pytest.raises(ValueError, match="is damaged"):
        publishing.load(opened, node)
    recorded, _ = publishing.load(opened, other)
    path = disk.file_of(opened, other.identity)
    size = 12 << 30
    header = json.dumps(
        {
            "__metadata__": {"certificate": certificates.to_json(recorded)},
            "x": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size)
    with pytest.raises(ValueError, match="it is larger than what was published"):
        publishing.load(opened, other)


def test_zeros_that_a_certificate_speaks_of_are_not_held_in_memory(tmp_path):
    """Whoever gives a store chooses its certificates: the file is a hole, small on disk."""
    opened, size = stores.make(tmp_path / "store"), 1 << 27
    drafted = publishing.draft_node(opened, 0, (0,))
    output = certificates.parameters_digest({"a": np.zeros(size, np.uint8)})
    recorded, _ = publishing._sealed(opened, drafted, {"a": np.zeros(0, np.uint8)}, {}, None)
    recorded = dataclasses.replace(recorded, stack={"bytes": size}, output=output)
    records.record_node(opened.ledger, publishing._node(drafted, recorded), None, lambda: None)
    header = json.dumps(
        {
            "__metadata__": {"certificate": certificates.to_json(recorded)},
            "a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
        }
    ).encode()
    path = disk.file_of(opened, drafted.identity)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size)
    tracemalloc.start()
    assert verify.verify(opened.root)["ok"] and publishing.damaged(opened) == {}
    assert tracemalloc.get_traced_memory()[1] < size // 4
    tracemalloc.stop()


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


LAYOUTS = {
    "no header": (b"", "it has no header"),
    "long": ((1 << 62).to_bytes(8, "little") + b"{}", "it has no header"),
    "no json": (b"{{", "its header is malformed"),
    "deep": (b"[" * 100_000, "its header is malformed"),
    "a list": ([], "its header is malformed"),
    "no entry": ({"a": 1}, "its header is malformed"),
    "unknown": ({"a": ONE | {"dtype": "F4"}}, "its header is malformed"),
    "more": ({"a": ONE | {"x": 1}}, "its header is malformed"),
    "negative": ({"a": ONE | {"shape": [-2]}}, "its header is malformed"),
    "no whole number": ({"a": ONE | {"shape": [2.0]}}, "its header is malformed"),
    "short": ({"a": ONE | {"shape": [3]}}, "its header is malformed"),
    "overlap": ({"a": ONE, "b": ONE}, "its tensors do not follow each other"),
    "hole": ({"a": ONE, "b": ONE | {"data_offsets": [9, 17]}}, "its tensors do not follow each other"),
    "rest": ({"a": ONE | {"shape": [1], "data_offsets": [0, 4]}}, "its tensors are not all that it holds"),
    "cut off": ({"a": ONE | {"shape": [4], "data_offsets": [0, 16]}}, "its tensors are not all that it holds"),
    "metadata": ({"a": ONE, "__metadata__": 1}, "its tensors are not all that it holds"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_layout_is_one_line(opened, name):
    header, message = LAYOUTS[name]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    node = publishing.live(opened)[0]
    content = text if name in ("no header", "long") else len(text).to_bytes(8, "little") + text + bytes(8)
    disk.file_of(opened, node.identity).write_bytes(content)
    with pytest.raises(ValueError, match=rf"\.safetensors is damaged: {message}$"):
        publishing.check(opened, node)


@pytest.mark.parametrize("size", ["x", None, 1.5, [1]])
def test_a_certificate_may_state_any_size(opened, size):
    node = publishing.live(opened)[0]
    drafted = publishing.draft_node(opened, node.shard, node.slices)
    recorded, _ = publishing._sealed(opened, drafted, stores.tensors(node.identity), {}, None)
    forged = dataclasses.replace(recorded, stack={"bytes": size})
    data = save(stores.tensors(node.identity), {"certificate": certificates.to_json(forged)})
    files.write(disk.file_of(opened, node.identity), data)
    with pytest.raises(ValueError, match="it is larger than what was published"):
        publishing.check(opened, node._replace(certificate=certificates.certificate_digest(forged)))


def test_a_manifest_of_absurd_size_is_not_read(opened):
    os.truncate(opened.root / "manifest.json", 1 << 40)
    with pytest.raises(ValueError, match="has more than 16777216 bytes"):
        disk.look(opened.root)


def test_certificates_before_0_2_state_no_size(opened, monkeypatch):
    """Their files are read up to a gigabyte, and restored without what was not stated."""
    node = publishing.live(opened)[0]
    drafted = publishing.draft_node(opened, node.shard, node.slices)
    old, data = publishing._sealed(opened, drafted, stores.tensors(node.identity), {"lanes": 1}, None, publishing.SINCE)
    assert "bytes" not in old.stack
    digest = certificates.certificate_digest(old)
    opened.ledger.execute("UPDATE nodes SET certificate = ? WHERE identity = ?", (digest, node.identity))
    files.write(disk.file_of(opened, node.identity), data)
    assert publishing.load(opened, node._replace(certificate=digest))[0] == old
    disk.file_of(opened, node.identity).unlink()
    publishing.restore(opened, drafted, stores.tensors(node.identity), {"lanes": 1, "inputs": "x"}, None)
    assert publishing.load(opened, node._replace(certificate=digest))[0] == old
    monkeypatch.setattr(files, "UNSTATED", 10)
    with pytest.raises(ValueError, match="it is larger than what was published"):
        publishing.load(opened, node._replace(certificate=digest))
