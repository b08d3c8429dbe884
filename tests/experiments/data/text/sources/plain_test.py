"""Plain text: encodings and passages."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.text.sources import plain
from tests.helpers.texts import refused

QUICKLY = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@QUICKLY
@given(st.lists(st.text("ab \n", max_size=1500), max_size=6))
def test_passages_hold_every_line_once_and_none_is_long(parts):
    text = "\n\n".join(parts)
    passages = plain.passages(text)
    assert "".join("".join(passages).split()) == "".join(text.split())
    assert all(len(passage) <= plain.MOST + 2 * plain.LEAST + 4 for passage in passages)
    assert len(passages) < 2 or min(map(len, passages)) >= plain.LEAST


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "cp1252"])
def test_a_file_is_read_as_told(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("caf\u00e9\r\nbar\rend\n".encode(encoding))
    assert plain.read(path, encoding) == "caf\u00e9\nbar\nend\n"


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_is_no_text(tmp_path, mark):
    path = tmp_path / "a.txt"
    path.write_bytes((mark + "text").encode())
    assert plain.read(path) == "text"


def test_what_is_no_such_text_is_one_line_that_names_file_and_byte(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("caf\u00e9".encode("latin-1"))
    refused(r"cannot read .*a\.txt as UTF-8 \(byte 3 is 0xe9\): save it as UTF-8, or set data\.encoding", plain.read, path)
    path.write_bytes("text".encode("utf-16"))
    refused(r"byte 0 is 0xff", plain.read, path)
    path.write_bytes("text".encode("utf-16-le"))
    refused(r"has a NUL at character 1: it is no text, or in UTF-16", plain.read, path)
    path.write_bytes(b"\xff\xfeabc")
    refused(r"cannot read .*a\.txt as UTF-16 \(byte", plain.read, path, "utf-16")
    path.write_bytes(b"\xef\xbb\xbf \n")
    refused(r"a\.txt is empty", plain.read, path)
    refused(r"cannot read .*none\.txt \(No such file", plain.read, tmp_path / "none.txt")
    refused(r"/dev/zero is no file", plain.read, Path("/dev/zero"))
    refused(r"unknown encoding 'latn-1' \(did you mean 'latin-1'\?\)", plain.read, path, "latn-1")
    for name in ("rot13", "zip", "", "a\0b"):
        refused("unknown encoding", plain.read, path, name)
