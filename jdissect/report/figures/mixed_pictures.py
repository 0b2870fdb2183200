"""Draws the mixing recipes on photographs, side by side: Figure 1 of the study.

The pictures come from `augment.mix`, which training calls in its step, with the
settings of the published recipes.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from matplotlib.figure import Figure

from jdissect import augment
from jdissect.models import preprocess
from jdissect.ops import saliency
from jdissect.report.figures import drawing
from jdissect.report.figures.palette import INK, OUTLINE
from jdissect.runtime.devices import in_32_bits

TITLES = {
    "none": "original",
    "cutout": "Cutout",
    "mixup": "Mixup",
    "cutmix": "CutMix",
    "saliencymix": "SaliencyMix",
}
ALONE = ("none", "cutout")  # recipes that do not mix
TRIES = 64  # number of keys
SEEN = (0.25, 0.75)  # range of weights at which mixing is visible

_SIDE, _GAP, _LEFT = 1.12, 0.08, 0.3  # of a picture, in inches: 224 pixels at 200 dpi
_TITLE, _CAPTION = 0.3, 0.24  # heights


@dataclasses.dataclass(frozen=True)
class Mixed:
    """The pictures of a recipe.

    Attributes:
      images: RGB, 0..255.
      weight: weight of the image itself, lambda.
      partner: index of the image mixed into each; its own index if there is none.
    """

    images: UInt8[np.ndarray, "image height width 3"]
    weight: Float[np.ndarray, " image"]
    partner: Int[np.ndarray, " image"]


@in_32_bits
def mixed(
    recipe: str, pixels: UInt8[np.ndarray, "image height width 3"], seed: int
) -> Mixed:
    """Returns what training would make of these images as one batch.

    Most draws show little: an image may be its own partner, or lambda close to 0 or 1.
    So this tries the keys fold_in(fold_in(key(seed), recipe's number), 0, 1, 2, ...)
    and takes the first with which each image has another one as partner and a weight of
    0.25 to 0.75, or, failing that, the one of 64 with the most such images.

    Args:
      recipe: one of `augment.RECIPES`.
      pixels: RGB.
      seed: seed of the keys.

    Raises:
      UserError: the recipe is unknown.
    """
    number = augment.RECIPES.index(recipe) if recipe in augment.RECIPES else 0
    key = jax.random.fold_in(jax.random.key(seed), number)
    best, most = None, -1
    for attempt in range(1 if recipe in ALONE else TRIES):
        mixture = _mix(recipe, jax.random.fold_in(key, attempt), pixels)
        weight = np.asarray(mixture.weight)
        seen = (weight >= SEEN[0]) & (weight <= SEEN[1])
        seen &= np.asarray(mixture.second != mixture.first)
        if seen.sum() > most:
            best, most = mixture, seen.sum()
        if most == len(pixels):
            break
    assert best is not None  # the first is better than none
    return Mixed(
        displayed(best.images), np.asarray(best.weight), np.asarray(best.second)
    )


@functools.partial(jax.jit, static_argnames="recipe")
def _mix(recipe, key, pixels):
    images = pixels.astype(jnp.float32) / 255
    numbers = jnp.arange(len(pixels))  # labels identify the images
    return augment.mix(recipe, key, images, numbers, normalize=_normalize)


def _normalize(images: Float[Array, "..."]) -> Float[Array, "..."]:
    return preprocess.normalize(images * 255, preprocess.IMAGENET)


def displayed(
    normalized: Float[Array, "image height width 3"],
) -> UInt8[np.ndarray, "image height width 3"]:
    """Converts a network's input back to pixels; Cutout's zeros are ImageNet's mean."""
    values = np.asarray(normalized, np.float64)
    values = values * preprocess.IMAGENET.std + preprocess.IMAGENET.mean
    return np.clip(np.round(255 * values), 0, 255).astype(np.uint8)


@drawing.style()
def draw(
    pixels: UInt8[np.ndarray, "image height width 3"],
    recipes: Sequence[str],
    seed: int = 0,
) -> Figure:
    """Draws one row per image and one column per recipe, with lambda below pictures.

    SaliencyMix also gets a column with the saliency of the pasted image; a cross marks
    its peak, the center of the box.

    Args:
      pixels: RGB, of one size.
      recipes: names from `augment.RECIPES`.
      seed: see `mixed`.
    """
    columns = len(recipes) + ("saliencymix" in recipes)
    height = _SIDE * pixels.shape[1] / pixels.shape[2]
    figure = drawing.new_figure(
        _LEFT + columns * (_SIDE + _GAP),
        _TITLE + len(pixels) * (height + _CAPTION) + 0.04,
        layout="none",
    )

    def show(row, column, picture, caption, **how):
        left = _LEFT + column * (_SIDE + _GAP)
        top = _TITLE + row * (height + _CAPTION)
        axes = drawing.place(figure, left, top, _SIDE, height)
        axes.imshow(picture, **how)
        middle, below = left + _SIDE / 2, top + height + 0.13
        drawing.write_at(figure, middle, below, caption, ha="center")
        return axes

    def title(column, text):
        middle = _LEFT + column * (_SIDE + _GAP) + _SIDE / 2
        style = {"ha": "center", "fontsize": drawing.LARGE}
        drawing.write_at(figure, middle, _TITLE - 0.09, text, **style)

    for row in range(len(pixels)):
        middle = _TITLE + row * (height + _CAPTION) + height / 2
        style = {"ha": "center", "va": "center", "fontweight": "bold"}
        drawing.write_at(figure, _LEFT / 2, middle, letter(row), **style)
    for column, recipe in enumerate(recipes):
        title(column, TITLES[recipe])
        made = mixed(recipe, pixels, seed)
        for row, picture in enumerate(made.images):
            caption = f"λ = {made.weight[row]:.2f}"
            if recipe not in ALONE:
                caption += f", {letter(row)} with {letter(made.partner[row])}"
            show(row, column, picture, caption)
        if recipe == "saliencymix":
            title(len(recipes), "saliency of source")
            maps = np.asarray(saliency.fine_grained(pixels))
            for row, source in enumerate(made.partner):
                y, x = np.unravel_index(maps[source].argmax(), maps[source].shape)
                grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
                caption = f"{letter(source)}, peak at {y}, {x}"
                axes = show(row, len(recipes), maps[source], caption, **grey)
                for color, size, width in ((INK, 11, 3.2), (OUTLINE, 10, 1.6)):
                    axes.plot(x, y, "+", color=color, ms=size, mew=width, clip_on=False)
    return figure


def letter(number: int) -> str:
    """Returns A, B, ... Z, AA, AB, ..."""
    text = ""
    number = int(number) + 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
