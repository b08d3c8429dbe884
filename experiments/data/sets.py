"""The sets of examples that models are scored on."""

from __future__ import annotations

from typing import NamedTuple

from unlearn.base import Batch

PARTS = {"test_retain": "test", "others": "test", "validation_retain": "validation"}  # sets that lie within another


class Sets(NamedTuple):
    """Who is scored; every field a host-side Batch.

    forget, retain: training examples, a sample where there are many.  test, validation: held out.
    test_retain, validation_retain: without the forgotten class; for random forget sets the same as test, validation.
    others: never trained on and like the forget set: test images of its class, or the test set.
    fresh: new data for fine-tuning between training and request, held out and apart from validation; may be empty.
    """

    forget: Batch
    retain: Batch
    test: Batch
    test_retain: Batch
    validation: Batch
    validation_retain: Batch
    others: Batch
    fresh: Batch
