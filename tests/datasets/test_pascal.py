"""The sources 'voc' and 'pascal_context', drawn by hand."""

import zlib
from fractions import Fraction

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.datasets import open_source
from jdissect.datasets.pascal import CLASSES
from jdissect.segmenters.annotations import open_annotations

SHAPE = (20, 30)
STEMS = ("2007_000032", "2008_000002", "2009_000001")


def cropped(numbers):
    rows, columns = (
        [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
        for side in numbers.shape
    )
    return numbers[rows][:, columns]


def drawn(numbers, seed=0):
    return np.random.default_rng(seed).choice(numbers, SHAPE)


def save_palette(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(path)


@pytest.fixture
def photographs(tmp_path, save_image):
    root = tmp_path / "VOC"
    for seed, stem in enumerate(STEMS):
        save_image(root / f"JPEGImages/{stem}.jpg", *SHAPE, seed)
    return root


@pytest.fixture
def voc(photographs):
    for seed, stem in enumerate(STEMS[:2]):
        numbers = drawn([0, 1, 15, 20, 255], seed)
        save_palette(photographs / f"SegmentationClass/{stem}.png", numbers)
    folder = photographs / "ImageSets/Segmentation"
    folder.mkdir(parents=True)
    (folder / "val.txt").write_text(f"{STEMS[1]}\n")
    (folder / "train.txt").write_text(f"{STEMS[0]}\n{STEMS[2]}\n")
    return photographs


def test_voc(voc, config):
    assert len(CLASSES) == 20
    source = open_source(config("voc", voc))
    assert source.names == (f"{STEMS[0]}.jpg", f"{STEMS[1]}.jpg")
    assert source.annotations.concepts[15] == ("person", "object")
    numbers = drawn([0, 1, 15, 20, 255])
    expected = np.where(numbers == 255, 0, numbers)
    np.testing.assert_array_equal(source.read(0).labels, [cropped(expected)])
    assert source.read(0).annotated.all()
    assert open_source(config("voc", voc, split="val")).names == source.names[1:]
    assert open_source(config("voc", voc, num_images=1)).names == source.names[:1]
    with pytest.raises(UserError, match=r"no probe\.txt; it has train, val\."):
        open_source(config("voc", voc, split="probe"))
    with pytest.raises(UserError, match=f"image {STEMS[2]} of .* has no mask"):
        open_source(config("voc", voc, split="train"))
    save_palette(voc / f"SegmentationClass/{STEMS[0]}.png", numbers * 0 + 21)
    with pytest.raises(UserError, match=r"number 21 is not in VOC's 20 classes"):
        source.read(0)


def test_the_color_form_of_voc_is_refused(voc, config):
    Image.new("RGB", SHAPE[::-1]).save(voc / f"SegmentationClass/{STEMS[0]}.png")
    with pytest.raises(
        UserError, match="is RGB; there are no colors in VOC's 20 classes"
    ):
        open_source(config("voc", voc)).read(0)


LABELS = "1: accordion\n2: door: wooden\n431: unknown\n459: wood\n"


@pytest.fixture
def context(photographs, tmp_path):
    folder = tmp_path / "trainval"
    folder.mkdir()
    (folder / "labels.txt").write_text(LABELS)
    numbers = drawn([0, 1, 2, 431, 459]).astype(np.uint16)
    path = folder / f"{STEMS[1]}.mat"
    scipy.io.savemat(path, {"LabelMap": numbers}, do_compression=True)
    return folder


@pytest.fixture
def opened(photographs, context, config):
    def make(**changes):
        changes = {"annotations": str(context), **changes}
        return open_source(config("pascal_context", photographs, **changes))

    return make


def test_all_classes_of_pascal_context(opened, photographs):
    source = opened()
    assert source.names == (f"{STEMS[1]}.jpg",)
    assert source.annotations.concepts == (
        *(("-", ""), ("accordion", "object"), ("door: wooden", "object")),
        ("wood", "object"),
    )
    place = np.zeros(460, int)
    place[[1, 2, 459]] = [1, 2, 3]
    numbers = drawn([0, 1, 2, 431, 459])
    np.testing.assert_array_equal(source.read(0).labels, [cropped(place[numbers])])
    folder = photographs / "ImageSets/Main"
    folder.mkdir(parents=True)
    (folder / "val.txt").write_text(f"{STEMS[1]}  1\n")
    assert opened(split="val").names == source.names


def test_59_classes_of_pascal_context(opened, tmp_path):
    folder = tmp_path / "59_context_labels"
    numbers = drawn([0, 1, 59])
    save_palette(folder / f"{STEMS[2]}.png", numbers)
    with pytest.raises(UserError, match=r"59_labels\.txt does not exist; it lists"):
        opened(annotations=str(folder))
    (tmp_path / "59_labels.txt").write_text("1:aeroplane\n59: wood\n")
    source = opened(annotations=str(folder))
    assert source.names == (f"{STEMS[2]}.jpg",)
    expected = np.where(numbers == 59, 2, numbers)
    np.testing.assert_array_equal(source.read(0).labels, [cropped(expected)])
    first = open_annotations(source).identity(None)
    (tmp_path / "59_labels.txt").write_text("1:airplane\n59: wood\n")
    second = open_annotations(opened(annotations=str(folder))).identity(None)
    assert first["annotations"] == second["annotations"]
    assert first["vocabulary"] != second["vocabulary"]


def bomb(path):
    """A compressed element that unpacks to 64 MB."""
    packed = zlib.compress(bytes(1 << 26), 9)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    tag = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little")
    path.write_bytes(header + tag + packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"LabelMap": np.full(SHAPE, 3, np.uint16)},
            r"mat: number 3 is not in labels\.",
        ),
        ({"LabelMap": np.full(SHAPE, -1.0)}, "number -1 is not in labels.txt"),
        ({"LabelMap": np.full(SHAPE, 70_000.0)}, "number 70000 is not in labels.txt"),
        (
            {"LabelMap": np.full(SHAPE, 0.5)},
            "LabelMap does not consist of whole numbers",
        ),
        ({"LabelMap": np.full(SHAPE, np.nan)}, "does not consist of whole numbers"),
        ({"LabelMap": np.zeros((30, 20))}, "LabelMap is 30x20, but its image is 20x30"),
        ({"LabelMap": np.full(SHAPE, "x", object)}, "does not consist of numbers"),
        ({"LabelMap": {"a": 1}}, "LabelMap is 1x1, but its image is"),
        ({"labels": np.zeros(SHAPE)}, "it has no variable LabelMap"),
        (b"", "is not a MATLAB file of version 5"),
        (b"\x89HDF\r\n" + b"x" * 500, "is not a MATLAB file of version 5"),
        (bomb, "it unpacks to more than it may hold"),
    ],
)
def test_matlab_files(opened, context, content, message):
    path = context / f"{STEMS[1]}.mat"
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        scipy.io.savemat(path, content)
    with pytest.raises(UserError, match=message) as caught:
        opened().read(0)
    assert STEMS[1] in str(caught.value) and str(caught.value).isprintable()


