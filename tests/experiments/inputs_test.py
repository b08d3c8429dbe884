"""Between a kill and the same command, data or parameters changed: every runner refuses, for models would be mixed."""

import jax
import numpy as np
import pytest

from experiments import models
from experiments.comparison import run as comparison
from experiments.configs import readiness as comparison_configs
from experiments.core import progress
from experiments.core.workdirs import WorkdirError
from experiments.models import params
from tests.helpers.runners import RUNNERS


@pytest.fixture(autouse=True)
def killed(monkeypatch):
    """A run ends as soon as its workdir is bound."""

    def kill(*_):
        raise KeyboardInterrupt

    for name in ("Progress", "part"):
        monkeypatch.setattr(progress, name, kill)


def images(path, gone=0):
    """Handwritten digits without the last few."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    kept = np.arange(len(digits.target) - gone)
    np.savez(path, x=digits.images[kept].astype(np.uint8), y=digits.target[kept], id=kept)


@pytest.mark.parametrize("name", RUNNERS)
def test_data_that_changed_after_a_kill_are_refused(tmp_path, name):
    runner, configs = RUNNERS[name]
    config = configs.get_config("digits")
    config.data.name = f"npz:{tmp_path / 'a.npz'}"
    go = lambda: runner.run(config, str(tmp_path / "run"))  # noqa: E731
    for _ in range(2):
        images(tmp_path / "a.npz")
        with pytest.raises(KeyboardInterrupt):
            go()
    images(tmp_path / "a.npz", gone=100)
    with pytest.raises(WorkdirError, match="other data: put the old data back, or use an empty --workdir"):
        go()


def test_parameters_that_changed_after_a_kill_are_refused(tmp_path):
    config = comparison_configs.get_config("digits")
    config.model.params = str(tmp_path / "start.npz")
    config.model.options.widths = (4,)
    for seed, raises in ((0, KeyboardInterrupt), (1, WorkdirError)):
        shipped = models.build(models.Model(options={"widths": (4,)}), np.zeros((1, 8, 8, 1), np.float32), 10)
        params.write(tmp_path / "start.npz", shipped.init(jax.random.key(seed)))
        with pytest.raises(raises, match="other parameters" if seed else None):
            comparison.run(config, str(tmp_path / "run"))
