"""Converts a caller's arrays, images and batches, of any library, to NumPy arrays.

Arrays of PyTorch and other libraries convert by `__array__` or DLPack; the libraries
are not imported.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.dissection.photographs import Geometry

_PIL_MODES = ("RGB", "L")
_MASK_MODES = ("1", "L", "P", "I", "I;16")  # whose values are numbers of concepts
# Names of images and of their masks in the items of data sets, best first.
_IMAGES = ("image", "images", "pixel_values", "img")
_MASKS = (
    *("label_maps", "masks", "mask", "segmentation_mask", "annotation", "annotations"),
    *("labels", "label"),
)
_ARRAY = ("__array__", "__array_interface__", "__dlpack__")


def as_array(value: Any, what: str) -> np.ndarray:
    """Returns any library's array as a NumPy array.

    Args:
      value: an array of NumPy, JAX, PyTorch (on any device, with or without
        gradients), Pillow or anything with `__array__` or `__dlpack__`; or nested
        lists of numbers.
      what: name of the value, at the beginning of messages.

    Raises:
      UserError: it does not hold numbers, or cannot be read.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, Image.Image):
        if value.mode not in _PIL_MODES:
            raise UserError(
                f"{what} is a PIL image of mode {value.mode}; convert it with "
                "image.convert('RGB')"
            )
        array = np.asarray(value)
    elif _is_array(value) or isinstance(value, tuple | list):
        try:
            array = _converted(value)
        except Exception as error:  # libraries raise various types
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{what} is {shown(value)}, not an array: {reason}"
            ) from None
    else:
        raise UserError(f"{what} is {shown(value)}, not an array")
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        raise UserError(f"{what} is {shown(array)}; it must hold numbers")
    return array


def _converted(value: Any) -> np.ndarray:
    for name in ("detach", "cpu"):  # PyTorch: without gradients, off the GPU
        if hasattr(value, "__dlpack__") and callable(getattr(value, name, None)):
            value = getattr(value, name)()
    if not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except Exception:  # bfloat16, or on another device
        return np.asarray(jnp.from_dlpack(value))


def _is_array(value: Any) -> bool:
    return any(hasattr(value, name) for name in _ARRAY)


