"""Turns visible surfaces into a picture and its label maps.

A pixel has four points. Its labels are those of the surface that most of them show (on
a tie, the one painted last); its color is their mean color, in the texture of the
labelled surface. All operations are elementwise or sums of four in fixed order, so that
pictures have the same bits everywhere.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32, UInt8

from jdissect.scenes.canvas import FOCAL, MIDDLE, Canvas
from jdissect.scenes.draws import Draws
from jdissect.scenes.palette import Rgb
from jdissect.scenes.raster import WHOLE, View, paint, shadow
from jdissect.scenes.textures import LEVELS, TILE, tiles
from jdissect.scenes.world import MATERIAL_NUMBER, OBJECT_NUMBER, SIDE

_FIRST_MATERIAL = min(MATERIAL_NUMBER.values())
_NOISE_TILE = 512
_MIDDLES = (np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) / np.float32(MIDDLE)
_ACROSS, _DOWN = _MIDDLES[None, :] - 1, _MIDDLES[:, None] - 1


class Lamp(NamedTuple):
    """A light in a picture.

    Attributes:
        x, y: its position in pixels.
        reach: distance in pixels at which it gives a quarter of its light.
        rgb: what it adds to the factors of red, green and blue.
        instance: number of the object that shines.
    """

    x: float
    y: float
    reach: float
    rgb: Rgb
    instance: int


@dataclasses.dataclass
class Light:
    """The lighting of a picture.

    Attributes:
        side: -1 from the left, 1 from the right.
        rgb: factors of red, green and blue.
        air: color of haze, 0 .. 255.
        across, down: change of brightness from the middle to the right and the bottom.
        lamps: lights in the picture.
        shadow: strength of shadows, about 1.
        night: whether windows and lamps are lit.
    """

    side: float = 1.0
    rgb: Rgb = (1.0, 1.0, 1.0)
    air: Rgb = (200.0, 210.0, 220.0)
    across: float = 0.0
    down: float = 0.0
    lamps: list[Lamp] = dataclasses.field(default_factory=list)
    shadow: float = 1.0
    night: bool = False


@dataclasses.dataclass
class Sensor:
    """Imperfections of the camera.

    Attributes:
        blur: share of the neighbors' light, 0 .. 1.
        noise: standard deviation, of 255.
        vignette: darkening towards the corners.
        offset: where to begin in the noise.
    """

    blur: float = 0.2
    noise: float = 2.0
    vignette: float = 0.05
    offset: int = 0


def develop(
    canvas: Canvas, light: Light, sensor: Sensor, horizon: float, view: View = WHOLE
) -> tuple[UInt8[np.ndarray, "side side 3"], Int16[np.ndarray, "4 side side"]]:
    """Returns a picture and its label maps (object, part, material, color)."""
    fine = paint(canvas.polygons, canvas.ellipses, view)
    points = fine[::2, ::2], fine[::2, 1::2], fine[1::2, ::2], fine[1::2, 1::2]
    seen = _majority(*points)
    table = np.array([(0,) * len(canvas.surfaces[0]), *canvas.surfaces], np.float64)
    numbers = np.ascontiguousarray(table[:, :5].astype(np.int16).T)
    *maps, instance = (column[seen] for column in numbers)
    x, y = _drawn(view)
    coordinates = table[:, 15:].astype(np.int32)[seen]
    shade, gloss = _textured(coordinates, maps[2], horizon, x, y)

    middle, across, down, at_x, at_y, glow, haze = table[:, 8:15].T
    corner = middle - across * at_x - down * at_y
    looks = np.stack([corner, across, down, glow, haze], axis=1).astype(np.float32)
    corner, across, down, glow, haze = np.moveaxis(looks[seen], -1, 0)
    clear = 1 - haze
    dark = shadow(fine, canvas.shadows, canvas.strengths, view)
    dark = (dark[::2, ::2] + dark[::2, 1::2]) + (dark[1::2, ::2] + dark[1::2, 1::2])
    bright = corner + across * x + down * y
    bright *= 1 + shade * clear
    bright *= 1 - dark * np.float32(0.25 * light.shadow)
    bright *= _edges(instance, maps)

    falling = _falling(light, x, y)
    gloss = gloss * (255 * clear)
    base = _mean_color(table, light, seen, points)
    picture = np.empty((3, SIDE, SIDE), np.float32)
    for channel in range(3):
        lit = falling[channel] * (1 - glow) + glow
        picture[channel] = (base[..., channel] * bright + gloss) * lit
    return _exposed(picture, sensor), np.stack(maps)


def _mean_color(
    table: Float64[np.ndarray, "surface field"],
    light: Light,
    seen: Int32[np.ndarray, "side side"],
    points: Sequence[Int32[np.ndarray, "side side"]],
) -> Float32[np.ndarray, "side side 3"]:
    """Returns unlit colors: with haze, and mixed where a pixel's points differ."""
    colors, haze = table[:, 5:8], table[:, 14:15]
    colors = (colors * (1 - haze) + np.array(light.air) * haze).astype(np.float32)
    base = colors[seen]
    first, second, third, fourth = points
    mixed = (first != second) | (first != third) | (first != fourth)
    a, b, c, d = (colors[point[mixed]] for point in points)
    base[mixed] = ((a + b) + (c + d)) * np.float32(0.25)
    return base


