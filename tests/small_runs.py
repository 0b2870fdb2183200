"""Run directories of random counts: quick to write, as real runs are to read."""

import csv
import json

import numpy as np

from jdissect.results import group_counts
from jdissect.results.layer_result import Result
from jdissect.scenes import open_scenes

CONCEPTS = (
    *((f"thing {n}", "object") for n in range(20)),
    *((f"bit {n}", "part") for n in range(8)),
    *((f"stuff {n}", "material") for n in range(6)),
    *((f"hue {n}", "color") for n in range(4)),
)
MASK = (14, 14)


def counts(seed: int, units: int, concepts: int, images: int, strength: float = 0.4):
    """(intersection [image, concept, unit], concept [image, concept], unit [...])."""
    # Label maps are the same for all networks.
    world = np.random.default_rng(0)
    pixels = MASK[0] * MASK[1]
    area = world.integers(10, 60, (images, concepts))
    area *= world.random((images, concepts)) < 0.3
    rng = np.random.default_rng([seed, 1])
    fires = rng.integers(0, 12, (images, units))
    own = rng.integers(0, concepts, units)
    share = strength * rng.random(units)
    common = rng.random((images, concepts, units)) < 0.05
    common = common * np.minimum(area[:, :, None], 3)
    covered = np.rint(share * area[:, own] * rng.random((images, units))).astype(int)
    common[:, own, np.arange(units)] = covered
    fires = np.maximum(fires, common.max(axis=1))
    assert fires.max() <= pixels
    return common.astype(np.int64), area.astype(np.int64), fires[:, None].astype("i8")


def result(seed=0, units=30, concepts=CONCEPTS, images=64, layer="layer4", **changes):
    """A random layer."""
    names, categories = zip(*concepts, strict=True)
    common, area, fires = counts(seed, units, len(concepts), images)
    groups = group_counts.Groups.choose(images, 1, None)
    every = np.zeros(len(concepts), np.int32)
    last = fires.repeat(2, axis=1)  # one category, and all images
    pad = np.zeros_like(common[:, :1])
    by_block, by_image = groups.packed(
        (np.concatenate([common, pad], axis=1), np.pad(area, ((0, 0), (0, 1))), last),
        every,
    )
    intersection = common.sum(axis=0).T
    union = fires.sum(axis=(0, 1))[:, None] + area.sum(axis=0) - intersection
    rng = np.random.default_rng([seed, 2])
    maps = rng.normal(size=(units, 5, 4, 4)).astype(np.float32)
    values = np.sort(maps.max(axis=(2, 3)), axis=1)[:, ::-1]
    order = np.argsort(-maps.max(axis=(2, 3)), axis=1)
    maps = np.take_along_axis(maps, order[..., None, None], axis=1)
    edges = np.sort(rng.normal(size=(units, 11)), axis=1).astype(np.float32)
    images_of = np.stack([rng.permutation(images)[:5] for _ in range(units)])
    values, maps = values[:, :images], maps[:, :images]
    return Result(
        thresholds=rng.uniform(0.5, 1, units).astype(np.float32),
        intersection=np.ascontiguousarray(intersection),
        union=union,
        fires=fires.sum(axis=(0, 1)),
        concepts=names,
        categories=categories,
        top_value=values.astype(np.float32),
        top_image=images_of.astype(np.int32),
        histogram_counts=rng.integers(0, 100, (units, 10)),
        histogram_edges=edges,
        images=images,
        quantile=0.01,
        model="resnet50",
        layer=layer,
        mask_shape=MASK,
        top_map=maps,
        blocks=by_block,
        by_image=by_image,
        category_images=dict.fromkeys(categories, images),
    ).replace(**changes)


def write(folder, *results, identity=(), config=(), status="finished", **summary):
    """A run directory of the given layers."""
    images = results[0].images
    for one in results:
        one.save(folder / one.layer)
    parts = {
        "images": "one hash",
        "model": f"{folder.name}",
        "segmenter": "another hash",
        "segmenter.name": "annotations",
        "quantile": 0.01,
        "mask_size": 0,
        "dtype": "float32",
        **dict(identity),
    }
    content = {
        "format_version": 1,
        "result_hash": "0",
        "identity": parts,
        "status": status,
        "images": images,
        "skipped": [],
        "seconds": {"total": 1.0},
        "layers": [one.layer for one in results],
        **summary,
    }
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    settings = {
        "model": {"name": "resnet50", "weights": "/nowhere", "layers": []},
        "data": {
            "source": "scenes",
            "path": "",
            "name": "",
            "split": "probe",
            "num_images": images,
        },
        "segmenter": {"name": "annotations"},
        **dict(config),
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    path = folder / "images.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "name", "block", "skipped", "sha256"])
        source = open_scenes("probe", images)
        hashes = source.content_hashes()
        for number, name in enumerate(source.names):
            row = [number, name, group_counts.block(name), 0, hashes[number]]
            writer.writerow(row)
    return folder
