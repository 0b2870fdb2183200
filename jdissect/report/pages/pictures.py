"""Makes thumbnails of probe images, as large and as good as a page has room for.

A page shows thousands of images and has a size limit. So a sample is encoded at several
sizes and qualities first, and the best that fits is used for all. Each image is encoded
once, however many units show it.
"""

import concurrent.futures
import dataclasses
import io
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, features

from jdissect.runtime import resources

# (longer side in pixels, quality), best first.
_SETTINGS = (
    (128, 78),
    (128, 62),
    (112, 60),
    (96, 60),
    (96, 45),
    (80, 50),
    (80, 38),
    (64, 45),
    (64, 32),
    (48, 38),
    (48, 22),
)
_SAMPLE = 96
_MARGIN = 1.08  # the sample may compress better than the rest

# Of what `wanted` of `make` holds.
Read = Callable[[Any], UInt8[np.ndarray, "height width 3"] | None]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Encoded thumbnails.

    Attributes:
      encoded: {image: a file of type `mime`}; images that cannot be read or do not fit
        are left out.
      mime: 'image/webp', or 'image/jpeg' if Pillow cannot write WebP.
      side: longer side in pixels.
      ranks: number of the given sequences that fit.
    """

    encoded: dict[Hashable, bytes]
    mime: str
    side: int
    ranks: int


def make(
    read: Read, wanted: Sequence[Iterable[Hashable]], budget: int, smallest: int = 48
) -> Pictures:
    """Encodes images so that their base64 takes at most `budget` bytes.

    Args:
      read: returns an image's RGB pixels, or None if unreadable; called from threads.
      wanted: sequences of images, the most important first.
      budget: bytes of base64, with the quotes and commas around it.
      smallest: minimum side; the last sequences are dropped to keep it.
    """
    by_rank, seen = [], set()
    for images in wanted:
        new = [image for image in dict.fromkeys(images) if image not in seen]
        seen.update(new)
        by_rank.append(new)
    distinct = [image for images in by_rank for image in images]
    if not distinct or budget <= 0:
        return Pictures({}, _mime(), 0, len(by_rank))
    with concurrent.futures.ThreadPoolExecutor(min(8, resources.cores())) as pool:
        plan = _Plan(read, distinct, pool)
        counts = np.cumsum([len(images) for images in by_rank])
        ranks, setting = plan.choose(counts, budget, smallest)
        chosen = distinct[: counts[ranks - 1]]
        encoded = plan.encode(chosen, setting)
        while (excess := _cost(encoded.values()) / budget) > 1:
            cheaper = plan.cheaper(setting, excess)
            if cheaper == setting:
                break
            setting = cheaper
            encoded = plan.encode(chosen, setting)
    kept, total = {}, 0
    for image, content in encoded.items():
        total += _cost([content])
        if total > budget:
            break
        kept[image] = content
    return Pictures(kept, _mime(), _SETTINGS[setting][0], ranks)


class _Plan:
    """Estimates the images' encoded sizes from a sample."""

    def __init__(self, read: Read, images: list, pool):
        self._read, self._pool = read, pool
        step = max(1, len(images) // _SAMPLE)
        pixels = [p for p in pool.map(read, images[::step]) if p is not None]
        largest = _SETTINGS[0][0]
        self._sample = [_fitted(p, largest) for p in pixels]
        self._means: dict[int, float] = {}

    def choose(self, counts, budget: int, smallest: int) -> tuple[int, int]:
        """Returns (number of ranks, index of the setting)."""
        for ranks in range(len(counts), 0, -1):
            for place, (side, _) in enumerate(_SETTINGS):
                if side < smallest and ranks > 1:
                    break
                if counts[ranks - 1] * self._mean(place) * _MARGIN <= budget:
                    return ranks, place
        return 1, len(_SETTINGS) - 1

    def cheaper(self, place: int, factor: float) -> int:
        """Returns a setting that is `factor` times smaller, or else the last."""
        for other in range(place + 1, len(_SETTINGS)):
            if self._mean(other) * factor <= self._mean(place):
                return other
        return len(_SETTINGS) - 1

    def _mean(self, place: int) -> float:
        if place not in self._means:
            encoded = self._pool.map(
                lambda i: _encode(i, *_SETTINGS[place]), self._sample
            )
            self._means[place] = _cost(encoded) / max(len(self._sample), 1)
        return self._means[place]

    def encode(self, images: list, place: int) -> dict[Hashable, bytes]:
        """Encodes those of the images that can be read."""

        def one(image):
            pixels = self._read(image)
            if pixels is None:
                return b""
            return _encode(Image.fromarray(pixels), *_SETTINGS[place])

        found = zip(images, self._pool.map(one, images), strict=True)
        return {image: content for image, content in found if content}


def _fitted(pixels, side: int) -> Image.Image:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    size = (width, height)
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _encode(image: Image.Image, side: int, quality: int) -> bytes:
    file = io.BytesIO()
    kind: dict[str, dict[str, Any]] = {"image/webp": {"format": "WEBP", "method": 3}}
    options = kind.get(_mime(), {"format": "JPEG", "optimize": True})
    _fitted(image, side).save(file, quality=quality, **options)
    return file.getvalue()


def _mime() -> str:
    return "image/webp" if features.check("webp") else "image/jpeg"


def _cost(encoded: Iterable[bytes]) -> int:
    """Returns the bytes of base64, with quotes and commas."""
    return sum(4 * -(-len(content) // 3) + 3 for content in encoded)
