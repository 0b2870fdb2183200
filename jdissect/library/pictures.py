"""Keeps small pictures of the images that a result's units respond to most.

A result shows its images after they are gone: a stream is read once, and an array may
change. So each image of a stream is encoded when it is read, and of all images only the
units' top images stay.
"""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.source import Annotations, Example, UnreadableImage
from jdissect.report.probe_images import open_counted
from jdissect.results.finished_run import StoredRun

SIDE = 160  # longer side of a picture in pixels
MOST_BYTES = 2**28  # of pictures kept while a stream is read
_QUALITY = 85
_CHANNELS = (1, 3)


class Pictures:
    """Pictures by the number of the image; a `data.source.Readable`.

    Attributes:
      names: names of all images.
      image_shape: (height, width) of the pictures; (1, 1) if there are none.
    """

    annotations: Annotations | None = None

    def __init__(
        self, encoded: dict[int, bytes], names: Sequence[str], shape: tuple[int, int]
    ):
        self._encoded, self.names, self.image_shape = encoded, tuple(names), shape

    def __repr__(self) -> str:
        return f"<pictures of {len(self._encoded)} images>"

    def read(self, index: int) -> Example:
        """Returns the picture of an image.

        Raises:
          UnreadableImage: it was not kept.
        """
        if index not in self._encoded:
            raise UnreadableImage(self.names[index], "not kept")
        with Image.open(io.BytesIO(self._encoded[index])) as image:
            return Example(np.asarray(image.convert("RGB")), None, None)


class Keeper:
    """Encodes the images of a dissection while they are read.

    Arrays that are no pictures (of other channels than one or three) are left out.
    """

    def __init__(self) -> None:
        self._encoded: dict[int, bytes] = {}
        self._bytes, self._shape = 0, (1, 1)
        self._scale: tuple[float, float] | None = None

    def add(self, index: Iterable[int], images: Shaped[np.ndarray, "image ..."]):
        """Encodes the images of these numbers, unless they are known or too many."""
        for number, image in zip(index, images, strict=False):
            if number < 0 or number in self._encoded or self._bytes > MOST_BYTES:
                continue
            if self._scale is None:
                self._scale = _scale(images)
            picture = as_picture(image, self._scale)
            if picture is None:
                return
            self._shape = picture.shape[:2]
            self._encoded[int(number)] = content = _encode(picture)
            self._bytes += len(content)

    def kept(self, tops: Iterable[np.ndarray], names: Sequence[str]) -> Pictures | None:
        """Returns the pictures of the units' top images; None if there are none.

        Args:
          tops: `top_image` of the results.
          names: names of all images.
        """
        wanted = {int(index) for top in tops for index in top.ravel()}
        found = {i: text for i, text in self._encoded.items() if i in wanted}
        return Pictures(found, names, self._shape) if found else None


class RunPictures:
    """The images of a stored run, opened when the first is shown.

    They are shown only if they are the ones that were counted, see
    `report.probe_images`.

    Args:
      run: a finished run.
      data_path: folder of the images; '' uses the run's config.
    """

    annotations: Annotations | None = None

    def __init__(self, run: StoredRun, data_path: str = ""):
        self._run, self._data_path = run, data_path
        self._opened: Any = None
        self.names = run.names
        self.reason = ""  # why there are no pictures

    def __repr__(self) -> str:
        return f"<pictures of {self._run.path}>"

    @property
    def image_shape(self) -> tuple[int, int]:
        opened = self._images()
        return (1, 1) if opened is None else opened.image_shape

    def read(self, index: int) -> Example:
        """Returns the image that was counted.

        Raises:
          UnreadableImage: it is missing, or another one has its name.
        """
        opened = self._images()
        if opened is None:
            raise UnreadableImage(self.names[index], self.reason)
        return opened.read(index)

    def _images(self):
        if self._opened is None and not self.reason:
            try:
                self._opened = open_counted(self._run, data_path=self._data_path)
            except UserError as error:
                self.reason = " ".join(str(error).split())
        return self._opened


def as_picture(
    image: Shaped[np.ndarray, "..."], scale: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Returns an image for looking at; None if it cannot be one.

    Args:
      image: [height, width], or with one or three channels, first or last.
      scale: values that become black and white; None: those of the image itself.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape:
        return None
    if image.shape[-1] not in _CHANNELS:
        if image.shape[0] not in _CHANNELS:
            return None
        image = np.moveaxis(image, 0, -1)
    if image.dtype != np.uint8:
        values = image.astype(np.float32)
        low, high = scale or (0.0, 0.0)
        if low >= high:
            low, high = float(values.min()), float(values.max())
        values = (values - low) * (255 / (high - low or 1))
        image = np.nan_to_num(values).clip(0, 255).round().astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _scale(images: Shaped[np.ndarray, "image ..."]) -> tuple[float, float]:
    """Guesses black and white of a batch; (0, 0): stretch each image by itself."""
    if images.dtype == bool:
        return 0.0, 1.0
    low, high = float(np.min(images)), float(np.max(images))
    if low < 0 or high > 255:  # normalized
        return 0.0, 0.0
    return 0.0, 1.0 if high <= 1 and images.dtype.kind not in "iu" else 255.0


def _encode(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(picture))
    scale = SIDE / max(image.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in image.size)
        bilinear = Image.Resampling.BILINEAR
        image = image.resize((width, height), bilinear, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
