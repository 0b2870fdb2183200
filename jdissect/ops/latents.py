"""Computes the latents of a sparse autoencoder, or projections on directions.

At every position of a feature map, the vector x of its features becomes

    p = (x - center) @ encoder + bias
    linear      p
    relu        max(p, 0)
    jumprelu    p where p > threshold and p > 0, else 0
    topk        max(p, 0) where it is among the k largest of the position, else 0

Sources: Bricken et al. 2023, "Towards Monosemanticity" (relu, center); Rajamanoharan et
al. 2024, arXiv:2407.14435, equation 3 (jumprelu); Gao et al. 2024, arXiv:2406.04093,
section 2.3 (topk).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jdissect.base.arrays import AnyArray

ACTIVATIONS = ("linear", "relu", "jumprelu", "topk")


def latents(
    maps: Shaped[AnyArray, "*batch feature"],
    arrays: Mapping[str, AnyArray],
    activation: str,
    k: int = 0,
) -> Float[Array, "*batch unit"]:
    """Returns the latents of every position, float32.

    Args:
      maps: feature maps of any real type, features last.
      arrays: float32 arrays: `encoder` [feature, unit]; perhaps `bias` [unit], `center`
        [feature]; for 'jumprelu' `threshold` [unit].
      activation: one of ACTIVATIONS.
      k: number of latents that 'topk' keeps at a position. Equal values are kept from
        the lowest unit on.

    A value that is not a number stays one under every activation.
    """
    maps = maps.astype(jnp.float32)
    if "center" in arrays:
        maps = maps - arrays["center"]
    # In full float32 also where matrix units would round: what fires is a comparison.
    values = jnp.matmul(maps, arrays["encoder"], precision=jax.lax.Precision.HIGHEST)
    if "bias" in arrays:
        values = values + arrays["bias"]
    if activation == "linear":
        return values
    if activation == "jumprelu":
        values = jnp.where(values <= arrays["threshold"], 0, values)
    values = jnp.maximum(values, 0)
    return _largest(values, k) if activation == "topk" else values


def _largest(
    values: Float[AnyArray, "*batch unit"], k: int
) -> Float[Array, "*batch unit"]:
    """Sets all but the k largest values of each position to 0.

    Which of equal values `top_k` picks may differ between devices. So only its smallest
    value is used, which does not depend on that.
    """
    undefined = jnp.isnan(values)
    ordered = jnp.where(undefined, 0, values)
    # Taking the last one instead makes XLA sort everything, ten times as slow on a CPU.
    smallest = jax.lax.top_k(ordered, k)[0].min(axis=-1, keepdims=True)
    above, equal = ordered > smallest, ordered == smallest
    room = k - above.sum(axis=-1, keepdims=True, dtype=jnp.int32)
    # Zeros need no order. Other ties are rare, and ordering them takes time.
    ties = equal & (smallest > 0)
    crowded = (ties.sum(axis=-1, keepdims=True, dtype=jnp.int32) > room).any()
    first = jax.lax.cond(
        crowded,
        lambda: ties & (jnp.cumsum(ties, axis=-1, dtype=jnp.int32) <= room),
        lambda: ties,
    )
    return jnp.where(above | first | undefined, values, 0)
