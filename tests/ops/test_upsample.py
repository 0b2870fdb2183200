import numpy as np
import pytest

from jdissect.ops.upsample import plan_axis, upsample
from tests.ops import reference


def test_golden(golden):
    arrays = np.load(golden / "upsample.npz")
    cases = [name[3:] for name in arrays.files if name.startswith("in_")]
    assert len(cases) >= 5
    for case in cases:
        expected = arrays[f"out_{case}"]
        found = upsample(arrays[f"in_{case}"], expected.shape[1:3])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize(
    "grid, shape",
    [
        ((7, 7), (56, 56)),
        ((7, 5), (13, 56)),
        ((1, 7), (8, 9)),
        ((3, 1), (56, 5)),
        ((1, 1), (4, 4)),
        ((9, 9), (9, 9)),
        ((16, 12), (8, 5)),  # down
        ((2, 2), (1, 1)),
        ((28, 28), (56, 56)),
    ],
)
def test_any_sizes_to_the_bit(grid, shape):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, *grid, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        np.asarray(upsample(features, shape)), reference.upsample(features, shape)
    )


def test_fades_to_zero_and_never_overshoots():
    ones = np.ones((1, 7, 7, 1), np.float32)
    found = np.asarray(upsample(ones, (56, 56)))[0, :, :, 0]
    assert found.max() == 1 and found[0, 28] == np.float32(0.5625)
    assert found[0, 0] == np.float32(0.5625**2)


def test_constant_along_an_axis_of_one():
    found = np.asarray(upsample(np.full((1, 1, 1, 2), 5.0, np.float32), (6, 7)))
    assert (found == 5).all()


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        plan_axis(0, 5)
