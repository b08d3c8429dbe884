"""Whether JAX can use the platform and the threads that it was asked to."""

from __future__ import annotations

import os


def check_device() -> None:
    """Refuse a platform or threads that JAX cannot use here, before anything is done.

    Raises:
      ValueError: it cannot.
    """
    import jax

    from s3t.service import environment

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, of a platform that has no device
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(str(error) or f"JAX_PLATFORMS is {asked!r}, and there is no such device here: unset it") from None
    if jax.default_backend() == "cpu":
        environment.threads()
