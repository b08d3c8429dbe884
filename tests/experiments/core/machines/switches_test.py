"""JAX's switches: those that change numbers or stop a run half-way are named in one line, by every runner."""

import jax
import pytest

from experiments.core.errors import UserError
from experiments.core.machines import switches
from experiments.exact import factory
from tests.helpers.runners import RUNNERS

OTHER = {
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 1,
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_debug_key_reuse": True,
    **{name: "disallow" for name in switches.TAKEN if "guard" in name},
}


@pytest.fixture
def switched():
    """Set a switch until the test ends."""

    def switch(name, value):
        before = getattr(jax.config, name)
        jax.config.update(name, value)
        undone.append((name, before))

    undone = []
    yield switch
    for name, before in reversed(undone):
        jax.config.update(name, before)


@pytest.mark.parametrize("name", switches.TAKEN)
def test_a_switch_under_which_nothing_is_run_is_named(switched, name):
    switches.settle()
    switched(name, OTHER[name])
    with pytest.raises(UserError, match=f"^JAX's switch {name.upper()} is .*: unset it$"):
        switches.settle()


@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_looks_before_it_binds_a_workdir(switched, tmp_path, runner):
    run, configs = RUNNERS[runner]
    switched("jax_numpy_dtype_promotion", "strict")
    with pytest.raises(UserError, match="JAX_NUMPY_DTYPE_PROMOTION"):
        run.run(configs.get_config("digits"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_factory_of_stores_names_the_switch_and_not_the_backbone(switched):
    switched("jax_enable_x64", True)
    with pytest.raises(ValueError, match="JAX_ENABLE_X64 is True"):
        factory.make({})


@pytest.mark.parametrize(
    "error, said",
    [(AssertionError(), "there is no such device here: unset it"), (RuntimeError("No backend"), "No backend")],
)
def test_a_platform_that_is_not_here_is_one_line(monkeypatch, error, said):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(UserError, match=said):
        switches.check_devices()


@pytest.mark.parametrize(
    ("backend", "asked", "then"), [("gpu", None, "float32"), ("gpu", "bfloat16", "bfloat16"), ("cpu", None, None)]
)
def test_an_accelerator_multiplies_float32_in_float32_unless_asked_for_less(switched, monkeypatch, backend, asked, then):
    switched("jax_default_matmul_precision", asked)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    switches.settle()
    assert jax.config.jax_default_matmul_precision == then
