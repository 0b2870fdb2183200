"""The source 'ade20k': both layouts, drawn by hand."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.datasets import open_source
from jdissect.segmenters.annotations import open_annotations

OBJECTS = """Idx\tRatio\tTrain\tVal\tStuff\tName
1\t0.1576\t11664\t1172\t1\twall
2\t0.1072\t6046\t612\t1\tbuilding, edifice
150\t0.0001\t10\t1\t0\tflag
"""
SHAPE = (20, 30)


def cropped(numbers):
    rows, columns = (
        [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
        for side in numbers.shape
    )
    return numbers[rows][:, columns]


def save(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(numbers, np.uint8)).save(path)


@pytest.fixture
def benchmark(tmp_path, save_image):
    (tmp_path / "objectInfo150.txt").write_text(OBJECTS)
    for split, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        save_image(tmp_path / f"images/{split}/{name}.jpg", *SHAPE)
        numbers = np.random.default_rng(len(split)).choice([0, 1, 2, 150], SHAPE)
        save(tmp_path / f"annotations/{split}/{name}.png", numbers)
    return tmp_path


def test_the_benchmark(benchmark, config):
    source = open_source(config("ade20k", benchmark))
    assert source.names == ("training/ADE_train_1.jpg", "validation/ADE_val_1.jpg")
    assert source.annotations.concepts == (
        *(("-", ""), ("wall", "object"), ("building", "object"), ("flag", "object")),
    )
    of = open_source(config("ade20k", benchmark, split="validation"))
    assert of.names == source.names[1:]
    example = of.read(0)
    with Image.open(benchmark / "annotations/validation/ADE_val_1.png") as image:
        stored = np.asarray(image).astype(int)
    place = np.zeros(151, int)
    place[[1, 2, 150]] = [1, 2, 3]
    np.testing.assert_array_equal(example.labels, [cropped(place[stored])])
    assert example.annotated.tolist() == [True]
    save(benchmark / "annotations/validation/ADE_val_1.png", stored * 0 + 7)
    with pytest.raises(
        UserError, match=r"val_1\.png: number 7 is not in objectInfo150"
    ):
        of.read(0)


NAMES = [f"name {n}" for n in range(1, 601)]
NAMES[0], NAMES[299], NAMES[599] = "door, double door", "handle, knob", "door, gate"


@pytest.fixture
def whole(tmp_path, save_image):
    """The whole data set's layout: an image with parts, and one without."""
    share = np.zeros(600)
    share[[299]] = 0.9
    index = {
        "objectnames": np.array(NAMES, object),
        "proportionClassIsPart": share,
        "filename": np.array(["a.jpg", "b.jpg"], object),
    }
    scipy.io.savemat(tmp_path / "index_ade20k.mat", {"index": index})
    folder = tmp_path / "images/ADE/training/home/kitchen"
    for stem in ("ADE_train_1", "ADE_train_2"):
        save_image(folder / f"{stem}.jpg", *SHAPE)
        save(folder / f"{stem}_seg.png", encoded([0, 1, 600], 5))
    for level, numbers in ((1, [0, 300]), (2, [0, 0, 0, 300, 299])):
        save(folder / f"ADE_train_1_parts_{level}.png", encoded(numbers, level))
    save(folder / "ADE_train_2_parts_1.png", encoded([0], 0))
    save(folder / "ADE_train_1/instance_000_ADE_train_1.png", np.zeros(SHAPE))
    return tmp_path, folder


def drawn(numbers, seed):
    return np.random.default_rng(seed).choice(numbers, SHAPE)


