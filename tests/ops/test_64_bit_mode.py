"""The kernels against their references once more, in JAX's 64-bit mode."""

import jax
import pytest

from tests.ops import (
    test_bit_masks,
    test_components,
    test_iou,
    test_thresholds,
    test_topk,
    test_upsample,
)


@pytest.mark.parametrize(
    "test, arguments",
    [
        (test_iou.test_against_brute_force, ((14, 10), 1, 3)),
        (test_iou.test_common_bits_in_several_groups, (0.1,)),
        (test_thresholds.test_counts_and_histogram_are_exact, ((1, 9),)),
        (test_thresholds.test_listed, ()),
        (test_topk.test_ties_splits_and_orders, ()),
        (test_upsample.test_any_sizes_to_the_bit, ((7, 5), (14, 9))),
        (test_bit_masks.test_pack_is_the_mask, ((3, 4), (9, 10), 5)),
        (test_components.test_numbers_by_hand, ()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_kernels(test, arguments):
    with jax.enable_x64(True):
        test(*arguments)
