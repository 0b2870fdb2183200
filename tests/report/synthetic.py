"""Runs that were never run, of any size, and sources of pictures drawn from noise."""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from jdissect.datasets import Example, UnreadableImage
from jdissect.results.layer_result import Result

CATEGORIES = ("object", "part", "material", "color", "scene")
# Names that would do harm, were they not shown as text.
HOSTILE = (
    "</script><script>window.flag = 1</script>",
    "<img src=x onerror='window.flag = 2'>",
    "\"quotes' & `${window.flag = 3}`",
    "{{ 7 * 7 }}{% raw %}",
    '=HYPERLINK("javascript:window.flag = 4")',
    "<!-- <script>",
)


@dataclasses.dataclass(frozen=True)
class NoiseSource:
    """Photographs without a camera: large soft spots and some grain.

    Attributes:
      count: of images.
      side: pixels.
      unreadable: images that are corrupt.
    """

    count: int
    side: int = 112
    unreadable: tuple[int, ...] = ()
    annotations: None = None

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"photographs/{index:05d}.jpg" for index in range(self.count))

    @property
    def image_shape(self) -> tuple[int, int]:
        return (self.side, self.side)

    def content_hashes(self, cache_dir=None, only=slice(None)):
        texts = [f"{self.side} {name}" for name in self.names[only]]
        return tuple(hashlib.sha256(text.encode()).hexdigest() for text in texts)

    def read(self, index: int) -> Example:
        if index in self.unreadable:
            raise UnreadableImage(self.names[index], "truncated")
        rng = np.random.default_rng(index)
        spots = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        size = (self.side, self.side)
        soft = np.asarray(Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC))
        grain = rng.integers(-14, 15, (self.side, self.side, 1), dtype=np.int16)
        pixels = np.clip(soft + grain, 0, 255).astype(np.uint8)
        return Example(pixels, None, None)


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticRun:
    """What a page asks of a `finished_run.StoredRun`."""

    folder: pathlib.Path
    results: dict[str, Result]
    names: tuple[str, ...]
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: frozenset[int] = frozenset()
    hashes: tuple[str, ...] = ()
    by_itself: bool = False

    @property
    def path(self) -> pathlib.Path:
        return self.folder

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.results)

    @property
    def images(self) -> int:
        return len(self.names)

    def result(self, layer: str) -> Result:
        return self.results[layer]

    def settings(self):
        import ml_collections

        return ml_collections.ConfigDict(self.config)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """As `uncertainty.Estimate`."""

    count: int
    expected: tuple[float, float]
    cross_fitted: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimates:
    """As `uncertainty.LayerEstimates`."""

    counts: dict[float, dict[str, Estimate]]
    stability: np.ndarray


def make_estimates(result: Result) -> Estimates:
    """Intervals of two to each side."""
    counts = {
        t: {
            name: Estimate(n, (n - 2.0, n + 2.0), n - 0.5, (n - 1.5, n + 0.5))
            for name, n in result.unique_concepts(t).items()
        }
        for t in result.iou_thresholds
    }
    stability = np.linspace(0, 1, len(result.thresholds), dtype=np.float32)
    return Estimates(counts, np.where(result.fires > 0, stability, np.nan))


def make_result(
    units: int = 60,
    concepts: int = 40,
    images: int = 50,
    *,
    k: int = 5,
    seed: int = 0,
    names: tuple[str, ...] = (),
    distinct: bool = False,
    layer: str = "layer4",
) -> Result:
    """A layer whose units detect concepts of a few categories.

    Args:
      names: of the first concepts; the others have numbers.
      distinct: no image is a top image twice.
    """
    rng = np.random.default_rng(seed)
    pixels = images * 56 * 56
    fires = np.full(units, pixels // 100)
    fires[-1] = 0  # one never fires
    areas = rng.integers(pixels // 400, pixels // 10, concepts)
    share = rng.random((units, concepts), np.float32) ** 12 * 0.2
    own = rng.integers(0, concepts, units)
    share[np.arange(units), own] = 0.02 + 0.5 * rng.random(units) ** 2
    intersection = (share * np.minimum(fires[:, None], areas)).astype(np.int64)
    maps = rng.normal(size=(units, k, 7, 7)).astype(np.float32)
    if distinct:
        top = rng.permutation(images)[: units * k].reshape(units, k)
    else:
        top = np.stack([rng.permutation(images)[:k] for _ in range(units)])
    edges = np.sort(rng.normal(size=(units, 42)).astype(np.float32), axis=1)
    edges[:, 0], edges[:, 1] = 0, np.finfo(np.float32).tiny
    edges[:, 2:] = np.cumsum(np.abs(edges[:, 2:]) + 0.01, axis=1)
    shown = [*names, *(f"thing {n}" for n in range(len(names), concepts))][:concepts]
    return Result(
        thresholds=rng.uniform(0.3, 1.0, units).astype(np.float32),
        intersection=intersection,
        union=fires[:, None] + areas - intersection,
        fires=fires,
        concepts=tuple(shown),
        categories=tuple(CATEGORIES[n % len(CATEGORIES)] for n in range(concepts)),
        top_value=-np.sort(-rng.gamma(3, size=(units, k)), axis=1).astype(np.float32),
        top_image=top.astype(np.int32),
        histogram_counts=rng.integers(0, 10_000, (units, 41)),
        histogram_edges=edges,
        images=images,
        quantile=0.01,
        model="resnet50",
        layer=layer,
        mask_shape=(56, 56),
        top_map=maps,
    )


def make_run(folder, result: Result | dict[str, Result], images: int = 50):
    """(run, source) of a layer, or of several."""
    results = result if isinstance(result, dict) else {result.layer: result}
    source = NoiseSource(images)
    config = {
        "model": {"name": "resnet50", "weights": "weights/resnet50"},
        "data": {"source": "folder", "path": "photographs", "num_images": 0},
        "segmenter": {"name": "upernet"},
        "quantile": 0.01,
    }
    folder.mkdir(parents=True, exist_ok=True)
    hashes = source.content_hashes()
    run = SyntheticRun(folder, results, source.names, config, hashes=hashes)
    return run, source