def encoded(numbers, seed):
    """Class in red and green, a random instance in blue; red's last digit is free."""
    number = drawn(numbers, seed)
    random = np.random.default_rng(0).integers(0, 10, (2, *SHAPE))
    return np.stack([number // 256 * 10 + random[0], number % 256, random[1]], axis=-1)


def test_the_whole_data_set(whole, config):
    root, folder = whole
    source = open_source(config("ade20k", root, split="training"))
    assert source.names == (
        "ADE/training/home/kitchen/ADE_train_1.jpg",
        "ADE/training/home/kitchen/ADE_train_2.jpg",
    )
    concepts = source.annotations.concepts
    assert len(concepts) == 601
    assert concepts[1] == concepts[600] == ("door", "object")
    assert concepts[300] == ("handle", "part")  # more often than not
    assert source.annotations.maps == 3
    first, second = source.read(0), source.read(1)
    for place, numbers in enumerate(
        [drawn([0, 1, 600], 5), drawn([0, 300], 1), drawn([0, 0, 0, 300, 299], 2)]
    ):
        np.testing.assert_array_equal(first.labels[place], cropped(numbers))
    assert not second.labels[1:].any()
    # Not every image's parts are outlined: as in Broden, those that show one count.
    assert first.annotated.tolist() == [True, True]
    assert second.annotated.tolist() == [True, False]
    save(folder / "ADE_train_1_parts_1.png", encoded([601], 0))
    with pytest.raises(
        UserError, match="parts_1.png: number 601 is not in index_ade20k"
    ):
        source.read(0)
    save(folder / "ADE_train_1_parts_1.png", np.zeros(SHAPE))
    with pytest.raises(UserError, match=r"parts_1\.png is not RGB"):
        source.read(0)


def test_identity(whole, config):
    root, folder = whole
    source = open_source(config("ade20k", root))
    first = open_annotations(source).identity(None)
    save(folder / "ADE_train_1_parts_2.png", encoded([0], 0))
    second = open_annotations(source).identity(None)
    pairs = zip(first["annotations"], second["annotations"], strict=True)
    assert [a == b for a, b in pairs] == [False, True]
    assert first["vocabulary"] == second["vocabulary"]


def without(field):
    def change(root):
        index = {"objectnames": np.array(["a", "b"], object)}
        index |= {"proportionClassIsPart": np.zeros(2)}
        del index[field]
        scipy.io.savemat(root / "index_ade20k.mat", {"index": index | {"x": 1}})

    return change


def claiming(root):
    """A cell of 1.5 billion names in a file of 500 bytes."""
    index_of({"objectnames": np.array(["a", "b"], object)})(root)
    path = root / "index_ade20k.mat"
    content = bytearray(path.read_bytes())
    at = content.index((2).to_bytes(4, "little"), content.index(b"objectnames") + 40)
    content[at - 4 : at + 4] = (3 << 29).to_bytes(4, "little") + bytes([1, 0, 0, 0])
    path.write_bytes(content)


def of_no_type(root):
    """SciPy 1.17 crashes for a type that it does not know."""
    index_of({"objectnames": np.array(["a", "b"], object), "x": np.zeros(2)})(root)
    path = root / "index_ade20k.mat"
    content = path.read_bytes()
    assert content[-24:-20] == (9).to_bytes(4, "little")  # double
    path.write_bytes(content[:-24] + b"\xce" + content[-23:])


def nested(root):
    value = np.zeros(1)
    for _ in range(20):
        value = {"a": value}
    index_of(value)(root)


def index_of(value):
    return lambda root: scipy.io.savemat(root / "index_ade20k.mat", {"index": value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("objectnames"), "has no list 'objectnames'"),
        (without("proportionClassIsPart"), "has no 'proportionClassIsPart'"),
        (
            index_of(np.zeros(3)),
            "index_ade20k.mat cannot be read: it has no struct index",
        ),
        (
            lambda r: scipy.io.savemat(r / "index_ade20k.mat", {"x": 1}),
            "no struct index",
        ),
        (
            lambda r: (r / "index_ade20k.mat").write_bytes(b"x" * 300),
            "not a MATLAB file",
        ),
        (lambda r: (r / "index_ade20k.mat").unlink(), "has neither objectInfo150.txt"),
        (
            lambda r: next(r.rglob("ADE_train_2_seg.png")).unlink(),
            "ADE_train_2_seg.png does not exist",
        ),
        (
            lambda r: save(next(r.rglob("*1.jpg")).parent / "x_parts_9.png", [[0]]),
            "9 levels of parts; at most 4",
        ),
    ],
)
def test_what_is_missing_of_the_whole(whole, config, change, message):
    root, _ = whole
    change(root)
    with pytest.raises(UserError, match=message) as caught:
        open_source(config("ade20k", root))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no columns Idx and Name"),
        ("Idx\tName\n", "lists no objects"),
        ("Idx\tName\none\tx\n", "line 2: 'one' is not a number"),
        ("Idx\tName\n1\tx\n1\ty\n", "line 3: '1' is not a number, or listed twice"),
        ("Idx\tName\n1\t \n", "line 2 is '', which is no name"),
        (b"Idx\tName\n1\t\xff\n", "is not UTF-8 text"),
    ],
)
def test_malformed_objects(benchmark, config, text, message):
    content = text if isinstance(text, bytes) else text.encode()
    (benchmark / "objectInfo150.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_source(config("ade20k", benchmark))


def test_the_split_and_the_masks(benchmark, config):
    with pytest.raises(UserError, match="in a folder 'probe'; it has training, valid"):
        open_source(config("ade20k", benchmark, split="probe"))
    assert len(open_source(config("ade20k", benchmark, num_images=1)).names) == 1
    (benchmark / "annotations/validation/ADE_val_1.png").unlink()
    message = r"annotations/validation/ADE_val_1\.png does not exist"
    with pytest.raises(UserError, match=message):
        open_source(config("ade20k", benchmark))
