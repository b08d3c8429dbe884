"""JAX's switches: under which a run would have other numbers than its config says, or stop half-way."""

from __future__ import annotations

import jax

from experiments.core.errors import UserError

# What runs are made for; a switch that a version of JAX does not have is no matter.
TRANSFERS = (None, "allow", "log")
TAKEN: dict[str, tuple[object, ...]] = {
    # With these, other numbers, and a run that is resumed would be a mixture.
    "jax_enable_x64": (False,),
    "jax_default_prng_impl": ("threefry2x32",),
    "jax_threefry_partitionable": (True,),
    "jax_random_seed_offset": (0,),
    # With these, an error in the middle of a run.
    "jax_numpy_rank_promotion": ("allow", "warn"),
    "jax_numpy_dtype_promotion": ("standard",),
    "jax_debug_key_reuse": (False,),
    "jax_transfer_guard": TRANSFERS,
    "jax_transfer_guard_host_to_device": TRANSFERS,
    "jax_transfer_guard_device_to_device": TRANSFERS,
    "jax_transfer_guard_device_to_host": TRANSFERS,
}


def settle() -> None:
    """Refuse switches under which nothing is run, and have products of float32 in float32 where nothing else is asked for.

    An accelerator multiplies float32 in fewer bits by default (TF32, or bfloat16 on a TPU): 3e-4 of a product, which the
    second order and margins of -20 nats show. JAX_DEFAULT_MATMUL_PRECISION, or `jax.config.update`, asks for other bits.

    Raises:
      UserError: one line that names the first of the switches.
    """
    for name, taken in TAKEN.items():
        value = getattr(jax.config, name, taken[0])
        if value not in taken:
            raise UserError(f"JAX's switch {name.upper()} is {value!r}, with which nothing is run here: unset it")
    if jax.default_backend() != "cpu" and getattr(jax.config, "jax_default_matmul_precision", "") is None:
        jax.config.update("jax_default_matmul_precision", "float32")


def check_devices() -> None:
    """Refuse platforms that cannot be used here.

    Raises:
      UserError: one line with what JAX says of them.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, of a platform that has no device
        raise UserError(
            str(error)
            or f"JAX_PLATFORMS is {getattr(jax.config, 'jax_platforms', '')!r}, and there is no such device here: unset it"
        ) from error
