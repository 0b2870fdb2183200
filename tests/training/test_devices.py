"""The same global batch on one, two and four devices."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.devices import environment

# A group of 8 of the 16 images is half of a device's share, all of it, and two shares.
_PROGRAM = """
import functools, json, sys, types
import jax, numpy as np
from jdissect import models
from jdissect.models.preprocess import IMAGENET
from jdissect.runtime.devices import Devices
from jdissect.training import recipe, step
from jdissect.training.initialization import initial_parameters
from tests.small_trainings import Tiny

models.ARCHITECTURES["tiny"] = Tiny
architecture = {"name": "tiny", "classes": 5}
settings = types.SimpleNamespace(
    recipe="cutmix", alpha=1.0, group=0, one_box_per_batch=None,
    crop=True, crop_area=0.08, flip=True, jitter=0, lighting=0.1)
optimizer = recipe.optimizer(recipe.learning_rate(0.1, (3,)), 0.9, 1e-4)
rng = np.random.default_rng(0)
pixels = rng.integers(0, 256, (5, 16, 40, 40, 3), np.uint8)
pixels[:, :8] //= 3  # groups differ
sizes = rng.integers(20, 41, (5, 16, 2)).astype(np.int32)
labels = rng.integers(0, 5, (5, 16)).astype(np.int32)

@functools.cache  # every call compiles anew
def augmentation(count):
    devices = Devices("shard_map", jax.devices()[:count])
    return step.augmentation(settings, 24, IMAGENET, 7, devices)

@functools.cache
def train_step(count, mode, group, dtype):
    devices = Devices(mode, jax.devices()[:count])
    return step.train_step(architecture, optimizer, devices, batch_size=16,
                           bn_group=group, dtype=dtype)

def losses(count, mode="shard_map", group=8, dtype="float32"):
    devices = Devices(mode, jax.devices()[:count])
    augmented, run = augmentation(count), train_step(count, mode, group, dtype)
    start = initial_parameters(architecture, 1)
    state = devices.states(step.initial_state(architecture, optimizer, start))
    found = []
    for number in range(5):
        batch = augmented(number, pixels[number], sizes[number], labels[number])
        state, loss = run(state, batch)
        assert np.ptp(np.asarray(loss)) == 0
        found.append(float(loss[0]))
    for leaf in jax.tree.leaves(state):  # every device has the same
        assert (np.asarray(leaf) == np.asarray(leaf)[:1]).all()
    one = jax.tree.map(lambda array: np.asarray(array)[0], state)
    values = step.parameters(one)
    return found, float(values["second.norm.mean"].sum())

layouts = {
    "1": lambda: losses(1),
    "2": lambda: losses(2),
    "2 again": lambda: losses(2),
    "4": lambda: losses(4),
    "4 again": lambda: losses(4),
    "4 by pmap": lambda: losses(4, "pmap"),
    "all": lambda: losses(1, group=16),
    "bfloat16": lambda: losses(1, dtype="bfloat16"),
}
print(json.dumps({name: layouts[name]() for name in sys.argv[1:]}))
"""


def train(*layouts):
    """{layout: (losses of five steps, a sum of batch statistics)}"""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *layouts],
        env=environment(4),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def assert_near(layout, one):
    np.testing.assert_allclose(layout[0], one[0], rtol=1e-5)
    np.testing.assert_allclose(layout[1], one[1], rtol=1e-4)


@pytest.fixture(scope="module")
def found():
    return train("1", "2", "2 again", "all")


def test_layouts_agree(found):
    assert_near(found["2"], found["1"])
    assert found["2 again"] == found["2"]


@pytest.mark.slow
def test_layouts_of_four_devices_agree(found):
    four = train("4", "4 again", "4 by pmap")
    assert_near(four["4"], found["1"])
    assert four["4 again"] == four["4 by pmap"] == four["4"]


def test_groups_matter(found):
    """So that agreement says something: other groups train differently."""
    assert np.abs(np.subtract(found["all"][0], found["1"][0])).max() > 1e-3


@pytest.mark.slow
def test_bfloat16_is_near(found):
    narrow = train("bfloat16")["bfloat16"]
    difference = np.abs(np.subtract(narrow[0], found["1"][0])).max()
    assert 0 < difference < 0.05
