"""The segmenter 'colornames': basic color terms, from pixels alone.

It needs no weights: a mask pixel gets the term of the nearest prototype in CIELAB. The
eleven terms are those of Berlin and Kay (Basic Color Terms, 1969), which are also
Broden's colors. Broden's names were learned from photographs (van de Weijer et al.,
Learning Color Names for Real-World Applications, 2009), and people name things rather
than pixels; this segmenter approximates both. On Broden's street photographs it agrees
with the labels in 91 % of the pixels.

Known errors: it knows neither light nor object, so snow in the shade is blue, and a
gray road at dusk black. Pixels of low chroma get one of three names by lightness alone,
where van de Weijer's names still see a tint: on those photographs, it finds 94 % of the
black, gray and white, but 69 % of the (pale) blue, 30 % of the brown and 18 % of the
green. Colors without a basic term of their own are split between neighbors: turquoise
between blue and green, beige and skin between brown, pink and white, ochre between
brown and yellow.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16, Int64, UInt8

from jdissect.base.errors import UserError
from jdissect.data.loader import Batch

DEFAULT_SIZE = 56
# Table cells per axis: 4 of the 256 levels of a channel share one.
_CELLS = 64

# The centroids of the 267 color blocks of the ISCC-NBS system (Kelly and Judd, Color:
# Universal Language and Dictionary of Names, NBS Special Publication 440, 1976), which
# cover all surface colors, including dull ones. sRGB values are those of Jaffer's
# Color-Name Dictionaries, except that "deep yellowish pink", which has the blue of an
# orange there, 33, has 97 here. A block's term is the end of its name ("grayish reddish
# purple"); violet is purple, olive and yellow green are green. Exceptions:
# - chroma below 12.5 counts as black (L* < 32), gray, or white (L* > 80), except the
#   two pale blues, which occur in skies; very pale violet is blue, for hazy skies;
# - brownish, deep and dark reddish orange, dark orange yellow, dark and (dark) grayish
#   yellow, brownish pink and grayish red are brown;
# - vivid, strong, deep and moderate orange yellow are orange;
# - deep reddish orange and deep reddish brown are red;
# - light grayish red and (light) grayish purplish red are pink.
_CENTROIDS = {
    "black": """
        543d3f 2e1d21 282022 43302e 3e322c 28201c 483c32 3b3121 363527 25241d 31362b
        1c352d 3a4b47 1a2421 1e2321 36454f 202830 202428 50404d 291e29 242124 222222
    """,
    "blue": """
        0085a1 239eba 007791 2e8495 9cd1dc 66aabc 367588 004958 002e3b 00a1c2 4997d0
        0067a5 00416a a1caf1 70a3cc 436b95 00304e bcd4e6 91a3b0 30267a 6c79b8 545aa7
        272458 b3bce2 8791bf 4e5180 252440 c0c8e1 8c92ac 4c516d c4c3dd
    """,
    "brown": """
        905d5d c2ac99 9e4732 882d17 a87c6d 79443b 3e1d1e 674c47 be6516 ae6938 80461b
        593319 a67b5b 6f4e37 422518 958070 be8a3d 996515 654522 c19a6b 826644 4b3621
        ae9b82 7e6d5a ab9144 c2b280 a18f60 967117 6c541e
    """,
    "gray": """
        c4aead c1b6b3 8f817f 5c504f c7ada3 977f73 635147 8e8279 5b504f bfb8a5 8a8776
        57554c 515744 8da399 5e716a b2beb5 7d8984 4e5755 536878 b4bcc0 81878b 51585e
        aa98a9 796878 bfb9bd 8b8589 5d555b b9b8b5 848482 555555
    """,
    "green": """
        867e36 665d1e 403d21 8c8767 5b5842 8db600 bdda57 7e9f2e 467129 c9dc89 8a9a5b
        dadfb7 8f9779 404f00 232f00 4a5d23 2b3d26 27a64c 83d37d 44944a 00622d 003118
        b6e5af 93c592 679267 355e3b 173620 008856 3eb489 007959 00543d 8ed1b2 6aab8e
        3b7861 1b4d3e c7e6d7 008882 00a693 007a74 00443f 96ded1 66ada4 317873 004b49
        002a29
    """,
    "orange": """
        e25822 d9603b cb6d51 b4745e f38400 fd943f ed872d fab57f d99058 f6a600 eaa221
        c98500 e3a857
    """,
    "pink": """
        ffb5ba ea9399 e4717a f9ccca dea5a4 c08081 ad8884 ffb7a5 f99379 e66761 f4c2c2
        d9a6a9 c48379 ffc8d6 e68fac de6fa1 efbbcc d597ae c17e91 c3a6b1 af868e 915f6d
    """,
    "purple": """
        9065ca 7e73b8 604e97 32174d dcd0ff 8c82b6 604e81 2f2140 9690ab 554c69
        9a4eae d399e6 875692 602f6b 401a4c d5badb b695c0 86608e 563c5c 301934 870074
        9e4f88 702963 54194e b784a7 915c83 5d3954 341731 aa8a9e 836479
    """,
    "red": """
        be0032 bc3f4a 841b2d 5c0923 ab4e52 722f37 3f1728 aa381e 56070c ce4676 b3446c
        78184a 54133b a8516e 673147 38152c
    """,
    "white": """
        ead8d7 eae3e1 ecd5c5 f0ead6 dfede8 e9e9ed d6cadd e8e3e5 e8ccd7 f2f3f4
    """,
    "yellow": """
        ffc14f fbc97f fad6a5 f3c300 fada5e d4af37 af8d13 f8de7e c9ae5d f3e5ab dcd300
        e9e450 beb72e 9b9400 eae679 b9b459 98943e ebe8a4 b9b57d
    """,
}
# Colors of photographs that surfaces do not reach: the vivid colors of a display (hues
# a twelfth of a circle apart, without those that have no evident term), a bright sky,
# and black up to L* 32, as in van de Weijer's names; the centroids' black ends at 25.
_BEYOND_SURFACES = {
    "black": "000000 404040",
    "blue": "00ffff 0080ff 0060c0 004080 0000ff 0000c0 000080 4080ff d0f0ff",
    "brown": "804000",
    "green": "808000 80ff00 60c000 408000 00ff00 00c000 008000 00ff80 00c060 008040",
    "orange": "ff8000",
    "pink": "ff0080 ff40a0",
    "purple": "8000ff 6000c0 400080 ff00ff c000c0 800080",
    "red": "ff0000 c00000 800000 ff4040",
    "white": "ffffff",
    "yellow": "ffff00 c0c000",
}
TERMS = tuple(_CENTROIDS)

# Linear sRGB to XYZ (IEC 61966-2-1); its rows sum to the white point, D65.
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


@dataclasses.dataclass(frozen=True)
class ColorNameSegmenter:
    """Provides label maps of color names, for any photographs.

    Attributes:
        concepts: (name, category) by number: '-', then the terms in alphabetical order.
        mask_shape: (height, width) of the maps that `label_maps` returns.
        map_names: what the maps of an image show.
    """

    concepts: tuple[tuple[str, str], ...]
    mask_shape: tuple[int, int]
    map_names: tuple[str, ...] = ("colors",)

    def identity(self, cache_dir: Path | None) -> dict[str, object]:
        """Returns JSON that identifies the label maps."""
        del cache_dir  # nothing to read
        return {
            "segmenter": "colornames",
            "table": hashlib.sha256(_table().tobytes()).hexdigest(),
            "grid": list(self.mask_shape),
        }

    def label_maps(
        self, batch: Batch
    ) -> Int16[np.ndarray, "batch 1 mask_height mask_width"]:
        """Returns each mask pixel's color number; 0 in images that are not valid."""
        numbers = name_colors(batch.pixels, self.mask_shape)
        numbers[~batch.valid] = 0
        return numbers[:, None]

    def annotated(self, batch: Batch) -> None:
        """Returns None: every image counts."""


