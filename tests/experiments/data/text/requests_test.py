"""Requests over documents: by name, group and set."""

import numpy as np

from experiments.data.ids import id_of
from experiments.data.text import requests
from experiments.data.text.sources.documents import Document, made
from tests.helpers.texts import refused

NAMES = [f"{1960 + i}-{('Kennedy', 'Johnson', 'Nixon')[i % 3]}.txt" for i in range(9)]
SPEECHES = made("speeches", [Document(n, f"text {n}", n, group=n[5:-4]) for i, n in enumerate(NAMES)])
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


def test_groups_are_asked_for_by_name():
    assert requests.of_groups(SPEECHES, ["Nixon"], IDS).tolist() == ids(*NAMES[2::3])
    both = requests.of_groups(SPEECHES, ["Nixon", "Kennedy"], IDS)
    assert both.tolist() == ids(*NAMES[2::3], *NAMES[::3])
    assert requests.of_groups(SPEECHES, ["Nixon"], both[:4]).tolist() == sorted({*ids(*NAMES[2::3])} & {*both[:4].tolist()})
    refused("no group 'Kenedy': did you mean 'Kennedy'", requests.of_groups, SPEECHES, ["Kenedy"], IDS)
    refused("no group 'Q': there are 'Johnson', 'Kennedy', 'Nixon'", requests.of_groups, SPEECHES, ["Q"], IDS)
    refused("group 'Nixon' is named twice", requests.of_groups, SPEECHES, ["Nixon", "Nixon"], IDS)
    refused("no group is named", requests.of_groups, SPEECHES, [], IDS)
    refused("have no group, and 'x' was", requests.of_groups, SPEECHES._replace(groups=None), ["x"], IDS)
    refused("no document of group 'Nixon' is in the training split", requests.of_groups, SPEECHES, ["Nixon"], IDS[:0])


def test_sets_come_with_the_data():
    data = SPEECHES._replace(sets={"forget01": IDS[:2], "forget05": IDS[:4]})
    assert requests.of_set(data, "forget05", IDS[1:]).tolist() == IDS[1:4].tolist()
    refused("no set 'forget1': did you mean 'forget01'", requests.of_set, data, "forget1", IDS)
    refused("no set 'forget01': there are none", requests.of_set, SPEECHES, "forget01", IDS)
