import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import three_passes
from jdissect.runtime import command_line


def test_a_product_of_three_passes():
    """It errs by the product of the low halves, and by their own rounding."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(50, 50)).astype(np.float32) for _ in range(2))
    found = jax.jit(three_passes.in_three_passes(jax.jit(jnp.matmul)))(x, y)
    exact = x.astype(np.float64) @ y
    scale = np.abs(x).astype(np.float64) @ np.abs(y)
    error = (np.abs(found - exact) / scale).max()
    rounding = (np.abs(np.asarray(x @ y) - exact) / scale).max()
    assert 4 * rounding < error < 2**-16


@pytest.mark.slow
def test_all_layers_are_shown(capsys):
    argv = ["three_passes", "--images=1", "--side=64"]
    assert command_line.entry(three_passes.main, argv) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[0] for line in lines] == [
        "stem",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    ]
    assert all(float(three) > float(other) > 0 for _, three, other in lines)
