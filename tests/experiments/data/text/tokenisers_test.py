"""Tokenisers: bytes, a tokenizer.json, and one that is trained."""

import builtins
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.text import tokenisers, train_tokeniser
from experiments.data.text.sources.documents import Document, made
from experiments.data.text.tokenisers import byte_level, from_file, learned, train_bpe
from tests.helpers.texts import lines, refused

QUICKLY = settings(max_examples=40, deadline=None, derandomize=True, database=None)
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "caf\u00e9 \U0001f600\n\n\tthe end"] * 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed: nothing reads a tokenizer.json")
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    path.write_text(train_bpe(TEXTS, 280), "utf-8")
    return path


@QUICKLY
@given(st.text())
def test_bytes_give_every_text_back(text):
    tokeniser = byte_level()
    tokens = tokeniser.encode(text)
    assert (
        tokens == list(text.encode()) and tokeniser.decode([tokeniser.bos, *tokens, tokeniser.eos, tokeniser.pad]) == text
    )
    assert all(0 <= token < 256 for token in tokens) and tokeniser.vocabulary == 258


@QUICKLY
@given(text=st.text())
def test_a_trained_one_gives_every_text_back(trained, text):
    tokeniser = from_file(trained)
    tokens = tokeniser.encode(text)
    assert tokeniser.decode([*tokens, tokeniser.eos, tokeniser.pad]) == text
    assert all(0 <= token < tokeniser.vocabulary for token in tokens)


def test_training_merges_what_is_frequent_and_repeats_itself(trained):
    tokeniser = from_file(trained)
    assert tokeniser.vocabulary == 280 and len(tokeniser.encode("the the")) < 7
    assert (tokeniser.eos, tokeniser.bos, tokeniser.pad) == (0, 0, 1)
    assert trained.read_text("utf-8") == train_bpe(TEXTS, 280)
    refused("a vocabulary of 257 has no room for 256 bytes, end and pad: choose 258 or more", train_bpe, TEXTS, 257)
    refused(
        "a vocabulary of 10000000000 entries is too large to be learned: choose up to 1048576", train_bpe, TEXTS, 10**10
    )


def test_a_text_that_spells_a_special_token_is_text(trained):
    tokeniser = from_file(trained)
    tokens = tokeniser.encode("a<|endoftext|>b")
    assert tokeniser.eos not in tokens and tokeniser.decode(tokens) == "a<|endoftext|>b"


def test_what_is_learned_heeds_no_file_of_the_current_folder(trained, tmp_path, monkeypatch):
    usual = learned(TEXTS, 280)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "t", "cls_token": "[CLS]"}))
    monkeypatch.chdir(tmp_path)
    assert learned(TEXTS, 280).digest == usual.digest


def test_a_tokeniser_that_is_saved_is_the_same(trained, tmp_path):
    """With its special tokens, which its file alone does not name."""
    for folder, told in (("usual", {}), ("own", {"eos_token": "t", "bos_token": "h"})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokenizer.json").write_bytes(trained.read_bytes())
        (tmp_path / folder / "tokenizer_config.json").write_text(json.dumps(told))
        one = from_file(tmp_path / folder / "tokenizer.json")
        one.save(tmp_path / "saved")
        other = from_file(tmp_path / "saved" / "tokenizer.json")
        assert (one.digest, one.bos, one.eos, one.pad) == (other.digest, other.bos, other.eos, other.pad)
    byte_level().save(tmp_path / "bytes")
    assert not (tmp_path / "bytes").exists()


def test_a_text_that_a_tokeniser_cannot_read_is_one_line(tmp_path):
    tokenizers = pytest.importorskip(
        "tokenizers", reason="the extra `text` is not installed: nothing reads a tokenizer.json"
    )
    path = tmp_path / "tokenizer.json"
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "the": 2}, unk_token="[UNK]"))
    words.add_special_tokens(["<s>", "</s>"])
    words.save(str(path))
    refused(
        "tokenizer.json cannot read 'unheard of' .*: give one that knows every text", from_file(path).encode, "unheard of"
    )


