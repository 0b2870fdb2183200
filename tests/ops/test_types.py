"""Types and shapes are checked in tests, by the import hook of tests/conftest.py."""

import jaxtyping
import numpy as np
import pytest

import jdissect
from jdissect.ops import float_keys, upsample


@pytest.mark.parametrize(
    "maps",
    [np.zeros((2, 2, 1), np.int32), np.zeros((2, 2), np.float32)],
    ids=["integers", "two axes"],
)
def test_a_kernel_refuses_another_type_or_shape(maps):
    with pytest.raises(jaxtyping.TypeCheckError, match="features"):
        upsample.upsample(maps, (4, 4))


def test_axes_of_one_name_are_equally_long():
    axis = upsample.plan_axis(2, 4)
    with pytest.raises(jaxtyping.TypeCheckError, match="high"):
        upsample.Axis(2, 4, 1, axis.low, axis.high[:3], axis.weight)


def test_public_functions_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match="folder"):
        jdissect.load(1)
    with pytest.raises(jaxtyping.TypeCheckError, match="label_maps"):
        jdissect.dissect(abs, 1.0, [], "masks", concepts=[], layers="a")


def test_what_is_unchecked_is_as_for_users(types_unchecked):
    found = float_keys.to_keys_host([0.0, 1.0])
    assert found.tolist() == [0, int(found[1])]
