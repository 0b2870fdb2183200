"""Finds the annotations of each image in a COCO JSON file, without keeping them.

Files of the whole data set have hundreds of megabytes. Their annotations are parsed one
at a time, and only their places in the file are kept. The format is that of
cocodataset.org/#format-data: annotations of instances or stuff are a class and its
pixels each; those of panoptic files name a PNG of an image's segments.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.files import opened, read_bytes

_SPACE = re.compile(r"[ \t\r\n]*")
_LISTS = ("images", "categories", "annotations")
_NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
}


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """A JSON file's images and categories, and where its annotations are.

    Attributes:
        path: the file.
        images: {id, file_name, height, width} of each image; None where missing.
        categories: {id, name} of each category; None where missing.
        panoptic: whether annotations name PNGs.
        starts, ends: byte offsets of each annotation, in the order of their images.
        firsts: position of each image's first annotation in `starts`; at the end the
            number of annotations.
        most: largest number of classes that an image's annotations have.
        stamp: size and modification time of the file.
    """

    path: Path
    images: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)
    categories: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)
    panoptic: bool
    starts: Int64[np.ndarray, " annotation"] = dataclasses.field(repr=False)
    ends: Int64[np.ndarray, " annotation"] = dataclasses.field(repr=False)
    firsts: Int64[np.ndarray, " images_and_end"] = dataclasses.field(repr=False)
    most: int
    stamp: tuple[int, int]

    def annotations(self, images: Sequence[int]) -> Iterator[list[bytes]]:
        """Yields for each of some images the JSON texts of its annotations.

        Raises:
            UserError: the file changed since it was opened, or cannot be read.
        """
        try:
            with opened(self.path) as file:
                if _stamp(os.fstat(file.fileno())) != self.stamp:
                    raise UserError(f"{self.path} changed while it was in use.")
                for image in images:
                    texts = []
                    for place in range(self.firsts[image], self.firsts[image + 1]):
                        file.seek(self.starts[place])
                        texts.append(file.read(self.ends[place] - self.starts[place]))
                    yield texts
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}.") from None


def read_coco(path: Path) -> CocoFile:
    """Reads images and categories, and finds the annotations.

    Raises:
        UserError: the file cannot be read, is not JSON or lacks a list; ids are missing
            or repeated; an annotation is of an unknown image or category, or has no
            pixels.
    """
    try:
        stamp = _stamp(path.stat())
        # Each byte as the letter of its number, so that places in the text are places
        # in the file. Numbers and punctuation are the same in UTF-8.
        text = read_bytes(path).decode("latin-1")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return _indexed(path, text, stamp)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        reason = "it is nested too deeply" if deep else printable(str(error))
        raise UserError(f"{path} is not a COCO file: {reason}.") from None


def _indexed(path: Path, text: str, stamp: tuple[int, int]) -> CocoFile:
    """Returns the file of a text; raises ValueError for what is wrong with it."""
    lists: dict[str, list[dict[str, Any]]] = {}
    places: list[tuple[int, int]] = []
    # What of each annotation is needed here: its image, its class if it has one.
    of: list[Any] = []
    classes: list[Any] = []
    for key, value, start, end in _elements(text):
        entries = lists.setdefault(key, [])
        if end == 0:  # the list is empty
            continue
        if not isinstance(value, dict):
            raise ValueError(f"'{key}' has an element that is not an object")
        if key != "annotations":
            entry = json.loads(text[start:end].encode("latin-1"))
            entries.append({name: entry.get(name) for name in _NEEDED[key]})
            continue
        where = f"annotation {len(places) + 1}"
        panoptic = "segments_info" in value
        if panoptic != (bool(places) and classes[0] is None) and places:
            raise ValueError(f"{where} is {'' if panoptic else 'not '}panoptic")
        if not panoptic and not value.get("segmentation"):
            raise ValueError(f"{where} has no segmentation; boxes have no pixels")
        places.append((start, end))
        of.append(_key(value, "image_id", where))
        classes.append(None if panoptic else _key(value, "category_id", where))
    if lacking := [key for key in _LISTS if key not in lists]:
        raise ValueError(f"it has no list '{lacking[0]}'")
    image_of, class_of = (_positions(lists[key], key) for key in _LISTS[:2])
    images = np.asarray([_known(key, image_of, "image") for key in of], np.int64)
    panoptic = bool(classes) and classes[0] is None
    pairs = set()
    if not panoptic:
        kinds = [_known(key, class_of, "category") for key in classes]
        pairs = set(zip(images.tolist(), kinds, strict=True))
    order = np.argsort(images, kind="stable")
    ordered = np.asarray(places, np.int64).reshape(-1, 2)[order]
    count = np.bincount(images, minlength=len(lists["images"]))
    distinct = np.bincount([image for image, _ in pairs] or [0])
    return CocoFile(
        path=path,
        images=tuple(lists["images"]),
        categories=tuple(lists["categories"]),
        panoptic=panoptic,
        starts=ordered[:, 0],
        ends=ordered[:, 1],
        firsts=np.concatenate([[0], np.cumsum(count)]),
        most=max(1, int(distinct.max())),
        stamp=stamp,
    )


def _elements(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Yields (list, element, start, end) of the lists `_LISTS` in a JSON object.

    An empty list is one element None from 0 to 0.
    """
    parse = json.JSONDecoder().raw_decode
    at = _after(text, _SPACE.match(text).end(), "{")  # type: ignore[union-attr]
    while not text.startswith("}", at):
        key, at = parse(text, at)
        at = _after(text, at, ":")
        if key in _LISTS:
            at = _after(text, at, "[")
            if text.startswith("]", at):
                yield key, None, 0, 0
            while not text.startswith("]", at):
                value, end = parse(text, at)
                yield key, value, at, end
                at = _separated(text, end, "]")
            at += 1
        else:
            _, at = parse(text, at)
        at = _separated(text, at, "}")


def _after(text: str, at: int, mark: str) -> int:
    """Returns where the text goes on after a mark and the space around it."""
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    if not text.startswith(mark, at):
        raise ValueError(f"there is no '{mark}' at byte {at}")
    return _SPACE.match(text, at + 1).end()  # type: ignore[union-attr]


def _separated(text: str, at: int, end: str) -> int:
    """Returns where the next element begins, or where the end mark is."""
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    return at if text.startswith(end, at) else _after(text, at, ",")


def _key(value: Mapping[str, Any], name: str, where: str) -> int | str:
    """Returns an id; some programs write them as text."""
    key = value.get(name)
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise ValueError(f"{where} has no {name}")
    return key


def _positions(entries: Sequence[Mapping[str, Any]], name: str) -> dict[Any, int]:
    positions: dict[Any, int] = {}
    for place, entry in enumerate(entries):
        key = _key(entry, "id", f"element {place + 1} of '{name}'")
        if positions.setdefault(key, place) != place:
            raise ValueError(f"'{name}' has two elements of id {key!r}")
    return positions


def _known(key: int | str, positions: Mapping[Any, int], what: str) -> int:
    if key not in positions:
        raise ValueError(f"an annotation is of {what} {key!r:.60}, which is not listed")
    return positions[key]


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
