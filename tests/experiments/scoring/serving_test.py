"""How a request's setting is chosen, on data that may choose."""

import types

import numpy as np
import pytest

from experiments.core import sections, workdirs
from experiments.data.sets import Sets
from experiments.scoring import serving
from unlearn.until import BUDGET, REACHED

# Learning rate: requests fulfilled of two, then accuracy of both lanes on the validation data that stay, on all of the
# validation data, and on the test data that stay.
FULFILLED = {
    0.1: (2, (0.7, 0.7), 0.6, 0.6),
    0.2: (2, (0.9, 0.7), 0.5, 0.4),  # the best
    0.3: (2, (0.75, 0.75), 0.9, 0.9),  # on data that must not choose
    0.4: (1, (0.99, 0.99), 0.95, 0.95),  # keeps more, and forgets less
    0.5: (2, (1.0, np.nan), 0.3, 0.3),  # one lane has no scores, which count as 0
    0.6: (2, (0.1, 0.1), 0.1, 0.1),
}
NEVER_ALL = {0.1: (0, (0.9, 0.9), 0.9, 0.9), 0.2: (1, (0.2, 0.2), 0.2, 0.2), 0.3: (1, (0.3, 0.3), 0.1, 0.1)}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep(outcomes)` chooses a setting where vanilla's requests come out like that, and the oracle's all the same."""
    names = Sets(*Sets._fields)

    def measure(kept, batch):
        by_lane, validation, test = kept
        right = by_lane if batch == "validation_retain" else [validation if batch == "validation" else test] * 2
        return np.array(right)[:, None], None

    def run(outcomes):
        def carry_out(requests, params, teachers, name, setting):
            assert params == "vanilla", "the setting is chosen for the rival of readiness"
            reached, *kept = outcomes[setting.learning_rate]
            stop = np.where(np.arange(2) < reached, REACHED, BUDGET)
            return serving.Served(kept, np.array([3, 3]), stop, {}), 0.0

        monkeypatch.setattr(serving.Requests, "carry_out", carry_out)
        section = sections.Request(unlearners=("ascent",), learning_rates=tuple(outcomes))
        scorer, problem = types.SimpleNamespace(measure=measure), types.SimpleNamespace(sets=names)
        requests = serving.Requests(scorer, problem, section, range(2), 64, workdirs.Workdir(tmp_path))
        return requests.choose("vanilla", "oracle")["ascent"]

    return run


def test_the_setting_fulfils_all_requests_and_then_keeps_most_of_the_validation_data(sweep):
    assert sweep(FULFILLED).learning_rate == 0.2


def test_if_no_setting_fulfils_all_requests_that_which_fulfils_most_is_chosen(sweep):
    assert sweep(NEVER_ALL).learning_rate == 0.3