def _majority(
    a: Int32[np.ndarray, "side side"],
    b: Int32[np.ndarray, "side side"],
    c: Int32[np.ndarray, "side side"],
    d: Int32[np.ndarray, "side side"],
) -> Int32[np.ndarray, "side side"]:
    """Returns the value that most of four have; on a tie the largest of those."""
    ab, ac, ad, bc, bd, cd = a == b, a == c, a == d, b == c, b == d, c == d
    one = np.int32(1 << 16)
    best = (ab.astype(np.int32) + ac + ad) * one + a
    for value, votes in (
        (b, ab.astype(np.int32) + bc + bd),
        (c, ac.astype(np.int32) + bc + cd),
        (d, ad.astype(np.int32) + bd + cd),
    ):
        np.maximum(best, votes * one + value, out=best)
    return best & (one - 1)


def _textured(
    coordinates: Int32[np.ndarray, "side side 8"],
    material: Int16[np.ndarray, "side side"],
    horizon: float,
    x: Float32[np.ndarray, "1 side"],
    y: Float32[np.ndarray, "side 1"],
) -> tuple[Float32[np.ndarray, "side side"], Float32[np.ndarray, "side side"]]:
    """Returns (shade, gloss) of every pixel."""
    flat, level, ux, uy, u, vx, vy, v = np.moveaxis(coordinates, -1, 0)
    # In units of 1/16 pixel, so that everything is an integer.
    across, down = (np.floor(axis * 16).astype(np.int32) for axis in (x, y))
    column = (((ux * across + uy * down) >> 4) + u) >> 8
    row = (((vx * across + vy * down) >> 4) + v) >> 8
    # For flat textures, a texel is a pixel at the picture's bottom; further away,
    # several texels share a pixel.
    away = np.float32(70) / (np.maximum(y[:, 0] - np.float32(horizon), 0) + 10)
    lying, flat = flat == 1, flat > 0
    flat_column = np.floor((x - np.float32(MIDDLE)) * away[:, None]).astype(np.int32)
    flat_row = np.floor(np.float32(0.9 * FOCAL) * away).astype(np.int32)
    flat_level = np.minimum((away * np.float32(0.75)).astype(np.int32), LEVELS - 1)
    column = np.where(lying, flat_column + (u >> 8), column) & (TILE - 1)
    row = np.where(lying, flat_row[:, None] + (v >> 8), row) & (TILE - 1)
    level = np.where(flat, flat_level[:, None], level)
    index = np.maximum(material.astype(np.int32) - _FIRST_MATERIAL, 0)
    index = ((index * LEVELS + level) * TILE + row) * TILE + column
    shade, gloss = tiles()
    return shade.ravel()[index], gloss.ravel()[index]


