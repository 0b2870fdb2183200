"""What the machine can do at best, measured.

Three rates, each by the simplest program that JAX can be given for it: a product of two
large matrices; comparing and adding, and counting bits, in registers and the nearest
cache; adding 1 to an array that fits in no cache, in place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdissect.runtime.devices import Devices


class Ceiling(NamedTuple):
    """A program and how much it does.

    Attributes:
      run: runs it; the result is not there yet.
      work: operations or bytes of a run, on all devices.
    """

    run: Callable[[], Any]
    work: float


def matrix_product(devices: Devices, dtype: str) -> Ceiling:
    """Floating-point operations of a large product of `dtype`, on one device.

    float32 is float32: no matrix unit may round the factors, as in the networks.
    """
    side = 2048 if devices.devices[0].platform == "cpu" else 8192
    precision = lax.Precision.HIGHEST if dtype == "float32" else None
    one = jax.device_put(np.ones((side, side), np.float32), devices.devices[0])
    one = one.astype(dtype)
    product = jax.jit(lambda a, b: jnp.dot(a, b, precision=precision))
    return Ceiling(lambda: product(one, one), 2.0 * side**3)


def comparisons(devices: Devices) -> Ceiling:
    """Comparisons of floats and additions of what they say, on all devices."""

    def one(total, numbers, cut):
        return total + (numbers > cut).astype(jnp.int32)

    return _repeated(devices, np.float32, one, 2)


def bit_counts(devices: Devices) -> Ceiling:
    """And, population count and addition, on all devices."""

    def one(total, numbers, cut):
        return total + lax.population_count(numbers & cut).astype(jnp.int32)

    return _repeated(devices, np.uint32, one, 3)


def _repeated(devices: Devices, dtype, one, operations: int) -> Ceiling:
    """`one` again and again, with another number each time."""
    on_cpu = devices.devices[0].platform == "cpu"
    # Unrolled: so often between reading and writing a number.
    size, turns, unrolled = (1 << 14, 512, 32) if on_cpu else (1 << 24, 16, 256)

    def step(total, numbers, cuts):
        def body(turn, total):
            for place in range(unrolled):
                total = one(total, numbers, cuts[turn + place])
            return total

        return lax.fori_loop(0, turns, body, total)

    run = _running(
        devices,
        step,
        np.zeros(size, np.int32),
        devices.scatter(np.ones(size * len(devices), dtype)),
        devices.replicate(np.ones(turns + unrolled, dtype)),
    )
    return Ceiling(run, 1.0 * operations * size * turns * unrolled * len(devices))


def copies(devices: Devices) -> Ceiling:
    """Bytes read and written, on all devices."""
    size = 1 << (25 if devices.devices[0].platform == "cpu" else 28)
    run = _running(devices, lambda state, *_: state + 1, np.zeros(size, np.float32))
    return Ceiling(run, 8.0 * size * len(devices))


def _running(devices: Devices, step, start, batch=None, constants=None):
    """A function that moves a state on; the state's memory is used again."""
    state, moved = devices.states(start), devices.spmd(step)

    def run():
        nonlocal state
        state = moved(state, batch, constants)
        return state

    return run
