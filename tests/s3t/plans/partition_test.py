"""Places of examples: by identity alone, uniform, grouped, banded."""

import hashlib
import string

import numpy as np
import pytest
from scipy import stats

from s3t.plans.partition import Bands, assign, shares

KEY = b"a key for tests"
BANDS = Bands(edges=(0.01, 0.2), slices=(4, 1, 1))


def places(ids, shards=5, slices=6, key=KEY, **more):
    """[(shard, slice)] of the ids."""
    return list(zip(*(part.tolist() for part in assign(ids, shards, slices, key, **more)), strict=True))


def by_hand(name, shards=5, slices=6, first=0, key=KEY):
    digest = hashlib.blake2b(name, key=key, digest_size=16, person=b"s3t.partition").digest()
    return int.from_bytes(digest[:8], "big") % shards, first + int.from_bytes(digest[8:], "big") % slices


def test_places_are_the_hash_by_hand():
    names = [b"id:int:7", b"id:str:7", b"id:int:-1", b"id:int:1" + b"0" * 30]
    assert places([7, "7", -1, 10**30]) == [by_hand(name) for name in names]
    assert places(["é"]) == [by_hand("id:str:é".encode())]


def test_places_of_this_version_are_those_of_every_version():
    assert places(range(6)) == [(2, 2), (3, 0), (4, 2), (1, 5), (3, 5), (3, 4)]


def test_adding_deleting_and_reordering_moves_no_other():
    all_of = dict(zip(range(2000), places(range(2000)), strict=True))
    kept = [i for i in range(2000) if i % 7 and i < 1500]
    assert places(kept[::-1]) == [all_of[i] for i in kept[::-1]]
    assert places([*kept, 9999, "new"])[: len(kept)] == [all_of[i] for i in kept]


def test_every_spelling_of_a_number_is_one_id():
    expected = places([3, 4])
    for ids in ((3, 4), np.array([3, 4]), np.array([3, 4], np.uint8), [np.int64(3), np.int32(4)]):
        assert places(ids) == expected
    assert places(np.array(["3", "4"])) == places(["3", "4"]) != expected


