"""Says for which kind of device networks are written.

Some layers and loops have a form for CPUs and one for accelerators. Networks run on
JAX's default devices, so those decide; whoever compiles for devices that are not there
says for which (`compiled_for`).
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLATFORM: contextvars.ContextVar[str] = contextvars.ContextVar("platform", default="")


def on_cpu() -> bool:
    """Returns whether the form is that for CPUs."""
    return (_PLATFORM.get() or jax.default_backend()) == "cpu"


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Within it networks are loaded and traced in the form for other devices.

    JAX caches traces by function, so a function that was traced outside keeps its form.

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
    """
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)
