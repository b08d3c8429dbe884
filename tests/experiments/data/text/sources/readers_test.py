"""Readers of documents on small files: the manual, JSON lines, folders, TOFU, MUSE, and the door to all."""

import json

import numpy as np
import pytest

from experiments.data.ids import id_of
from experiments.data.text.sources import documents, folders, jsonl, muse, plain, readers, tofu, topics
from experiments.data.text.sources.documents import content_id
from experiments.data.text.sources.jsonl import Fields
from tests.helpers.texts import lines, refused, texts

# --- Python's manual ---


def test_the_embedded_documents_repeat_nothing():
    data = topics.read()
    assert 600 <= len(data.ids) <= 1500 and len(data.group_names) > 70 and data.official is None
    lengths = np.array([*map(len, data.texts)])
    assert 300 < np.median(lengths) < 600 and lengths.max() <= 1004
    long = [part for text in data.texts for part in plain.paragraphs(text) if len(part) > plain.MOST]
    assert len({*data.texts}) == len(data.texts) and len({*long}) == len(long)
    assert documents.digest(data) == documents.digest(topics.read())


# --- JSON lines ---


def row(i, **more):
    return {
        "id": f"n{i}",
        "q": f"why {i}?",
        "text": f"because {i}",
        "who": "xy"[i % 2],
        "y": i % 2,
        "part": "train",
        **more,
    }


ROWS = [row(i) for i in range(6)]


def test_fields_are_named(tmp_path):
    path = lines(tmp_path / "a.jsonl", [*ROWS[:5], row(5, part="test")])
    data = jsonl.read(path, Fields(question="q", id="id", group="who", label="y", split="part"))
    third = data.ids.tolist().index(id_of("n3"))
    assert data.texts[third] == "because 3" and data.prompts[third] == "Question: why 3?\nAnswer: "
    assert data.group_names[data.groups[third]] == "y" and data.label_names == ("0", "1") and data.labels[third] == 1
    assert data.test_ids.tolist() == [id_of("n5")] and data.names[id_of("n3")] == "n3"
    assert jsonl.read(path, Fields(prompt="q")).prompts[0].startswith("why")
    assert jsonl.read(path).ids.tolist() == sorted(content_id(None, entry["text"]) for entry in ROWS)
    (tmp_path / "b.json").write_text(json.dumps(ROWS[:5]))
    assert documents.digest(jsonl.read(tmp_path / "b.json")) == documents.digest(jsonl.read(lines(path, ROWS[:5])))


def test_a_line_separator_within_a_text_ends_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\r\n\n")
    assert jsonl.read(path).texts == ("a\u2028b",)


