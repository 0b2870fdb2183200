import re

import jax
import numpy as np
import pytest

from jdissect.ops import components as cpu
from jdissect.ops import forms
from jdissect.ops.accelerated import components
from tests.ops.test_components import (
    flood_quarters,
    flood_roots,
    hard_maps,
    random_maps,
)

_boxes, _cpu_boxes = jax.jit(components.boxes), jax.jit(cpu.boxes)


def by_flood_fill(labels):
    """What `boxes` should return for one map."""
    roots = flood_roots(labels)
    found = np.zeros((4, *labels.shape), int)
    found[0] = roots
    for root in np.unique(roots[labels > 0]):
        here = roots == root
        rows, columns = np.nonzero(here)
        found[1:, here] = np.array([[rows.max()], [columns.max()], [columns.min()]])
    return found


@pytest.mark.parametrize("shape", [(41, 1), (7, 50)])
def test_boxes_against_flood_fill(shape):
    maps = random_maps(shape)
    expected = np.stack([by_flood_fill(labels) for labels in maps], axis=1)
    np.testing.assert_array_equal(_boxes(maps), expected)
    np.testing.assert_array_equal(_cpu_boxes(maps), expected)


def test_every_small_map():
    """All 4,096 ways to set the pixels of 3x4."""
    bits = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    maps = bits.reshape(-1, 3, 4).astype(np.int32)
    np.testing.assert_array_equal(_boxes(maps), _cpu_boxes(maps))


@pytest.mark.parametrize("size", [24, pytest.param(56, marks=pytest.mark.slow)])
def test_long_paths(size):
    lines = list(hard_maps(size).values())
    maps = np.stack([*lines, *(line.T for line in lines), *(x[::-1] for x in lines)])
    np.testing.assert_array_equal(_boxes(maps), _cpu_boxes(maps))


def test_quarters_take_this_form_on_accelerators():
    maps = random_maps((7, 50), seed=1)
    with forms.compiled_for("gpu"):
        traced = jax.jit(lambda maps: cpu.quarters(maps, 11, "netdissect")).trace(maps)
    assert not re.search("while|gather|scatter", str(traced.jaxpr))
    found = traced.lower().compile()(maps)
    expected = [flood_quarters(labels, 11, "netdissect") for labels in maps]
    np.testing.assert_array_equal(found, expected)
