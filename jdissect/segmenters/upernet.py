"""The segmenter 'upernet': labels any photograph with UPerNet and a color network.

Each image is segmented once: its label maps are cached under a key made of everything
they depend on, and read back for the next network, layer or quantile.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from jdissect.base import identity
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.data.label_maps import resample_nearest
from jdissect.data.loader import Batch
from jdissect.models.upernet import SIDE, STRIDE
from jdissect.runtime.devices import Devices, in_32_bits
from jdissect.segmenters.label_cache import LabelCache
from jdissect.segmenters.parsing import QUARTERS, Parser

GRID = 56  # side of the label maps
KINDS = ("upernet", "upernet_objects", "ppm_objects")
# The code that computes the maps; changing it makes cached maps unreachable.
SOURCES = (
    *("models", "segmenters/parsing"),
    *("ops/accelerated/components", "ops/components", "ops/forms"),
    *("ops/resample", "ops/winograd"),
)


class UPerNetSegmenter:
    """Provides label maps from networks, cached.

    Attributes:
      concepts: (name, category) by number.
      map_names: what each map shows.
      mask_shape: (height, width) of the maps that `label_maps` returns.
    """

    def __init__(
        self,
        upernet: networks.Segmenter,
        color: networks.Segmenter | None,
        *,
        devices: Devices,
        cache: LabelCache,
        hashes: Sequence[str],
        quarters: str = "netdissect",
        batch_size: int = 8,
        mask_size: int = 0,
        dtype: str = "float32",
    ):
        """Prepares the segmenter without computing anything.

        Args:
          upernet, color: the networks; color may be None for no colors.
          devices: devices that run the networks.
          cache: cache of the label maps.
          hashes: content hash of every image, by index.
          quarters: one of `parsing.QUARTERS`.
          batch_size: images per call and device; smaller batches are padded.
          mask_size: side of the mask grid; 0: GRID.
          dtype: type with which the networks were loaded.
        """
        self._networks = (upernet, color)
        self._devices, self._cache, self._hashes = devices, cache, hashes
        self._size = batch_size * len(devices)
        self._parser = Parser(
            upernet.apply,
            upernet.labels,
            color.apply if color else None,
            color.labels if color else None,
            quarters,
            GRID,
            upernet.side,
        )
        self.concepts = self._parser.concepts
        self.map_names = self._parser.map_names
        self.mask_shape = (mask_size or GRID,) * 2
        self._params = None
        self._step = devices.spmd(
            lambda state, batch, params: self._parser(params, *batch)
        )
        self._recipe = identity.digest(
            {
                "networks": self.identity(None),
                "quarters": quarters,
                "grid": GRID,
                "dtype": dtype,
                "batch_size": batch_size,
                "computing": identity.computing(),
                "source": identity.source_hash(SOURCES),
            }
        )

    def identity(self, cache_dir: Path | None) -> dict[str, Any]:
        """Returns the networks' weights, labels and non-default sides, as JSON."""
        del cache_dir
        return {
            name: network
            and {
                "weights": network.weights_sha256,
                "labels": identity.digest(network.labels.to_json()),
                **({} if network.side == SIDE else {"side": network.side}),
            }
            for name, network in zip(("upernet", "color"), self._networks, strict=True)
        }

    def annotated(self, batch: Batch) -> None:
        """Returns None: every image counts for every category."""
        del batch

    def label_maps(
        self, batch: Batch
    ) -> Int16[np.ndarray, "batch maps mask_height mask_width"]:
        """Returns the batch's label maps; zeros for images that are not valid."""
        shape = (len(batch.index), len(self.map_names), GRID, GRID)
        maps = np.zeros(shape, np.int16)
        missing = []
        for place in np.flatnonzero(batch.valid):
            key = self._key(batch, int(place))
            found = self._cache.get(key)
            if found is None or found.shape != shape[1:]:
                missing.append((place, key))
            else:
                maps[place] = found
        for start in range(0, len(missing), self._size):
            some = missing[start : start + self._size]
            places = [place for place, _ in some]
            maps[places] = self._segment(batch.pixels[places])
            for place, key in some:
                self._cache.put(key, maps[place])
        return resample_nearest(maps, self.mask_shape)

    def _key(self, batch: Batch, place: int) -> str:
        """Hashes what an image's maps depend on; its pixels cover the decoding."""
        pixels = hashlib.sha256(
            np.ascontiguousarray(batch.pixels[place]).data
        ).hexdigest()
        shape = list(batch.pixels.shape[1:])
        content = self._hashes[batch.index[place]]
        return identity.digest([self._recipe, content, pixels, shape])

    @in_32_bits
    def _segment(self, pixels: np.ndarray) -> np.ndarray:
        if self._params is None:
            self._params = self._devices.replicate(
                tuple(network and network.params for network in self._networks)
            )
        # Round-robin over the devices, so that a few images are spread as well.
        turns = np.arange(self._size).reshape(-1, len(self._devices)).T.reshape(-1)
        wanted = turns < len(pixels)
        batch = np.zeros((self._size, *pixels.shape[1:]), pixels.dtype)
        batch[wanted] = pixels[turns[wanted]]
        found = self._step(
            self._devices.states(np.zeros(())),
            self._devices.scatter((batch, wanted)),
            self._params,
        )
        found = np.asarray(found).reshape(self._size, *found.shape[2:])
        maps = np.zeros((len(pixels), *found.shape[1:]), found.dtype)
        maps[turns[wanted]] = found[wanted]
        return maps


def open_upernet(
    config: Any,
    image_shape: tuple[int, int],
    hashes: Sequence[str],
    devices: Devices,
    cache: LabelCache,
) -> UPerNetSegmenter:
    """Opens the segmenter of `config.segmenter`.

    Args:
      config: the whole config.
      image_shape: (height, width) of the images.
      hashes, devices, cache: see `UPerNetSegmenter`.

    Raises:
      UserError: a checkpoint is missing or of another kind, a value is unknown, or
        the images are too small.
    """
    options = config.segmenter
    if options.quarters not in QUARTERS:
        raise UserError(
            f"config.segmenter.quarters is {options.quarters!r}; use "
            f"{', '.join(QUARTERS)}"
        )
    if not options.upernet:
        raise UserError(
            "config.segmenter.upernet is not set; convert the published network "
            "(python -m converters.upernet --help) and give its folder"
        )
    if min(image_shape) < STRIDE:
        raise UserError(
            f"the images have {image_shape[0]}x{image_shape[1]} pixels; segmenter "
            f"'upernet' needs at least {STRIDE}x{STRIDE}"
        )
    upernet = networks.load_segmenter(options.upernet, KINDS, dtype=config.dtype)
    color = None
    if options.color:
        color = networks.load_segmenter(options.color, "ppm", dtype=config.dtype)
    return UPerNetSegmenter(
        upernet,
        color,
        devices=devices,
        cache=cache,
        hashes=hashes,
        quarters=options.quarters,
        batch_size=options.batch_size,
        mask_size=config.mask_size,
        dtype=config.dtype,
    )
