"""Loads a layer's result from the folder that `Result.save` wrote.

The files may come from anywhere, so types, shapes and numbers are checked first.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdissect.base import paths, replacing, safe_reading, unit_names
from jdissect.base.errors import UserError
from jdissect.results import group_counts
from jdissect.results.layer_result import BLOCKS, BY_IMAGE, SUMMARY, TOP_MAPS, Result

# For each array, the kind of its numbers and its shape; equal letters are equal
# lengths.
_LAYOUT = {
    "dissection.npz": {
        "thresholds": ("f", "u"),
        "intersection": ("iu", "uc"),
        "union": ("iu", "uc"),
        "fires": ("iu", "u"),
        "concepts": ("U", "c"),
        "categories": ("U", "c"),
    },
    "topk.npz": {"value": ("f", "uk"), "image": ("iu", "uk")},
    "histogram.npz": {"counts": ("iu", "ub"), "edges": ("f", "ue")},
}
_OPTIONAL = {TOP_MAPS: {"map": ("f", "ukhw")}}
_MOST_UNITS = 2**24  # per layer; the same for concepts


def load(folder: str | os.PathLike) -> Result:
    """Loads the result that `Result.save` wrote.

    Raises:
      UserError: the folder or a file is missing, unreadable or inconsistent.
    """
    folder = paths.from_user(folder)
    folder = replacing.find(folder, "summary.json", of="summary.json")
    summary = _summary(folder)
    lengths: dict[str, int] = {"u": summary["units"]}
    arrays: dict[str, np.ndarray] = {}
    for name, layout in _LAYOUT.items():
        arrays |= _checked(folder / name, layout, lengths)
    for name, layout in _OPTIONAL.items():
        if (folder / name).is_file():
            arrays |= _checked(folder / name, layout, lengths)
    _check_values(folder, arrays)
    by_group = {
        name: group_counts.load(folder / name, lengths["u"], lengths["c"], groups)
        for name, groups in ((BLOCKS, group_counts.BLOCKS), (BY_IMAGE, None))
        if (folder / name).is_file()
    }
    return Result(
        thresholds=arrays["thresholds"],
        intersection=arrays["intersection"],
        union=arrays["union"],
        fires=arrays["fires"],
        concepts=tuple(str(name) for name in arrays["concepts"]),
        categories=tuple(str(name) for name in arrays["categories"]),
        top_value=arrays["value"],
        top_image=arrays["image"],
        histogram_counts=arrays["counts"],
        histogram_edges=arrays["edges"],
        images=summary["images"],
        quantile=summary["quantile"],
        iou_thresholds=summary["iou_thresholds"],
        model=summary["model"],
        layer=summary["layer"],
        mask_shape=summary["mask_shape"],
        top_map=arrays.get("map"),
        blocks=by_group.get(BLOCKS),
        by_image=by_group.get(BY_IMAGE),
        tail=summary["tail"],
        category_images=summary["category_images"],
    )


def stored_thresholds(folder: paths.Path) -> tuple[float, ...]:
    """Returns the IoU thresholds at which a stored result counts.

    Raises:
      UserError: its summary is missing or damaged.
    """
    return _summary(folder)["iou_thresholds"]


def results_in(folder: paths.Path) -> list[paths.Path]:
    """Returns the folders in a folder that `load` or `open_run` can read, sorted."""
    try:
        names = sorted(paths.folders_in(folder)) if folder.is_dir() else []
        return [folder / name for name in names if (folder / name / SUMMARY).is_file()]
    except OSError:  # not readable
        return []


def _summary(folder: paths.Path) -> dict[str, Any]:
    """Returns the needed values of summary.json, with types and ranges checked."""
    path = folder / SUMMARY
    if not path.is_file():
        raise UserError(f"{folder} does not hold a dissection: {instead(folder)}")
    content = safe_reading.read_json(path)
    if "units" not in content:
        layers = content.get("layers")
        layers = layers if isinstance(layers, list) else []
        text = ", ".join(map(str, layers)) or "none yet"
        raise UserError(f"{folder} is a run; load one of its layers: {text:.200}")

    def value(key, is_right, what):
        if key not in content:
            raise UserError(f"{path} lacks '{key}'")
        if not is_right(content[key]):
            raise UserError(f"{path}: {key} is {_shown(content[key])}, not {what}")
        return content[key]

    def is_count(most):
        return lambda number: type(number) is int and 0 <= number <= most

    thresholds = value("iou_thresholds", lambda v: isinstance(v, dict), "an object")
    return {
        **{
            key: value(key, lambda text: isinstance(text, str), "a string")
            for key in ("model", "layer")
        },
        "images": value("images", is_count(2**31), "a number of images"),
        "units": value("units", is_count(_MOST_UNITS), "a number of units"),
        "quantile": value("quantile", _is_quantile, "a number between 0 and 1"),
        "iou_thresholds": tuple(_threshold(text, path) for text in thresholds),
        "mask_shape": _mask_shape(content, path),
        "tail": _tail(content, path),
        "category_images": _category_images(content, path),
    }


def _tail(summary: Mapping, path: paths.Path) -> str:
    tail = summary.get("tail", "upper")  # results of one-sided runs do not say
    if not isinstance(tail, str) or tail not in unit_names.TAILS:
        raise UserError(
            f"{path}: tail is {_shown(tail)}, not {', '.join(unit_names.TAILS)}"
        )
    if summary["units"] % len(unit_names.TAILS[tail]):
        raise UserError(f"{path}: units is {summary['units']}, an odd number of ends")
    return tail


def _category_images(summary: Mapping, path: paths.Path) -> dict[str, int] | None:
    counts = summary.get("category_images")  # older results do not say
    if counts is None:
        return None
    most = summary["images"]
    if not isinstance(counts, dict) or not all(
        type(number) is int and 0 <= number <= most for number in counts.values()
    ):
        raise UserError(
            f"{path}: category_images is {_shown(counts)}, not numbers of images up to "
            f"{most}"
        )
    return counts


def instead(folder: paths.Path) -> str:
    """Suggests what to give instead of a folder without a summary."""
    found = results_in(folder)
    if not found:
        return f"{SUMMARY} is missing"
    names = ", ".join(_shown(path.name) for path in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"it contains {names}{more}; give one, such as {found[0]}"


def _is_quantile(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _threshold(text: str, path: paths.Path) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise UserError(
            f"{path}: iou_thresholds has {_shown(text)}, not a number in [0, 1)"
        )
    return number


def _mask_shape(summary: Mapping, path: paths.Path) -> tuple[int, int] | None:
    shape = summary.get("mask_shape")
    if shape is None:
        return None
    sides = shape if isinstance(shape, list) else []
    if len(sides) != 2 or not all(type(n) is int and 0 < n <= 4096 for n in sides):
        raise UserError(
            f"{path}: mask_shape is {_shown(shape)}, not two numbers of pixels"
        )
    return (sides[0], sides[1])


def _shown(value: Any) -> str:
    """Returns a value from a file as one printable line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _checked(path: paths.Path, layout: Mapping, lengths: dict[str, int]) -> dict:
    """Reads the arrays of a file; adds lengths not yet known to `lengths`."""
    with safe_reading.Arrays(path, layout) as arrays:
        # All headers are checked before the first array is unpacked.
        for name, (kinds, letters) in layout.items():
            header = arrays.headers[name]
            if header.dtype.kind not in kinds:
                raise UserError(f"{path}: '{name}' holds {header.dtype}")
            _check_shape(path, name, header.shape, letters, lengths)
        return {name: arrays.read(name) for name in layout}


