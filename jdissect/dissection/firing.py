"""Lists the pixels of each image where units fire, with the concepts of all pixels.

A unit fires on about 1 % of the pixels, so the list of (unit, pixel) is short: 64,000
entries for an image of 56x56 pixels and 2,048 units. What is counted after a
dissection, such as formulas over concepts, is counted from these lists on the host.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from jdissect.base.concepts import Concepts, category_of_columns, column_table
from jdissect.dissection.features import Record
from jdissect.ops import bit_masks, float_keys
from jdissect.runtime.devices import Devices, Step

_BITS = bit_masks.BLOCK_ROWS * bit_masks.BLOCK_COLUMNS


@dataclasses.dataclass(frozen=True, eq=False)
class OnImage:
    """One image: where units fire, and what its pixels show.

    Attributes:
      index: number of the image.
      columns: column + 1 of the concept at each pixel, in each label map; 0 for none,
        and for concepts of categories for which the image does not count.
      annotated: whether the image counts for each category.
      unit, pixel: int32, pairs of a unit and a pixel `y * width + x` of the mask grid
        where it fires; ordered by the pixels' blocks of 4x8, then unit, then pixel.
    """

    index: int
    columns: Int[np.ndarray, "map mask_height mask_width"]
    annotated: Bool[np.ndarray, " category"]
    unit: Int[np.ndarray, " pair"]
    pixel: Int[np.ndarray, " pair"]


def on_images(
    records: Iterable[Record],
    layer: str,
    thresholds: Float[np.ndarray, " unit"],
    geometry: bit_masks.Geometry,
    concepts: Concepts,
    devices: Devices,
) -> Iterator[OnImage]:
    """Yields the images that count, in the order of the records.

    Args:
      records: the records of the images, with the maps of `layer`.
      layer: name of the layer.
      thresholds: float32, T_k.
      geometry: how the layer's grid is upsampled to the mask grid.
      concepts: vocabulary of the label maps.
      devices: devices that upsample the maps; the batches must be divisible by them.
    """
    pack = _packing(devices, thresholds, geometry)
    pixel_of = pixels_of_bits(geometry)
    column_of = column_table(concepts)
    category = category_of_columns(concepts)
    column_of = column_of.astype(np.min_scalar_type(-1 - len(category)))
    for record in records:
        words = pack(record.features[layer])
        labels = record.labels()
        for place in np.flatnonzero(record.valid):
            annotated = np.ones(category.max(initial=-1) + 1, bool)
            columns = column_of
            if record.annotated is not None:
                annotated = np.asarray(record.annotated[place], bool)
                counts = np.append(False, annotated[category])
                columns = np.where(counts[column_of], column_of, 0)
                columns = columns.astype(column_of.dtype)
            yield OnImage(
                int(record.index[place]),
                columns[labels[place]],
                annotated,
                *fired(words[place], pixel_of),
            )


def fired(
    words: UInt32[np.ndarray, "block unit"], pixel_of: Int[np.ndarray, "block bit"]
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Returns the (units, pixels) of the bits that are set, int32 each.

    Args:
      words: masks of an image, see `ops.bit_masks`.
      pixel_of: from `pixels_of_bits`.
    """
    block, unit = np.nonzero(words)
    some = words[block, unit].astype("<u4")
    bits = np.unpackbits(some.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    word, bit = np.nonzero(bits)
    return unit[word].astype(np.int32), pixel_of[block[word], bit]


def pixels_of_bits(geometry: bit_masks.Geometry) -> Int[np.ndarray, "block bit"]:
    """Returns the pixel `y * width + x` of each bit of the masks, int32.

    Bits outside the mask grid, which are never set, have any number.
    """
    height, width = geometry.block_grid
    y = np.arange(height * bit_masks.BLOCK_ROWS, dtype=np.int32)
    x = np.arange(width * bit_masks.BLOCK_COLUMNS, dtype=np.int32)
    pixels = y[:, None] * np.int32(geometry.columns.target) + x
    pixels = pixels.reshape(
        height, bit_masks.BLOCK_ROWS, width, bit_masks.BLOCK_COLUMNS
    )
    return pixels.transpose(0, 2, 1, 3).reshape(-1, _BITS)


def _packing(
    devices: Devices,
    thresholds: Float[np.ndarray, " unit"],
    geometry: bit_masks.Geometry,
) -> Callable[[Any], UInt32[np.ndarray, "image block unit"]]:
    def step(state, maps, constants):
        del state
        cuts, zero = constants

        def masks(maps):
            maps = float_keys.canonical(maps)
            return bit_masks.pack(_exceeds, maps, cuts, geometry, zero)

        return jax.lax.map(masks, maps)

    run = devices.spmd(Step(step))
    cuts = float_keys.cuts(float_keys.to_keys_host(thresholds))
    constants = devices.replicate((cuts, np.int32(0)))

    def pack(maps):
        words = run(devices.states(np.zeros(())), devices.scatter(maps), constants)
        return np.asarray(words).reshape(-1, *words.shape[2:])

    return pack


def _exceeds(values, cuts):
    return values > cuts
