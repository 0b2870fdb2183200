import numpy as np
import pytest

from jdissect.ops import float_keys

VALUES = np.array(
    [
        -3e38,
        -1.5,
        -1.2e-38,
        -1e-40,
        -0.0,
        0.0,
        1e-45,
        1e-40,
        1.2e-38,
        1,
        1.0000001,
        3e38,
    ],
    np.float32,
)


def test_order_and_zero():
    found = float_keys.to_keys_host(VALUES)
    assert (np.diff(found) >= 0).all()
    # Both zeros and the subnormal numbers are one.
    assert (found[3:8] == 0).all()
    assert (np.diff(found[[0, 1, 2, 5, 8, 9, 10, 11]]) > 0).all()
    np.testing.assert_array_equal(np.asarray(float_keys.to_keys(VALUES)), found)


def test_next_float_is_next_key():
    values = np.array([1.0, -1.0, 6.0, 1e-20], np.float32)
    up = np.nextafter(values, np.float32(np.inf))
    np.testing.assert_array_equal(
        float_keys.to_keys_host(up), float_keys.to_keys_host(values) + 1
    )
    smallest = np.finfo(np.float32).tiny
    assert float_keys.to_keys_host(np.array([smallest]))[0] == 1


def test_back_and_forth():
    rng = np.random.default_rng(0)
    found = rng.integers(float_keys.KEY_OF_LOWEST, float_keys.KEY_OF_LARGEST, 10_000)
    np.testing.assert_array_equal(
        float_keys.to_keys_host(float_keys.from_keys_host(found)), found
    )


@pytest.mark.parametrize("threshold", VALUES)
def test_cuts_compare_as_keys_do(threshold):
    key = float_keys.to_keys_host(np.array([threshold]))
    passes = float_keys.cuts(key) < VALUES
    np.testing.assert_array_equal(passes, float_keys.to_keys_host(VALUES) > key)


def test_canonical():
    found = np.asarray(float_keys.canonical(VALUES))
    assert not np.signbit(found[4]) and (found[3:8] == 0).all()
    np.testing.assert_array_equal(found[[0, 1, 2, 8, 9]], VALUES[[0, 1, 2, 8, 9]])
