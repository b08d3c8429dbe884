"""CSV files as spreadsheets write them, for each who reads one: data, groups and risks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.core import sections
from experiments.data import csv_files, datasets
from experiments.exact.sources import placement

TABLE = "id,age,label\n" + "".join(f"{i},{i * i},{'ab'[i % 2]}\n" for i in range(30))
GROUPS = "".join(f"{i},{'xy'[i % 2]}\n" for i in range(6))
RISKS = "".join(f"{i},0.{i}\n" for i in range(6))
IDS, KNOWN = np.arange(6), np.arange(10)


def table(path):
    return datasets.load(sections.StreamedData(name=f"csv:{path}"))


def groups(path):
    return placement.make(IDS, KNOWN, str(path), "", (), ()).groups


def risks(path):
    return placement.make(IDS, KNOWN, "", str(path), (0.2,), (1, 2)).risks


READERS = {"table": (table, TABLE), "groups": (groups, GROUPS), "risks": (risks, RISKS)}
SAME = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "old": lambda text: text.replace("\n", "\r").encode(),
    "quoted": lambda text: "".join(f'"{line}"\n'.replace(",", '","') for line in text.split()).encode(),
    "spaces": lambda text: text.replace(",", " , ").encode(),
    "blank lines": lambda text: ("\n\n" + text.replace("\n", "\n,,\n", 1).replace("\n,,\n", "\n\n")).encode(),
}
OTHER = {
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 without a mark": lambda text: text.encode("utf-16-le"),
    "nul": lambda text: text.replace("3", "\0").encode(),
    "latin": lambda text: (text + "5,\xe9\n").encode("latin-1"),
    "empty": lambda text: b"",
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "open quote": lambda text: b'"' + text.encode(),
    "long cell": lambda text: (text + "5," + "9" * 200_000).encode(),
}


def read(reader, path):
    found = reader(path)
    return [found.train.x, found.train.y, found.train.id] if reader is table else found


@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("name", READERS)
def test_what_a_spreadsheet_adds_changes_nothing(tmp_path, name, change):
    reader, text = READERS[name]
    plain, changed = tmp_path / "a.csv", tmp_path / "b.csv"
    plain.write_text(text)
    changed.write_bytes(SAME[change](text))
    for one, other in zip(read(reader, plain), read(reader, changed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", OTHER)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_such_file_is_one_line_that_names_it(tmp_path, name, change):
    reader, text = READERS[name]
    path = tmp_path / "a.csv"
    path.write_bytes(OTHER[change](text))
    with pytest.raises(ValueError, match=r"a\.csv") as caught:
        reader(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_device_has_no_end():
    with pytest.raises(csv_files.Unusable, match="it is no file"):
        csv_files.read(csv_files.Path("/dev/zero"))


@pytest.mark.parametrize("text", ["2_5", "٢", "nan", "0x1", ""])
def test_a_number_is_what_a_spreadsheet_shows_as_one(text):
    assert not csv_files.number(text) < np.inf
    assert csv_files.number("-2.5e3") == -2500


@pytest.mark.parametrize("header", ["id,group", 'ID,"Group"', "\ufeffid, group"])
def test_files_of_places_may_have_a_header(tmp_path, header):
    (tmp_path / "a.csv").write_text(f"{header}\n{GROUPS}")
    assert groups(tmp_path / "a.csv") == ["x", "y"] * 3


@pytest.mark.parametrize(
    "text, message",
    [
        (f"{GROUPS}77,x\n88,x\n", "names what the data lack: ids 77, 88 are no example's; mend or remove such lines"),
        ("77,x\n", "names what the data lack: id 77 is no example's"),
        (f"{GROUPS}{'9' * 6000},x\n", r"line 7 of .* names example 9{40}: ids in a store are below 4294967296"),
        ("0,caf\u00e9\n1,cafe\u0301\n", "has the group .* twice, with accents written in two ways: write it in one"),
        ("who,what\n0,x\n", "line 1 of .* is 'who,what': give `id,group`"),
        ("id,group\n", "has no lines: give a CSV file of lines `id,group`"),
    ],
)
def test_lines_that_speak_of_nobody_are_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        groups(tmp_path / "a.csv")


def test_lines_may_speak_of_examples_that_are_not_trained_on(tmp_path):
    (tmp_path / "a.csv").write_text(f"{GROUPS}8,x\n")
    assert groups(tmp_path / "a.csv") == ["x", "y"] * 3


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60) | st.text('0159,;"\n\r\t xé.-_', max_size=40).map(str.encode), st.sampled_from([*READERS]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, content, name):
    reader, text = READERS[name]
    path = tmp_path_factory.mktemp("a") / "a.csv"
    path.write_bytes(text.encode() + content)
    try:
        reader(path)
    except ValueError as error:
        assert "\n" not in str(error) and "a.csv" in str(error)
