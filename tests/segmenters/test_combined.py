"""Two segmenters as one."""

import dataclasses
import types

import numpy as np

from jdissect.segmenters.combined import CombinedSegmenter


@dataclasses.dataclass
class Fixed:
    """Says the same of every batch."""

    concepts: tuple
    maps: np.ndarray
    map_names: tuple = ("some",)
    mask_shape: tuple = (1, 2)

    def label_maps(self, batch):
        return self.maps

    def identity(self, cache_dir):
        return {"name": self.concepts[1][0]}


def test_numbers_of_the_second_follow():
    nothing = ("-", "-")
    first = Fixed(
        (nothing, ("sky", "object"), ("sea", "object")),
        np.array([[[[0, 2]]], [[[1, 0]]]], np.int16),
    )
    second = Fixed((nothing, ("red", "color")), np.array([[[[1, 0]]], [[[0, 1]]]]))
    both = CombinedSegmenter(first, second)
    assert both.concepts == (*first.concepts, ("red", "color"))
    assert both.map_names == ("some", "some")
    maps = both.label_maps(types.SimpleNamespace())
    assert maps.dtype == np.int16
    np.testing.assert_array_equal(maps, [[[[0, 2]], [[3, 0]]], [[[1, 0]], [[0, 3]]]])
    identity = both.identity(None)
    assert identity == {"first": {"name": "sky"}, "second": {"name": "red"}}
