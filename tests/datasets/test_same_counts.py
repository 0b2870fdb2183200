"""One drawn data set in several layouts: the same counts as through Broden's."""

import csv
import io
import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from PIL import Image

from jdissect import main
from jdissect.datasets.pascal import CLASSES
from jdissect.runtime import command_line
from jdissect.scenes import open_scenes
from tests.datasets.test_coco_masks import compress, lengths

COUNT = 6
NUMBERS = range(1, 21)  # of VOC's classes; the scenes' own numbers, folded


@pytest.fixture(scope="module")
def drawn():
    """(pixels, numbers) of scenes stretched to different sizes; all show something."""
    source, random, found = open_scenes("probe", COUNT), np.random.default_rng(0), []
    for index in range(COUNT):
        example = source.read(index)
        size = tuple(int(side) for side in random.integers(90, 300, 2))
        pixels = Image.fromarray(example.pixels).resize(size, Image.Resampling.BICUBIC)
        numbers = example.labels[0] % 21
        stretched = Image.fromarray(numbers.astype(np.uint8)).resize(size, 0)
        found.append((np.asarray(pixels), np.asarray(stretched)))
        assert found[-1][1].any()
    return found


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def broden(root, drawn):
    """What the geometry should be, by Pillow and by fractions, as stored images."""
    rows = []
    for index, (pixels, numbers) in enumerate(drawn):
        resized = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR)
        save(root / f"images/{index}.png", np.asarray(resized)[16:240, 16:240])
        at = [
            [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
            for side in numbers.shape
        ]
        cropped = numbers[at[0]][:, at[1]]
        coded = np.stack([cropped, 0 * cropped, 0 * cropped], axis=-1)
        save(root / f"images/{index}_m.png", coded)
        rows.append([f"{index}.png", "x", 224, 224, 224, 224, f"{index}_m.png"])
    header = ["image", "split", "ih", "iw", "sh", "sw", "object"]
    labels = [[n, CLASSES[n - 1], "object(1)"] for n in NUMBERS]
    tables = {
        "index.csv": [header, *rows],
        "label.csv": [["number", "name", "category"], *labels],
        "category.csv": [["name"], ["object"]],
    }
    for name, lines in tables.items():
        with (root / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    return {}


def masks(root, drawn):
    for index, (pixels, numbers) in enumerate(drawn):
        save(root / f"images/{index}.png", pixels)
        save(root / f"masks/{index}.png", np.where(numbers == 0, 255, numbers))
    lines = [f"{n} {CLASSES[n - 1]}" for n in NUMBERS]
    (root / "names.txt").write_text("\n".join(lines))
    return {"ignore": 255}


def coco(root, drawn):
    images, annotations = [], []
    for index, (pixels, numbers) in enumerate(drawn):
        save(root / f"{index}.png", pixels)
        height, width = numbers.shape
        name = {"id": index, "file_name": f"{index}.png"}
        images.append({**name, "height": height, "width": width})
        for n in np.unique(numbers[numbers > 0]).tolist():
            counts = lengths(numbers == n)
            counts = compress(counts) if n % 2 else counts
            rle = {"size": [height, width], "counts": counts}
            one = {"image_id": index, "category_id": n, "segmentation": rle}
            annotations.append(one)
    kinds = [{"id": n, "name": CLASSES[n - 1]} for n in NUMBERS]
    file = {"images": images, "annotations": annotations, "categories": kinds}
    (root / "x.json").write_text(json.dumps(file))
    return {"annotations": str(root / "x.json")}


def ade20k(root, drawn):
    lines = ["Idx\tName", *(f"{n}\t{CLASSES[n - 1]}, synonym" for n in NUMBERS)]
    for index, (pixels, numbers) in enumerate(drawn):
        path = root / f"images/validation/{index}.jpg"
        save(path.with_suffix(".png"), pixels)
        path.with_suffix(".png").rename(path)
        save(root / f"annotations/validation/{index}.png", numbers)
    (root / "objectInfo150.txt").write_text("\n".join(lines))
    return {"split": "validation"}


def voc(root, drawn):
    for index, (pixels, numbers) in enumerate(drawn):
        save(root / f"JPEGImages/{index}.png", pixels)
        image = Image.fromarray(np.where(numbers == 0, 255, numbers).astype(np.uint8))
        image.putpalette(bytes(range(256)) * 3)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        image.save(root / f"SegmentationClass/{index}.png")
    return {}


def pascal_context(root, drawn):
    (root / "trainval").mkdir(parents=True)
    for index, (pixels, numbers) in enumerate(drawn):
        save(root / f"JPEGImages/{index}.png", pixels)
        numbers = {"LabelMap": numbers.astype(np.uint16)}
        scipy.io.savemat(root / f"trainval/{index}.mat", numbers, do_compression=True)
    lines = [f"{n}: {CLASSES[n - 1]}" for n in NUMBERS]
    (root / "trainval/labels.txt").write_text("\n".join(lines))
    return {"annotations": str(root / "trainval")}


def huggingface(root, drawn):
    rows = []
    for pair in drawn:
        contents = {}
        for name, array in zip(("image", "mask"), pair, strict=True):
            file = io.BytesIO()
            Image.fromarray(array).save(file, "PNG")
            contents[name] = {"bytes": file.getvalue(), "path": None}
        rows.append(contents)
    file = root / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=4)
    lines = [f"{n} {CLASSES[n - 1]}" for n in NUMBERS]
    (root / "names.txt").write_text("\n".join(lines))
    return {"annotations": "mask"}


def dissected(write, drawn, tmp_path, **more):
    root = tmp_path / write.__name__
    root.mkdir()
    keys = {"source": write.__name__, "path": root, "split": "", **write(root, drawn)}
    run = tmp_path / f"run_{write.__name__}"
    flags = [f"--config.data.{key}={value}" for key, value in keys.items()]
    command = ["main", "--config=configs/baseline.py", f"--workdir={run}", *flags]
    command += ["--config.segmenter.name=annotations", "--config.mask_size=56"]
    command += ["--config.data.batch_size=3", "--config.report=false"]
    assert command_line.entry(main.main, command) == 0
    with np.load(run / "layer4/dissection.npz") as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_the_same_counts(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = dissected(broden, drawn, tmp_path)
    assert expected["intersection"].sum() > 1000
    for write in (masks, coco, ade20k, voc, pascal_context, huggingface):
        found = dissected(write, drawn, tmp_path)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=write.__name__)
