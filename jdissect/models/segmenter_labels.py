"""Reads the published segmenters' vocabularies, and numbers their concepts.

A segmenter's folder holds a `labels.json`. It is downloaded and decides what every
channel means, so it is read strictly: types and references are checked; unknown keys
are ignored. Names may repeat, as in ADE20K's lists: each channel has its own number,
and a concept is the union of its numbers. Numbers are those of netdissect
(davidbau/dissect, netdissect/segmenter.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jdissect.base.concepts import NOTHING
from jdissect.base.errors import UserError

# The quarters of an object are parts with these suffixes, in the order of the numbers.
QUARTERS = ("t", "l", "b", "r")
_LARGEST_SIDE = 4096  # limit for the image sides of a color network
_MOST_NAMES = 100_000  # per list; a vocabulary has hundreds

Concepts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class UPerNetLabels:
    """The meaning of UPerNet's channels.

    Attributes:
      objects, materials: name of each channel; the first is '-', no label.
      parts: names of parts, the first '-'. These are not channel numbers: parts are
        classified within their owner.
      scenes: name of each channel.
      object_parts: (owner's object number, the first of its name; names of its parts),
        ascending. The part channels are these groups in order; a group's first name
        is '-'.
    """

    objects: tuple[str, ...]
    parts: tuple[str, ...]
    materials: tuple[str, ...]
    scenes: tuple[str, ...]
    object_parts: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def channels(self) -> dict[str, int]:
        """Returns the number of outputs per head: options of 'upernet'."""
        return {
            "objects": len(self.objects),
            "parts": sum(len(names) for _, names in self.object_parts),
            "materials": len(self.materials),
            "scenes": len(self.scenes),
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the content of a `labels.json`, for `read_upernet`."""
        return {
            "object": list(self.objects),
            "part": list(self.parts),
            "material": list(self.materials),
            "scene": list(self.scenes),
            "object_part": {self.objects[n]: list(p) for n, p in self.object_parts},
        }


@dataclass(frozen=True)
class ColorLabels:
    """The meaning of the color segmenter's channels, and its preprocessing.

    Attributes:
      labels: (name, category) of each channel. Names may repeat: '-' of each category.
      categories: categories; each has its own softmax and argmax.
      byteorder: 'RGB' or 'BGR', channel order of the images.
      mean, stdev: per channel in that order, for images in [0, 1].
      segsizes: sides of the square images whose scores are summed.
    """

    labels: Concepts
    categories: tuple[str, ...]
    byteorder: str
    mean: tuple[float, float, float]
    stdev: tuple[float, float, float]
    segsizes: tuple[int, ...]

    @property
    def channels(self) -> dict[str, int]:
        """Returns the number of outputs of the head: options of 'ppm'."""
        return {"classes": len(self.labels)}

    def to_json(self) -> dict[str, Any]:
        """Returns the content of a `labels.json`, for `read_color`."""
        return {
            "labels": [{"name": n, "category": c} for n, c in self.labels],
            "categories": [{"name": name} for name in self.categories],
            "imageformat": {
                "byteorder": self.byteorder,
                "mean": list(self.mean),
                "stdev": list(self.stdev),
            },
            "segsizes": list(self.segsizes),
        }


@dataclass(frozen=True)
class ObjectLabels:
    """The meaning of the channels of a segmenter of objects only.

    Attributes:
      objects: '-' for no label, which is no channel, and the name of each channel.
      byteorder, mean, stdev, segsizes: preprocessing, as in `ColorLabels`.
    """

    objects: tuple[str, ...]
    byteorder: str
    mean: tuple[float, float, float]
    stdev: tuple[float, float, float]
    segsizes: tuple[int, ...]

    @property
    def channels(self) -> dict[str, int]:
        """Returns the number of outputs of the head."""
        return {"objects": len(self.objects) - 1}

    def to_json(self) -> dict[str, Any]:
        """Returns the content of a `labels.json`, for `read_objects`."""
        return {
            "object": list(self.objects),
            "imageformat": {
                "byteorder": self.byteorder,
                "mean": list(self.mean),
                "stdev": list(self.stdev),
            },
            "segsizes": list(self.segsizes),
        }

    def vocabulary(self) -> UPerNetLabels:
        """Returns the same objects, without parts, materials and scenes."""
        return UPerNetLabels(self.objects, (NOTHING,), (NOTHING,), (), ())


class UPerNetConcepts(NamedTuple):
    """The numbers of UPerNet's concepts.

    Attributes:
      concepts: (name, category) by number; object n has number n.
      part_numbers: per owner (as in `object_parts`) and channel of its group; 0 for
        '-'.
      material_offset: material m > 0 has number material_offset + m.
    """

    concepts: Concepts
    part_numbers: tuple[tuple[int, ...], ...]
    material_offset: int


def read_upernet(content: Mapping[str, Any], where: str = "labels") -> UPerNetLabels:
    """Checks and reads the content of UPerNet's `labels.json`.

    Args:
      content: content from `json.load`.
      where: beginning of the message, e.g. the file's path.

    Raises:
      UserError: a key is missing, or a value does not have the right form.
    """
    _check_type(content, Mapping, where)
    objects, parts, materials = (
        _names(content, key, where, nothing=True)
        for key in ("object", "part", "material")
    )
    scenes = _names(content, "scene", where)
    owners = _get(content, "object_part", Mapping, where)
    strange = [n for n in owners if n == NOTHING or n not in objects]
    if strange:
        raise UserError(f"{where}: object_part has {strange[0]!r}, not an object")
    groups = []
    for number, owner in enumerate(objects):
        if owner not in owners or owner in objects[:number]:
            continue
        group = _names(owners, owner, f"{where}: object_part", nothing=True)
        strange = [name for name in group if name not in parts]
        if strange:
            raise UserError(
                f"{where}: object_part {owner!r} has {strange[0]!r}, not a part"
            )
        groups.append((number, group))
    return UPerNetLabels(objects, parts, materials, scenes, tuple(groups))


def read_color(content: Mapping[str, Any], where: str = "labels") -> ColorLabels:
    """Checks and reads the content of the color segmenter's `labels.json`.

    Args:
      content: content from `json.load`; `segsizes` defaults to 256.
      where: beginning of the message, e.g. the file's path.

    Raises:
      UserError: a key is missing, or a value does not have the right form.
    """
    _check_type(content, Mapping, where)
    categories = tuple(
        _name(item, "name", f"{where}: categories")
        for item in _list(content, "categories", where)
    )
    _check_unique(categories, f"{where}: categories")
    labels = []
    for index, item in enumerate(_list(content, "labels", where)):
        place = f"{where}: label {index}"
        pair = _name(item, "name", place), _name(item, "category", place)
        if pair[1] not in categories:
            raise UserError(f"{place} {pair[0]!r} has unknown category {pair[1]!r}")
        labels.append(pair)
    empty = set(categories) - {category for _, category in labels}
    if empty:
        raise UserError(f"{where}: category {min(empty)!r} has no labels")
    return ColorLabels(tuple(labels), categories, *_preprocessing(content, where))


def read_objects(content: Mapping[str, Any], where: str = "labels") -> ObjectLabels:
    """Checks and reads the labels of a segmenter of objects only.

    Args:
      content: content from `json.load`; `segsizes` defaults to 256.
      where: beginning of the message, e.g. the file's path.

    Raises:
      UserError: a key is missing, or a value does not have the right form.
    """
    _check_type(content, Mapping, where)
    objects = _names(content, "object", where, nothing=True)
    return ObjectLabels(objects, *_preprocessing(content, where))


def _preprocessing(content, where: str):
    """Reads byteorder, mean, stdev and segsizes."""
    form = _get(content, "imageformat", Mapping, where)
    place = f"{where}: imageformat"
    byteorder = _get(form, "byteorder", str, place)
    if byteorder not in ("RGB", "BGR"):
        raise UserError(f"{place}: byteorder is {_show(byteorder)}, not RGB or BGR")
    mean, stdev = (_channels(form, key, place) for key in ("mean", "stdev"))
    if 0 in stdev:
        raise UserError(f"{place}: stdev has a 0")
    sizes: Sequence[int] = (256,)
    if "segsizes" in content:
        sizes = _list(content, "segsizes", where)
        for size in sizes:
            if type(size) is not int or not 0 < size <= _LARGEST_SIDE:
                raise UserError(f"{where}: segsizes has {_show(size)}, not a side")
    return byteorder, mean, stdev, tuple(sizes)


def check_channels(
    labels: UPerNetLabels | ColorLabels | ObjectLabels,
    architecture: Mapping[str, Any],
    where: str,
) -> None:
    """Raises UserError unless each head of a network has one output per label."""
    for head, count in labels.channels.items():
        outputs = architecture.get(head)
        if count != outputs:
            raise UserError(f"{where} names {count} {head}, the network has {outputs}")


def upernet_concepts(labels: UPerNetLabels, quarters: bool) -> UPerNetConcepts:
    """Numbers UPerNet's concepts.

    Objects come first, then (with `quarters`) the top, left, bottom and right quarters
    of every object, which are parts; then materials; then parts in order of first
    appearance over the owners. A part with an object's name has the object's number.
    """
    concepts = [(name, "object") for name in labels.objects]
    for quarter in QUARTERS if quarters else ():
        concepts += [
            (name if name == NOTHING else f"{name}-{quarter}", "part")
            for name in labels.objects[1:]
        ]
    material_offset = len(concepts) - 1
    concepts += [(name, "material") for name in labels.materials[1:]]
    number_of: dict[str, int] = {}
    for number, name in enumerate(labels.objects):
        number_of.setdefault(name, number)
    part_numbers = []
    for _, group in labels.object_parts:
        for name in group:
            if name not in number_of:
                number_of[name] = len(concepts)
                concepts.append((name, "part"))
        part_numbers.append(tuple(number_of[name] for name in group))
    return UPerNetConcepts(tuple(concepts), tuple(part_numbers), material_offset)


def color_concepts(labels: ColorLabels) -> tuple[Concepts, tuple[int, ...]]:
    """Numbers the color segmenter's concepts on their own.

    Labels with the same name share a number and the first one's category; '-' always
    has number 0.

    Returns:
      (name, category) by number, and the number of each channel.
    """
    concepts = [(NOTHING, NOTHING)]
    number_of = {NOTHING: 0}
    for name, category in labels.labels:
        if name not in number_of:
            number_of[name] = len(concepts)
            concepts.append((name, category))
    return tuple(concepts), tuple(number_of[name] for name, _ in labels.labels)


def merged_concepts(upp_concepts: Iterable, color_labels: ColorLabels) -> Concepts:
    """Returns UPerNet's concepts followed by the color segmenter's, including its '-'.

    The color segmenter's number n becomes len(upp_concepts) + n.
    """
    return (*map(tuple, upp_concepts), *color_concepts(color_labels)[0])


def _names(content, key: str, where: str, nothing: bool = False) -> tuple[str, ...]:
    """Reads a list of names; with `nothing`, '-' must come first."""
    names = _list(content, key, where)
    for index, name in enumerate(names):
        _check_name(name, f"{where}: {key}[{index}]")
    if nothing and names[0] != NOTHING:
        raise UserError(f"{where}: {key} must begin with '{NOTHING}'")
    return tuple(names)


def _list(content, key: str, where: str) -> list:
    values = _get(content, key, list, where)
    if not 0 < len(values) <= _MOST_NAMES:
        raise UserError(f"{where}: {key} has {len(values)} entries")
    return values


def _name(content: Any, key: str, where: str) -> str:
    _check_type(content, Mapping, where)
    name = _get(content, key, str, where)
    _check_name(name, f"{where}: {key}")
    return name


def _check_name(name: Any, where: str) -> None:
    """Names reach terminals, tables and pages: no line ends, no lone surrogates."""
    _check_type(name, str, where)
    if not name or not name.isprintable() or len(name) > 200:
        raise UserError(f"{where} is {_show(name)}, not a name")


def _channels(content, key: str, where: str) -> tuple[float, float, float]:
    values = _get(content, key, list, where)
    if len(values) != 3 or not all(
        type(value) in (int, float) and abs(value) < 1e6 for value in values
    ):
        raise UserError(f"{where}: {key} is {_show(values)}, not three numbers")
    first, second, third = map(float, values)
    return first, second, third


def _get(content: Mapping, key: str, kind: type, where: str) -> Any:
    if key not in content:
        raise UserError(f"{where} lacks {key!r}")
    _check_type(content[key], kind, f"{where}: {key}")
    return content[key]


_KINDS: dict[type, str] = {Mapping: "an object", list: "a list", str: "a string"}


def _check_type(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        raise UserError(f"{where} is {_show(value)}, not {_KINDS[kind]}")


def _check_unique(names: Iterable[str], where: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: {name!r} appears twice")
        seen.add(name)


def _show(value: Any) -> str:
    """Returns a value for a message, short and on one line."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
