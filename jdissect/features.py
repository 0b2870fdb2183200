"""Feature maps of all images: from the network, or kept from its first run.

The network runs once an image where its features can be kept; else every pass runs it
again. Either way a pass sees the same records in the same order.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jdissect.errors import UserError
from jdissect.ops import blocks
from jdissect.parallel import Devices


@dataclasses.dataclass(frozen=True)
class Images:
    """One batch as a pass reads it; the leading axis is batch_size x devices.

    Attributes:
      index: int32, each image's number; -1 where padded.
      valid: bool, whether the image counts.
      pixels: whatever the network takes.
      labels: int[image, map, height, width], concept numbers, 0 for nothing; or a
        function that gives them, called if a pass needs them.
      annotated: bool[image, category], or None: every image counts for all.
    """

    index: np.ndarray
    valid: np.ndarray
    pixels: Any
    labels: np.ndarray | Callable[[], np.ndarray]
    annotated: np.ndarray | None = None


# Given None, all batches; given image numbers, batches of those.
Read = Callable[[Sequence[int] | None], Iterable[Images]]


@dataclasses.dataclass(frozen=True)
class Record:
    """What of a batch the passes after the network need: as `Images`, and

    Attributes:
      features: {layer: [image, height, width, unit]}.
      labels: gives the label maps, in 16 bits if their numbers allow.
    """

    index: np.ndarray
    valid: np.ndarray
    features: dict[str, Any]
    labels: Callable[[], np.ndarray]
    annotated: np.ndarray | None


class Features:
    """Records of all images, as often as they are wanted.

    Args:
      apply: (params, pixels) -> {layer: [image, height, width, unit]}, pure.
      params: a pytree of arrays.
      layers: those wanted.
      devices: where the network runs.
      read: reads the images. Unless features are kept, it is called for every pass.
      keep: keep the features.

    Attributes (known after the first record):
      units: {layer: its number of units}.
      geometry: {layer: `blocks.Geometry`}.
      mask_pixels: pixels of the mask grid.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], dict[str, jax.Array]],
        params: Any,
        layers: Sequence[str],
        devices: Devices,
        read: Read,
        keep: bool,
    ):
        self._devices, self._read = devices, read
        self._params = devices.replicate(params)
        self._kept: list[Record] | None = None
        self._keep = keep
        self.units: dict[str, int] = {}
        self.geometry: dict[str, blocks.Geometry] = {}
        self.mask_pixels = 0

        def forward(state, batch, params):
            del state
            features = apply(params, batch)
            missing = [name for name in layers if name not in features]
            if missing:
                raise UserError(
                    f"no layer '{missing[0]}'; there are: {', '.join(features)}"
                )
            return {name: features[name] for name in layers}

        self._forward = devices.spmd(forward)

    def first(self) -> Iterator[Record]:
        """All records from the network; keeps them, if that is wanted."""
        kept = [] if self._keep else None
        for record in self._run(None):
            yield record
            if kept is not None:
                maps = {n: np.asarray(maps) for n, maps in record.features.items()}
                labels = functools.partial(np.asarray, record.labels())
                kept.append(dataclasses.replace(record, features=maps, labels=labels))
        self._kept = kept

    def again(self) -> Iterable[Record]:
        """All records once more."""
        return self._run(None) if self._kept is None else self._kept

    def holding(self, indices: Sequence[int]) -> Iterable[Record]:
        """Records that hold the given images, and perhaps others."""
        return self._run(indices) if self._kept is None else self._kept

    def _run(self, indices):
        for images in self._read(indices):
            features = self._forward(
                self._devices.states(np.zeros(())),
                self._devices.scatter(images.pixels),
                self._params,
            )
            features = {
                name: maps.reshape(-1, *maps.shape[2:])
                for name, maps in features.items()
            }
            labels = functools.cache(functools.partial(_labels, images.labels))
            self._note_shapes(features, labels)
            yield Record(
                index=np.asarray(images.index, np.int32),
                valid=np.asarray(images.valid, bool),
                features=features,
                labels=labels,
                annotated=images.annotated,
            )

    def _note_shapes(self, features, labels):
        for name, maps in features.items():
            if maps.ndim != 4:
                raise UserError(
                    f"layer '{name}' has shape {maps.shape}; a feature map is "
                    "[batch, height, width, units]"
                )
        if self.geometry:
            return
        shape = labels().shape[2:]
        self.mask_pixels = shape[0] * shape[1]
        self.units = {name: maps.shape[-1] for name, maps in features.items()}
        self.geometry = {
            name: blocks.plan(tuple(maps.shape[1:3]), shape)
            for name, maps in features.items()
        }


def _labels(labels: np.ndarray | Callable[[], np.ndarray]) -> np.ndarray:
    """Labels in 16 bits if their numbers allow; they are kept beside the features."""
    labels = np.asarray(labels() if callable(labels) else labels)
    if labels.size and labels.max() > np.iinfo(np.int16).max:
        return labels.astype(np.int32)
    return labels.astype(np.int16)