BAD_LINES = {
    '{"text": "b"': r"line 2 of .*a\.jsonl is no JSON \(Expecting ',' delimiter at column 13\): mend that line",
    "[" * 100_000: "line 2 of .* cannot be read|line 2 of .* is no JSON",
    '{"text": "b", "text": "c"}': r"line 2 of .* cannot be read \(it has the field 'text' twice\): mend that line",
    '{"txt": "b"}': r"line 2 of .* has no field 'text' \(it has 'txt'\)",
    '{"text": 3}': "line 2 of .* has 3, which is no text, in 'text'",
    '{"text": null}': "line 2 of .* has null, which is no text",
    '{"text": " "}': "line 2 of .* has nothing in 'text'",
    '{"text": "\\u200b\\ufeff\\u00ad\\u0000"}': "line 2 of .* has nothing in 'text'",
    '{"text": "b\\u0000"}': "line 2 of .* has a NUL at character 1: take it out, or leave the text out",
    '"b"': 'line 2 of .* is "b": give an object',
    '{"text": "\\ud800"}': "line 2 of .* has half a character at position 0",
    '{"text": "a"}': "line 1 of .* and line 2 of .* hold the same, and nothing tells them apart: name a field of ids",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a"}}\n{line}\n')
    refused(BAD_LINES[line], jsonl.read, path)


def test_bad_fields_are_refused(tmp_path):
    path = lines(tmp_path / "a.jsonl", [*ROWS[:3], row(3, id=True, part="dev", who=None)])
    refused("line 4 of .* has true in 'id': give a name or a whole number", jsonl.read, path, Fields(id="id"))
    refused("line 4 of .* has 'dev' in 'part': use 'train' and 'test'", jsonl.read, path, Fields(split="part"))
    refused("line 4 of .* has null in 'who'", jsonl.read, path, Fields(group="who"))
    refused("are both to stand before the text: name one", jsonl.read, path, Fields(prompt="q", question="q"))
    refused("no field of .* is named to hold the text", jsonl.read, path, Fields(text=""))
    path = lines(path, [row(0, id="1"), row(1, id=1)])
    refused("line 1 of .* and line 2 of .* have one id", jsonl.read, path, Fields(id="id"))


# --- Folders ---


def test_a_path_is_a_name_and_may_say_whose_it_is(tmp_path):
    speeches = {"a/1961-Kennedy.txt": "one", "a/1965-Johnson-1.txt": "two", "b/1962-Kennedy.txt": "three"}
    texts(tmp_path, {**speeches, ".x": "hidden"})
    data = folders.read(tmp_path, r"\d+-([A-Za-z]+)")
    assert data.group_names == ("Johnson", "Kennedy") and np.bincount(data.groups).tolist() == [1, 2]
    assert set(data.ids) == {id_of(name) for name in speeches}
    assert folders.read(tmp_path).group_names == ("a", "b") and folders.read(tmp_path / "a").groups is None
    texts(tmp_path, {"b/1962-Kennedy.txt": "three, mended", "b/1970-Nixon.txt": "four"})
    assert {*data.ids} < {*folders.read(tmp_path).ids}


def test_bad_folders_are_refused(tmp_path):
    refused("there is no folder", folders.read, tmp_path / "none")
    refused("has no documents: put text files", folders.read, tmp_path)
    texts(tmp_path, {"a/1.txt": "one", "2.txt": "two"})
    refused(r"2\.txt lies beside folders, which are groups", folders.read, tmp_path)
    refused(r"2\.txt has no group by data\.group='\(a\)'", folders.read, tmp_path, "(a)")
    refused("which is no regular expression", folders.read, tmp_path, "(")
    refused("put one pair of brackets", folders.read, tmp_path, "a")
    texts(tmp_path, {"a/1.txt": ""})
    refused(r"a/1\.txt is empty", folders.read, tmp_path / "a")
    texts(tmp_path, {"a/1.txt": "\u200b \u2060"})
    refused(r"a/1\.txt is empty", folders.read, tmp_path / "a")
    texts(tmp_path, {"a/1.txt": b"\xe9"})
    refused(r"a/1\.txt as UTF-8 \(byte 0 is 0xe9\)", folders.read, tmp_path / "a")
    assert folders.read(tmp_path / "a", encoding="latin-1").texts == ("\u00e9",)
    texts(tmp_path, {"a/1.pdf": "x"})
    refused(r"1\.pdf is no text by its name", folders.read, tmp_path)


# --- TOFU ---


def pair(i, **more):
    return {"question": f"who is {i}?", "answer": f"nobody {i}", **more}


@pytest.fixture
def tofu_folder(tmp_path):
    lines(tmp_path / "full.json", [pair(i) for i in range(60)])
    lines(tmp_path / "forget10.json", [pair(i) for i in range(40, 60)])
    lines(tmp_path / "retain90.json", [pair(i) for i in range(40)])
    more = {"paraphrased_answer": "p", "paraphrased_question": "pq", "perturbed_answer": ["a", "b"]}
    lines(tmp_path / "forget10_perturbed.json", [pair(i, **more) for i in range(40, 60)])
    lines(tmp_path / "world_facts_perturbed.json", [{"question": "q", "answer": "a", "perturbed_answer": ["b"]}])
    return tmp_path


def test_tofu_has_authors_sets_and_questions(tofu_folder):
    data = tofu.read(tofu_folder)
    assert len(data.ids) == 60 and data.group_names == ("author 1", "author 2", "author 3")
    third = data.ids[data.groups == 2]
    np.testing.assert_array_equal(data.sets["forget10"], third)
    asked = tofu.queries(tofu_folder, "forget10")
    np.testing.assert_array_equal(np.sort(asked.ids), third)
    assert asked.paraphrased_prompts[0] == "Question: pq\nAnswer: " and asked.perturbed[0] == ("a", "b")
    facts = tofu.queries(tofu_folder, "world_facts")
    assert facts.paraphrased_answers is None and facts.paraphrased_prompts is None and facts.answers == ("a",)


def test_parts_of_tofu_that_do_not_fit_are_named(tofu_folder):
    lines(tofu_folder / "retain90.json", [pair(i) for i in range(39)])
    refused(
        r"line 40 of .*full\.json is neither in forget10\.json nor in retain90\.json \(1 in all\)", tofu.read, tofu_folder
    )
    lines(tofu_folder / "retain90.json", [pair(i) for i in range(42)])
    refused(r"line 41 of .*full\.json is both in .* \(2 in all\)", tofu.read, tofu_folder)
    lines(tofu_folder / "retain90.json", [pair(i) for i in range(70)])
    refused(r"line 61 of .*retain90\.json has a pair that is not in full\.json", tofu.read, tofu_folder)
    lines(tofu_folder / "forget10.json", [pair(50), pair(50)])
    refused(r"line 1 of .*forget10\.json and line 2 of .* hold the same", tofu.read, tofu_folder)
    lines(tofu_folder / "full.json", [pair(i) for i in range(59)])
    refused("has 59 pairs, 20 to an author", tofu.read, tofu_folder)
    refused("there is no .*retain_perturbed.json", tofu.queries, tofu_folder, "retain")
    lines(tofu_folder / "retain_perturbed.json", [pair(1, perturbed_answer="a")])
    refused("line 1 of .* has \"a\" in 'perturbed_answer': give a list of texts", tofu.queries, tofu_folder, "retain")


def test_a_question_of_two_files_has_one_form(tofu_folder):
    more = {"paraphrased_answer": "p", "paraphrased_question": "pq", "perturbed_answer": ["a", "b"]}
    lines(tofu_folder / "forget05_perturbed.json", [pair(i, **more) for i in range(50, 60)])
    assert len(tofu.every_query(tofu_folder)["full"].ids) == 20
    lines(tofu_folder / "forget05_perturbed.json", [pair(50, **more), pair(51, **(more | {"perturbed_answer": ["c"]}))])
    told = r"forget10_perturbed\.json has .Question: who is 51\?.* in another form than a file before: keep one"
    refused(told, tofu.every_query, tofu_folder)


def test_questions_are_of_the_data_and_each_is_asked_once(tofu_folder):
    more = {"paraphrased_answer": "p", "paraphrased_question": "pq", "perturbed_answer": ["a", "b"]}
    lines(tofu_folder / "retain_perturbed.json", [pair(1, **more), pair(2, **more) | {"answer": "nobody"}])
    told = r"line 2 of .*retain_perturbed\.json has a pair that is not in full\.json: mend one of the files"
    refused(told, tofu.every_query, tofu_folder)
    lines(tofu_folder / "retain_perturbed.json", [pair(1, **more), pair(2, **more), pair(1, **more)])
    refused(r"line 1 of .*retain_perturbed\.json and line 3 of .* hold the same: keep one", tofu.every_query, tofu_folder)
    lines(tofu_folder / "retain_perturbed.json", [pair(1, **more)])
    for name in tofu.OUTSIDE:  # of these no pair is in full.json
        lines(tofu_folder / f"{name}_perturbed.json", [pair(i, perturbed_answer=["b"]) for i in (90, 91, 90)])
        refused(rf"line 1 of .*{name}_perturbed\.json and line 3 of .* hold the same", tofu.every_query, tofu_folder)
        lines(tofu_folder / f"{name}_perturbed.json", [pair(i, perturbed_answer=["b"]) for i in (90, 91)])
    every = tofu.every_query(tofu_folder)
    assert {name: len(part.ids) for name, part in every.items()} == {"real_authors": 2, "world_facts": 2, "full": 21}


# --- MUSE ---


def test_muse_has_parts_as_files_lists_and_folders(tmp_path):
    (tmp_path / "a").mkdir()
    texts(tmp_path / "a", {"forget/1.txt": "one", "forget/2.txt": "two", "retain/3.txt": "three", "holdout/4.txt": "four"})
    data = muse.read(tmp_path / "a")
    assert data.group_names == ("forget", "holdout", "retain") and data.test_ids.tolist() == [content_id(None, "four")]
    assert data.sets["forget"].tolist() == sorted(content_id(None, text) for text in ("one", "two"))
    (tmp_path / "b" / "raw").mkdir(parents=True)
    (tmp_path / "b/raw/forget.json").write_text(json.dumps(["one", "two"]))
    lines(tmp_path / "b/raw/retain.jsonl", [{"text": "three"}])
    texts(tmp_path / "b/raw", {"holdout.txt": "four"})
    assert documents.digest(muse.read(tmp_path / "b")) == documents.digest(data)


def test_a_passage_in_two_parts_of_muse_is_left_out_of_both(tmp_path):
    own, common = ["f" * 500, "r" * 500], "c" * 500
    texts(tmp_path, {"forget.txt": f"{own[0]}\n\n{common}\n\n{own[0]}", "retain1.txt": f"{own[1]}\n\n{common}"})
    data = muse.read(tmp_path)
    assert {*data.texts} == {*own} and data.official is None and len(data.sets["forget"]) == 1


def test_bad_layouts_of_muse_are_refused(tmp_path):
    refused("there is no folder", muse.read, tmp_path / "none")
    refused("has no forget: add forget/, forget.txt or forget.jsonl", muse.read, tmp_path)
    texts(tmp_path, {"forget/1.txt": "one"})
    refused("has no retain", muse.read, tmp_path)
    texts(tmp_path, {"retain/1.txt": "one"})
    refused(r"forget/1\.txt and .*retain/1\.txt hold the same", muse.read, tmp_path)
    texts(tmp_path, {"retain.txt": "two"})
    refused(r"has retain and retain\.txt: keep one", muse.read, tmp_path)


# --- The door ---


def test_the_door_gives_each_kind_and_refuses_what_has_no_effect(tofu_folder, tmp_path):
    path = lines(tmp_path / "rows.jsonl", ROWS)
    assert len(readers.open_documents("pydoc").ids) > 600
    assert len(readers.open_documents(f"jsonl:{path}", fields=Fields(id="id")).names) == 6
    assert len(readers.open_documents(f"tofu:{tofu_folder}", encoding="latin-1").ids) == 60
    texts(tmp_path / "t", {"1-a.txt": "one"})
    assert readers.open_documents(f"texts:{tmp_path / 't'}", group="-(.)").group_names == ("a",)
    texts(tmp_path / "m", {"forget/1.txt": "one", "retain/2.txt": "two"})
    assert len(readers.open_documents(f"muse:{tmp_path / 'm'}").ids) == 2
    refused("give a path, as in --config.data.name=jsonl:PATH", readers.open_documents, "jsonl:")
    for option, value in (("data_dir", "x"), ("encoding", "utf-8"), ("label", "x"), ("group", "x"), ("fields", Fields())):
        refused(f"data.{option} is for .*, and the data are 'pydoc'", readers.open_documents, "pydoc", **{option: value})
    refused(r"unknown data set 'pydo' \(did you mean 'pydoc'\?\)", readers.open_documents, "pydo", data_dir=str(tmp_path))
    refused("or data of your own as texts:PATH, jsonl:PATH", readers.open_documents, "text:x")
