"""Whether JAX can use the platform it was asked to."""

from __future__ import annotations

import os


def check_device() -> None:
    """Refuse a platform that JAX cannot use here, before anything is done.

    Raises:
      ValueError: it cannot.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, of a platform that has no device
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(str(error) or f"JAX_PLATFORMS is {asked!r}, and there is no such device here: unset it") from None
