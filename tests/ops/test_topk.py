import jax
import numpy as np

from jdissect.ops import topk


def expected(maps, k):
    """By value descending, then image ascending."""
    peaks = maps.max(axis=(1, 2))
    image = np.broadcast_to(np.arange(len(maps))[:, None], peaks.shape)
    order = np.lexsort((image, -peaks), axis=0)[:k].T
    return np.take_along_axis(peaks.T, order, axis=1), order


def test_ties_splits_and_orders():
    rng = np.random.default_rng(0)
    maps = np.clip(rng.normal(4, 2, (61, 2, 2, 30)), 0, 6).astype(np.float32)
    update = jax.jit(topk.update)
    parts = []
    for start in (40, 0, 20):  # out of order
        best = topk.empty(5, 30)
        for begin in range(start, start + 20 + (start == 40), 7):
            end = min(begin + 7, start + 20 + (start == 40))
            some = np.zeros((7, 2, 2, 30), np.float32)
            some[: end - begin] = maps[begin:end]
            valid = np.arange(7) < end - begin
            best = update(best, some, np.arange(begin, begin + 7), valid)
        parts.append(best)
    merged = topk.merge(topk.merge(parts[2], parts[0]), parts[1])
    value, image = topk.result(merged, 61)
    want_value, want_image = expected(maps, 5)
    assert (np.diff(want_value, axis=1) == 0).mean() > 0.5  # ties are the rule
    np.testing.assert_array_equal(value, want_value)
    np.testing.assert_array_equal(image, want_image)


def test_fewer_images_than_k():
    maps = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1)
    best = topk.update(topk.empty(5, 1), maps, np.arange(3), np.ones(3, bool))
    value, image = topk.result(best, 3)
    np.testing.assert_array_equal(value, [[2, 1, 0]])
    np.testing.assert_array_equal(image, [[2, 1, 0]])
