"""Decoders that are small enough to be pre-trained here, by name."""

from __future__ import annotations

from experiments.models.language.decoder import Decoder, gpt2

# Their sizes; the vocabulary and the positions are those of the data.
DECODERS: dict[str, dict[str, int]] = {"gpt2": {"width": 64, "depth": 4, "heads": 2}}


def decoder_of(name: str, length: int, vocabulary: int) -> Decoder:
    """The decoder of DECODERS for rows of so many tokens."""
    return Decoder(gpt2(vocabulary=vocabulary, positions=length, **DECODERS[name]))
