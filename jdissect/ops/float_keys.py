"""Maps floats to integers of the same order.

The magnitude bits of a float32, read as an integer, sort like the magnitude. With the
sign applied and subnormals counted as zero (hardware differs in whether it keeps them),
they map the floats in order onto a gapless range of int32: the next float has the next
key, zero has key 0 (-0 = +0), and -x has minus the key of x. So integer arithmetic can
cut a range of floats into exact bins.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdissect.base.arrays import AnyArray

_MAGNITUDE = np.int32(0x7FFFFFFF)
_SMALLEST_NORMAL = np.int32(0x00800000)
_OFFSET = np.int32(_SMALLEST_NORMAL - 1)
KEY_OF_LARGEST = int(np.float32(np.finfo(np.float32).max).view(np.int32) - _OFFSET)
KEY_OF_LOWEST = -KEY_OF_LARGEST


def to_keys(values: Float[AnyArray, "..."]) -> Int[Array, "..."]:
    """Returns int32 keys of float32 values: `a < b` iff `to_keys(a) < to_keys(b)`."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    size = jnp.maximum((bits & _MAGNITUDE) - _OFFSET, 0)
    return jnp.where(bits < 0, -size, size)


def canonical(values: Float[AnyArray, "..."]) -> Float[Array, "..."]:
    """Returns the values in float32 with -0 and subnormals as +0."""
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)
    bits = jnp.where((bits & _MAGNITUDE) < _SMALLEST_NORMAL, 0, bits)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def canonical_host(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """`canonical` in NumPy."""
    bits = np.array(values, np.float32).view(np.int32)
    bits[(bits & _MAGNITUDE) < _SMALLEST_NORMAL] = 0
    return bits.view(np.float32)


def to_keys_host(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """`to_keys` in NumPy: int64, so that differences do not overflow."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32)
    size = np.maximum((bits & _MAGNITUDE) - _OFFSET, 0).astype(np.int64)
    return np.where(bits < 0, -size, size)


def from_keys_host(keys: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the float32 value of each key."""
    keys = np.asarray(keys, np.int64)
    size = np.abs(keys)
    bits = np.where(size > 0, size + _OFFSET, 0).astype(np.int32)
    values = np.ascontiguousarray(bits).view(np.float32).reshape(keys.shape)
    return np.where(keys < 0, -values, values)


def cuts(keys: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns floats c such that `value > c` exactly if the value's key is > `keys`.

    That is the key's own value, except for key 0: a positive subnormal counts as zero
    and must not pass, so c is then the largest subnormal.
    """
    largest_subnormal = np.array(_OFFSET).view(np.float32)
    return np.where(np.asarray(keys) == 0, largest_subnormal, from_keys_host(keys))
