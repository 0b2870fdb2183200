"""The type of what `jax.numpy` takes: arrays of JAX and arrays of NumPy."""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray
