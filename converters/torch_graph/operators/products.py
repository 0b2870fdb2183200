"""Translates products of matrices and attention, with sums kept in float32."""

import functools
import math

import jax
import jax.numpy as jnp
from jdissect.converters.torch_graph.values import (
    Untranslated,
    alike,
    half_among,
    narrow,
    on_plain,
    product,
    widen,
)


@on_plain
def linear(x, weight, bias=None):
    """aten.linear: x @ weight.T + bias."""
    found = product(lambda a, b, **o: jnp.einsum("...i,oi->...o", a, b, **o), x, weight)
    if bias is not None:
        found = found + widen(bias)
    return narrow(found, half_among([x, weight]))


@on_plain
def matmul(x, other):
    """aten.matmul, mm, bmm, mv, dot."""
    return narrow(product(jnp.matmul, x, other), half_among([x, other]))


@on_plain
def addmm(x, left, right, beta=1, alpha=1):
    """aten.addmm, baddbmm: beta * x + alpha * left @ right."""
    found = product(jnp.matmul, left, right)
    found = found if alpha == 1 else alpha * found
    x = widen(x) if beta == 1 else beta * widen(x)
    return narrow(x + found, half_among([x, left, right]))


@on_plain
def einsum(equation, tensors, path=None):
    """aten.einsum; sums in pairs."""
    half = half_among(tensors)

    def contract(*arrays, **options):
        return jnp.einsum(equation.replace(" ", ""), *arrays, **options)

    return narrow(product(contract, *tensors), half)


@on_plain
def outer(x, other):
    """aten.outer."""
    return matmul(x[:, None], other[None, :])


@on_plain
def attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
):
    """aten.scaled_dot_product_attention: softmax(q k^T * scale + mask) v."""
    if dropout_p:
        raise Untranslated("attention with dropout, as in training")
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (jnp.repeat(array, repeats, -3) for array in (key, value))
    query, key, value = alike([query, key, value])
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    contract = functools.partial(jnp.einsum, "...qd,...kd->...qk")
    scores = product(contract, query, key)
    scores = scores * scale
    if is_causal:
        allowed = jnp.tri(scores.shape[-2], scores.shape[-1], dtype=bool)
        scores = jnp.where(allowed, scores, -jnp.inf)
    if attn_mask is not None:
        if attn_mask.dtype == jnp.bool_:
            scores = jnp.where(attn_mask, scores, -jnp.inf)
        else:
            scores = scores + widen(attn_mask)
    weights = narrow(jax.nn.softmax(scores, -1), query.dtype)
    return narrow(product(jnp.matmul, weights, value), half_among([query]))


OPERATORS = {
    "linear": linear,
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "mv": matmul,
    "dot": matmul,
    "addmm": addmm,
    "baddbmm": addmm,
    "einsum": einsum,
    "outer": outer,
    "scaled_dot_product_attention": attention,
}
