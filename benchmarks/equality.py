"""Do an accelerator's kernels count what a CPU's count, and how long do they take?

    python -m benchmarks.equality

Counts random feature maps by the kernels of the accelerator that is there, or of the
one named, and by those for CPUs, and compares every integer. Then times the
accelerator's, beside the roofline of `benchmarks.accelerators`. Without an accelerator
its kernels are interpreted: right, but slow.
"""

import json
import statistics
import sys
import time

import jax
import numpy as np

from benchmarks import accelerators
from benchmarks.support.options import parse
from jdissect.dissection import kernels
from jdissect.ops import bit_masks, edge_codes, edges, float_keys, sketch
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices, in_32_bits

OPTIONS = {
    "kernels": ("", "One of gpu, tpu; '' for those of the devices."),
    "images": (32, "Images of a step."),
    "units": (2048, "Units."),
    "mask": (56, "Side of the masks, pixels."),
    "concepts": (1800, "Concepts in all."),
    "rounds": (20, "Medians are over these."),
}
_GRID, _PRESENT, _MAPS, _GROUPS, _QUANTILE = 7, 64, 6, 32, 0.01


@in_32_bits
def main(argv):
    options = {n: f.value for n, f in _flags(argv).items()}
    data = _Data(options)
    here, cpu = Devices(devices=jax.devices()[:1]), Devices(devices=jax.devices("cpu"))
    cpu = Devices(devices=cpu.devices[:1])
    own = kernels.of(here, options["kernels"], resident=True)
    print(f"{here.devices[0].device_kind}, {type(own).__name__[1:]}", flush=True)
    differ = 0
    for name in ("sketch", "sweep", "intersections"):
        steps = [
            _Step(name, form, on, data)
            for form, on in ((own, here), (kernels.of(cpu, "cpu"), cpu))
        ]
        found, known = (jax.tree.leaves(step.counts()) for step in steps)
        if name == "sweep":  # many slots are halves of halves of few
            known = [
                slots.reshape(*few.shape, -1).sum(axis=-1)
                for slots, few in zip(known, found, strict=True)
            ]
        equal = all((a == b).all() for a, b in zip(found, known, strict=True))
        differ += not equal
        seconds = steps[0].seconds(options["rounds"])
        least = _roofline(here.devices[0], name)
        print(
            f"{name}: {'equal' if equal else 'DIFFERENT'}; "
            f"{1e6 * seconds / options['images']:.1f} us an image{least}",
            flush=True,
        )
    return 1 if differ else 0


def _flags(argv):
    flags = parse(argv, "equality", OPTIONS)
    return {name: flags[name] for name in OPTIONS}


class _Data:
    """Feature maps, label maps and what is counted of them; the same each time."""

    def __init__(self, options):
        rng = np.random.default_rng(0)
        images, units, side = (options[n] for n in ("images", "units", "mask"))
        maps = rng.normal(size=(images, _GRID, _GRID, units)).astype(np.float32)
        self.maps = np.maximum(maps, 0)
        self.units = units
        self.geometry = bit_masks.plan((_GRID, _GRID), (side, side))
        concepts = options["concepts"]
        chosen = rng.integers(1, concepts + 1, (images, min(_PRESENT, concepts)))
        cells = rng.integers(0, chosen.shape[1], (images, _MAPS, 8, 8))
        places = np.arange(side) * 8 // side
        cells = cells[:, :, places[:, None], places]
        self.labels = np.stack([c[at] for c, at in zip(chosen, cells, strict=True)])
        self.vocabulary = kernels.Vocabulary(
            groups=_GROUPS,
            categories=_MAPS,
            column_of=np.arange(concepts + 1, dtype=np.int32),
            category=np.arange(concepts, dtype=np.int32) % _MAPS,
            group=lambda index: index.astype(np.int32) % _GROUPS,
        )
        pixels = images * self.geometry.pixels
        samples = self.maps.reshape(-1, units)
        self.coded, self.placed = edge_codes.of_edges(
            edges.place_edges(samples, _QUANTILE)
        )
        state = jax.tree.map(np.asarray, _sketch(self))
        self.bracket = sketch.certify(state, self.placed, pixels, _QUANTILE).bracket
        self.cuts = float_keys.cuts(self.bracket.high)


def _sketch(data):
    step = jax.jit(
        lambda state, maps, valid, coded, zero: sketch.update(
            state, maps, valid, coded, data.geometry, zero
        )
    )
    valid = np.ones(len(data.maps), bool)
    state = sketch.empty(data.units)
    return step(state, data.maps, valid, data.coded, np.int32(0))


class _Step:
    """A step that counts the data, compiled for a device."""

    def __init__(self, name, form, devices, data):
        valid = np.ones(len(data.maps), bool)
        batch, shared = {"valid": valid}, None
        if name == "sketch":
            tally, self._per_unit = form.sketch(), form.edges(data.coded, data.placed)
        elif name == "sweep":
            tally, self._per_unit = form.sweep(), form.bracket(data.bracket)
        else:
            tally, shared = form.intersections(data.vocabulary)
            self._per_unit = data.cuts
            annotated = np.ones((len(valid), _MAPS), bool)
            batch |= {"labels": data.labels.astype(np.int16), "annotated": annotated}
            batch["group"] = data.vocabulary.group(np.arange(len(valid)))
            if tally.prepare:
                batch |= tally.prepare(data.labels, valid, annotated)
        self._tally, self._units = tally, data.units
        device = devices.devices[0]
        rest = (data.maps, batch, self._per_unit, shared, np.int32(0))
        self._rest = jax.device_put(rest, device)
        self._start = jax.device_put((tally.start or tally.empty)(data.units), device)
        self._step = jax.jit(
            lambda state, maps, batch, per_unit, shared, zero: tally.update(
                state, maps, batch, per_unit, shared, data.geometry, zero
            )
        )

    def counts(self):
        """Returns the counts of one step, NumPy arrays."""
        found = jax.tree.map(np.asarray, self._step(self._start, *self._rest))
        if self._tally.finish:
            found = self._tally.finish(found, units=self._units)
        return found

    def seconds(self, rounds):
        """Returns the median duration of a step that is compiled."""
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            jax.block_until_ready(self._step(self._start, *self._rest))
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def _roofline(device, name):
    """Returns the least time of a default step, in words, if the chip is known."""
    if not accelerators.RESULT.is_file():
        return ""
    (by_chip,) = json.loads(accelerators.RESULT.read_text(encoding="utf-8")).values()
    for chip, steps in by_chip.items():
        if chip in device.device_kind:
            return f" (at least {steps[name]:.1f} by roofline, at the default sizes)"
    return ""


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