def shown(value: Any) -> str:
    """Returns a short description of a value."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    name = kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"
    if isinstance(value, Mapping):
        return f"a {name} of {', '.join(map(str, list(value)[:6]))}"
    if isinstance(value, tuple | list):
        parts = ", ".join(map(shown, value[:3])) + (", ..." if len(value) > 3 else "")
        return f"a {name} of {len(value)} ({parts})"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"a {name} {list(shape)}"
    return "None" if value is None else f"a {name}"


def parameters(params: Any) -> Any:
    """Returns a network's parameters as JAX stores them without its 64-bit mode.

    Raises:
      UserError: a leaf is not an array.
    """
    return jax.tree.map(_parameter, params)


def _parameter(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        narrow = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return leaf if narrow == leaf.dtype else np.asarray(leaf).astype(narrow)
    if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
        return leaf
    return as_array(leaf, "a leaf of params")


class Given:
    """A caller's images.

    Args:
      images: an array, image first; a list of images of equal size; or an iterable, or
        a data set with `__len__` and `__getitem__`, of images or batches of images, of
        pairs whose first is either, or of dicts with an 'image'.
      makes_maps: whether the network accepts an array of a shape and type as a batch;
        called for arrays of up to three axes, which may be an image or a batch.
      with_masks: whether each pair's second, or a 'mask' of each dict, is read, too:
        integers [height, width] or [maps, height, width] of an image.
      geometry: resizes PIL images, with their masks; None takes them as they are.

    Attributes:
      count: number of images; None if it is known only after reading.

    Raises:
      UserError: `images` is none of these.
    """

    def __init__(
        self,
        images: Any,
        makes_maps: Callable[[jax.ShapeDtypeStruct], bool],
        with_masks: bool = False,
        geometry: Geometry | None = None,
    ):
        self._makes_maps = makes_maps
        self._with_masks, self._geometry = with_masks, geometry
        self._are_images: dict[int, bool] = {}  # by number of axes
        self._first: tuple | None = None  # (shape, type) of the first image
        self._grid: tuple | None = None  # (maps, height, width) of the first mask
        self._array: Any = None
        self._stream: Iterable[Any] = ()
        self.count: int | None = None
        if isinstance(images, list | tuple):
            images = self._listed(images)
        if isinstance(images, Image.Image):
            raise UserError("images is a single image; give a list of images")
        if _is_array(images):
            if isinstance(images, jax.Array):  # slicing would compile
                images = np.asarray(images)
            if not (hasattr(images, "shape") and hasattr(images, "__getitem__")):
                images = as_array(images, "images")
            if not len(images.shape):
                raise UserError(f"images is {shown(images)}; images must be first")
            self._array, self.count = images, int(images.shape[0])
        elif _is_data_set(images):
            self._stream = (images[number] for number in range(len(images)))
        elif _is_iterable(images):
            self._stream = images
        else:
            raise UserError(
                f"images is {shown(images)}; it must be an array, image first, or an "
                "iterable of batches"
            )

    @property
    def example(self) -> np.ndarray:
        """Returns the first image of an array, as a batch."""
        return self.some([0])

    def some(self, indices: Iterable[int]) -> np.ndarray:
        """Returns selected images of an array."""
        parts = [self._slice(int(i), int(i) + 1) for i in indices]
        return np.concatenate(parts)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yields all images in batches of `size`; the last may be smaller.

        Raises:
          UserError: a batch is invalid or unlike those before it; there are no images.
        """
        for pixels, _ in self.pairs(size):
            yield pixels

    def pairs(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Like `batches`, with the masks [image, map, height, width] if they are read.

        Raises:
          UserError: as `batches`; or there are no masks, or those of a batch are not
            of one grid.
        """
        if self._array is not None:
            if not self.count:
                raise UserError("images is empty")
            for start in range(0, self.count, size):
                yield self._slice(start, min(start + size, self.count)), None
            return
        rest: list[np.ndarray] | None = None  # images, and masks if they are read
        seen = 0
        for number, given in enumerate(self._stream):
            what = f"batch {number} of images"
            batch, masks = self._batch(given, what)
            self._check_alike(batch, what)
            if masks is not None:
                self._check_masks(masks, len(batch), f"masks of batch {number}")
            seen += len(batch)
            new = [batch] if masks is None else [batch, masks]
            if rest is not None:
                new = [np.concatenate(parts) for parts in zip(rest, new, strict=True)]
            rest = new
            while len(rest[0]) >= size:
                yield rest[0][:size], rest[1][:size] if masks is not None else None
                rest = [part[size:] for part in rest]
        if not seen:
            raise UserError(
                "images yields no image; is it a generator that was read before?"
            )
        if rest is not None and len(rest[0]):
            yield rest[0], rest[1] if len(rest) > 1 else None

    def _slice(self, start: int, stop: int) -> np.ndarray:
        found = as_array(self._array[start:stop], "images")
        if len(found) != stop - start:
            raise UserError(
                f"images claims to hold {self.count} images, but gives "
                f"{len(found)} from {start} to {stop}"
            )
        self._check_alike(found, f"images[{start}:{stop}]")
        return found

    def _check_alike(self, batch: np.ndarray, what: str) -> None:
        kind = (batch.shape[1:], batch.dtype)
        if self._first is None:
            self._first = kind
        if kind != self._first:
            shape, dtype = self._first
            raise UserError(
                f"{what} holds images of {batch.dtype}{list(batch.shape[1:])}, but "
                f"those before are {dtype}{list(shape)}; all images must match"
            )

    def _listed(self, images: Sequence) -> Any:
        """Returns a list of images as an array; a list of batches unchanged."""
        if not images:
            raise UserError("images is empty")
        if _is_array(images[0]):
            if not self._is_image(images[0], "images[0]"):
                return images
            return self._stacked(images, "images")
        if isinstance(images[0], list) and not any(map(_is_item, images[0])):
            return as_array(images, "images")  # nested lists of numbers
        return images

    def _batch(self, given: Any, what: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns (images, masks or None) of an item of the stream."""
        if _is_list(given) and isinstance(given[0], tuple | Mapping):
            # Items of a data set that a loader did not stack.
            pairs = [self._batch(item, f"{what}[{n}]") for n, item in enumerate(given)]
            images = self._stacked([image[0] for image, _ in pairs], what)
            if not self._with_masks:
                return images, None
            found = [mask[0] for _, mask in pairs if mask is not None]
            return images, self._stacked(found, f"masks of {what}")
        masks: Any = None
        if isinstance(given, Mapping):
            key = _key_of(given, _IMAGES, what)
            if self._with_masks:
                masks = given[_key_of(given, _MASKS, what)]
            given = given[key]
            if _is_list(given) and not isinstance(given[0], Image.Image):
                given = self._stacked(given, what)
        elif self._with_masks:
            if not isinstance(given, list | tuple) or len(given) < 2:
                raise UserError(
                    f"{what} is {shown(given)}; it must be a pair (images, masks), as "
                    "neither label_maps nor segmenter is given"
                )
            given, masks = given[:2]
        images, single = self._images(given, what)
        if masks is None:
            return images, None
        return images, self._masks(masks, given, single, f"masks of {what}")

    def _images(self, given: Any, what: str) -> tuple[np.ndarray, bool]:
        """Returns (batch of images, whether it was a single image)."""
        if isinstance(given, list | tuple) and given:
            first, others = given[0], given[1:]
            if _is_list(first) and _is_array(first[0]):
                return self._images(first, what)  # beside labels
            if not _is_array(first):
                return as_array(given, what), False
            alike = [self._alike(each, first) for each in others]
            if self._is_image(first, what) and all(alike):
                return self._stacked(given, what), False
            if any(alike):
                raise UserError(
                    f"{what} is {shown(given)}; it must be an array, image first, or a "
                    "pair that begins with one"
                )
            given = first  # labels beside it are ignored: see `label_maps`
        if isinstance(given, Mapping) or not _is_array(given):
            raise UserError(
                f"{what} is {shown(given)}; it must be an array, image first"
            )
        array = self._as_array(given, what)
        if self._is_image(given, what):
            return array[None], True
        if not array.ndim:
            raise UserError(f"{what} is {shown(array)}; it must be an array")
        return array, False

    def _alike(self, value: Any, first: Any) -> bool:
        if self._geometry is not None and isinstance(first, Image.Image):
            return isinstance(value, Image.Image)
        return _is_array(value) and _shape(value) == _shape(first)

    def _as_array(self, value: Any, what: str) -> np.ndarray:
        if self._geometry is not None and isinstance(value, Image.Image):
            return self._geometry.pixels(value, what)
        return as_array(value, what)

    def _masks(self, masks: Any, images: Any, single: bool, what: str) -> np.ndarray:
        """Returns the masks of a batch as [image, map, height, width]."""
        photographs = [images] if single else images
        fitted = self._geometry is not None and _are_photographs(photographs)
        if not _is_list(masks) or (single and not isinstance(masks[0], Image.Image)):
            array = _mask(masks, what)
            if not single and not fitted:
                return array[:, None] if array.ndim == 3 else array
            parts = [array] if single else list(array)
        else:
            parts = [_mask(mask, f"{what}[{n}]") for n, mask in enumerate(masks)]
            if single:  # one image's maps
                parts = [self._stacked(parts, what)]
        if fitted:
            assert self._geometry is not None
            if len(parts) != len(photographs):
                raise UserError(f"{what} are {len(parts)}, not {len(photographs)}")
            parts = [
                self._geometry.mask(part, image, what)
                for part, image in zip(parts, photographs, strict=True)
            ]
        parts = [part[None] if part.ndim == 2 else part for part in parts]
        return self._stacked(parts, what)

    def _check_masks(self, masks: np.ndarray, count: int, what: str) -> None:
        if len(masks) != count:
            raise UserError(f"{what} are of {len(masks)} images, not {count}")
        if self._grid is None:
            self._grid = masks.shape[1:]
        if masks.shape[1:] != self._grid:
            raise UserError(
                f"{what} are [maps, height, width] = {list(masks.shape[1:])}, but "
                f"those before are {list(self._grid)}; all must be on one grid"
            )

    def _is_image(self, value: Any, what: str) -> bool:
        """Returns whether a value is one image rather than a batch."""
        if isinstance(value, Image.Image):
            return True
        axes = len(_shape(value))
        if not 0 < axes <= 3:
            return False
        if axes not in self._are_images:
            array = as_array(value, what)
            spec = jax.ShapeDtypeStruct(array.shape, array.dtype)
            self._are_images[axes] = not self._makes_maps(spec)
        return self._are_images[axes]

    def _stacked(self, images: Sequence, what: str) -> Shaped[np.ndarray, "image ..."]:
        arrays = []
        for number, image in enumerate(images):
            arrays.append(self._as_array(image, f"{what}[{number}]"))
            here, first = arrays[-1], arrays[0]
            if (here.shape, here.dtype) != (first.shape, first.dtype):
                raise UserError(
                    f"{what}[{number}] is {shown(here)}, {what}[0] is {shown(first)}; "
                    "all images must be of one size and type"
                )
        return np.stack(arrays)


def _is_item(value: Any) -> bool:
    return _is_array(value) or isinstance(value, tuple | Mapping)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _are_photographs(value: Any) -> bool:
    return _is_list(value) and isinstance(value[0], Image.Image)


def _is_data_set(value: Any) -> bool:
    """Returns whether a value is read by index only, as PyTorch's data sets are.

    Python's own way would go on until an IndexError, which many of them never raise.
    """
    methods = ("__len__", "__getitem__")
    there = all(hasattr(type(value), name) for name in methods)
    return there and not hasattr(type(value), "__iter__")


def _key_of(item: Mapping, names: Sequence[str], what: str) -> str:
    """Returns the first of the names that a data set's item has."""
    found = next((name for name in names if name in item), None)
    if found is None:
        raise UserError(f"{what} is {shown(item)}; it has no '{names[0]}'")
    return found


def _mask(mask: Any, what: str) -> np.ndarray:
    """Returns a mask, or several, as an array; a palette's numbers stay numbers."""
    if not isinstance(mask, Image.Image):
        return as_array(mask, what)
    if mask.mode not in _MASK_MODES:
        raise UserError(
            f"{what} is a PIL image of mode {mask.mode}; it must hold a number a "
            f"pixel, in mode {', '.join(_MASK_MODES)}"
        )
    return np.asarray(mask).astype(np.int32)


def _is_iterable(value: Any) -> bool:
    if isinstance(value, str | bytes | Mapping | set):
        return False
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
