"""How exact and how large is the sketch, beside KLL and REQ?

    python -m benchmarks.sketch                                  # hard streams
    python -m benchmarks.sketch --weights=DIR --broden=FOLDER    # and real activations

Every stream has `--size` values a unit. `alone` is the sketch's own rank error,
`bound` what it certifies; `exact` says whether the sweeps found the sorted value to the
bit, in how many sweeps. KLL and REQ (the `datasketches` package, at settings of
comparable size) see the same values. `state` is bytes a unit, `ns` nanoseconds a value
on this machine, of the sketch alone (of KLL and REQ: one unit at a time).
"""

import sys
import time

import datasketches
import jax
import numpy as np

from benchmarks.support.options import parse
from benchmarks.support.streams import streams
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.data import loader
from jdissect.datasets.broden import open_broden
from jdissect.models.preprocess import normalize
from jdissect.ops import bit_masks, edge_codes, edges, float_keys, refine, sketch
from jdissect.ops.upsample import upsample
from jdissect.runtime import command_line

BATCH = 32
QUANTILE = 0.01

OPTIONS = {
    "size": (2**20, "Values a unit, a multiple of 4096."),
    "weights": ("", "A converted EfficientNet-Lite0."),
    "broden": ("", "Folder of photographs."),
    "units": (16, "Of the real network, evenly spaced."),
}


class Ours:
    """Sketch and sweeps over maps [image, height, width, unit]."""

    def __init__(self, maps, shape):
        self.maps, self.geometry = maps, bit_masks.plan(maps.shape[1:3], shape)
        self.pixels = len(maps) * shape[0] * shape[1]
        zero = np.int32(0)
        pick = np.unique(np.linspace(0, len(maps) - 1, 128).round().astype(int))
        samples = edges.sample(float_keys.canonical(maps[pick]), self.geometry, zero)
        samples = np.asarray(samples).reshape(-1, maps.shape[-1])
        placed = edges.place_edges(samples, QUANTILE)
        self._coded, self.edges = edge_codes.of_edges(placed)
        self._sketch = jax.jit(
            lambda state, maps, valid, coded, zero: sketch.update(
                state, maps, valid, coded, self.geometry, zero
            )
        )
        self._sweep = jax.jit(
            lambda counts, maps, valid, arguments, zero: refine.update(
                counts, maps, valid, arguments, self.geometry, zero
            )
        )

    def _fold(self, step, state, argument):
        for start in range(0, len(self.maps), BATCH):
            some = self.maps[start : start + BATCH]
            valid = np.arange(BATCH) < len(some)
            some = np.pad(some, [(0, BATCH - len(some))] + [(0, 0)] * 3)
            state = step(state, some, valid, argument, np.int32(0))
        return jax.block_until_ready(state)

    def sketch(self):
        units = self.maps.shape[-1]
        return self._fold(self._sketch, sketch.empty(units), self._coded)

    def thresholds(self, state):
        """(certificate, exact thresholds, sweeps)."""
        state = jax.tree.map(np.asarray, state)
        certificate = sketch.certify(state, self.edges, self.pixels, QUANTILE)
        bracket, sweeps = certificate.bracket, 0
        allowed = sketch.allowance(self.pixels, QUANTILE)
        used = np.zeros(len(state.low), int)
        while (bracket.high - bracket.low > 1).any():
            used += bracket.high - bracket.low > 1
            counts = self._fold(
                self._sweep, refine.empty(len(used)), refine.as_arguments(bracket)
            )
            counts = np.asarray(counts, np.int64)
            bracket, wrong = refine.narrow(bracket, counts, allowed)
            assert not wrong.any()
            sweeps += 1
        return certificate, float_keys.from_keys_host(bracket.high), used


