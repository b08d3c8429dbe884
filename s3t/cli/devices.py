"""Whether JAX can use the platform it was asked to."""

from __future__ import annotations


def check_device() -> None:
    """Refuse a platform that JAX cannot use here, before anything is done.

    Raises:
      ValueError: it cannot.
    """
    import jax

    try:
        jax.devices()
    except RuntimeError as error:  # of JAX_PLATFORMS, or of a device that cannot be used
        raise ValueError(error) from None
