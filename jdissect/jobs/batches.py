"""Provides the batches that a dissection reads, and the network that runs on them."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jdissect import models
from jdissect.base.progress import Progress
from jdissect.checkpoints import networks
from jdissect.data import loader
from jdissect.data.source import Subset, share
from jdissect.dissection.features import Images
from jdissect.models.preprocess import normalize
from jdissect.runtime.processes import Processes


def network_of(
    model: networks.Classifier, layers: tuple[str, ...], dtype: str
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """Returns (params, uint8 pixels) -> {layer: feature maps} for a dissection.

    A generator's takes float32 latents in place of pixels.
    """

    def apply(params, pixels):
        if model.latent:
            return model.apply(params, pixels.astype(dtype), layers)[1]
        images = normalize(pixels, model.preprocessing, dtype)
        return model.apply(params, images, layers)[1]

    return models.by_parts(apply)


def feature_shapes(
    network: Callable, params: Any, image_shape: tuple[int, int], latent: int = 0
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of one image's feature maps; nothing runs.

    Args:
      network: what `network_of` gives.
      params: its parameters.
      image_shape: (height, width) of an image.
      latent: numbers of a generator's input; 0: it takes images.

    Returns:
      {layer: [1, height, width, unit]}.
    """
    pixels = jax.ShapeDtypeStruct((1, *image_shape, 3), np.uint8)
    latents = jax.ShapeDtypeStruct((1, latent), np.float32)
    return jax.eval_shape(network, params, latents if latent else pixels)


def feature_bytes(maps: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of the feature maps that `feature_shapes` gives."""
    return sum(array.size * array.dtype.itemsize for array in maps.values())


class Reader:
    """Reads this process's batches with their label maps; see `features.Read`.

    The network gets their pixels, or the latents of a source of generated images.
    """

    def __init__(
        self,
        source,
        segmenter,
        config,
        devices: int,
        processes: Processes,
        progress: Progress,
    ):
        self._source, self._segmenter, self._progress = source, segmenter, progress
        self._config, self._size = config.data, config.data.batch_size * devices
        self._processes = processes
        self.seconds = 0.0  # spent on label maps

    def read(self, indices=None, start=0, stop=None):
        if indices is None:
            indices = range(start, len(self._source.names) if stop is None else stop)
        mine, steps = share(
            indices, self._size, self._processes.index, self._processes.count
        )
        for batch in loader.batches(
            Subset(self._source, mine),
            self._size,
            workers=self._config.workers,
            strict=self._config.strict,
            at_least=steps,
        ):
            here = batch.index >= 0
            index = np.full(self._size, -1, np.int64)
            index[here] = mine[batch.index[here]]
            batch = dataclasses.replace(batch, index=index.astype(np.int32))
            yield Images(
                index=batch.index,
                valid=batch.valid,
                pixels=self._inputs(batch),
                labels=functools.partial(self._labels, batch),
                annotated=self._segmenter.annotated(batch),
                skipped=tuple((int(mine[i]), why) for i, why in batch.skipped),
            )

    def _inputs(self, batch):
        latents = getattr(self._source, "latents", None)
        return batch.pixels if latents is None else latents(batch.index)

    def _labels(self, batch):
        start = time.perf_counter()
        # The first call may compile a network.
        name = "label maps" if self.seconds else "label maps, compiling"
        with self._progress.stage(name):
            maps = self._segmenter.label_maps(batch)
        self.seconds += time.perf_counter() - start
        return maps
