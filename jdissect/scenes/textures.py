"""Makes the textures of the materials: seamless tiles of 256 x 256.

A tile has two layers: `shade` multiplies a surface's color by 1 + shade, `gloss` adds
white (mortar, reflections, glitter of water). Each has four levels, each with half the
detail of the one before, for distant surfaces. Tiles are made once per process, with
integer sums and elementwise arithmetic only, so that they are the same everywhere.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64

from jdissect.scenes.draws import Draws
from jdissect.scenes.world import MATERIALS

TILE = 256  # texels per side
LEVELS = 4

Layer = Float32[np.ndarray, "tile tile"]
_ROW, _COLUMN = np.mgrid[:TILE, :TILE]


@functools.cache
def tiles() -> tuple[
    Float32[np.ndarray, "material level tile tile"],
    Float32[np.ndarray, "material level tile tile"],
]:
    """Returns (shade, gloss) of every material, in the order of `MATERIALS`."""
    layers = [_MAKERS[name](_Noise(place)) for place, name in enumerate(MATERIALS)]
    shade, gloss = (
        np.stack([_levels(pair[which]) for pair in layers]) for which in (0, 1)
    )
    return shade, gloss


class _Noise:
    """Random tiles of one material."""

    def __init__(self, key: int):
        self._draws = Draws(7, key)

    def __call__(self, along: int = 0, across: int = 0) -> Layer:
        """Returns noise of mean 0 and deviation 1, averaged over 2 n + 1 texels."""
        raw = self._draws.raw(TILE * TILE // 8).astype("<u8").view(np.uint8)
        values = raw.reshape(TILE, TILE).astype(np.int64) - 128
        for _ in range(2):  # two box filters are nearly a bell
            values = _box(_box(values, along, 1), across, 0)
        return _normalized(values)

    def of_cells(self, cells: Int64[np.ndarray, "tile tile"]) -> Layer:
        """Returns a random value in [-1, 1] for each cell number below 65536."""
        table = (self._draws.raw(65536) >> np.uint64(40)).astype(np.float32)
        return table[cells] / np.float32(2**23) - 1

    def points(self, count: int) -> Int64[np.ndarray, "2 count"]:
        """Returns random rows and columns."""
        return (self._draws.raw(2 * count) >> np.uint64(56)).astype(int).reshape(2, -1)


def _box(values, reach, axis):
    return sum(np.roll(values, shift, axis) for shift in range(-reach, reach + 1))


def _normalized(values: Int64[np.ndarray, "tile tile"]) -> Layer:
    """Normalizes to mean 0 and deviation 1; the integer sums are exact."""
    mean = int(values.sum()) / values.size
    square = sum(int(v) for v in (values * values).sum(axis=1)) / values.size
    deviation = math.sqrt(max(square - mean * mean, 1.0))
    return np.clip((values - mean) / deviation, -2.5, 2.5).astype(np.float32)


def _levels(layer: Layer) -> Float32[np.ndarray, "level tile tile"]:
    levels: list[np.ndarray] = [layer.astype(np.float32)]
    for level in range(LEVELS - 1):
        step = 2**level
        last = levels[-1]
        pair = last + np.roll(last, -step, 0)
        levels.append((pair + np.roll(pair, -step, 1)) / 4)
    return np.stack(levels)


def _wave(phase):
    """Returns a triangle wave of period 1 between -1 and 1."""
    return np.abs(phase - np.floor(phase) - 0.5) * 4 - 1


def _nothing() -> Layer:
    return np.zeros((TILE, TILE), np.float32)


def _bricks(height: int, width: int):
    """Returns (cell number, texels from top, texels from left) of a running bond."""
    course = _ROW // height
    shifted = (_COLUMN + (course % 2) * (width // 2)) % TILE
    return course * 64 + shifted // width, _ROW % height, shifted % width


def _cells(noise: _Noise, count: int):
    """Returns (nearest, second nearest distance, nearest point) to random points."""
    rows, columns = noise.points(count)
    near = np.full((TILE, TILE), 10**6)
    second, owner = near.copy(), near.copy()
    for place in range(count):
        dy = (_ROW - rows[place] + 128) % TILE - 128
        dx = (_COLUMN - columns[place] + 128) % TILE - 128
        distance = dy * dy + dx * dx
        closer = distance < near
        second = np.where(closer, near, np.minimum(second, distance))
        owner = np.where(closer, place, owner)
        near = np.where(closer, distance, near)
    return np.sqrt(near), np.sqrt(second), owner


def _air(noise):
    return 0.025 * noise(24, 8), _nothing()


def _asphalt(noise):
    return 0.11 * noise() + 0.05 * noise(1, 1) + 0.06 * noise(20, 20), _nothing()


def _brick(noise):
    cell, top, left = _bricks(8, 16)
    mortar = (top < 1) | (left < 1)
    shade = 0.16 * noise.of_cells(cell) + 0.06 * noise()
    shade = np.where(top == 7, shade - 0.12, shade)
    return np.where(mortar, -0.1, shade), np.where(mortar, 0.25, 0.0)


def _ceramic(noise):
    return 0.03 * noise(12, 12), 0.05 * np.maximum(noise(20, 20) - 0.7, 0)


def _fabric(noise):
    over = ((_ROW // 2 + _COLUMN // 2) % 2) * 2.0 - 1
    thread = np.where(over > 0, _ROW % 2, _COLUMN % 2) - 0.5
    return 0.05 * over + 0.07 * thread + 0.05 * noise(1, 1), _nothing()


def _foliage(noise):
    leaf = noise(1, 1)
    shade = 0.15 * leaf + 0.07 * noise() + 0.08 * noise(4, 4)
    return shade, 0.06 * np.maximum(leaf - 1.1, 0)


def _glass(noise):
    slant = (_COLUMN + _ROW) / 64 + 0.04 * noise(10, 10)
    gleam = np.maximum(_wave(slant), _wave(slant * 2 + 0.3) - 0.5)
    return 0.05 * noise(14, 14), 0.22 * np.maximum(gleam - 0.35, 0)


def _grass(noise):
    return 0.15 * noise(0, 2) + 0.06 * noise(10, 6), 0.02 * np.maximum(noise(0, 2), 0)


def _hair(noise):
    return 0.09 * noise(0, 3) + 0.05 * noise(5, 5), _nothing()


def _leather(noise):
    near, second, owner = _cells(noise, 420)
    crack = np.clip((second - near) / 2.5, 0, 1) - 1
    return 0.22 * crack + 0.04 * noise.of_cells(owner), 0.05 * np.maximum(
        noise(12, 12) - 0.4, 0
    )


def _metal(noise):
    band = _wave(_ROW / 64 + 0.02 * noise(30, 6))
    return 0.07 * noise(24, 0), 0.14 * np.maximum(band - 0.2, 0)


def _paper(noise):
    lines = np.where((_ROW % 4 == 1) & (noise(3, 0) > -0.4), -0.07, 0.0)
    return lines + 0.02 * noise(), _nothing()


def _plaster(noise):
    return 0.03 * noise() + 0.022 * noise(3, 3) + 0.012 * noise(18, 18), _nothing()


def _plastic(noise):
    return 0.02 * noise(10, 10), 0.08 * np.maximum(_wave(_ROW / 64 + 0.1) - 0.3, 0)


def _rubber(noise):
    return 0.12 * _wave(_COLUMN / 4) + 0.06 * noise(), _nothing()


def _sand(noise):
    ripple = _wave(_ROW / 16 + 0.22 * noise(16, 5))
    return 0.05 * ripple + 0.055 * noise() + 0.03 * noise(12, 12), _nothing()


def _shingle(noise):
    cell, top, left = _bricks(8, 8)
    shade = 0.13 * noise.of_cells(cell) + 0.03 * top - 0.1
    edge = (top == 7) | (left == 0)
    return np.where(edge, -0.32, shade), _nothing()


def _skin(noise):
    return 0.02 * noise(4, 4), _nothing()


def _snow(noise):
    return 0.04 * noise(8, 5) - 0.02, 0.03 * np.maximum(noise(1, 1), 0)


def _soil(noise):
    return 0.14 * noise(1, 0) + 0.08 * noise(5, 3), _nothing()


def _stone(noise):
    near, second, owner = _cells(noise, 380)
    crack = np.where(second - near < 1.4, -0.26, 0.0)
    return crack + 0.13 * noise.of_cells(owner) + 0.05 * noise(1, 1), _nothing()


def _tile(noise):
    cell = (_ROW // 16) * 64 + _COLUMN // 16
    grout = (_ROW % 16 == 0) | (_COLUMN % 16 == 0)
    shade = 0.05 * noise.of_cells(cell) + 0.02 * _wave((_ROW + _COLUMN) / 32)
    return np.where(grout, -0.25, shade), np.where(grout, 0.0, 0.03)


def _water(noise):
    swell = noise(10, 1)
    return 0.11 * swell + 0.07 * noise(4, 0), 0.12 * np.maximum(swell - 1.0, 0)


def _wood(noise):
    board = _ROW // 16
    bend = noise(40, 3) * 0.5
    grain = _wave(_ROW / 5.333333333333333 + bend + noise.of_cells(board))
    joint = np.where(_ROW % 16 == 0, -0.22, 0.0)
    return (
        0.09 * grain + 0.07 * noise(16, 0) + 0.07 * noise.of_cells(board) + joint,
        _nothing(),
    )


_MAKERS: dict[str, Callable[[_Noise], tuple[Layer, Layer]]] = {
    "air": _air,
    "asphalt": _asphalt,
    "brick": _brick,
    "ceramic": _ceramic,
    "fabric": _fabric,
    "foliage": _foliage,
    "glass": _glass,
    "grass": _grass,
    "hair": _hair,
    "leather": _leather,
    "metal": _metal,
    "paper": _paper,
    "plaster": _plaster,
    "plastic": _plastic,
    "rubber": _rubber,
    "sand": _sand,
    "shingle": _shingle,
    "skin": _skin,
    "snow": _snow,
    "soil": _soil,
    "stone": _stone,
    "tile": _tile,
    "water": _water,
    "wood": _wood,
}