def _check_shape(path, name, shape, letters: str, lengths: dict[str, int]) -> None:
    if "e" in letters and "b" in lengths:
        lengths.setdefault("e", lengths["b"] + 1)
    wanted: Sequence = [lengths.get(letter, "any") for letter in letters]
    fits = len(shape) == len(letters) and all(
        want in ("any", length) for want, length in zip(wanted, shape, strict=True)
    )
    if not fits:
        text = ", ".join(map(str, wanted))
        raise UserError(f"{path}: '{name}' has shape {tuple(shape)}, not ({text})")
    lengths |= dict(zip(letters, shape, strict=True))
    if lengths.get("c", 0) > _MOST_UNITS:
        raise UserError(f"{path}: {lengths['c']} concepts are too many")


def _check_values(folder: paths.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that counts are nonnegative and consistent, and other numbers finite."""

    def must(condition, file: str, name: str, what: str) -> None:
        if not condition:
            raise UserError(f"{folder / file}: '{name}' {what}")

    for file, layout in (_LAYOUT | _OPTIONAL).items():
        for name, (kinds, _) in layout.items():
            if name not in arrays:
                continue
            array = arrays[name]
            if kinds == "f":
                finite = bool(np.isfinite(array).all())
                must(finite, file, name, "has a number that is not finite")
            elif kinds == "iu":
                low, high = int(array.min(initial=0)), int(array.max(initial=0))
                most = 2**31 - 1 if name == "image" else 2**62
                must(low >= 0, file, name, f"has {low}, less than 0")
                must(high <= most, file, name, f"has {high}, more than {most}")
    file = "dissection.npz"
    common, union, fires = (arrays[n] for n in ("intersection", "union", "fires"))
    must((common <= union).all(), file, "intersection", "exceeds the union somewhere")
    must(
        (common <= fires[:, None]).all(),
        *(file, "intersection", "exceeds the pixels where the unit fires"),
    )
    rising = (np.diff(arrays["edges"], axis=1) >= 0).all()
    must(rising, "histogram.npz", "edges", "does not ascend")
    falling = (np.diff(arrays["value"], axis=1) <= 0).all()
    must(falling, "topk.npz", "value", "does not descend")