def test_the_config_beside_it_says_which_tokens_are_special(trained, tmp_path):
    path, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    path.write_bytes(trained.read_bytes())
    usual = from_file(path)
    config.write_text(json.dumps({"eos_token": {"content": "<|pad|>"}, "bos_token": "t"}))
    told = from_file(path)
    assert told.eos == usual.pad and told.decode([told.bos]) == "t" and told.digest != usual.digest
    config.write_text(json.dumps({"eos_token": "<none>"}))
    refused("tokenizer_config.json has '<none>' as its eos_token, which is no token: mend it", from_file, path)
    config.write_text("{")
    refused("tokenizer_config.json cannot be read .*: mend it, or take it away", from_file, path)
    config.unlink()
    path.write_text(path.read_text("utf-8").replace("<|endoftext|>", "<other>"), "utf-8")
    refused("no token of .* ends a document: name one as eos_token in .*tokenizer_config.json", from_file, path)


def test_cutting_and_padding_in_the_file_cut_and_pad_nothing(trained, tmp_path):
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(trained))
    known.enable_truncation(2)
    known.enable_padding(length=20)
    known.save(str(tmp_path / "tokenizer.json"))
    assert from_file(tmp_path / "tokenizer.json").encode("a dog sat") == from_file(trained).encode("a dog sat")


def test_what_is_no_tokeniser_is_refused(trained, tmp_path):
    for content in (b"", b"{}", b"\xff\xff", trained.read_bytes()[:-100]):
        (tmp_path / "tokenizer.json").write_bytes(content)
        refused(r"tokenizer\.json is no tokeniser \(.*\): give a tokenizer\.json", from_file, tmp_path / "tokenizer.json")
    refused(r"cannot read the tokeniser .* \((Is a directory|Permission denied)\): give", from_file, tmp_path)


def test_an_absent_library_is_one_line(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    refused(r"which is not installed: pip install 'forethought\[text\]'", from_file, tmp_path / "tokenizer.json")
    refused("which is not installed", train_bpe, TEXTS, 300)


def test_only_training_documents_are_trained_on(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(tokenisers, "train_bpe", lambda texts, vocabulary: seen.extend(texts) or "{}")
    rows = [Document(str(i), f"text {i}", str(i), f"prompt {i}", test=i < 10) for i in range(100)]
    train_tokeniser.train(made("rows", rows), "rows", tmp_path, 300, 0.5)
    told = {int(text.split()[1]) for text in seen if text.startswith("text")}
    assert not told & {*range(10)} and 20 < len(told) < 70 and len(seen) == 2 * len(told)


def test_the_command_writes_a_file_or_says_why_not(tmp_path, trained, capsys):
    data = lines(tmp_path / "a.jsonl", [{"text": f"{text} {i}"} for i, text in enumerate(TEXTS)])
    line = [f"--data=jsonl:{data}", "--vocabulary=270"]
    assert train_tokeniser.main([*line, f"--out={tmp_path / 'new'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'tokenizer.json'}: 270 tokens\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tokenizer.json"]
    for arguments in (
        [*line[:1], "--vocabulary=9", f"--out={tmp_path}"],
        [*line, f"--out={data}"],
        ["--data=pydo", "--out=x"],
    ):
        assert train_tokeniser.main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1


def test_the_command_takes_fields_as_configs_do(tmp_path, capsys):
    data = lines(tmp_path / "a.jsonl", [{"answer": text, "q": f"why {i}?"} for i, text in enumerate(TEXTS)])
    line = [f"--data=jsonl:{data}", "--vocabulary=270", "--validation_fraction=0", f"--out={tmp_path / 'new'}"]
    assert train_tokeniser.main([*line, "--fields={'text': 'answer', 'question': 'q'}"]) == 0
    capsys.readouterr()
    for arguments, said in (
        (line, "has no field 'text' (it has 'answer', 'q')"),
        ([*line, "--fields={'text': 'a'}"], "has no field 'a' (it has"),
        ([*line, "--fields={'txt': 'answer'}"], "--fields names 'txt': it takes text, prompt, question, id"),
        ([*line, "--fields={['text']: 'answer'}"], "--fields is \"{['text']: 'answer'}\": give a dictionary, as in"),
        ([*line, "--fields={'text': 3}"], ": give a dictionary, as in"),
        ([*line, "--fields=text"], "--fields is 'text': give a dictionary, as in"),
        ([*line, "--fields=" + "(" * 10_000], ": give a dictionary, as in"),
        (["--data=pydoc", "--out=x", "--fields={'text': 'answer'}"], "data.fields is for jsonl:PATH"),
    ):
        assert train_tokeniser.main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1 and said in told
