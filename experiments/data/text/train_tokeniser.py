"""Train a byte-pair encoding on the training documents of a data set.

  python -m experiments.data.text.train_tokeniser --data=pydoc --out=DIR

What it writes, DIR/tokenizer.json, is read by `tokenisers.from_file` and by the library `tokenizers`. It knows no
`data.holdout`: a run that holds groups out learns a tokeniser of its own, without them, by `data.tokeniser=bpe:512`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from experiments.core import files
from experiments.core.errors import DataError, UserError
from experiments.core.sections import ScoredData
from experiments.data.splits import assign
from experiments.data.text import tokenisers
from experiments.data.text.sources.documents import Documents, select
from experiments.data.text.sources.jsonl import Fields
from experiments.data.text.sources.readers import open_documents


def train(documents: Documents, name: str, out: Path, vocabulary: int, validation_fraction: float) -> Path:
    """Write the byte-pair encoding of the training split of some documents, prompts included; see `tokenisers.train_bpe`.

    Args:
      name: of the data, for an error.
      out: the folder of tokenizer.json.
      validation_fraction: as a run that uses the tokeniser has it, so that it sees no held-out document.

    Raises:
      UserError: no training documents, a vocabulary too small, a file that cannot be written.
    """
    ids = assign(documents.ids, documents.test_ids, name, validation_fraction, 0)["train"]
    training = select(documents, ids)
    path = out / tokenisers.FILE
    files.write_text(path, tokenisers.train_bpe([*training.texts, *(training.prompts or ())], vocabulary))
    return path


def fields_of(given: str) -> Fields | None:
    """The fields that a dictionary of the command line names, as `data.fields` of configs; None of an empty one.

    Raises:
      DataError: no such dictionary, or a name that there is not.
    """
    try:
        named = ast.literal_eval(given.strip()) if given.strip() else {}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        named = None
    if not isinstance(named, dict) or not all(isinstance(field, str) for field in named.values()):
        raise DataError(f"--fields is {given!r:.80}: give a dictionary, as in \"{{'text': 'answer', 'question': 'q'}}\"")
    if unknown := [name for name in named if name not in Fields._fields]:
        raise DataError(f"--fields names {unknown[0]!r:.60}: it takes {', '.join(Fields._fields)}")
    return Fields(**named) if named else None


def main(argv: list[str] | None = None) -> int:
    """Train a tokeniser as the command line says; a mistake of the user's is one line and exit status 2."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="pydoc, a TFDS name, or texts:, jsonl:, tofu: or muse:PATH")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write tokenizer.json into")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens, with the end and the pad (2048)")
    parser.add_argument("--data_dir", default="", help="where TFDS prepared the data; if empty, TFDS_DATA_DIR")
    parser.add_argument("--encoding", default="", help="of files of your own; if empty, UTF-8")
    parser.add_argument("--fields", default="", help="of a jsonl, as data.fields, as in \"{'text': 'answer'}\"")
    share = ScoredData.model_fields["validation_fraction"].default
    parser.add_argument("--validation_fraction", type=float, default=share, help=f"as in the run that uses it ({share})")
    args = parser.parse_args(argv)
    try:
        fields = fields_of(args.fields)
        documents = open_documents(args.data, data_dir=args.data_dir, encoding=args.encoding, fields=fields)
        path = train(documents, args.data, args.out.expanduser(), args.vocabulary, args.validation_fraction)
        print(f"{path}: {tokenisers.from_file(path).vocabulary} tokens")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
