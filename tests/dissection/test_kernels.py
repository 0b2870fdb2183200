"""The kernels of every kind of device give the same results."""

import pytest

from jdissect.dissection import kernels
from jdissect.runtime.devices import Devices
from tests.dissection.test_engine import assert_same, make, run

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name, keep",
    [
        ("gpu", "device"),
        pytest.param("gpu", "none", marks=SLOW),
        pytest.param("tpu", "device", marks=SLOW),
        ("tpu", "none"),
    ],
)
def test_the_same_results(name, keep):
    """Features on the device, for many sweeps; computed again, for few."""
    data = make(21)
    assert_same(run(data), run(data, kernels=name, keep=keep))


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