def open_colornames(mask_size: int = 0) -> ColorNameSegmenter:
    """Opens the segmenter of color names.

    Args:
        mask_size: side of the mask grid in pixels; 0: 56.

    Raises:
        UserError: `mask_size` is negative.
    """
    if mask_size < 0:
        raise UserError(
            f"config.mask_size is {mask_size}; give a side in pixels, or 0 for "
            f"{DEFAULT_SIZE}."
        )
    size = mask_size or DEFAULT_SIZE
    return ColorNameSegmenter(
        concepts=(("-", "-"), *((term, "color") for term in TERMS)),
        mask_shape=(size, size),
    )


def name_colors(
    pixels: UInt8[np.ndarray, "batch height width 3"], shape: tuple[int, int]
) -> Int16[np.ndarray, "batch mask_height mask_width"]:
    """Returns the color number of each mask pixel, 1 + its index in `TERMS`.

    A mask pixel averages the photograph's sRGB values over its cell (adaptive average
    pooling, as for the other segmenters). It averages stored values, not linear light:
    sRGB's steps are nearly uniform to the eye, so the average is the typical color of
    the cell, whereas in linear light a few highlights would dominate. Sums are
    integers, so a map depends on nothing but its image.
    """
    sums, counts = pool_sums(pixels, shape)
    cells = sums * _CELLS // (256 * counts[..., None])
    return _table()[cells[..., 0], cells[..., 1], cells[..., 2]]


