"""How fast are formulas found, against the published package, and are they the same?

    pip install compositional_explanations==0.0.3.4 torch
    python -m benchmarks.formulas [--parts=agreement,times,large] [--save]

Label maps are drawn: in each of several maps, regions (Voronoi cells) of a few
concepts, some frequent and most rare. Units prefer some concepts; their maps of 7x7 are
upsampled to 56x56 as in a dissection, and they fire on 1 % of the pixels.

- `agreement`: the IoUs of the beam and of the optimum, for all units, on few images.
  The package's beam search is not quite that of jayelm/compexp, which is the default
  here (it begins with twice as many concepts and counts equal formulas once), so it is
  compared with `Rules(first=10, distinct=True)`.
- `times`: 300 images and 196 concepts, in CPU seconds a unit, for a few units of the
  package; ours includes the counting.
- `large`: 2,048 units, 1,000 images, six maps of 1,800 concepts: from feature maps and
  label maps to formulas of three concepts, with intervals and cross-fitting.

Without the package only this program's times are measured.
"""

import contextlib
import functools
import io
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.support import record
from benchmarks.support.options import parse
from jdissect.dissection import firing
from jdissect.dissection.features import Record
from jdissect.formulas import atoms, search
from jdissect.formulas.beam import Beam, Rules
from jdissect.formulas.optimum import Optimum
from jdissect.formulas.stored import Settings
from jdissect.ops import bit_masks
from jdissect.runtime import command_line
from jdissect.runtime.devices import Devices

PARTS = ("agreement", "times", "large")
OPTIONS = {
    "parts": (list(PARTS), "What is measured."),
    "units": (64, "Units of `agreement`."),
    "timed": (2, "Units of `times` for the package's beam; its optimum gets half."),
    "large_units": (2048, "Units of `large`."),
    "large_images": (1000, "Images of `large`."),
    "save": (False, "Write results/formulas.json and .md."),
}
SIDE, GRID, QUANTILE = 56, 7, 0.01
_BATCH = 8
PACKAGE = Rules(first=10, distinct=True)


class Map(NamedTuple):
    """A label map: number of concepts, cells a side, share of cells without label."""

    concepts: int
    cells: int
    bare: float = 0.0


SMALL = (Map(8, 3), Map(8, 3, 0.4), Map(3, 2), Map(5, 2))
SCENES = (Map(60, 3), Map(80, 3, 0.4), Map(20, 2), Map(36, 2))
# As UPerNet's five maps and the colours.
SIX = (Map(336, 4), Map(720, 5, 0.4), Map(26, 3), Map(300, 1), Map(400, 4, 0.4))
SIX = (*SIX, Map(18, 5))


