"""ROUGE-L of generated text against what should have been said; by the package rouge-score, of the extra `text`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.core.errors import UserError


class Rouge(NamedTuple):
    """Of the longest common subsequence of words, [texts] each: its share of the text, of the reference, and their F1."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def rouge_l(references: Sequence[str], texts: Sequence[str]) -> Rouge:
    """ROUGE-L of each text, words stemmed as TOFU does; a text or reference without words has 0 of all.

    Words are runs of a-z and 0-9 in lower case, as published numbers have it: other alphabets are not seen.

    Raises:
      UserError: rouge-score is not installed, or there are not as many texts as references.
    """
    if len(references) != len(texts):
        raise UserError(f"ROUGE-L compares each text with its reference: {len(texts)} texts, {len(references)} references")
    try:
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise UserError("ROUGE-L needs rouge-score, which is not installed: pip install 'forethought[text]'") from error
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(references, texts, strict=True)
    scores = np.array([scorer.score(reference, text)["rougeL"] for reference, text in pairs], np.float64).reshape(-1, 3)
    return Rouge(*scores.T)
