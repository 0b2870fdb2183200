"""Measures a UPerNet against the exact masks of scenes: pixel accuracy and mean IoU.

It evaluates `segmenters.parsing.Parser`, which also labels images for a dissection: its
label maps are compared with the drawn ones on its own grid.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64

from jdissect.base.progress import counting
from jdissect.data import loader
from jdissect.data.label_maps import resample_nearest
from jdissect.data.source import Subset, share
from jdissect.models.upernet import SIDE
from jdissect.runtime.devices import Devices
from jdissect.runtime.processes import ALONE, Processes
from jdissect.scenes import CONCEPTS, ScenesSource
from jdissect.scenes.channels import NO_OWNER, channels, upernet_labels
from jdissect.segmenters.parsing import Apply, Parser

CATEGORIES = ("object", "part", "material")
GRID = 56  # side of the label maps, as for segmenter 'upernet'


@dataclasses.dataclass(frozen=True)
class MaskCounts:
    """Pixels by category and number: drawn, found, and both.

    Only annotated pixels count: for parts, those of an object with parts.

    Attributes:
      images: number of compared images.
      drawn: pixels per number in the drawn maps.
      found: pixels per number in the segmenter's maps.
      both: pixels with the number in both.
    """

    images: int
    drawn: Int64[np.ndarray, "3 number"]
    found: Int64[np.ndarray, "3 number"]
    both: Int64[np.ndarray, "3 number"]

    def accuracy(self, category: str) -> float:
        """Returns the percentage of drawn pixels whose number was found."""
        row = CATEGORIES.index(category)
        return 100 * float(self.both[row].sum() / max(self.drawn[row].sum(), 1))

    def mean_iou(self, category: str) -> float:
        """Returns the mean IoU of the drawn concepts, in percent."""
        row = CATEGORIES.index(category)
        there = self.drawn[row] > 0
        if not there.any():
            return 0.0
        both = self.both[row][there]
        either = self.drawn[row][there] + self.found[row][there] - both
        return 100 * float(np.mean(both / either))

    def concepts(self, category: str) -> int:
        """Returns the number of drawn concepts."""
        return int((self.drawn[CATEGORIES.index(category)] > 0).sum())

    def metrics(self) -> dict[str, float]:
        """Returns the record for `metrics.jsonl`: percentages for each category."""
        found = {}
        for category in CATEGORIES:
            found[f"{category}_accuracy"] = round(self.accuracy(category), 3)
            found[f"{category}_mean_iou"] = round(self.mean_iou(category), 3)
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics with the number of images."""
        return {**self.metrics(), "images": self.images}

    def summary(self) -> str:
        """Returns the accuracies on one line."""
        each = (f"{name} {self.accuracy(name):.2f} %" for name in CATEGORIES)
        return f"pixel accuracy {', '.join(each)}"

    def table(self) -> str:
        """Returns all numbers as a table."""
        lines = ["          pixel accuracy   mean IoU  concepts"]
        lines += [
            f"{name:9} {self.accuracy(name):12.2f} % {self.mean_iou(name):8.2f} % "
            f"{self.concepts(name):9}"
            for name in CATEGORIES
        ]
        return "\n".join(lines)


class MaskEvaluator:
    """Runs the Parser over scenes; compiled once.

    Args:
      apply: UPerNet with the labels of scenes; see `parsing.Parser`.
      devices: this process's devices.
      side: side of UPerNet's input images.
      batch_size: images per device and step.
      workers: number of reading processes; 0 = threads.
      processes: processes that share the pictures; all of them call `run`.
    """

    def __init__(
        self,
        apply: Apply,
        devices: Devices,
        *,
        side: int = SIDE,
        batch_size: int = 8,
        workers: int = 0,
        processes: Processes = ALONE,
    ):
        parser = Parser(apply, upernet_labels(), quarters="none", grid=GRID, side=side)
        self._numbers = len(parser.concepts)
        places = {concept: number for number, concept in enumerate(parser.concepts)}
        self._number_of = np.array(
            [places.get((name, category), 0) for name, category in CONCEPTS], np.int32
        )
        names = {"objects": 0, "parts": 1, "materials": 2}
        self._order = [0] * len(CATEGORIES)
        for place, name in enumerate(parser.map_names):
            self._order[names[name]] = place
        self._step = devices.spmd(lambda state, pixels, params: parser(params, pixels))
        self._devices, self._workers = devices, workers
        self._processes = processes
        self._batch_size = batch_size * len(devices)

    def run(self, params: Any, source: ScenesSource, description: str) -> MaskCounts:
        """Compares the maps of all pictures.

        Args:
          params: parameters of the network.
          source: source of at least one picture.
          description: name of the progress bar.

        Raises:
          UserError: a picture cannot be read, on any process.
        """
        processes = self._processes
        every = range(len(source.names))
        mine, _ = share(every, self._batch_size, processes.index, processes.count)
        with processes.agreeing():
            counts = self._count(params, Subset(source, mine), description)
        return MaskCounts(len(every), *processes.total(counts))

    def _count(self, params, source, description):
        """Sums pixels drawn, found and both over this process's pictures."""
        params = self._devices.replicate((params, None))
        total = np.zeros((3, len(CATEGORIES), self._numbers), np.int64)
        with counting(
            description,
            len(source.names),
            before="compiling",
            silent=not self._processes.first,
        ) as task:
            for batch in loader.batches(
                source, self._batch_size, workers=self._workers
            ):
                maps = self._step(
                    self._devices.states(np.zeros(())),
                    self._devices.scatter(batch.pixels),
                    params,
                )
                maps = np.asarray(maps).reshape(len(batch.pixels), *maps.shape[2:])
                assert batch.labels is not None  # of drawn pictures
                drawn = resample_nearest(batch.labels, (GRID, GRID))[batch.valid]
                total += self.count(drawn, maps[batch.valid][:, self._order])
                task.advance(len(drawn))
        return total

    def count(
        self,
        drawn: Int32[np.ndarray, "batch 4 grid grid"],
        found: Int[np.ndarray, "batch 3 grid grid"],
    ) -> Int64[np.ndarray, "3 3 number"]:
        """Counts pixels drawn, found and both, by category and the segmenter's number.

        Args:
          drawn: label maps in the world's numbers, colors last.
          found: objects, parts and materials in the segmenter's numbers.
        """
        table = channels()
        has_parts = table.part[table.object[drawn[:, 0]], 0] != NO_OWNER
        drawn = self._number_of[drawn]
        counts = []
        for row, category in enumerate(CATEGORIES):
            counted = has_parts if category == "part" else drawn[:, row] > 0
            truth, guess = drawn[:, row][counted], found[:, row][counted]
            both = truth[truth == guess]
            counts.append([self._histogram(a) for a in (truth, guess, both)])
        return np.array(counts).transpose(1, 0, 2)

    def _histogram(self, numbers: np.ndarray) -> np.ndarray:
        found = np.bincount(numbers, minlength=self._numbers)
        found[0] = 0
        return found
