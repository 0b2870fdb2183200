"""Collects the feature maps of every unit on its top images.

They let a unit's masks be drawn later without the network: upsampled and cut at T_k
they are exactly the counted masks.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from jdissect.dissection.features import Features
from jdissect.ops import float_keys
from jdissect.runtime.devices import on_accelerator
from jdissect.runtime.processes import Processes

MOST_BYTES = 2**28  # per layer; larger maps are not kept


def grids(
    features: Features, images: Mapping[str, Int[np.ndarray, "unit k"]]
) -> dict[str, tuple[int, ...]]:
    """Returns {layer: (units, k, height, width)} of the layers whose maps are kept."""
    shapes = {
        layer: (*top.shape, rows.size, columns.size)
        for layer, top in images.items()
        for rows, columns in [
            (features.geometry[layer].rows, features.geometry[layer].columns)
        ]
    }
    return {n: shape for n, shape in shapes.items() if 4 * np.prod(shape) <= MOST_BYTES}


def collect(
    features: Features,
    processes: Processes,
    images: Mapping[str, Int[np.ndarray, "unit k"]],
) -> dict[str, Float[np.ndarray, "unit k height width"]]:
    """Returns the maps, canonical float32.

    Args:
      features: records of all images.
      processes: processes that share the images; all of them call this.
      images: {layer: numbers of each unit's top images}.
    """
    # Bits of float32, so that sums leave them unchanged.
    found = {
        layer: np.zeros(shape, np.int64)
        for layer, shape in grids(features, images).items()
    }
    if not found:
        return {}
    places = {layer: _Places(images[layer]) for layer in found}
    wanted = np.unique(np.concatenate([images[layer].reshape(-1) for layer in found]))
    with processes.agreeing():
        for record in features.holding([int(number) for number in wanted]):
            here = np.flatnonzero(record.valid & np.isin(record.index, wanted))
            for layer in found if len(here) else ():
                maps = record.features[layer]
                if not on_accelerator(maps):
                    maps = np.asarray(maps)
                for place in here:
                    units, ranks = places[layer].of(record.index[place])
                    image = np.asarray(maps[int(place)])  # leaves its device
                    bits = float_keys.canonical_host(image[..., units]).view(np.int32)
                    found[layer][units, ranks] = np.moveaxis(bits, -1, 0)
    found = processes.total(found)
    return {n: bits.astype(np.int32).view(np.float32) for n, bits in found.items()}


class _Places:
    """Finds an image among the top images."""

    def __init__(self, top: Int[np.ndarray, "unit k"]):
        self._k = top.shape[1]
        flat = top.reshape(-1)
        self._order = np.argsort(flat, kind="stable")
        self._sorted = flat[self._order]

    def of(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the (units, ranks) that have the image."""
        ends = np.searchsorted(self._sorted, [image, image + 1])
        return np.divmod(self._order[slice(*ends)], self._k)
