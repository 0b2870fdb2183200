"""The counting kernels as they compile for a GPU and a TPU; and how that is read.

`make test-accelerators` runs this where the compilers are.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import accelerators
from benchmarks.support import accelerated_steps, chips, compiled_program, count
from jdissect import main
from jdissect.base.errors import UserError
from jdissect.ops import sketch
from jdissect.runtime import command_line


@pytest.fixture(scope="module", params=["H200", "v5e"])
def chip(request):
    chip = chips.CHIPS[request.param]
    try:
        return chip, chips.devices(chip)[0]
    except chips.NoCompiler as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["sketch", "sweep", "intersections", "top-k"])
def test_what_counts_is_a_few_kernels_and_waits_for_nothing(chip, name):
    step = accelerated_steps.counting(*accelerated_steps.LAST)[name]
    found = accelerators.cost(step, *chip)
    assert not accelerators.faults(found, chip[0], name)
    assert found.written.operations > 0 and found.program.bytes > 0


def test_label_maps_wait_for_nothing(chip):
    if chip[0].kernels != "gpu":
        pytest.skip("a TPU's compiler takes minutes")
    name = accelerated_steps.LABEL_MAPS
    step, images = accelerators._networks(chip[0])[name]
    found = accelerators.cost(step, *chip, images)
    assert not accelerators.faults(found, chip[0], name)
    assert found.program.kernels < 32 * images


def test_nothing_is_exchanged_in_a_pod(chip):
    if chip[0].kernels != "tpu":
        pytest.skip("for a TPU slice")
    devices = chips.devices(chip[0], "v5e:4x4")
    for name, program in accelerators.in_a_pod(devices).items():
        assert not program.collectives and not program.waits, name


@pytest.mark.slow
def test_sweeps_that_the_default_dissection_needs(monkeypatch, tmp_path):
    certify, spans = sketch.certify, []

    def measured(*arguments):
        bracket = certify(*arguments).bracket
        spans.append(bracket.high - bracket.low)
        raise UserError("that is all")

    monkeypatch.setattr(sketch, "certify", measured)
    argv = ["main", "--config=configs/mixup.py", f"--workdir={tmp_path / 'run'}"]
    assert command_line.entry(main.main, argv) == 2
    bits = np.ceil(np.log2(spans[0]))
    needed = np.ceil(bits / np.log2(accelerated_steps.SLOTS))
    assert (bits.min(), bits.max()) == (15, 22)
    assert (bits <= 18).mean() == pytest.approx(0.76, abs=0.02)
    assert (needed >= 6).mean() > 0.5 and needed.max() == 8
    assert 1 / 8 < (needed >= 7).mean() <= 1 / 4
    assert (needed >= 8).mean() <= 64 / 2048


def test_every_layer_has_its_steps():
    steps = accelerators.all_steps()
    assert {"sketch", "sweep, layer1", "intersections, layer3", "top-k"} <= set(steps)
    for _, arguments, images in steps.values():
        assert images == 32 and arguments


HLO = """
HloModule example

%body (state: s32[]) -> s32[] {
  %state = s32[] parameter(0)
  ROOT %next = s32[] fusion(%state), kind=kLoop, calls=%add
}

%updated (total: s32[1000], new: s32[10]) -> s32[1000] {
  %total = s32[1000]{0} parameter(0)
  %new = s32[10]{0} parameter(1)
  ROOT %scatter = s32[1000]{0} scatter(%total, %new, %new), to_apply=%add
}

ENTRY %main (a: f32[8,4], n: s32[1000], i: s32[10]) -> s32[1000] {
  %a = f32[8,4]{1,0} parameter(0)
  %n = s32[1000]{0} parameter(1)
  %i = s32[10]{0} parameter(2)
  %b = bf16[8,4]{1,0} fusion(%a), kind=kLoop, calls=%half
  %c = s32[] constant(0)
  %w = s32[] while(%c), condition=%body, body=%body, backend_config={KNOWN}
  ROOT %r = s32[1000]{0} fusion(%n, %i), kind=kInput, calls=%updated
}
"""


def test_a_program_is_read():
    known = '"known_trip_count":{"n":"5"}'
    found = compiled_program.read(HLO.replace("KNOWN", known))
    # Two fusions, and twice one in each of five turns.
    assert (found.kernels, found.waits, found.loops) == (2 + 10, 0, 0)
    assert found.scatters == 1 and not found.gathers and not found.collectives
    # The scatter changes 10 of 1,000 numbers in place.
    assert found.bytes == 8 * 4 * (4 + 2) + 10 * 8 + 3 * 10 * 4
    found = compiled_program.read(HLO.replace("KNOWN", ""))
    assert (found.waits, found.loops) == (1, 1)


def test_what_runs_here_is_read():
    def function(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.sort(x) * 2, x)

    text = jax.jit(function).lower(jnp.zeros(100)).compile().as_text()
    found = compiled_program.read(text)
    assert found.kernels >= 3 and not found.loops


def test_a_kernel_is_counted_as_often_as_it_has_blocks():
    shapes = (16, 4, 1)
    steps = [accelerated_steps.counting(7, 256, n)["sketch"] for n in shapes]
    target = accelerators.Target("tpu")
    found = []
    for step in steps:
        one = accelerated_steps.of_target(step, target)
        found.append(count.count(one.function, *one.arguments, trips=one.trips))
    # 16 images are two blocks; fewer are one.
    assert 1.9 < found[0].operations / found[1].operations < 2.1
    pixels = 8 * 256 * 56 * 56
    assert 2 * 40 < found[1].operations / pixels < 100


def test_wrong_inputs(capsys):
    argv = ["accelerators", "--chips=v2"]
    assert command_line.entry(accelerators.main, argv) == 2
    assert "it takes some of H200, v5e" in capsys.readouterr().err