class Drawn:
    """Label maps and feature maps.

    Attributes:
      labels: int16[image, map, row, column].
      maps: float32[image, row, column, unit].
      thresholds: float32[unit].
    """

    def __init__(self, images: int, units: int, layout, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.layout = layout
        self.concepts = sum(each.concepts for each in layout)
        self.units = units
        self.labels = np.zeros((images, len(layout), SIDE, SIDE), np.int16)
        first = 1
        for place, each in enumerate(layout):
            popular = 1 / np.arange(1, each.concepts + 1)
            for image in self.labels:
                image[place] = _cells(rng, each, popular / popular.sum(), first)
            first += each.concepts
        likes = rng.random((units, self.concepts + 1)) < 0.02
        likes = (likes * rng.gamma(2, 1, likes.shape)).astype(np.float32)
        likes[:, 0] = 0
        step = SIDE // GRID
        centers = self.labels[:, :, step // 2 :: step, step // 2 :: step]
        self.maps = rng.standard_normal((images, GRID, GRID, units), np.float32)
        for maps, center in zip(self.maps, centers, strict=True):
            for labels in center:
                maps += likes.T[labels]
        self.thresholds = self._thresholds()

    def _thresholds(self):
        weights = _upsampling()
        some = self.maps[:: max(1, len(self.maps) // 64)]
        cuts = [
            np.quantile(
                np.einsum("yh,xw,nhwu->unyx", weights, weights, some[..., part])
                .reshape(part.stop - part.start, -1),
                1 - QUANTILE,
                axis=1,
            )
            for part in _parts(self.units)
        ]  # fmt: skip
        return np.concatenate(cuts).astype(np.float32)

    def images(self) -> Iterator[firing.OnImage]:
        vocabulary = [("-", "-")]
        vocabulary += [(f"c{n}", "kind") for n in range(self.concepts)]
        return firing.on_images(
            self._records(),
            "layer",
            self.thresholds,
            bit_masks.plan((GRID, GRID), (SIDE, SIDE)),
            vocabulary,
            Devices(),
        )

    def _records(self):
        for start in range(0, len(self.maps), _BATCH):
            index = np.arange(start, start + _BATCH, dtype=np.int32)
            valid = index < len(self.maps)
            here = np.minimum(index, len(self.maps) - 1)
            labels = self.labels[here]
            yield Record(
                index,
                valid,
                {"layer": self.maps[here]},
                functools.partial(np.asarray, labels),
                None,
            )

    def counts(self) -> atoms.Counts:
        blocks = np.arange(len(self.maps)) % 32
        return atoms.count(self.images(), blocks, ["kind"] * self.concepts, self.units)


def _cells(rng, each: Map, popular, first: int):
    count = max(1, each.cells**2 // 2)
    here = rng.choice(each.concepts, max(1, (count + 1) // 2), p=popular)
    labels = here[rng.integers(0, len(here), count)] + first
    labels[rng.random(count) < each.bare] = 0
    points = rng.random((count, 2)) * SIDE
    y, x = np.mgrid[:SIDE, :SIDE]
    far = (y - points[:, 0, None, None]) ** 2 + (x - points[:, 1, None, None]) ** 2
    return labels[far.argmin(axis=0)]


def _upsampling():
    at = (np.arange(SIDE) + 0.5) * GRID / SIDE - 0.5
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(GRID))).astype(np.float32)


def _parts(units: int, size: int = 32):
    for start in range(0, units, size):
        yield slice(start, min(start + size, units))


def package():
    """Returns the package's modules; None where it is not installed."""
    try:
        from compositional_explanations import beam, metrics, optimal
    except ModuleNotFoundError:
        return None
    return beam, optimal, metrics


class Rival:
    """The package on the same masks."""

    def __init__(self, drawn: Drawn):
        import torch

        torch.set_num_threads(1)
        self._beam, self._optimal, self._metrics = package()
        self._torch, images = torch, len(drawn.maps)
        self._masks = [
            torch.from_numpy((drawn.labels == n + 1).any(axis=1).reshape(images, -1))
            for n in range(drawn.concepts)
        ]
        flat = np.array([mask.numpy().reshape(-1) for mask in self._masks], np.float32)
        self._apart = torch.from_numpy(flat @ flat.T == 0)
        self._fires = np.zeros((drawn.units, images, SIDE * SIDE), bool)
        for image in drawn.images():
            self._fires[image.unit, image.index, image.pixel] = True

    def run(self, unit: int, optimum: bool) -> tuple[float, float]:
        """Returns (IoU, CPU seconds)."""
        bitmaps = self._torch.from_numpy(self._fires[unit])
        options = {
            "bitmaps": bitmaps,
            "masks": self._masks,
            "disjoint_info": self._apart,
            "length": 3,
            "device": "cpu",
        }
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            if optimum:
                found = self._optimal.compute_optimal_explanations(**options)
            else:
                found = self._beam.compute_beam_explanations(beam_size=5, **options)
        seconds = time.process_time() - start
        if found is None:
            return 0.0, seconds
        iou = self._metrics.compute_iou_from_masks(
            formula=found, masks=self._masks, bitmaps=bitmaps
        )
        return iou, seconds


def agreement(units: int) -> list[dict]:
    """Compares IoUs of all units."""
    drawn = Drawn(16, units, SMALL)
    counts = drawn.counts()
    matrix = counts.of()
    published = Beam(counts.atoms, matrix, Rules()).search()
    beam = Beam(counts.atoms, matrix, PACKAGE).search()
    best = Optimum(counts.atoms, matrix, Rules()).search(published)
    rows = []
    loss = np.array(
        [b.best[-1].iou - p.best[-1].iou for b, p in zip(best, published, strict=True)]
    )
    rows.append(_row("agreement", "units that the beam misses", (loss > 0).sum()))
    rows.append(_row("agreement", "most that it misses", loss.max()))
    if package() is not None:
        rival = Rival(drawn)
        for name, found, optimum in (("beam", beam, False), ("optimum", best, True)):
            same = sum(
                rival.run(unit, optimum)[0] == each.best[-1].iou
                for unit, each in enumerate(found)
            )
            rows.append(_row("agreement", f"units with the same IoU, {name}", same))
        rows.append(_row("agreement", "units", units))
    return rows


def times(timed: int) -> list[dict]:
    """Compares CPU seconds a unit."""
    drawn = Drawn(300, 64, SCENES)
    list(drawn.images())  # compiles
    start = time.process_time()
    counts = drawn.counts()
    counting = (time.process_time() - start) / drawn.units
    matrix = counts.of()
    start = time.process_time()
    beams = Beam(counts.atoms, matrix, Rules()).search()
    beam = counting + (time.process_time() - start) / drawn.units
    start = time.process_time()
    found = Optimum(counts.atoms, matrix, Rules()).search(beams)
    optimum = beam + (time.process_time() - start) / drawn.units
    visited = np.mean([each.visited for each in found])
    rows = [
        _row("times", "atoms", counts.atoms.holds.shape[0]),
        _row("times", "counting, CPU ms a unit", 1e3 * counting),
        _row("times", "beam with counting, CPU ms a unit", 1e3 * beam),
        _row("times", "optimum with all, CPU ms a unit", 1e3 * optimum),
        _row("times", "formulas computed for the optimum", visited),
    ]
    if package() is not None:
        rival = Rival(drawn)
        for name, ours, every in (("beam", beam, 1), ("optimum", optimum, 2)):
            units = range(max(1, timed // every))
            theirs = [rival.run(unit, name == "optimum") for unit in units]
            seconds = np.mean([each for _, each in theirs])
            rows.append(_row("times", f"package's {name}, CPU s a unit", seconds))
            rows.append(_row("times", f"times as fast, {name}", seconds / ours))
    return rows


def large(images: int, units: int) -> list[dict]:
    """Measures a large layer; seconds by the clock."""
    drawn = Drawn(images, units, SIX)
    start, cpu = time.perf_counter(), time.process_time()
    counts = drawn.counts()
    counted = time.perf_counter() - start, time.process_time() - cpu
    names = [f"c{n}" for n in range(drawn.concepts)]
    found = search.explain(counts, Settings(), names, ["kind"] * drawn.concepts)
    total = time.perf_counter() - start, time.process_time() - cpu
    first = Optimum(counts.atoms, counts.of(), Rules())
    few = 8
    beams = Beam(counts.atoms, counts.of(), Rules()).search()[:few]
    cpu = time.process_time()
    best = first.search(beams)
    optimum = (time.process_time() - cpu) / few
    visited = np.mean([each.visited for each in best])
    return [
        _row("large", "atoms", counts.atoms.holds.shape[0]),
        _row("large", "firing and counting, s", counted[0]),
        _row("large", "firing and counting, CPU s", counted[1]),
        _row("large", "with formulas, intervals and cross-fitting, s", total[0]),
        _row("large", "with formulas, intervals and cross-fitting, CPU s", total[1]),
        _row("large", "mean IoU of one concept", found.mean_iou[0]),
        _row("large", "mean IoU of three", found.mean_iou[2]),
        _row("large", "optimum, CPU s a unit", optimum),
        _row("large", "formulas computed for the optimum", visited),
        _row("large", "formulas there are", 9.0 * drawn.concepts**3),
    ]


def _row(part: str, what: str, value) -> dict:
    return {"what": f"{part}: {what}", "value": np.asarray(value).item()}


def main(argv) -> int:
    flags = parse(argv, "formulas", OPTIONS)
    run = {
        "agreement": lambda: agreement(flags.units),
        "times": lambda: times(flags.timed),
        "large": lambda: large(flags.large_images, flags.large_units),
    }
    rows = []
    for part in flags.parts:
        new = run[part]()
        print(record.text(new), flush=True)
        rows += new
    if package() is None:
        print("\nthe package compositional_explanations is not installed")
    if flags.save:
        notes = [
            "`agreement`: 16 drawn images of 24 concepts in four maps.",
            "`times`: 300 drawn images of 196 concepts, 64 units; the package 0.0.3.4.",
            "`large`: drawn images of 1,800 concepts in six maps.",
        ]
        record.write(
            "formulas",
            rows,
            title="Formulas over concepts",
            command="python -m benchmarks.formulas --save",
            notes=notes,
        )
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
