"""The source 'huggingface': image columns of Parquet and Arrow files."""

import io
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.images import decode_cropped
from jdissect.data.loader import batches
from jdissect.datasets import UnreadableImage, open_source
from jdissect.segmenters.annotations import open_annotations

NAMES = "1\tsky\n2\ttraffic light\n"
COUNT = 7


def encoded(pixels, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def size(row):
    return 20 + row, 40 - row


def image(row):
    random = np.random.default_rng(row)
    return encoded(random.integers(0, 256, (*size(row), 3), np.uint8), "JPEG")


def numbers(row):
    return np.random.default_rng(row).choice([0, 1, 2, 255], size(row)).astype(np.uint8)


def table(rows, struct=True):
    images, masks = [image(row) for row in rows], [encoded(numbers(r)) for r in rows]
    if struct:
        images, masks = (
            [{"bytes": b, "path": None} for b in c] for c in (images, masks)
        )
    return pa.table({"image": images, "annotation": masks, "id": list(rows)})


def write_arrow(path, value):
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, value.schema) as out,
    ):
        out.write_table(value, max_chunksize=2)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    for split, rows in (("train", range(3, COUNT)), ("validation", range(3))):
        file = tmp_path / f"data/{split}-00000-of-00001.parquet"
        pq.write_table(table(rows), file, row_group_size=2)
    (tmp_path / "names.txt").write_text(NAMES)
    return tmp_path


@pytest.fixture
def opened(root, config):
    def make(**changes):
        changes = {"annotations": "annotation", "ignore": 255, **changes}
        return open_source(config("huggingface", root, **changes))

    return make


def cropped(labels):
    rows, columns = (
        [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
        for side in labels.shape
    )
    return labels[rows][:, columns]


def check(source, rows):
    assert len(source.names) == len(rows)
    for index, row in enumerate(rows):
        example = source.read(index)
        pixels = decode_cropped(io.BytesIO(image(row)), "x")
        np.testing.assert_array_equal(example.pixels, pixels)
        expected = np.where(numbers(row) == 255, 0, numbers(row))
        np.testing.assert_array_equal(example.labels, [cropped(expected)])
        assert example.annotated.tolist() == [True]


def test_parquet(opened):
    source = opened()
    check(source, [*range(3, COUNT), *range(3)])
    assert source.names[3:5] == (
        "data/train-00000-of-00001.parquet/3",
        "data/validation-00000-of-00001.parquet/0",
    )
    concepts = source.annotations.concepts
    assert concepts == (("-", ""), ("sky", "object"), ("traffic light", "object"))
    check(opened(split="validation"), range(3))
    check(opened(split="train", num_images=3), range(3, 6))
    (batch,) = batches(source, COUNT)
    assert batch.valid.all() and batch.labels.shape == (COUNT, 1, 224, 224)


def test_arrow_files_of_a_saved_data_set(tmp_path, config):
    """Also without a struct around the bytes."""
    (tmp_path / "names.txt").write_text(NAMES)
    (tmp_path / "test").mkdir()
    write_arrow(tmp_path / "test/data-00000-of-00001.arrow", table(range(3), False))
    keys = {"annotations": "annotation", "ignore": 255}
    check(open_source(config("huggingface", tmp_path, split="test", **keys)), range(3))


def test_images_alone(opened):
    source = opened(annotations="")
    assert source.annotations is None
    example = source.read(0)
    np.testing.assert_array_equal(
        example.pixels, decode_cropped(io.BytesIO(image(3)), "x")
    )
    assert example.labels is None
    assert source.content_hashes(None) == opened().content_hashes(None)


def test_identity(opened, root):
    def identity(**changes):
        return open_annotations(opened(**changes)).identity(None)

    first = identity(split="validation")
    assert len(set(first["annotations"])) == 3
    assert identity(split="validation", ignore=2)["vocabulary"] != first["vocabulary"]
    changed = table(range(3)).to_pylist()
    changed[1]["annotation"]["bytes"] = encoded(0 * numbers(1))
    file = root / "data/validation-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(changed), file)
    second = identity(split="validation")
    pairs = zip(first["annotations"], second["annotations"], strict=True)
    assert [a == b for a, b in pairs] == [True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"annotations": "mask"},
            "has no image column 'mask'; it has image, annotation",
        ),
        ({"annotations": "id"}, "has no image column 'id'"),
        ({"split": "test"}, "no file of .* begins with 'test'; it has data/train-000"),
        ({"split": "valid"}, "no file of .* begins with 'valid'"),
        ({"path": "/gone"}, "config.data.path: /gone does not exist"),
        ({"path": ""}, "needs config.data.path, a folder of Parquet or Arrow files"),
        ({"path": "gs://x"}, "config.data.path is gs://x; it must be on a disk"),
        ({"ignore": -2}, "config.data.ignore is -2"),
    ],
)
def test_keys(root, config, change, message):
    keys = {"path": root, "annotations": "annotation", "ignore": 255, **change}
    with pytest.raises(UserError, match=message):
        open_source(config("huggingface", **keys))


def bytes_of(column, row, value):
    def change(root):
        rows = table(range(3)).to_pylist()
        rows[row][column]["bytes"] = value
        file = root / "data/train-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file)

    return change


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            bytes_of("image", 0, None),
            UserError,
            "row 0 of row group 0 has no bytes in co",
        ),
        (bytes_of("image", 0, b"x"), UnreadableImage, "not an image"),
        (
            bytes_of("annotation", 0, b"x"),
            UserError,
            r"0 \(annotation\) cannot be decod",
        ),
        (
            bytes_of("annotation", 0, encoded(numbers(1))),
            UserError,
            r"mask data/train.*parquet/0 \(annotation\) is 21x39 pixels, but",
        ),
        (
            bytes_of("annotation", 0, encoded(numbers(0) * 0 + 9)),
            UserError,
            "number 9 is not in names.txt",
        ),
    ],
)
def test_what_is_found_on_reading(opened, root, change, kind, message):
    change(root)
    with pytest.raises(kind, match=message):
        opened(split="train").read(0)


def test_damaged_files(opened, root, tmp_path, config):
    file = root / "data/train-00000-of-00001.parquet"
    whole = file.read_bytes()
    for content in (b"", b"PAR1" + b"x" * 100, whole[:-40]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"train.*parquet cannot be read") as caught:
            opened()
        assert str(caught.value).isprintable()
    for path in (root / "data").iterdir():
        path.unlink()
    (root / "data/train.arrow").write_bytes(b"ARROW1" + b"x" * 100)
    with pytest.raises(UserError, match=r"train\.arrow cannot be read"):
        opened()
    (root / "data/train.arrow").unlink()
    with pytest.raises(UserError, match=r"has no files \.parquet or \.arrow"):
        opened()


def test_a_row_group_of_gigabytes(opened, monkeypatch):
    monkeypatch.setattr("jdissect.datasets.huggingface.MAX_BYTES", 100)
    with pytest.raises(UserError, match=r"a row group has [0-9,]+ bytes, above 100"):
        opened(annotations="").read(0)
