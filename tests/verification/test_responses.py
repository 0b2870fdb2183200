"""What is read in pictures, against upsampling every pixel."""

import numpy as np
import pytest

from jdissect.dissection.features import Record
from jdissect.ops.upsample import upsample
from jdissect.verification.responses import Reading, Shot, measure, pulled_back


@pytest.mark.parametrize("grid", [(7, 7), (1, 5), (14, 3)])
def test_the_mean_over_pixels_without_upsampling(grid):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, *grid, 4)).astype(np.float32)
    region = rng.random((14, 14)) < 0.2
    want = np.asarray(upsample(maps, (14, 14)))[0][region].mean(axis=0)
    weights = pulled_back(region, grid)
    found = np.tensordot(weights, maps[0], 2)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_pairs_are_read_where_they_belong():
    """Feature maps are the first label map, so that every value is known."""
    rng = np.random.default_rng(1)
    region = np.zeros((6, 6), bool)
    region[2:4, 1:5] = True
    shots, maps = [], rng.integers(0, 50, (5, 1, 6, 6))
    pixels = np.zeros((6, 6, 3), np.uint8)
    one = Reading(7, 0, False, False, region)
    plan = [
        (0, (one, one._replace(control=True))),
        (-1, (one._replace(after=True),)),
        (-1, (one._replace(control=True, after=True),)),
        (1, (one._replace(picture=1),)),
        (-1, (one._replace(picture=1, after=True),)),
    ]
    for (picture, readings), labels in zip(plan, maps, strict=True):
        shots.append(Shot(pixels, labels, readings, picture))

    def run(batches):
        for images in batches:
            labels = np.asarray(images.labels(), np.float32)
            yield Record(
                images.index,
                images.valid,
                {
                    "layer": np.moveaxis(
                        labels.repeat(3, 1) * [[[[1]], [[2]], [[3]]]], 1, 3
                    )
                },
                images.labels,
                None,
            )

    done = []
    units = {"layer": {7: np.array([0, 2])}}
    found = measure(iter(shots), units, run, 2, done.append)["layer"]
    assert done == [2, 2, 1]
    changed, controls = found.changed[7], found.controls[7]
    assert changed.pictures.tolist() == [0, 1] and controls.pictures.tolist() == [0]
    means = [m[0][region].mean() for m in maps]
    tops = [m.max() for m in maps]

    def expect(values, numbers):
        for row, number in zip(values, numbers, strict=True):
            np.testing.assert_allclose(row[0], [means[number], 3 * means[number]], 1e-5)
            np.testing.assert_allclose(row[1], [tops[number], 3 * tops[number]])

    expect(changed.with_it, [0, 3])
    expect(changed.without, [1, 4])
    expect(controls.with_it, [0])
    expect(controls.without, [2])
    np.testing.assert_allclose(found.maximum[:, 1], [2 * tops[0], 2 * tops[3]])
