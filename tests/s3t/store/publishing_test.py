"""Nodes: drafts, what is published and read back, certificates."""

import ml_dtypes
import numpy as np
import pytest

from s3t.service import verify
from s3t.store import certificates, disk, publishing
from s3t.store.ledger import records
from tests.helpers import stores


def test_a_draft_is_named_by_who_is_in_it(opened):
    drafted = publishing.draft_node(opened, 1, (0, 1))
    assert set(drafted.ids) == {
        i for i in range(60) if (stores.places([i]).shard[0], stores.places([i]).slice[0]) in ((1, 0), (1, 1))
    }
    assert drafted.identity == stores.at(opened, 1, (0, 1)).identity and drafted.ids_root == certificates.merkle_root(
        drafted.ids
    )
    assert publishing.draft_node(opened, 1, [0, 1]) == drafted
    disk.delete(opened, stores.ids_at(opened, 1, 2)[:1])
    assert publishing.draft_node(opened, 1, (0, 1)).identity == drafted.identity
    gone = stores.ids_at(opened, 1, 0)[0]
    disk.delete(opened, [gone])
    changed = publishing.draft_node(opened, 1, (0, 1))
    assert changed.identity != drafted.identity and set(changed.ids) == set(drafted.ids) - {gone}
    for bad in ((0, (1, 0)), (2, (0,)), (-1, (0,))):
        with pytest.raises(ValueError, match="the plan has no node"):
            publishing.draft_node(opened, *bad)


def test_what_is_published_comes_back_bit_for_bit(opened):
    disk.delete(opened, stores.ids_at(opened, 0, 0)[:1])
    drafted = publishing.draft_node(opened, 0, (0,))
    tensors = {
        "a": np.array([[np.nan, -0.0], [1, 2]], np.float32),
        "b": np.arange(3, dtype=np.int64)[::-1],
        "c": np.array([1.5, -2], ml_dtypes.bfloat16),
        "d": np.float64(2.5).reshape(()),
        "e": np.zeros((0, 3), np.uint8),
    }
    certificate = publishing.publish(opened, drafted, tensors, {"threads": (1, 2)}, None)
    found, loaded = publishing.load(opened, stores.at(opened, 0, (0,)))
    assert certificates.to_json(found) == certificates.to_json(certificate)
    assert (found.examples, found.ids_root, found.parent, found.shard, found.slices) == (
        len(drafted.ids), drafted.ids_root, None, 0, (0,)
    )  # fmt: skip
    assert set(loaded) == set(tensors) and found.output == certificates.parameters_digest(loaded)
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert loaded[name].tobytes() == tensor.tobytes()
    assert verify.verify(opened.root)["ok"]


def test_certificates_lead_up_to_the_backbone(opened):
    for node in publishing.live(opened):
        certificate, _ = publishing.load(opened, node)
        expected = stores.at(opened, node.shard, node.slices[:-1]).certificate if len(node.slices) > 1 else None
        assert certificate.parent == expected and certificates.identity_of(certificate) == node.identity


def test_a_deletion_during_training_discards_the_node_and_writes_nothing(opened):
    one, two = stores.ids_at(opened, 0, 0)[:2]
    disk.delete(opened, [one])
    disk.purge(opened)
    drafted = publishing.draft_node(opened, 0, (0,))
    disk.delete(opened, [two])
    before = stores.files_of(opened)
    with pytest.raises(records.Outdated):
        publishing.publish(opened, drafted, stores.tensors(drafted.identity), {}, None)
    assert stores.files_of(opened) == before and verify.verify(opened.root)["ok"]