def rival(make, values, pixels):
    """(rank error, bytes, nanoseconds a value) of a sketch of `datasketches`."""
    found = make()
    start = time.perf_counter()
    found.update(values)
    spent = (time.perf_counter() - start) / len(values) * 1e9
    threshold = found.get_quantile(1 - QUANTILE)
    error = abs(int((values > threshold).sum()) - sketch.allowance(pixels, QUANTILE))
    return error / pixels, len(found.serialize()), spent


def report(names, maps, shape):
    """Prints a line a unit."""
    ours = Ours(maps, shape)
    ours.sketch()
    start = time.perf_counter()
    state = ours.sketch()
    nanoseconds = (time.perf_counter() - start) / (ours.pixels * len(names)) * 1e9
    certificate, exact, used = ours.thresholds(state)
    pixels = np.asarray(upsample(float_keys.canonical(maps), shape))
    pixels = pixels.reshape(-1, len(names))
    size = sum(np.asarray(a).nbytes for a in state) // len(names)
    place = ours.pixels - 1 - sketch.allowance(ours.pixels, QUANTILE)
    print(
        f"{'stream':26s} {'alone':>8s} {'bound':>8s} {'exact':>6s} {'sweeps':>6s} "
        f"{'state':>6s} {'ns':>6s} | {'KLL':>8s} {'bytes':>6s} {'ns':>5s} "
        f"| {'REQ':>8s} {'bytes':>6s} {'ns':>5s}"
    )
    worst = 0.0
    for unit, name in enumerate(names):
        values = float_keys.from_keys_host(float_keys.to_keys_host(pixels[:, unit]))
        wanted = np.sort(values)[place]
        threshold = certificate.threshold[unit]
        above = int((values > threshold).sum())
        error = abs(above - sketch.allowance(ours.pixels, QUANTILE)) / ours.pixels
        alone = "atom" if threshold == wanted else f"{error:.1e}"
        worst = max(worst, 0.0 if threshold == wanted else error)
        kll = rival(lambda: datasketches.kll_floats_sketch(400), values, ours.pixels)
        req = rival(
            lambda: datasketches.req_floats_sketch(12, True), values, ours.pixels
        )
        print(
            f"{name:26s} {alone:>8s} "
            f"{certificate.rank_error[unit] / ours.pixels:8.1e} "
            f"{'yes' if exact[unit] == wanted else 'NO':>6s} {used[unit]:6d} "
            f"{size:6d} {nanoseconds:6.3f} | {kll[0]:8.1e} {kll[1]:6d} {kll[2]:5.0f} "
            f"| {req[0]:8.1e} {req[1]:6d} {req[2]:5.0f}"
        )
    print(f"largest rank error of the sketch alone: {worst:.2e} of all pixels\n")


def real_maps(options):
    """The head's maps of all photographs, a few units."""
    model = networks.load_classifier(options.weights)
    units = np.linspace(0, 1279, options.units).round().astype(int)

    @jax.jit
    def forward(params, pixels):
        images = normalize(pixels, model.preprocessing)
        return model.apply(params, images, ("head",))[1]["head"][..., units]

    found = [
        np.asarray(forward(model.params, batch.pixels))[batch.valid]
        for batch in loader.batches(open_broden(options.broden), 32)
    ]
    return units, np.concatenate(found)


def main(argv) -> int:
    """Prints a table a kind of stream."""
    options = parse(argv, "sketch", OPTIONS)
    if options.size % 4096:
        raise UserError(f"--size is {options.size}; it must be a multiple of 4096")
    found = streams(options.size)
    maps = np.stack([v.reshape(-1, 64, 64) for v in found.values()], axis=-1)
    print(f"{options.size} values a unit, quantile {QUANTILE}, {jax.devices()[0]}\n")
    report(list(found), maps, (64, 64))
    if options.weights and options.broden:
        units, maps = real_maps(options)
        names = [f"EfficientNet head, unit {unit}" for unit in units]
        print(f"{len(maps) * 56 * 56} values a unit: real activations, 7x7 to 56x56\n")
        report(names, maps, (56, 56))
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
