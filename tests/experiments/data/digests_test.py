"""The digest of data: the same for the same examples, another as soon as a label, an id or a number is another."""

import numpy as np
import pytest

from experiments.data import digests
from experiments.data.images import Images, Moments
from experiments.data.splits import Split
from experiments.data.text.sources import tofu
from tests.helpers import texts


def split(count=4):
    return Split(np.arange(2.0 * count, dtype=np.float32).reshape(count, 2), np.arange(count) % 2, np.arange(count))


def test_equal_data_have_equal_digests():
    assert digests.digest([split(), split(2)]) == digests.digest([split(), split(2)])


@pytest.mark.parametrize(
    "other",
    [
        [split(2), split()],
        [split()],
        [split()._replace(y=np.ones(4, int)), split(2)],
        [split()._replace(id=np.arange(4) + 1), split(2)],
        [split()._replace(x=split().x + 1), split(2)],
        [split()._replace(x=split().x.reshape(4, 1, 2)), split(2)],
    ],
)
def test_other_data_have_another(other):
    assert digests.digest([split(), split(2)]) != digests.digest(other)


def test_images_on_disk_are_not_read():
    def read(ids):
        pytest.fail("read")

    streamed = [Images(read, np.arange(4), Moments(np.zeros(1), np.ones(1)), (4, size, 2, 1)) for size in (2, 2, 3)]
    same, again, other = (digests.digest([split()._replace(x=images)]) for images in streamed)
    assert same == again != other


def test_questions_count_with_all_of_their_answers(tmp_path):
    queries = tofu.every_query(texts.authors(tmp_path))
    whole = queries["full"]
    other = whole._replace(perturbed=(*whole.perturbed[:-1], ("Nobody knows.",)))
    every = [digests.of_queries(asked) for asked in (queries, {"full": whole}, {"full": other}, {})]
    assert len(set(every)) == 4 and every[-1] == "" and digests.of_queries({**queries}) == every[0]
