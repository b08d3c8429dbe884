"""The answers of fleets on disk, and the whole logits that version 0.1 kept in their place."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.judge_exact import answer_files
from experiments.judge_exact.fleets import Answers, _reduced

LOGITS = np.random.default_rng(0).normal(size=(4, 3, 5, 10)).astype(np.float32)  # [states, models, examples, classes]
LABELS = np.array([0, 3, 9, 3, 1])


def test_answers_come_back_as_they_were_written(tmp_path):
    written = {"none": Answers(LOGITS[0, :, :, 0], LOGITS[0, :, :, 1], np.zeros(3, np.float32))}
    answer_files.write(tmp_path / "a.npz", written)
    read = answer_files.read(tmp_path / "a.npz")
    assert read.keys() == written.keys()
    assert all(np.array_equal(a, b) and a.dtype == np.float32 for a, b in zip(read["none"], written["none"], strict=True))


def test_logits_of_the_old_version_become_answers(tmp_path):
    logits = LOGITS.copy()
    logits[1, 2] = 0  # a model that serves nothing
    np.savez(tmp_path / "old.npz", states=logits, heal=logits[0])
    answer_files.convert(tmp_path / "old.npz", tmp_path / "new.npz", LABELS)
    found = answer_files.read(tmp_path / "new.npz")
    assert found["states"].margin.shape == (4, 3, 5) and found["heal"].correct.shape == (3, 5)
    assert np.argwhere(found["states"].silent).tolist() == [[1, 2]] and not found["heal"].silent.any()
    assert not found["states"].correct[1, 2].any() and np.allclose(found["states"].margin[1, 2], -np.log(9))
    margin, right = _reduced(jnp.asarray(logits[0]), jnp.broadcast_to(LABELS, (3, 5)))
    np.testing.assert_allclose(found["heal"].margin, margin, atol=1e-5)
    np.testing.assert_array_equal(found["heal"].correct, right)


def test_what_is_there_is_left_and_what_is_missing_makes_nothing(tmp_path):
    answer_files.convert(tmp_path / "old.npz", tmp_path / "new.npz", LABELS)
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "old.npz", heal=LOGITS[0])
    (tmp_path / "new.npz").write_bytes(b"as it is")
    answer_files.convert(tmp_path / "old.npz", tmp_path / "new.npz", LABELS)
    assert (tmp_path / "new.npz").read_bytes() == b"as it is"


@pytest.mark.parametrize("arrays", [{"heal": LOGITS[0, :, :3]}, {"heal": LABELS}])
def test_damaged_logits_are_one_line(tmp_path, arrays):
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(UserError, match=r"old\.npz cannot be read .*: remove it and run again"):
        answer_files.convert(tmp_path / "old.npz", tmp_path / "new.npz", LABELS)


def test_a_file_that_lacks_an_array_is_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", **{"none.margin": LOGITS[0, :, :, 0]})
    with pytest.raises(UserError, match=r"a\.npz cannot be read .*: remove it and run again"):
        answer_files.read(tmp_path / "a.npz")