def test_a_damaged_matlab_file(opened, context):
    path = context / f"{STEMS[1]}.mat"
    whole = path.read_bytes()
    for end in (100, 130, 150, len(whole) - 20):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=f"{STEMS[1]}.mat cannot be read") as caught:
            opened().read(0)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.txt names no concept"),
        ("1 accordion\n", "line 1: '1 accordion' is not `number: name`"),
        ("1: a\n1: b\n", "line 2: number 1 is listed twice"),
        ("1: a\0\n", "line 1: .* is not `number: name`"),
        (b"1: \xff\n", "is not UTF-8 text"),
    ],
)
def test_malformed_labels(opened, context, text, message):
    content = text if isinstance(text, bytes) else text.encode()
    (context / "labels.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        opened()


def test_what_is_missing(opened, context, photographs, config):
    with pytest.raises(UserError, match="needs config.data.annotations, the folder"):
        opened(annotations="")
    with pytest.raises(UserError, match="has no files .mat or .png"):
        opened(annotations=str(photographs))
    with pytest.raises(UserError, match="has no folder JPEGImages; source 'voc' needs"):
        open_source(config("voc", context))
    (photographs / f"JPEGImages/{STEMS[1]}.jpg").unlink()
    with pytest.raises(UserError, match=f"image {STEMS[1]} of .* has no photograph"):
        opened()
