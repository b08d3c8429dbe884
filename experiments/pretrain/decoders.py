"""Small decoders that are pre-trained on some documents, for s3t to fine-tune on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.configs.pretrain import Pretrain
from experiments.core import files
from experiments.core.errors import DataError
from experiments.core.sections import LEARNED
from experiments.data.text import loading, parts
from experiments.data.text.parts import SEEN
from experiments.models.language import folders, small
from experiments.models.language.backbones import as_functions
from experiments.pretrain.learner import Learner

NAMES = tuple(small.DECODERS)
FOLDER = "decoder"  # in the workdir: a Hugging Face folder, and what it was pre-trained on


def look(config: Pretrain) -> Learner:
    """A decoder and rows of the documents that it is pre-trained on: all, or the share of them that s3t leaves out.

    Raises:
      DataError: the data are no text; a tokeniser that is learned of what s3t is given, too; see `loading.load`.
    """
    data = config.data
    if not loading.is_text(data.name):
        raise DataError(f"model {config.model!r} reads text, and {data.name!r} is none: set --config.pretrain.data.name")
    if config.classes:
        raise DataError("text to predict has no classes: set --config.pretrain.classes to ()")
    if data.tokeniser.startswith(LEARNED) and not config.share:
        raise DataError(
            f"data.tokeniser is {data.tokeniser!r}, which is learned of the share of the documents that is pre-trained on, "
            "and share is 0: give a tokenizer.json, as experiments.data.text.train_tokeniser makes of these documents"
        )
    documents = loading.opened(data)
    if config.share:
        tokeniser = parts.tokeniser(documents, config.share, data.tokeniser)
        dataset = loading.as_dataset(parts.seen(documents, config.share), data, tokeniser)
    else:
        dataset = loading.as_dataset(documents, data)
    assert dataset.corpus is not None  # of text to predict
    corpus, module = dataset.corpus, small.decoder_of(config.model, dataset.train.x.shape[1], dataset.classes)

    def save(folder: Path, params: Any) -> None:
        folders.save_folder(folder / FOLDER, module.config, params)
        corpus.tokeniser.save(folder / FOLDER)
        files.write_arrays(folder / FOLDER / SEEN, {"documents": parts.known_by(corpus.documents)})

    return Learner(as_functions(module), dataset, save)
