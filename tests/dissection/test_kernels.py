"""The kernels of every kind of device give the same results."""

import collections

import jax
import numpy as np
import pytest

from jdissect.dissection import kernels, passes
from jdissect.jobs.dissect import advice
from jdissect.runtime.devices import Devices
from tests.dissection.test_engine import assert_same, make, run

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name, keep",
    [
        ("gpu", "device"),
        pytest.param("gpu", "none", marks=SLOW),
        pytest.param("tpu", "device", marks=SLOW),
        pytest.param("tpu", "none", marks=SLOW),
    ],
)
def test_the_same_results(name, keep):
    """Features on the device, for many sweeps; computed again, for few."""
    data = make(21)
    assert_same(run(data), run(data, kernels=name, keep=keep))


def test_the_type_of_a_network_is_mentioned_where_it_matters():
    assert "bfloat16" in advice("float32", "gpu")
    assert not advice("float32", "cpu") and not advice("bfloat16", "tpu")


def test_kernels_are_those_of_the_devices():
    class Device:
        process_index = 0

        def __init__(self, platform):
            self.platform = platform

    class Fake(Devices):
        def __init__(self, platform):
            self.devices = [Device(platform)]

    cpu = kernels.of(Fake("cpu"))
    assert cpu == kernels.of(Fake("METAL")) == kernels.of(Fake("tpu"), "cpu")
    gpu, tpu = kernels.of(Fake("gpu"), resident=True), kernels.of(Fake("tpu"))
    assert gpu.target == ("gpu", False) and tpu.target == ("tpu", False)
    assert kernels.of(Fake("cpu"), "tpu").target == ("tpu", True)
    assert cpu.slots > tpu.slots > gpu.slots


def test_nothing_waits_for_the_host_within_a_pass(monkeypatch):
    """The host reads the counts at the end of a pass, and never feature maps."""
    count, asarray, reads = passes.count, np.asarray, collections.defaultdict(list)
    open_ = []

    def counted(name, *rest):
        open_.append(name)
        try:
            return count(name, *rest)
        finally:
            open_.pop()

    def read(array, *rest, **options):
        if isinstance(array, jax.Array):
            reads[open_[-1] if open_ else "between"].append(array.shape)
        return asarray(array, *rest, **options)

    monkeypatch.setattr(passes, "count", counted)
    monkeypatch.setattr(np, "asarray", read)
    # As if the features were on an accelerator.
    place = "jdissect.dissection.top_activations.on_accelerator"
    monkeypatch.setattr(place, lambda array: True)
    data, found = make(24), []
    for batch in (8, 4):  # as many steps again
        reads.clear()
        run(data, batch, kernels="gpu", keep="device")
        shapes = {shape for some in reads.values() for shape in some}
        assert not any(len(shape) == 4 and shape[-1] == 7 for shape in shapes), shapes
        found.append({name: len(some) for name, some in reads.items() if name})
    for stages in found:
        del stages["between"]  # samples, top images
    assert found[0] == found[1]
    assert {"network", "sketch", "intersections"} <= set(found[0])
