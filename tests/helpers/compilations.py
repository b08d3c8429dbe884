"""How many programs JAX compiles while a test does something."""

import contextlib

import jax


@contextlib.contextmanager
def counted_compilations():
    """A list that grows with every program that is lowered, whether or not it is then found in a cache on disk."""
    seen = []

    def listen(event, seconds, **more):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
