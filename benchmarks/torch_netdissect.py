"""Network Dissection in PyTorch, whole, in two forms.

    python -m benchmarks.torch_netdissect --form=best --resnet=model_best.pth.tar \
        --upernet=upp-resnet50-upernet --color=color-resnet18dilated-ppm_deepsup \
        --images=FOLDER

'faithful' has the structure of netdissect 2020: three forward passes a network (for
quantiles in batches of 10, for top images, for tallies one image at a time), sampled
running quantiles, a loop over the concepts of every image, a layer a run, and images
segmented again for every network.

'best' is what one would write in PyTorch today: one forward pass in batches whose
features are kept, batch normalization folded, channels_last, exact quantiles from the
pixels above a bound that the first images give, one-hot label planes times masks by
matrix products, all layers at once, label maps shared by networks.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from benchmarks.running_quantile import RunningQuantile
from benchmarks.torch_models import bilinear, load_resnet, quick
from benchmarks.torch_segmenter import FORMS, GRID, TorchSegmenter
from jdissect.concepts import Concepts, columns
from jdissect.data.images import decode_cropped
from jdissect.models.preprocess import IMAGENET

TOP = 5  # images a unit


@dataclasses.dataclass(frozen=True)
class Found:
    """What a dissection of a layer comes to.

    Attributes:
      thresholds: T_k.
      intersection, union: pixels, by the columns that jdissect has.
    """

    thresholds: Float[np.ndarray, "unit"]
    intersection: Int[np.ndarray, "unit concept"]
    union: Int[np.ndarray, "unit concept"]

    @property
    def iou(self) -> Float[np.ndarray, "unit concept"]:
        return self.intersection / np.maximum(self.union, 1)


def decode(files: Sequence[Path], form: str, workers: int = 2) -> np.ndarray:
    """Pixels uint8[image, 224, 224, 3]: resized to 256x256 and cropped."""
    if form == "faithful":
        return np.stack([_decoded(file) for file in files])
    with ThreadPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(_decoded, files)))


def _decoded(file: Path) -> np.ndarray:
    return decode_cropped(str(file), file.name)


class Classifier:
    """A network's feature maps; `form` as above."""

    def __init__(self, network, form, device="cpu", dtype="float32", compile=False):
        self.form, self.device = form, device
        self._dtype = getattr(torch, dtype)
        network = network.eval().to(device)
        self._network = quick(network, compile) if form == "best" else network

    def __call__(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        """{layer: float32[image, unit, height, width]} of uint8 images."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        shape = (1, 3, 1, 1)
        mean = torch.tensor(IMAGENET.mean, device=self.device).view(shape)
        std = torch.tensor(IMAGENET.std, device=self.device).view(shape)
        pixels = (pixels.float() * IMAGENET.scale - mean) / std
        if self.form == "best":
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        cast = self._dtype != torch.float32
        with torch.autocast(pixels.device.type, self._dtype, enabled=cast):
            return {
                name: maps.float() for name, maps in self._network(pixels)[1].items()
            }


def upsampled(maps: torch.Tensor, grid: int = GRID) -> torch.Tensor:
    """[image, unit, h, w] to [image, grid * grid, unit], zeros outside the maps."""
    rows = bilinear(maps.shape[2], grid).to(maps.device)
    across = bilinear(maps.shape[3], grid).to(maps.device)
    images, units, height, width = maps.shape
    maps = maps.permute(0, 2, 3, 1).contiguous()  # free of charge in channels_last
    maps = torch.matmul(across, maps.view(images * height, width, units))
    maps = torch.matmul(rows, maps.view(images, height, grid * units))
    return maps.view(images, grid * grid, units)


def faithful(
    network: Classifier,
    images: np.ndarray,
    segmenter,
    layer: str,
    quantile: float = 0.01,
) -> Found:
    """As the original goes about it; see above.

    Args:
      network: of the form 'faithful'.
      images: uint8[image, height, width, 3].
      segmenter: a function from images to label maps.
      layer: to be dissected.
      quantile: share of pixels above T_k.
    """
    count = len(segmenter.concepts)
    with torch.inference_mode():
        running = None
        for start in range(0, len(images), 10):
            pixels = upsampled(network(images[start : start + 10])[layer]).flatten(0, 1)
            running = running or RunningQuantile(pixels.shape[1], device=network.device)
            running.add(pixels)
        levels = running.quantile(1 - quantile)
        best = []
        for start in range(0, len(images), 10):
            best.append(network(images[start : start + 10])[layer].amax((2, 3)))
        best = torch.cat(best)
        best.topk(min(TOP, len(best)), 0)
        units = len(levels)
        inside = torch.zeros(count, units, dtype=torch.float64, device=network.device)
        area = torch.zeros(count, dtype=torch.int64)
        fires = torch.zeros(units, dtype=torch.float64, device=network.device)
        for number in range(len(images)):
            one = images[number : number + 1]
            labels = torch.from_numpy(segmenter(one)[0].reshape(6, -1).astype("i8"))
            on = (upsampled(network(one)[layer])[0] > levels).float()
            fires += on.sum(0)
            for concept in labels.unique().tolist():
                if not concept:
                    continue
                here = (labels == concept).any(0)
                area[concept] += int(here.sum())
                inside[concept] += on[here.to(on.device)].sum(0)
    return _found(levels, inside, area, fires, segmenter.concepts)


def best(
    network: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    concepts: Concepts,
    layers: Sequence[str],
    quantile: float = 0.01,
    batch_size: int = 16,
) -> dict[str, Found]:
    """As one would go about it today; see above.

    Args:
      network: of the form 'best'.
      images: uint8[image, height, width, 3].
      labels: concept numbers [image, map, 56, 56].
      concepts: (name, category) by number.
      layers: to be dissected.
      quantile: share of pixels above T_k.
      batch_size: images a forward pass.
    """
    with torch.inference_mode():
        kept = {layer: [] for layer in layers}
        for start in range(0, len(images), batch_size):
            maps = network(images[start : start + batch_size])
            for layer in layers:
                kept[layer].append(maps[layer])
        found = {}
        for layer in layers:
            torch.cat([m.amax((2, 3)) for m in kept[layer]]).topk(
                min(TOP, len(images)), 0
            )
            levels = exact_levels(kept[layer], quantile)
            found[layer] = _tally(kept[layer], levels, labels, concepts)
    return found


def exact_levels(batches: Sequence[torch.Tensor], quantile: float) -> torch.Tensor:
    """The exact T_k: only pixels above a bound, which the first images give, count.

    Where the bound was too high for a unit, that unit is done again with all pixels.
    """
    total = sum(len(maps) for maps in batches) * GRID**2
    allowed = int(quantile * total)
    first = upsampled(batches[0][:4]).flatten(0, 1)
    share = min(1.0, 3 * quantile)
    bound = first.kthvalue(max(1, round((1 - share) * len(first))), 0).values
    values, units = [], []
    for maps in batches:
        for one in maps:
            pixels = upsampled(one[None])[0]
            place = (pixels > bound).flatten().nonzero()[:, 0]
            values.append(pixels.flatten()[place])
            units.append(place % len(bound))
    values, units = torch.cat(values), torch.cat(units)
    count = torch.bincount(units, minlength=len(bound))
    order = values.argsort(descending=True)
    order = order[units[order].argsort(stable=True)]  # by unit, then falling
    start = count.cumsum(0) - count
    enough = count > allowed
    levels = values[order[(start + allowed).clamp(max=len(order) - 1)]]
    for unit in (~enough).nonzero()[:, 0].tolist():
        pixels = torch.cat(
            [upsampled(m[:, unit : unit + 1]).flatten() for m in batches]
        )
        levels[unit] = pixels.sort(descending=True).values[allowed]
    return levels


def _tally(batches, levels, labels, concepts) -> Found:
    count, device = len(concepts), levels.device
    inside = torch.zeros(count, len(levels), device=device)
    area = torch.zeros(count, dtype=torch.int64)
    fires = torch.zeros(len(levels), device=device)
    place = 0
    for maps in batches:
        for one in maps:
            here = torch.from_numpy(
                labels[place].reshape(labels.shape[1], -1).astype("i8")
            )
            place += 1
            present = here.unique()
            present = present[present > 0]
            planes = (here[None] == present[:, None, None]).any(1).float()
            on = (upsampled(one[None])[0] > levels).float()
            # Counts below 2^24 are exact in float32.
            inside[present] += planes.to(device) @ on
            area[present] += planes.sum(1).long()
            fires += on.sum(0)
    return _found(levels, inside.double(), area, fires.double(), concepts)


def _found(levels, inside, area, fires, concepts) -> Found:
    wanted = columns(concepts)
    inside = inside.cpu().numpy()[wanted].T.round().astype(np.int64)
    union = (
        fires.cpu().numpy().astype(np.int64)[:, None] + area.numpy()[wanted] - inside
    )
    return Found(levels.cpu().numpy(), inside, union)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("resnet", "upernet", "color", "images"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--form", choices=FORMS, default="best")
    parser.add_argument("--layers", default="layer4")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    files = sorted(p for p in options.images.rglob("*") if p.is_file())[: options.count]
    setting = (options.form, options.device, options.dtype, options.compile)
    segmenter = TorchSegmenter(options.upernet, options.color, *setting)
    network = Classifier(load_resnet(options.resnet), *setting)
    start = time.perf_counter()
    images = decode(files, options.form)
    layers = options.layers.split(",")
    if options.form == "faithful":
        found = {name: faithful(network, images, segmenter, name) for name in layers}
    else:
        labels = segmenter(images)
        found = best(network, images, labels, segmenter.concepts, layers)
    spent = time.perf_counter() - start
    _show(found, segmenter.concepts, spent / len(images))


def _show(found: Mapping[str, Found], concepts: Concepts, seconds: float) -> None:
    for layer, result in found.items():
        top = result.iou.argmax(1)
        detects = result.iou.max(1) > 0.04
        unique = len(np.unique(top[detects]))
        print(f"{layer}: {detects.sum()} detectors, {unique} unique concepts")
    print(f"{1e3 * seconds:.0f} ms an image")


if __name__ == "__main__":
    main()
