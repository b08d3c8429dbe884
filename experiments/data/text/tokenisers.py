"""Tokenisers: bytes, which need no file, and a local `tokenizer.json` as the library `tokenizers` writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.core import files
from experiments.core.errors import DataError, UserError, WorkdirError, line
from experiments.core.sections import MINILM
from experiments.models.language import gguf
from experiments.models.language import packaged as weights

MISSING = "a tokenizer.json needs the library tokenizers, which is not installed: pip install 'forethought[text]'"
END, PAD = "<|endoftext|>", "<|pad|>"  # of tokenisers that are trained here
LEAST = 256 + 2  # bytes, end and pad
MOST_ENTRIES = 1 << 20  # of a vocabulary
FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"  # the second names the special tokens
# Names of the special tokens in tokenizer_config.json and, where it says nothing, what they are usually called.
BOS = ("bos_token", "cls_token"), ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]")
EOS = ("eos_token", "sep_token"), ("</s>", END, "<|end_of_text|>", "<eos>", "[SEP]")
PADS = ("pad_token",), ("<pad>", PAD, "[PAD]")


@dataclass(frozen=True)
class Tokeniser:
    """Text as tokens and back.

    encode: text -> tokens, without special ones; they are text like other text.
    decode: tokens -> text, special ones left out.
    vocabulary: tokens are 0..vocabulary-1.
    pad: fills rows up.  eos: ends a document.  bos: begins one, and is the first token's only context.
    digest: SHA-256 of what it is.
    files: (name, text) of the files that it is; none of bytes.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    vocabulary: int
    pad: int
    eos: int
    bos: int
    digest: str
    files: tuple[tuple[str, str], ...] = ()

    def save(self, folder: Path) -> None:
        """Write its files, from which `from_file` reads the same; of bytes there are none."""
        for name, text in self.files:
            files.write_text(folder / name, text)


def byte_level() -> Tokeniser:
    """UTF-8 bytes as tokens 0..255, the end, which also begins, as 256, and the pad as 257.

    >>> tokeniser = byte_level()
    >>> tokeniser.encode("né"), tokeniser.decode([110, 195, 169, tokeniser.eos, tokeniser.pad])
    ([110, 195, 169], 'né')
    """
    decode = lambda tokens: bytes(t for t in tokens if t < 256).decode(errors="replace")  # noqa: E731
    encode = lambda text: list(text.encode())  # noqa: E731
    return Tokeniser(encode, decode, LEAST, 257, 256, 256, hashlib.sha256(b"bytes, end 256, pad 257").hexdigest())


def from_file(path: Path) -> Tokeniser:
    """The tokeniser in a `tokenizer.json`.

    Which tokens begin, end and fill up is read from `tokenizer_config.json` beside it or, without one, known by their usual
    names. Without a token to begin, the end does; without one to fill up, the end does, which no loss counts.

    Raises:
      DataError: the library is absent, the file cannot be read, or no token ends a document.
    """
    _library()
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no tokeniser ({line(error, 100)}): give a tokenizer.json") from error
    except OSError as error:
        raise DataError(f"cannot read the tokeniser {path} ({error.strerror}): give a tokenizer.json") from error
    config = path.with_name(CONFIG)
    return _from_text(text, path, _settings(config) if config.exists() else {}, config)


def learned(texts: Iterable[str], vocabulary: int) -> Tokeniser:
    """The tokeniser that `train_bpe` makes of some texts; raises as it does."""
    return _from_text(train_bpe(texts, vocabulary), Path("tokenizer.json of these texts"), {})


def packaged(name: str) -> Tokeniser:
    """The tokeniser of a model of `sections.PACKAGED`, from the package with its weights.

    Raises:
      DataError: the library is absent.
      UserError: the package is.
    """
    _library()
    if name == MINILM:
        return from_file(weights.minilm_folder() / FILE)
    file = weights.smollm2()
    return _from_text(gguf.tokenizer(file), Path(file.path), {})


def _from_text(text: str, path: Path, settings: dict[str, Any], config: Path = Path(CONFIG)) -> Tokeniser:
    """The tokeniser of a tokenizer.json; `settings` are those of the `config` beside it."""
    library = _library()
    try:
        known = library.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain exceptions
        raise DataError(f"{path} is no tokeniser ({line(error, 100)}): give a tokenizer.json") from error
    known.no_padding()
    known.no_truncation()  # the file may carry both, which would cut documents in silence
    known.encode_special_tokens = True  # a document that spells <|endoftext|> does not end there
    bos, eos, pad = (_special(known, settings, config, *names) for names in (BOS, EOS, PADS))
    if eos is None:
        raise DataError(f"no token of {path} ends a document: name one as eos_token in {config}")
    special = {
        name: number for name, number in (("bos_token", bos), ("eos_token", eos), ("pad_token", pad)) if number is not None
    }
    told = json.dumps({name: known.id_to_token(number) for name, number in special.items()}, indent=2)

    def encode(text: str) -> list[int]:
        try:
            found: list[int] = known.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises plain exceptions
            raise DataError(
                f"{path} cannot read {text!r:.60} ({line(error, 100)}): give one that knows every text"
            ) from error
        return found

    return Tokeniser(
        encode,
        lambda tokens: known.decode(list(tokens), skip_special_tokens=True),
        max(known.get_vocab(with_added_tokens=True).values()) + 1,
        eos if pad is None else pad,
        eos,
        eos if bos is None else bos,
        hashlib.sha256(json.dumps([text, bos, eos, pad]).encode()).hexdigest(),
        ((FILE, text), (CONFIG, told)),
    )


def train_bpe(texts: Iterable[str], vocabulary: int) -> str:
    """A byte-pair encoding of some texts, as the text of a `tokenizer.json`; the same texts give the same.

    It begins with the 256 bytes, so that no text is unknown to it. What it learns are counts of pairs in these texts: give
    training documents alone. That much of a forgotten document remains.

    Args:
      vocabulary: tokens, with the end and the pad; fewer are made if the texts have no more pairs.

    Raises:
      DataError: the library is absent.
      UserError: a vocabulary too small for the bytes.
    """
    if vocabulary < LEAST:
        raise UserError(f"a vocabulary of {vocabulary} has no room for 256 bytes, end and pad: choose {LEAST} or more")
    if vocabulary > MOST_ENTRIES:
        raise UserError(f"a vocabulary of {vocabulary} entries is too large to be learned: choose up to {MOST_ENTRIES}")
    library = _library()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = library.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str(pretty=True)


def _library() -> Any:
    try:
        import tokenizers  # of the extra `text`
    except ImportError as error:
        raise DataError(MISSING) from error
    return tokenizers


def _settings(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path, dict, "mend it, or take it away")
    except WorkdirError as error:
        raise DataError(str(error)) from error


def _special(
    tokenizer: Any, settings: dict[str, Any], config: Path, keys: Sequence[str], usual: Sequence[str]
) -> int | None:
    """The number of a special token; None if there is none."""
    for key in keys:
        value = settings.get(key)
        name = value.get("content") if isinstance(value, dict) else value
        if name is not None:
            number = tokenizer.token_to_id(name) if isinstance(name, str) else None
            if number is None:
                raise DataError(f"{config} has {name!r:.60} as its {key}, which is no token: mend it")
            return number
    return next((number for name in usual if (number := tokenizer.token_to_id(name)) is not None), None)