def _drawn(
    view: View,
) -> tuple[Float32[np.ndarray, "1 side"], Float32[np.ndarray, "side 1"]]:
    """Returns (x, y) of the pixels' centers, as drawn."""
    middles = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    middles = middles / np.float32(view.zoom)
    x, y = middles + np.float32(view.left), middles + np.float32(view.top)
    return x[None, :], y[:, None]


def _edges(
    instance: Int16[np.ndarray, "side side"],
    maps: Sequence[Int16[np.ndarray, "side side"]],
) -> Float32[np.ndarray, "side side"]:
    """Darkens corners where things meet a little, except in the sky."""
    part = maps[1]
    factor = np.ones((SIDE, SIDE), np.float32)
    other = np.zeros((SIDE, SIDE), bool)
    other[:, 1:] = instance[:, 1:] != instance[:, :-1]
    other[1:] |= instance[1:] != instance[:-1]
    inner = np.zeros((SIDE, SIDE), bool)
    inner[:, 1:] = part[:, 1:] != part[:, :-1]
    inner[1:] |= part[1:] != part[:-1]
    factor[inner] = 0.94
    factor[other] = 0.88
    factor[maps[0] == OBJECT_NUMBER["sky"]] = 1
    return factor


def _falling(
    light: Light,
    across: Float32[np.ndarray, "1 side"],
    down: Float32[np.ndarray, "side 1"],
) -> Float32[np.ndarray, "3 side side"]:
    """Returns the light that falls on each pixel, by channel."""
    even = 1 + light.across * _ACROSS + light.down * _DOWN
    falling = np.stack([np.float32(factor) * even for factor in light.rgb])
    for x, y, reach, rgb, _ in light.lamps:
        squares = (across - np.float32(x)) ** 2 + (down - np.float32(y)) ** 2
        near = 1 / (1 + squares / np.float32(reach * reach))
        near *= near
        for channel in range(3):
            falling[channel] += near * np.float32(rgb[channel])
    return falling


def _exposed(
    picture: Float32[np.ndarray, "3 side side"], sensor: Sensor
) -> UInt8[np.ndarray, "side side 3"]:
    """Applies blur, vignette, noise and 8-bit rounding."""
    for axis in (1, 2):
        wide = np.pad(
            picture, [(0, 0)] + [(int(a == axis),) * 2 for a in (1, 2)], "edge"
        )
        before, after = (
            (wide[:, :-2], wide[:, 2:])
            if axis == 1
            else (wide[..., :-2], wide[..., 2:])
        )
        share = np.float32(sensor.blur / 3)
        picture = picture + share * ((before + after) - 2 * picture)
    corner = _ACROSS * _ACROSS + _DOWN * _DOWN
    picture = picture * (1 - np.float32(sensor.vignette) * corner)
    noise = _noise()
    start = (
        sensor.offset % (_NOISE_TILE - SIDE),
        sensor.offset // 1024 % (_NOISE_TILE - SIDE),
    )
    window = noise[:, start[0] : start[0] + SIDE, start[1] : start[1] + SIDE]
    picture = picture + window * np.float32(sensor.noise)
    bytes_ = np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(bytes_, 0, -1))


@functools.cache
def _noise() -> Float32[np.ndarray, "3 noise noise"]:
    """Returns nearly normal noise of deviation 1: sums of four random bytes."""
    size = 3 * _NOISE_TILE * _NOISE_TILE
    raw = Draws(11).raw(size // 2).astype("<u8").view(np.uint8).reshape(size, 4)
    total = raw.astype(np.int32).sum(axis=1) - 510
    scaled = total.astype(np.float32) / np.float32(147.8)  # 2 * sqrt((256^2 - 1) / 12)
    return scaled.reshape(3, _NOISE_TILE, _NOISE_TILE)
