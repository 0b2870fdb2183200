"""Would three products of bfloat16 do in place of one of float32?

    python -m benchmarks.three_passes --weights=DIR

Matrix units multiply bfloat16. A product of float32 is made of six of them
(`Precision.HIGHEST`), or of three (`HIGH`), which leave out the product of the parts
that one bfloat16 does not hold. This emulates the three on a CPU and compares a
network's feature maps with those of the plain program, beside those of another correct
program in float32: batch normalization folded, and Winograd's convolutions.

The differences are relative to the layer's largest value.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from benchmarks.support import drawn
from benchmarks.support.options import parse
from jdissect.checkpoints import networks
from jdissect.models.preprocess import normalize
from jdissect.runtime import command_line

OPTIONS = {
    "weights": ("shipped:baseline", "Folder of a classifier."),
    "images": (4, "How many."),
    "side": (0, "Of the images in pixels; 0 = as the network was trained."),
}
_PRODUCTS = ("conv_general_dilated", "dot_general")
_INNER = ("jit", "pjit", "closed_call", "custom_jvp_call")


def in_three_passes(function):
    """Returns the function with each product of float32 as three of bfloat16."""

    def run(*arguments):
        program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        found = _evaluate(program, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return run


def _evaluate(program: ClosedJaxpr, arguments):
    values = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(program.jaxpr.invars, arguments, strict=True))

    def value(variable):
        return variable.val if hasattr(variable, "val") else values[variable]

    for equation in program.jaxpr.eqns:
        inputs = [value(variable) for variable in equation.invars]
        name, params = equation.primitive.name, equation.params
        if name in _PRODUCTS:
            found = [_product(equation, *inputs)]
        elif name in _INNER:
            inner = params.get("jaxpr") or params.get("call_jaxpr")
            found = _evaluate(inner, inputs)
        else:
            found = equation.primitive.bind(*inputs, **params)
            found = found if equation.primitive.multiple_results else [found]
        values |= dict(zip(equation.outvars, found, strict=True))
    return [value(variable) for variable in program.jaxpr.outvars]


def _product(equation, left, right):
    (a, b), (c, d) = _halves(left), _halves(right)

    def product(x, y):
        return equation.primitive.bind(x, y, **equation.params)

    return product(b, c) + product(a, d) + product(a, c)


def _halves(x):
    """Returns what a bfloat16 holds of a number, and of what that leaves."""
    # A pair of conversions might be compiled away.
    high = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    low = jax.lax.reduce_precision(x - high, exponent_bits=8, mantissa_bits=7)
    return high, low


def differences(weights: str, count: int, side: int) -> dict[str, tuple[float, float]]:
    """Returns {layer: (of three passes, of another program in float32)}."""
    plain = networks.load_classifier(weights, fold=False)
    other = networks.load_classifier(weights)
    pixels = drawn.photographs(
        np.random.default_rng(0), count, side or plain.input_size
    )
    images = normalize(jnp.asarray(pixels), plain.preprocessing, "float32")

    def maps(model, function=lambda apply: apply):
        return jax.jit(function(lambda params, x: model.apply(params, x)[1]))(
            model.params, images
        )

    expected = maps(plain)
    three, another = maps(plain, in_three_passes), maps(other)

    def difference(found, name):
        largest = jnp.abs(expected[name]).max()
        return float(jnp.abs(found[name] - expected[name]).max() / largest)

    names = [name for name in plain.endpoint_names if name in expected]
    return {n: (difference(three, n), difference(another, n)) for n in names}


def main(argv) -> int:
    """Prints the differences by layer."""
    flags = parse(argv, "three_passes", OPTIONS)
    found = differences(
        flags["weights"].value, flags["images"].value, flags["side"].value
    )
    print(f"{'layer':10s} {'three passes':>14s} {'another float32':>16s}")
    for name, (three, another) in found.items():
        print(f"{name:10s} {three:14.2g} {another:16.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
