"""Network Dissection in PyTorch, whole, in two forms.

    python -m benchmarks.pytorch.netdissect --form=best --resnet=model_best.pth.tar \
        --upernet=upp-resnet50-upernet --color=color-resnet18dilated-ppm_deepsup \
        --images=FOLDER

'faithful' has the structure of netdissect 2020: three forward passes a network (for
quantiles in batches of 10, for top images, for tallies one image at a time), sampled
running quantiles, a loop over the concepts of every image, a layer a run, and images
segmented again for every network.

'best' is what one would write in PyTorch today: one forward pass in batches whose
features are kept, batch normalization folded, channels_last, exact quantiles and
counts from the few pixels above a bound (`exact_counts`), all layers at once, label
maps shared by networks.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional

from benchmarks.pytorch import exact_counts
from benchmarks.pytorch.exact_counts import GRID, Clock
from benchmarks.pytorch.models import load_resnet, quick
from benchmarks.pytorch.running_quantile import RunningQuantile
from benchmarks.pytorch.segmenter import TorchSegmenter
from benchmarks.support.options import parse
from jdissect.base.concepts import Concepts, columns
from jdissect.data.images import decode_cropped
from jdissect.models.endpoints import check_endpoints
from jdissect.models.preprocess import IMAGENET
from jdissect.models.resnet import ResNet
from jdissect.runtime import command_line

TOP = 5  # images a unit

OPTIONS = {
    "resnet": ("", "Published file of a ResNet-50."),
    "upernet": ("", "Folder of the published UPerNet."),
    "color": ("", "Folder of the published colour network."),
    "images": ("", "Folder of photographs."),
    "form": (("best", "faithful"), "How it is written."),
    "layers": ("layer4", "Layers to dissect, with commas between."),
    "count": (8, "Images, the first ones."),
    "device": (("cpu", "cuda"), "Where it runs."),
    "dtype": (("float32", "bfloat16"), "Of networks."),
    "compile": (False, "torch.compile the best form."),
}


@dataclasses.dataclass(frozen=True)
class Found:
    """What a dissection of a layer comes to.

    Attributes:
      thresholds: T_k.
      intersection, union: pixels, by the columns that jdissect has.
    """

    thresholds: Float[np.ndarray, " unit"]
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


def upsampled(
    maps: Float[torch.Tensor, "image unit height width"], grid: int = GRID
) -> Float[torch.Tensor, "image pixel unit"]:
    """As the original enlarges: sampled at a grid of places, zeros outside the maps."""
    images, units, height, width = maps.shape
    centre = (2 * torch.arange(grid, device=maps.device) + 1) / grid - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    # A map is constant along an axis where it has one pixel.
    x, y = x * (width > 1), y * (height > 1)
    maps = functional.grid_sample(
        maps,
        torch.stack([x, y], -1).expand(images, -1, -1, -1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return maps.permute(0, 2, 3, 1).reshape(images, grid * grid, units)


def faithful(
    network: Classifier,
    images: np.ndarray,
    segmenter,
    layer: str,
    quantile: float = 0.01,
    clock: Clock | None = None,
) -> Found:
    """As the original goes about it; see above.

    Args:
      network: network of the form 'faithful'.
      images: uint8[image, height, width, 3].
      segmenter: a function from images to label maps.
      layer: to be dissected.
      quantile: share of pixels above T_k.
      clock: takes the time of the stages.
    """
    clock = clock or Clock(network.device)
    count = len(segmenter.concepts)
    with torch.inference_mode():
        running = None
        for start in range(0, len(images), 10):
            with clock("forward for quantiles"):
                maps = network(images[start : start + 10])[layer]
            with clock("quantiles"):
                pixels = upsampled(maps).flatten(0, 1)
                units = pixels.shape[1]
                running = running or RunningQuantile(units, device=network.device)
                running.add(pixels)
        with clock("quantiles"):
            levels = running.quantile(1 - quantile)
        with clock("top images"):
            top = []
            for start in range(0, len(images), 10):
                top.append(network(images[start : start + 10])[layer].amax((2, 3)))
            top = torch.cat(top)
            top.topk(min(TOP, len(top)), 0)
        inside = torch.zeros(count, units, dtype=torch.float64, device=network.device)
        area = torch.zeros(count, dtype=torch.int64)
        fires = torch.zeros(units, dtype=torch.float64, device=network.device)
        for number in range(len(images)):
            one = images[number : number + 1]
            with clock("segmentation"):
                labels = torch.from_numpy(segmenter(one)[0].reshape(6, -1).astype("i8"))
            with clock("forward for tallies"):
                maps = network(one)[layer]
            with clock("tallies"):
                on = (upsampled(maps)[0] > levels).float()
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
    clock: Clock | None = None,
) -> dict[str, Found]:
    """As one would go about it today; see above.

    Args:
      network: network of the form 'best'.
      images: uint8[image, height, width, 3].
      labels: concept numbers [image, map, 56, 56].
      concepts: (name, category) by number.
      layers: to be dissected.
      quantile: share of pixels above T_k.
      batch_size: images a forward pass.
      clock: takes the time of the stages.
    """
    clock = clock or Clock(network.device)
    found, kept = {}, {layer: [] for layer in layers}
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            with clock("forward"):
                maps = network(images[start : start + batch_size])
            for layer in layers:
                kept[layer].append(maps[layer])
        with clock("counts"):
            below = exact_counts.under(labels, network.device)
            area = torch.bincount(below.flatten().long(), minlength=len(concepts))
        for layer in layers:
            with clock("top images"):
                maps = exact_counts.together(kept.pop(layer))
                maps.amax((2, 3)).topk(min(TOP, len(images)), 1)
            with clock("counts"):
                levels, inside, fires = exact_counts.count(
                    maps, below, len(concepts), quantile
                )
                found[layer] = _found(levels, inside, area, fires, concepts)
    return found


def _found(levels, inside, area, fires, concepts) -> Found:
    wanted = columns(concepts)
    inside = inside.cpu().numpy()[wanted].T.astype(np.int64)
    union = (
        fires.cpu().numpy().astype(np.int64)[:, None]
        + area.cpu().numpy()[wanted]
        - inside
    )
    return Found(levels.cpu().numpy(), inside, union)


def main(argv: list[str]) -> int:
    """Runs a form and prints what it found and how long each stage took."""
    required = ("resnet", "upernet", "color", "images")
    options = parse(argv, "pytorch.netdissect", OPTIONS, paths=required)
    layers = check_endpoints(options.layers.split(","), ResNet.stage_names)
    files = sorted(p for p in Path(options.images).rglob("*") if p.is_file())
    files = files[: options.count]
    setting = (options.form, options.device, options.dtype, options.compile)
    segmenter = TorchSegmenter(Path(options.upernet), Path(options.color), *setting)
    network = Classifier(load_resnet(Path(options.resnet)), *setting)
    for _ in range(2):  # the first warms up
        clock = Clock(options.device)
        found = _run(options.form, layers, network, segmenter, files, clock)
    _show(found, segmenter.concepts, clock.seconds, len(files))
    return 0


def _run(form, layers, network, segmenter, files, clock) -> dict[str, Found]:
    with clock("decoding"):
        images = decode(files, form)
    if form == "faithful":
        return {
            name: faithful(network, images, segmenter, name, clock=clock)
            for name in layers
        }
    with clock("segmentation"):
        labels = segmenter(images)
    return best(network, images, labels, segmenter.concepts, layers, clock=clock)


def _show(
    found: Mapping[str, Found], concepts: Concepts, seconds: Mapping, images: int
) -> None:
    names = np.array([concepts[n][0] for n in columns(concepts)])
    for layer, result in found.items():
        detects = result.iou.max(1) > 0.04
        unique = len(set(names[result.iou.argmax(1)[detects]]))
        print(f"{layer}: {detects.sum()} detectors, {unique} unique concepts")
    for stage, spent in seconds.items():
        print(f"{stage:22s} {1e3 * spent / images:9.1f} ms/image")
    print(f"{'all':22s} {1e3 * sum(seconds.values()) / images:9.1f} ms/image")


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
