"""Label maps in PyTorch: UPerNet, the colour network, and netdissect's rules for both.

From published files; networks are `converters.twins`. Two forms: 'faithful' is the
original's structure, an image at a time, every softmax computed, networks as stored;
'best' takes batches in channels_last with batch normalization folded, and leaves out
softmaxes that no argmax needs. Components are found by SciPy on the CPU, image by
image, in both: PyTorch has no operation for it.
"""

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from jdissect.converters.published import locate
from jdissect.converters.twins.ppm import PPM
from jdissect.converters.twins.upernet import UPerNet
from scipy import ndimage
from torch.nn import functional

from benchmarks.pytorch.models import load, quick
from jdissect.models import segmenter_labels
from jdissect.segmenters.parsing import MEANS

GRID, SIDE = 56, 256
FORMS = ("faithful", "best")


class TorchSegmenter:
    """UPerNet and colours on PyTorch.

    Args:
      upernet, color: folders of the published files.
      form: of FORMS.
      device: where the networks run.
      dtype: type of the networks under autocast, 'float32' or 'bfloat16'.
      compile: whether to torch.compile the networks.
      batch_size: images a call, of 'best'.

    Attributes:
      concepts: (name, category) by number.
    """

    def __init__(
        self,
        upernet: Path,
        color: Path,
        form: str,
        device: str = "cpu",
        dtype: str = "float32",
        compile: bool = False,
        batch_size: int = 4,
    ):
        self.form, self._device, self._size = form, device, batch_size
        self._dtype, self._compile = getattr(torch, dtype), compile
        files = locate(str(upernet), None, 40)
        self._labels = segmenter_labels.read_upernet(
            json.loads(files.labels.read_bytes())
        )
        channels = self._labels.channels
        self._upernet = self._ready(UPerNet(**channels), files, compile)
        files = locate(str(color), None, 20)
        self._colors = segmenter_labels.read_color(
            json.loads(files.labels.read_bytes())
        )
        network = PPM(classes=len(self._colors.labels))
        self._ppm = self._ready(network, files, compile)
        self._numbers = segmenter_labels.upernet_concepts(self._labels, True)
        self.concepts = segmenter_labels.merged_concepts(
            self._numbers.concepts, self._colors
        )

    def _ready(self, network, files, compile):
        load(network.encoder, files.encoder)
        load(network.decoder, files.decoder)
        network = network.eval().to(self._device)
        if self.form == "best":
            network = quick(network, compile)
        return network

    def __call__(
        self, images: UInt8[np.ndarray, "image height width 3"]
    ) -> Int[np.ndarray, "image 6 56 56"]:
        """Label maps: objects, materials, parts, quarters twice, colours."""
        size = 1 if self.form == "faithful" else self._size
        parts = [images[i : i + size] for i in range(0, len(images), size)]
        # Compiled graphs hold constants, which guards want as outside inference mode.
        with torch.no_grad() if self._compile else torch.inference_mode():
            return np.concatenate([self._maps(part) for part in parts])

    def _maps(self, images):
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
        autocast = torch.autocast(
            pixels.device.type, self._dtype, enabled=self._dtype != torch.float32
        )
        with autocast:
            scores = self._upernet(self._prepared(_bgr(pixels)))
            color = self._color(pixels)
        scores = {name: each.float() for name, each in scores.items()}
        if self.form == "faithful":
            scores["object"] = scores["object"].softmax(1)
            scores["material"] = scores["material"].softmax(1)
        objects = scores["object"].argmax(1)
        material = scores["material"].argmax(1)
        offset = self._numbers.material_offset
        maps = [
            objects,
            torch.where(material > 0, material + offset, 0),
            self._parts(objects, scores["part"]),
        ]
        shown = objects.cpu().numpy()
        both = np.stack([quarters(one, len(self._labels.objects) - 1) for one in shown])
        found = [one.cpu().numpy() for one in (*maps, color)]
        return np.stack([*found[:3], both[:, 0], both[:, 1], found[3]], 1).astype("i2")

    def _prepared(self, images):
        images = functional.adaptive_avg_pool2d(images, SIDE)
        if self.form == "best":
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _parts(self, objects, scores):
        parts, first = torch.zeros_like(objects), 0
        groups = zip(self._labels.object_parts, self._numbers.part_numbers, strict=True)
        shown = set(objects.unique().tolist())
        for (owner, names), numbers in groups:
            group = scores[:, first : first + len(names)]
            first += len(names)
            if self.form == "faithful":
                group = group.softmax(1)
            elif owner not in shown:
                continue
            here = objects == owner
            table = torch.tensor(numbers, device=parts.device)
            parts = torch.where(here, table[group.argmax(1)], parts)
        return parts

    def _color(self, pixels):
        labels = self._colors
        total, first = 0, len(self._numbers.concepts)
        images = pixels if labels.byteorder == "RGB" else pixels.flip(1)
        shape = (1, 3, 1, 1)
        mean = torch.tensor(labels.mean, device=pixels.device).view(shape)
        stdev = torch.tensor(labels.stdev, device=pixels.device).view(shape)
        for side in labels.segsizes:
            some = functional.adaptive_avg_pool2d(images, side) / 255
            some = (some - mean) / stdev
            if self.form == "best":
                some = some.contiguous(memory_format=torch.channels_last)
            scores = self._ppm(some)["color"].float()
            if self.form == "faithful" or len(labels.segsizes) > 1:
                scores = scores.softmax(1).softmax(1)  # one category: all classes
            total = total + scores
        _, numbers = segmenter_labels.color_concepts(labels)
        table = torch.tensor([first + n for n in numbers], device=pixels.device)
        return table[total.argmax(1)]


def _bgr(pixels: torch.Tensor) -> torch.Tensor:
    means = torch.tensor(MEANS, device=pixels.device).view(1, 3, 1, 1)
    return pixels.flip(1) - means


def quarters(
    objects: Int[np.ndarray, "height width"], count: int
) -> Int[np.ndarray, "2 height width"]:
    """Tops and bottoms, lefts and rights of all components but the last.

    A component's bounding box is split at its middle.
    """
    found = np.zeros((2, *objects.shape), objects.dtype)
    components = []
    for number in np.unique(objects[objects > 0]):
        labels, _ = ndimage.label(objects == number, np.ones((3, 3)))
        for index, box in enumerate(ndimage.find_objects(labels), 1):
            here = labels[box] == index
            row = box[0].start
            column = box[1].start + int(here[0].argmax())
            components.append((row, column, number, box, here))
    components.sort(key=lambda one: one[:2])
    for *_, number, box, here in components[:-1]:
        height, width = here.shape
        # Rows below (top + bottom + 1) // 2, counted from the top.
        top = (2 * box[0].start + height) // 2 - box[0].start
        left = (2 * box[1].start + width) // 2 - box[1].start
        rows = np.where(np.arange(height)[:, None] < top, count, 3 * count)
        columns = np.where(np.arange(width) < left, 2 * count, 4 * count)
        found[0][box] = np.where(here, number + rows, found[0][box])
        found[1][box] = np.where(here, number + columns, found[1][box])
    return found