def test_places_and_shards_are_uniform_and_independent():
    counts = np.zeros((5, 6))
    np.add.at(counts, assign(range(30_000), 5, 6, KEY), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert stats.chi2_contingency(counts).pvalue > 1e-3
    neighbours = np.array(places(range(30_000)))  # the place of i says nothing of that of i + 1
    pairs = np.zeros((6, 6))
    np.add.at(pairs, (neighbours[:-1, 1], neighbours[1:, 1]), 1)
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_another_key_is_another_partition():
    a, b = (assign(range(6000), 5, 6, key) for key in (KEY, KEY + b"!"))
    same = np.mean((a.shard == b.shard) & (a.slice == b.slice))
    assert abs(same - 1 / 30) < 0.01


def test_shards_depend_on_neither_slices_nor_risks():
    shard = assign(range(500), 5, 6, KEY).shard
    np.testing.assert_array_equal(shard, assign(range(500), 5, 9, KEY).shard)
    np.testing.assert_array_equal(shard, assign(range(500), 5, 6, KEY, risks=[0.5] * 500, bands=BANDS).shard)


# groups


def test_a_group_shares_one_slice_whoever_its_members_are():
    groups = ["ann", "bob", None, "ann", 5, None]
    found = places([1, 2, 3, 4, 6, 5], groups=groups)
    ann, five = by_hand(b"group:str:ann"), by_hand(b"group:int:5")
    assert found == [ann, by_hand(b"group:str:bob"), by_hand(b"id:int:3"), ann, five, by_hand(b"id:int:5")]
    assert five != by_hand(b"id:int:5")
    assert places([99], groups=["ann"]) == [ann]


def test_groups_are_spread_like_ids():
    counts = np.bincount(assign(range(20_000), 1, 6, KEY, groups=[i // 2 for i in range(20_000)]).slice)
    assert stats.chisquare(counts / 2).pvalue > 1e-3


# risks


def test_a_band_keeps_its_slices_and_nothing_but_a_risk_of_its_own_moves_an_example():
    ids, risks = list(range(3000)), [(0.001, 0.01, 0.19, 0.2, 1.0, 0.0)[i % 6] for i in range(3000)]
    found = places(ids, risks=risks, bands=BANDS)
    first, width = {0: 0, 1: 4, 2: 5}, {0: 4, 1: 1, 2: 1}
    band = [(0, 1, 1, 2, 2, 0)[i % 6] for i in ids]
    assert found == [by_hand(b"id:int:%d" % i, slices=width[b], first=first[b]) for i, b in zip(ids, band, strict=True)]
    half = slice(0, None, 2)
    assert places(ids[half], risks=risks[half], bands=BANDS) == found[half]
    risks[1] = 0.9
    moved = places(ids, risks=risks, bands=BANDS)
    assert [i for i in ids if moved[i] != found[i]] == [1] and moved[1] == (found[1][0], 5)


def test_likely_deletions_hit_few_slices():
    risks = np.where(np.arange(1000) % 20 == 0, 0.5, 0.001)  # 50 examples hold 25 of 25.95 expected deletions
    together = assign(range(1000), 1, 6, KEY, risks=risks, bands=Bands((0.1,), (5, 1))).slice
    apart = assign(range(1000), 1, 6, KEY).slice
    assert shares(together, 6, risks)[5] == pytest.approx(25 / 25.95)
    assert max(shares(apart, 6, risks)) < 0.4


def test_shares_by_hand():
    slice_of = np.array([0, 2, 2, 0, 0])
    assert shares(slice_of, 4) == (0.6, 0.0, 0.4, 0.0)
    assert shares(slice_of, 3, [1, 2, 0, 0, 1]) == (0.5, 0.0, 0.5)


# mistakes


@pytest.mark.parametrize("bad", [1.0, True, None, b"x", (1, 2)])
def test_an_id_or_group_of_another_type_is_refused(bad):
    with pytest.raises(ValueError, match="must be an int or a str"):
        places([1, bad])
    if bad is not None:
        with pytest.raises(ValueError, match="must be an int or a str"):
            places([1, 2], groups=["a", bad])


@pytest.mark.parametrize(
    "more, message",
    [
        ({"shards": 0}, "at least 1"),
        ({"slices": 0}, "at least 1"),
        ({"key": b""}, "1 to 64 bytes"),
        ({"key": b"k" * 65}, "1 to 64 bytes"),
        ({"key": "text"}, "1 to 64 bytes"),
        ({"groups": ["a"]}, "one by one, got 1 for 2"),
        ({"risks": [0.1, 0.1]}, "go together"),
        ({"bands": BANDS}, "go together"),
        ({"risks": [0.1], "bands": BANDS}, "one by one, got 1 for 2"),
        ({"risks": [0.1, 1.1], "bands": BANDS}, "from 0 to 1, got 1.1 for id:int:2"),
        ({"risks": [0.1, float("nan")], "bands": BANDS}, "from 0 to 1"),
        ({"risks": [0, 0], "bands": Bands((0.1,), (5, 2))}, "all together 6"),
        ({"risks": [0, 0], "bands": Bands((0.1,), (6, 0))}, "every band needs a slice"),
        ({"risks": [0, 0], "bands": Bands((0.2, 0.1), (2, 2, 2))}, "ascending"),
        ({"risks": [0, 0], "bands": Bands((0.1,), (6,))}, "one entry of slices more"),
        ({"risks": [0.0, 0.5], "bands": BANDS, "groups": ["a", "a"]}, "group:str:a has risks in two bands"),
    ],
)
def test_a_mistake_is_named(more, message):
    with pytest.raises(ValueError, match=message):
        places([1, 2], **more)


def test_shares_of_nothing_are_refused():
    with pytest.raises(ValueError, match="positive weight"):
        shares(np.array([], int), 3)


def test_the_names_of_ids_are_told_apart_by_more_than_their_text():
    digits = list(string.digits)
    assert places(digits) != places([int(d) for d in digits]) != places(range(10), groups=[int(d) for d in digits])
