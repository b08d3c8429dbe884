"""What is needed soon, made by threads before it is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

THREADS = min(8, os.cpu_count() or 1)  # that decode ahead


def ahead(make: Callable[[int], T], count: int) -> Iterator[T]:
    """make(0), make(1), ... make(count - 1) in order, each made by a thread before it is asked for.

    No more than THREADS of them wait to be taken. What `make` raises is raised here, in its turn.
    """
    import grain  # slow

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    with contextlib.closing(iter(grain.MapDataset.range(count).map(make).to_iter_dataset(options))) as made:
        yield from made