def pool_sums(
    pixels: UInt8[np.ndarray, "batch height width 3"], shape: tuple[int, int]
) -> tuple[
    Int64[np.ndarray, "batch mask_height mask_width 3"],
    Int64[np.ndarray, "mask_height mask_width"],
]:
    """Pools adaptively in integers: returns the cells' sums and pixel counts.

    Cell i of S covers rows floor(i * H / S) .. ceil((i + 1) * H / S) - 1 of H, and
    columns likewise: cells overlap if S does not divide H, and repeat pixels if S is
    greater.
    """
    sums, rows = _sum_windows(pixels, 1, shape[0])
    sums, columns = _sum_windows(sums, 2, shape[1])
    return sums, rows[:, None] * columns


def srgb_to_lab(srgb: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 3"]:
    """Converts sRGB in 0..1 to CIELAB (L* 0..100, a*, b*; white D65), in float64."""
    low = srgb <= 0.04045
    linear = np.where(low, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = (linear[..., None, :] * _TO_XYZ).sum(axis=-1) / _TO_XYZ.sum(axis=1)
    low = xyz <= (6 / 29) ** 3
    x, y, z = np.moveaxis(
        np.where(low, xyz * (29 / 6) ** 2 / 3 + 4 / 29, np.cbrt(xyz)), -1, 0
    )
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def prototypes() -> tuple[
    Float[np.ndarray, "prototype 3"], Int16[np.ndarray, " prototype"]
]:
    """Returns the CIELAB values of the prototypes, and the number of their terms."""
    colors, numbers = [], []
    for number, term in enumerate(TERMS, start=1):
        found = f"{_CENTROIDS[term]} {_BEYOND_SURFACES.get(term, '')}".split()
        colors += [list(bytes.fromhex(color)) for color in found]
        numbers += [number] * len(found)
    return srgb_to_lab(np.array(colors) / 255), np.array(numbers, np.int16)


@functools.cache
def _table() -> Int16[np.ndarray, "red green blue"]:
    """Returns the number for the center of each sRGB cell; ties go to the lowest.

    For 1 % of the averages in photographs, another prototype is nearest than for the
    center of their cell.
    """
    middles = (np.arange(_CELLS) + 0.5) * 256 / _CELLS - 0.5
    srgb = np.stack(np.meshgrid(middles, middles, middles, indexing="ij"), axis=-1)
    lab, numbers = prototypes()
    table = []
    for colors in srgb_to_lab(srgb / 255).reshape(-1, _CELLS, 3):
        # Not a matrix product: its last bits differ between machines. Working in place,
        # axis by axis, takes a quarter of the time.
        squares = np.square(colors[:, 0, None] - lab[:, 0])
        for axis in (1, 2):
            difference = colors[:, axis, None] - lab[:, axis]
            squares += np.square(difference, out=difference)
        table.append(numbers[squares.argmin(axis=-1)])
    return np.stack(table).reshape((_CELLS,) * 3)


def _sum_windows(values, axis, target):
    """Returns sums along an axis over adaptive pooling windows, and their lengths."""
    size = values.shape[axis]
    starts = np.arange(target) * size // target
    stops = -(-(np.arange(target) + 1) * size // target)
    lengths = stops - starts
    inside = [1] * values.ndim
    inside[axis] = target
    total = 0
    for step in range(lengths.max()):
        taken = np.take(values, np.minimum(starts + step, size - 1), axis=axis)
        total = total + taken * (step < lengths).astype(np.int64).reshape(inside)
    return total, lengths
