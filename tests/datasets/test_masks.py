"""The source 'masks': which files belong together, and what their numbers mean."""

import re
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.images import decode_cropped
from jdissect.data.loader import batches
from jdissect.datasets import UnreadableImage, open_source
from jdissect.segmenters.annotations import open_annotations

NAMES = "1 sky\n2 door part\n3 sky\n9 -\n300 wood material\n"
SIZES = {"a": (30, 40), "b/c": (20, 20), "b/d": (50, 10)}


def save(path, numbers, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(numbers)).save(path, **options)


def cropped(numbers):
    """Labels at the centers of the pixels of resize 256, crop 224."""
    rows, columns = (
        [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
        for side in numbers.shape
    )
    return numbers[rows][:, columns]


@pytest.fixture
def drawn():
    """The numbers of each mask."""
    random = np.random.default_rng(0)
    return {
        stem: random.choice([0, 1, 2, 3, 9, 300], size).astype(np.uint16)
        for stem, size in SIZES.items()
    }


@pytest.fixture
def root(tmp_path, save_image, drawn):
    for stem, size in SIZES.items():
        save_image(tmp_path / f"images/{stem}.png", *size)
        save(tmp_path / f"masks/{stem}.png", drawn[stem])
    (tmp_path / "names.txt").write_text(NAMES)
    return tmp_path


def test_one_map_of_all_categories(root, config, drawn):
    source = open_source(config("masks", root))
    assert source.names == ("a.png", "b/c.png", "b/d.png")
    assert source.image_shape == source.annotations.grid == (224, 224)
    assert source.annotations.maps == 1
    assert source.annotations.concepts == (
        *(("-", ""), ("sky", "object"), ("door", "part"), ("sky", "object")),
        *(("-", ""), ("wood", "material")),
    )
    place = np.zeros(301, int)
    place[[1, 2, 3, 9, 300]] = [1, 2, 3, 0, 5]  # of the lines
    for index, stem in enumerate(SIZES):
        example = source.read(index)
        assert example.labels.dtype == np.int32
        np.testing.assert_array_equal(example.labels, [cropped(place[drawn[stem]])])
        np.testing.assert_array_equal(
            example.pixels, decode_cropped(str(root / f"images/{stem}.png"), "x")
        )
        assert example.annotated.tolist() == [True] * 3
    assert open_source(config("masks", root, num_images=2)).names == source.names[:2]
    segmenter = open_annotations(source, 56)
    (batch,) = batches(source, 3)
    assert segmenter.label_maps(batch).shape == (3, 1, 56, 56)


def test_an_image_without_anything_counts(root, config):
    """An empty mask says that nothing is there, not that nobody looked."""
    save(root / "masks/a.png", np.zeros((30, 40), np.uint8))
    example = open_source(config("masks", root)).read(0)
    assert not example.labels.any()
    assert example.annotated.all()


def test_one_map_per_category(tmp_path, config, save_image):
    """Each with numbers of its own; an image may lack one, and does not count there."""
    (tmp_path / "names.txt").write_text(
        "number\tname\tcategory\n1\tsky\t\n2\ttraffic light\n1\twood\tmaterial\n"
    )
    for stem in ("a", "b"):
        save_image(tmp_path / f"images/{stem}.jpg", 8, 8)
        save(tmp_path / f"masks/object/{stem}.png", np.full((8, 8), 2, np.uint8))
    save(tmp_path / "masks/material/b.png", np.full((8, 8), 1, np.uint8))
    source = open_source(config("masks", tmp_path))
    assert source.annotations.maps == 2
    assert source.annotations.concepts[2:] == (
        ("traffic light", "object"),
        ("wood", "material"),
    )
    first, second = source.read(0), source.read(1)
    assert (first.labels[0] == 2).all() and not first.labels[1].any()
    assert first.annotated.tolist() == [True, False]
    assert (second.labels[1] == 3).all()
    assert second.annotated.tolist() == [True, True]
    save(tmp_path / "masks/material/b.png", np.full((8, 8), 2, np.uint8))
    message = r"b\.png: number 2 is not in names\.txt \(category material\)"
    with pytest.raises(UserError, match=message):
        source.read(1)


def test_folders_of_images_are_no_categories(root, config, save_image):
    """Images in a folder 'part' have their masks in a folder 'part'."""
    for folder in ("images", "masks"):
        for file in [*(root / folder).glob("*.png"), *(root / folder).glob("b/*")]:
            file.unlink()
    save_image(root / "images/part/x.png", 8, 8)
    save(root / "masks/part/x.png", np.full((8, 8), 1, np.uint8))
    source = open_source(config("masks", root))
    assert source.annotations.maps == 1
    assert source.read(0).annotated.all()


def test_colors(root, config, drawn):
    (root / "names.txt").write_text(
        '0,nothing,,#ffffff\n1,sky,object,#0000ff\n2,"door, wooden",part,10 20 30\n'
    )
    palette = np.array([[255, 255, 255], [0, 0, 255], [10, 20, 30], [0, 0, 0]])
    numbers = drawn["a"] % 4
    save(root / "masks/a.png", palette[numbers].astype(np.uint8))
    source = open_source(config("masks", root))
    assert source.annotations.concepts[2:] == (
        ("sky", "object"),
        ("door, wooden", "part"),
    )
    expected = np.array([0, 2, 3, 0])  # of the lines; black is no label
    np.testing.assert_array_equal(source.read(0).labels, [cropped(expected[numbers])])
    save(root / "masks/a.png", np.full((30, 40, 3), 7, np.uint8))
    with pytest.raises(UserError, match=r"a\.png: color #070707 is not in names\.txt"):
        source.read(0)


def test_a_number_to_ignore(root, config):
    numbers = np.full((30, 40), 255, np.uint8)
    numbers[15:] = 1
    save(root / "masks/a.png", numbers)
    with pytest.raises(UserError, match=r"a\.png: number 255 is not in names\.txt\.$"):
        open_source(config("masks", root)).read(0)
    source = open_source(config("masks", root, ignore=255))
    np.testing.assert_array_equal(
        source.read(0).labels, [cropped(np.where(numbers == 255, 0, 1))]
    )


def test_keys(root, config):
    for ignore in (-2, 65_536):
        with pytest.raises(UserError, match=f"config.data.ignore is {ignore}; give a"):
            open_source(config("masks", root, ignore=ignore))
    with pytest.raises(UserError, match=r"config.data.path: .*/gone does not exist\."):
        open_source(config("masks", root / "gone"))
    with pytest.raises(UserError, match="needs config.data.path, a folder with images"):
        open_source(config("masks"))


def test_identity(root, config):
    """It changes with a mask, the names, and what is ignored; images have their own."""

    def identity(**changes):
        source = open_source(config("masks", root, **changes))
        return open_annotations(source).identity(None)

    first = identity()
    assert len(set(first["annotations"])) == 3
    assert identity(ignore=9)["annotations"] == first["annotations"]
    assert identity(ignore=9)["vocabulary"] != first["vocabulary"]
    save(root / "masks/b/c.png", np.zeros((20, 20), np.uint8))
    second = identity()
    assert [
        a == b
        for a, b in zip(*(each["annotations"] for each in (first, second)), strict=True)
    ] == [True, False, True]
    assert first["vocabulary"] == second["vocabulary"]
    (root / "names.txt").write_text(NAMES.replace("sky", "cloud"))
    assert identity()["vocabulary"] != first["vocabulary"]


def test_a_corrupt_image_is_skipped_and_a_corrupt_mask_is_not(root, config):
    (root / "images/a.png").write_bytes(b"")
    (root / "masks/b/c.png").write_bytes(b"")
    source = open_source(config("masks", root))
    with pytest.raises(UnreadableImage, match="a.png: not an image"):
        source.read(0)
    with pytest.raises(UserError, match="mask .*masks/b/c.png cannot be decoded"):
        source.read(1)
    with pytest.raises(UnreadableImage, match="10x50 pixels, needs at least 32x32"):
        open_source(config("masks", root), smallest=32).read(2)


def test_a_rotated_photograph(root, config):
    """Its mask is of the stored pixels, or with exif_rotation of the rotated ones."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / "images/a.png", exif=exif)
    open_source(config("masks", root)).read(0)
    with pytest.raises(UserError, match="is 30x40 pixels, but its image is 40x30"):
        open_source(config("masks", root, exif_rotation=True)).read(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: (r / "masks/b/d.png").unlink(),
            r"images/b/d\.png has no mask .*b/d",
        ),
        (lambda r: (r / "images/a.png").unlink(), r"mask .*masks/a\.png has no image"),
        (
            lambda r: save(r / "images/a.jpg", np.zeros((9, 9), np.uint8)),
            r"images for one mask: a\.jpg and a\.png",
        ),
        (lambda r: (r / "masks/a.png").rename(r / "masks/a.tif"), "a.tif is not a PNG"),
        (
            lambda r: save(r / "masks/a.PNG", np.zeros((9, 9), np.uint8)),
            r"masks .*a\.PNG and .*a\.png are for one image",
        ),
        (lambda r: (r / "masks").rename(r / "mask"), "has no folder masks; source"),
        (
            lambda r: (r / "names.txt").unlink(),
            "names.txt does not exist; it must list",
        ),
    ],
)
def test_what_does_not_fit_together(root, config, change, message):
    change(root)
    with pytest.raises(UserError, match=message) as caught:
        open_source(config("masks", root))
    assert "\n" not in str(caught.value)


def test_a_category_without_any_mask_is_missed(root, config):
    (root / "masks").rename(root / "drawn")
    (root / "masks").mkdir()
    (root / "drawn").rename(root / "masks/object")
    (root / "masks/object/a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png has no mask .*masks/CATEGORY/a\.png"):
        open_source(config("masks", root))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no concept"),
        ("0 nothing\n5 -\n", "names no concept"),
        ("1\n", "line 1 has 1 columns; it must be number, name and"),
        (
            "1 sky\n2 traffic light\n",
            "line 2: 'light' is none of the categories object",
        ),
        ("1 sky object blue\n", "line 1 has 4 columns; .*by tabs if names have blanks"),
        ("sky 1\n", "line 1: number is 'sky'; it must be a number from 0 to 65535"),
        ("1 sky\n65536 sea\n", "line 2: number is '65536'"),
        ("-1 sky\n", "number is '-1'"),
        ("1 a\n# b\n\n1 c\n", "line 4: number 1 is also in line 1"),
        ("1 a object\n1 b part\n", "the number of b has another name in another"),
        ("1,a,object,#000001\n2,b,part,#000001\n", "the color of b has another name"),
        ("1,a,,#00000g\n", "line 1: color '#00000g' must be #rrggbb, or red green"),
        ("1,a,,0 0 256\n", "line 1: color '0 0 256'"),
        ("1,a,,#000001\n2,b,,#000001\n", "line 2: the color is also in line 1"),
        ("1,,\n", "line 1: the name is empty; '-' means no label"),
        ("1 a\0b\n", "line 1 has a NUL character"),
        ("1 \x1b[2J x\n", r"'x' is none of"),
        (b"1 sky\n2 \xff\n", "is not UTF-8 text: line 2"),
        ("1," + "9" * 200_000, "line 1: field larger than field limit"),
    ],
)
def test_malformed_names(root, config, text, message):
    content = text if isinstance(text, bytes) else text.encode()
    (root / "names.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        open_source(config("masks", root))
    assert re.search(r"names\.txt", str(caught.value))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
