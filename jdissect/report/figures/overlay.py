"""Draws a segmenter's labels: a photograph, labels over it, and a legend."""

import colorsys
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from jdissect.base.concepts import Concepts, columns, first_numbers

WIDTH = 320  # of a panel, in pixels
MARGIN = 12
LINE = 22  # height of a line in the legend
ENTRIES = 10  # maximum number of entries in a legend
OPACITY = 0.6  # opacity of the labels
FAINT = 0.004  # share of an image below which a concept is not in the legend
ORDER = ("objects", "parts", "materials")  # the others follow
# The panel of colors shows each color in itself.
COLORS = {
    "black": (20, 20, 20),
    "blue": (40, 80, 220),
    "brown": (130, 75, 30),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "green": (40, 160, 60),
    "orange": (255, 140, 0),
    "pink": (255, 150, 190),
    "purple": (140, 50, 180),
    "red": (215, 30, 35),
    "white": (255, 255, 255),
    "yellow": (250, 225, 40),
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of labels beside the photograph.

    Attributes:
      title: kind of concepts that it shows.
      labels: first number of the concept at each pixel; 0 means no label.
    """

    title: str
    labels: Int[np.ndarray, "height width"]


def panels(
    maps: Int[np.ndarray, "maps height width"],
    concepts: Concepts,
    map_names: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> list[Panel]:
    """Returns one panel per map, or, for maps without names, one per category.

    Args:
      maps: label maps of an image.
      concepts: (name, category) by number.
      map_names: what each map shows; () if that is not known.
      hidden: names of maps to leave out.
    """
    maps = first_numbers(concepts)[maps]
    if map_names:
        shown = [p for p in zip(map_names, maps, strict=True) if p[0] not in hidden]
        shown.sort(key=lambda pair: ORDER.index(pair[0]) if pair[0] in ORDER else 9)
        return [Panel(name, labels) for name, labels in shown]
    by_category: dict[str, list[int]] = {}
    for number in columns(concepts):
        by_category.setdefault(concepts[number][1], []).append(number)
    found = []
    for category, numbers in by_category.items():
        # If several maps show the category, the first one wins.
        there = np.where(np.isin(maps, numbers), maps, 0)
        first = there.astype(bool).argmax(axis=0)
        labels = np.take_along_axis(there, first[None], axis=0)[0]
        found.append(Panel(category, labels))
    return found


def draw(
    pixels: UInt8[np.ndarray, "height width 3"],
    title: str,
    shown: Sequence[Panel],
    concepts: Concepts,
) -> Image.Image:
    """Draws the photograph and the panels side by side, with legends below.

    Args:
      pixels: RGB.
      title: name of the image.
      shown: panels in order.
      concepts: (name, category) by number.
    """
    height = round(WIDTH * pixels.shape[0] / pixels.shape[1])
    photograph = Image.fromarray(pixels).resize(
        (WIDTH, height), Image.Resampling.LANCZOS
    )
    legends = [_legend(panel.labels, concepts) for panel in shown]
    lines = max((len(legend) for legend in legends), default=0)
    top = MARGIN + LINE
    size = (
        MARGIN + (len(shown) + 1) * (WIDTH + MARGIN),
        top + height + MARGIN + lines * LINE + MARGIN,
    )
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), _fitting(title), "black", _font())
    picture.paste(photograph, (MARGIN, top))
    for place, (panel, legend) in enumerate(zip(shown, legends, strict=True), 1):
        left = MARGIN + place * (WIDTH + MARGIN)
        pen.text((left, MARGIN), _fitting(panel.title), "black", _font())
        picture.paste(_over(photograph, panel.labels, concepts), (left, top))
        for row, (number, share) in enumerate(legend):
            y = top + height + MARGIN + row * LINE
            pen.rectangle(
                (left, y, left + 14, y + 14), _color(number, concepts), "gray"
            )
            pen.text((left + 22, y), _fitting(concepts[number][0]), "black", _font())
            text = f"{share:.0%}"
            end = left + WIDTH - pen.textlength(text, _font())
            pen.text((end, y), text, "black", _font())
    return picture


def _legend(labels, concepts) -> list[tuple[int, float]]:
    """Returns (number, share of the pixels), the largest first."""
    numbers, counts = np.unique(labels, return_counts=True)
    real = np.isin(numbers, columns(concepts)) & (counts >= FAINT * labels.size)
    order = np.argsort(-counts[real], kind="stable")[:ENTRIES]
    shares = counts[real][order] / labels.size
    return list(zip(numbers[real][order].tolist(), shares.tolist(), strict=True))


def _over(photograph, labels, concepts) -> Image.Image:
    """Draws colored labels over the photograph; unlabelled pixels are dimmed."""
    numbers, inverse = np.unique(labels, return_inverse=True)
    real = np.isin(numbers, columns(concepts))
    palette = np.array([_color(n, concepts) for n in numbers.tolist()], np.uint8)
    colors = Image.fromarray(palette[inverse].reshape(*labels.shape, 3))
    opacity = np.where(real, round(255 * OPACITY), 0).astype(np.uint8)
    mask = Image.fromarray(opacity[inverse].reshape(labels.shape))
    nearest = Image.Resampling.NEAREST
    dimmed = Image.blend(photograph, Image.new("RGB", photograph.size, "white"), 0.35)
    return Image.composite(
        colors.resize(photograph.size, nearest),
        dimmed,
        mask.resize(photograph.size, nearest),
    )


def _color(number: int, concepts: Concepts) -> tuple[int, int, int]:
    name, category = concepts[number]
    term = name.removesuffix("-c")  # as Broden writes colors
    if category == "color" and term in COLORS:
        return COLORS[term]
    # Hues are a golden angle apart; neighboring numbers also differ in brightness.
    red, green, blue = colorsys.hsv_to_rgb(
        number * 0.618034 % 1, 0.55 + 0.4 * (number % 2), 0.95 - 0.2 * (number % 3)
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def _fitting(text: str) -> str:
    """Cuts text to fit into a panel's width, beside a share."""
    width = WIDTH - 70
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)
