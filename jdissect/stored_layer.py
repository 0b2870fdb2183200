"""A layer's folder of a run directory, read again: what `Result.save` wrote.

The files may come from anywhere, so that types, shapes and numbers are checked first.
"""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from jdissect import grouped, paths, replacing
from jdissect.errors import UserError
from jdissect.results import BLOCKS, BY_IMAGE, TOP_MAPS, Result

# Array by array: the kind of its numbers, and its shape, where a letter is a length
# that must be the same wherever the letter stands.
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
_SUMMARY = {
    "model": str,
    "layer": str,
    "images": int,
    "units": int,
    "quantile": float,
    "iou_thresholds": dict,
}


def load(folder: str | os.PathLike) -> Result:
    """The result that `Result.save` wrote.

    Raises:
      UserError: the folder or a file is missing, unreadable or inconsistent.
    """
    folder = paths.from_user(folder)
    folder = replacing.find(folder, "summary.json", of="summary.json")
    summary = _summary(folder)
    lengths: dict[str, int] = {"u": summary["units"]}
    arrays = {}
    for name, layout in _LAYOUT.items():
        arrays |= _checked(folder / name, layout, lengths)
    if lengths["e"] != lengths["b"] + 1:
        raise UserError(
            f"{folder / 'histogram.npz'}: 'edges' has {lengths['e']} columns, not "
            f"{lengths['b'] + 1}"
        )
    top_map = None
    if (folder / TOP_MAPS).is_file():
        layout = {"map": ("f", "ukhw")}
        top_map = _checked(folder / TOP_MAPS, layout, lengths)["map"]
    by_group = {
        name: grouped.load(folder / name, lengths["u"], lengths["c"])
        for name in (BLOCKS, BY_IMAGE)
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
        iou_thresholds=tuple(float(t) for t in summary["iou_thresholds"]),
        model=summary["model"],
        layer=summary["layer"],
        mask_shape=_mask_shape(summary, folder),
        top_map=top_map,
        blocks=by_group.get(BLOCKS),
        by_image=by_group.get(BY_IMAGE),
    )


def _summary(folder: paths.Path) -> Mapping:
    path = folder / "summary.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no dissection: no summary.json in it")
    try:
        summary = json.loads(paths.read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path} holds no JSON object")
    if "units" not in summary:
        layers = ", ".join(summary.get("layers", [])) or "none yet"
        raise UserError(f"{folder} is a run; load one of its layers: {layers}")
    for key, kind in _SUMMARY.items():
        if not isinstance(summary.get(key), kind):
            raise UserError(f"{path}: '{key}' is missing, or no {kind.__name__}")
    return summary


def _mask_shape(summary: Mapping, folder: paths.Path) -> tuple[int, int] | None:
    shape = summary.get("mask_shape")
    if shape is None:
        return None
    sides = shape if isinstance(shape, list) else []
    if len(sides) != 2 or not all(type(n) is int and 0 < n <= 4096 for n in sides):
        raise UserError(f"{folder / 'summary.json'}: mask_shape is {shape!r:.40}")
    return (sides[0], sides[1])


def _checked(path: paths.Path, layout: Mapping, lengths: dict[str, int]) -> dict:
    """The arrays of a file; `lengths` gets those that were not known."""
    arrays = _arrays(path, layout)
    for name, (kinds, letters) in layout.items():
        array = arrays[name]
        if array.dtype.kind not in kinds:
            raise UserError(f"{path}: '{name}' holds {array.dtype}")
        _check_shape(path, name, array.shape, letters, lengths)
    return arrays


def _check_shape(path, name, shape, letters: str, lengths: dict[str, int]) -> None:
    wanted: Sequence = [lengths.get(letter, "any") for letter in letters]
    fits = len(shape) == len(letters) and all(
        want in ("any", length) for want, length in zip(wanted, shape, strict=True)
    )
    if not fits:
        text = ", ".join(map(str, wanted))
        raise UserError(f"{path}: '{name}' has shape {tuple(shape)}, not ({text})")
    lengths |= dict(zip(letters, shape, strict=True))


def _arrays(path: paths.Path, names) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if missing := [name for name in names if name not in arrays.files]:
                raise UserError(f"{path} lacks '{missing[0]}'")
            return {name: arrays[name] for name in names}
    except UserError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
