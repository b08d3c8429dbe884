"""Requests over documents: by name, group, class, set and share."""

import numpy as np

from experiments.data import splits
from experiments.data.ids import id_of
from experiments.data.text import requests
from experiments.data.text.documents import Document, made
from tests.helpers.texts import refused

NAMES = [f"{1960 + i}-{('Kennedy', 'Johnson', 'Nixon')[i % 3]}.txt" for i in range(9)]
SPEECHES = made("speeches", [Document(n, f"text {n}", n, group=n[5:-4], label="xy"[i % 2]) for i, n in enumerate(NAMES)])
IDS = SPEECHES.ids


def ids(*names):
    return sorted(id_of(name) for name in names)


def test_documents_are_asked_for_by_name_and_by_id():
    asked = requests.of_documents(SPEECHES, [NAMES[0], id_of(NAMES[4]), str(id_of(NAMES[2]))], IDS)
    assert asked.tolist() == ids(NAMES[0], NAMES[4], NAMES[2])
    refused(
        r"no document '1960-Kenedy\.txt': did you mean '1960-Kennedy",
        requests.of_documents,
        SPEECHES,
        ["1960-Kenedy.txt"],
        IDS,
    )
    refused("no document '17': there are '19.* and 3 more", requests.of_documents, SPEECHES, [17], IDS)
    refused("given more than once", requests.of_documents, SPEECHES, [NAMES[0], id_of(NAMES[0])], IDS)
    refused("no document is named", requests.of_documents, SPEECHES, [], IDS)
    rest = np.setdiff1d(IDS, ids(NAMES[0]))
    refused(f"id {id_of(NAMES[0])} is not in the training split", requests.of_documents, SPEECHES, NAMES[:1], rest)


def test_groups_and_classes_are_asked_for_by_name():
    assert requests.of_groups(SPEECHES, ["Nixon"], IDS).tolist() == ids(*NAMES[2::3])
    both = requests.of_groups(SPEECHES, ["Nixon", "Kennedy"], IDS)
    assert both.tolist() == ids(*NAMES[2::3], *NAMES[::3])
    assert requests.of_groups(SPEECHES, ["Nixon"], both[:4]).tolist() == sorted({*ids(*NAMES[2::3])} & {*both[:4].tolist()})
    assert requests.of_classes(SPEECHES, ["y"], IDS).tolist() == ids(*NAMES[1::2])
    refused("no group 'Kenedy': did you mean 'Kennedy'", requests.of_groups, SPEECHES, ["Kenedy"], IDS)
    refused("no group 'Q': there are 'Johnson', 'Kennedy', 'Nixon'", requests.of_groups, SPEECHES, ["Q"], IDS)
    refused("group 'Nixon' is named twice", requests.of_groups, SPEECHES, ["Nixon", "Nixon"], IDS)
    refused("no class is named", requests.of_classes, SPEECHES, [], IDS)
    refused("no document of group 'Nixon' is in the training split", requests.of_groups, SPEECHES, ["Nixon"], IDS[:0])
    refused("have no class, and 'x' was", requests.of_classes, SPEECHES._replace(labels=None), ["x"], IDS)


def test_sets_come_with_the_data():
    data = SPEECHES._replace(sets={"forget01": IDS[:2], "forget05": IDS[:4]})
    assert requests.of_set(data, "forget05", IDS[1:]).tolist() == IDS[1:4].tolist()
    refused("no set 'forget1': did you mean 'forget01'", requests.of_set, data, "forget1", IDS)
    refused("no set 'forget01': there are none", requests.of_set, SPEECHES, "forget01", IDS)


def test_a_share_is_drawn_as_of_other_data():
    data = made("many", [Document(str(i), f"text {i}", str(i)) for i in range(200)])
    split = splits.Split(np.zeros(200), np.zeros(200, np.int32), data.ids)
    other = splits.Dataset("many", split, split._replace(id=data.ids[:0]), split._replace(id=data.ids[:0]), 2)
    chosen = requests.fraction(data.ids, 0.05, 3)
    np.testing.assert_array_equal(chosen, splits.forget_ids(other, "random", 0, 0.05, 3))
    fewer = np.setdiff1d(data.ids, chosen[:1])
    assert {*chosen[1:]} <= {*requests.fraction(fewer, 0.05, 3)}  # another document's leaving moves nobody else
    for share in (0, 1, -0.1, float("nan")):
        refused("choose one between 0 and 1", requests.fraction, data.ids, share, 3)
    refused("is less than one: choose a larger", requests.fraction, data.ids, 0.001, 3)
