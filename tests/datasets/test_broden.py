"""Broden's rules, against labels worked out by hand for five small images."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from jdissect.base.concepts import columns, first_numbers
from jdissect.base.errors import UserError
from jdissect.datasets import UnreadableImage, open_source

NOTHING = np.zeros((2, 3), int)


def test_vocabulary(broden, config):
    source = open_source(config("broden", broden))
    concepts = source.annotations.concepts
    assert len(concepts) == 301
    assert {n: c for n, c in enumerate(concepts) if c[0] != "-"} == {
        1: ("sky", "object"),
        2: ("door, wooden", "part"),  # covers more as a part
        3: ("lamp", "part"),  # a tie: the later category
        6: ("street", "scene"),
        300: ("handle", "part"),
    }
    assert concepts[0] == concepts[4] == ("-", "")


def test_counts_decide_without_coverage_files(broden, config):
    (broden / "c_part.csv").unlink()
    concepts = open_source(config("broden", broden)).annotations.concepts
    assert concepts[2] == ("door, wooden", "object")  # object(8);part(3)
    assert concepts[3] == ("lamp", "part")  # object(2);part(2)


def test_two_numbers_of_one_name_are_one_concept(broden, config):
    """As in ADE20K's lists; an image counts for the category with either number."""
    label = broden / "label.csv"
    with label.open("a") as file:
        file.write("8,lamp,part(1),1,0.1,\n9,lamp,object(1),1,0.1,\n")
    concepts = open_source(config("broden", broden)).annotations.concepts
    assert concepts[3] == concepts[8] == ("lamp", "part") != concepts[9]
    pairs = [concepts[number] for number in columns(concepts)]
    assert pairs.count(("lamp", "part")) == pairs.count(("lamp", "object")) == 1
    assert first_numbers(concepts)[[3, 8, 9]].tolist() == [3, 3, 9]


def test_labels_and_annotated(broden, config):
    source = open_source(config("broden", broden))
    assert source.names == (
        *("a/mixed.jpg", "a/empty.jpg", "a/zero.jpg", "b/whole.jpg", "b/cross.jpg"),
    )
    assert source.image_shape == (8, 12)
    assert source.annotations.grid == (2, 3)
    assert source.annotations.maps == 5  # of mixed.jpg
    expected = [
        # object, then part's three items, then scene; columns: object, part, scene
        (
            [
                [[0, 1, 1], [7, 0, 0]],
                [[0, 0, 0], [0, 0, 300]],
                np.full((2, 3), 300),
                [[0, 2, 0], [0, 0, 0]],
                np.full((2, 3), 6),
            ],
            [True, True, True],
        ),
        ([], [False, False, False]),
        ([NOTHING], [False, False, False]),
        ([np.full((2, 3), 1), np.full((2, 3), 7)], [True, False, False]),
        # lamps in the object column, but their primary category is part
        ([[[3, 3, 0], [0, 0, 0]]], [False, True, False]),
    ]
    for index, (maps, annotated) in enumerate(expected):
        example = source.read(index)
        padded = np.stack([*maps, *[NOTHING] * (5 - len(maps))])
        np.testing.assert_array_equal(example.labels, padded)
        np.testing.assert_array_equal(example.annotated, annotated)
        assert example.labels.dtype == np.int32
        assert example.annotated.dtype == bool
        with Image.open(broden / "images" / source.names[index]) as image:
            np.testing.assert_array_equal(example.pixels, np.array(image))


def test_split_and_number(broden, config):
    def names(**changes):
        return open_source(config("broden", broden, **changes)).names

    assert names(split="val") == ("a/empty.jpg", "b/cross.jpg")
    assert names(split="train", num_images=2) == ("a/mixed.jpg", "a/zero.jpg")
    assert names(num_images=100) == names()
    with pytest.raises(UserError, match="no split 'test'; it has 'train', 'val'") as no:
        names(split="test")
    assert "--config.data.split= takes all rows" in str(no.value)
    # Only rows in use count for the number of maps.
    source = open_source(config("broden", broden, split="val"))
    assert source.annotations.maps == 1


def test_grey_photographs_and_masks_with_alpha(broden, config):
    images = broden / "images"
    Image.new("L", (12, 8), 9).save(images / "a/mixed.jpg")
    with Image.open(images / "a/p1.png") as mask:
        mask.convert("RGBA").save(images / "a/p1.png")
    example = open_source(config("broden", broden)).read(0)
    assert (example.pixels == 9).all()
    assert example.labels[1, 1, 2] == 300


def test_a_corrupt_photograph_is_skipped_and_a_corrupt_mask_is_not(broden, config):
    (broden / "images/a/mixed.jpg").write_bytes(b"")
    (broden / "images/b/cross_object.png").write_bytes(b"")
    source = open_source(config("broden", broden))
    with pytest.raises(UnreadableImage, match="a/mixed.jpg: not an image"):
        source.read(0)
    with pytest.raises(UserError, match="mask .*b/cross_object.png cannot be decoded"):
        source.read(4)


def test_what_is_found_on_reading(broden, config, save_image, save_mask):
    images = broden / "images"
    source = open_source(config("broden", broden))
    save_mask(images / "a/mixed_object.png", np.zeros((3, 3), int))
    with pytest.raises(UserError, match="mixed_object.png is 3x3 .* says 2x3"):
        source.read(0)
    save_mask(images / "a/mixed_object.png", np.full((2, 3), 258))
    with pytest.raises(UserError, match="mixed_object.png: number 258 is not in label"):
        source.read(0)
    Image.new("L", (3, 2)).save(images / "a/mixed_object.png")
    with pytest.raises(UserError, match="mixed_object.png has PIL mode L"):
        source.read(0)
    save_image(images / "a/empty.jpg", 9, 12)
    with pytest.raises(UserError, match="a/empty.jpg is 9x12 .*line 3, says 8x12"):
        source.read(1)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.csv", "sh,sw", "sh,sx", "has no column 'sw'"),
        (
            "index.csv",
            "a/zero.jpg,train,8",
            "a/zero.jpg,train,big",
            "line 4: ih is 'big'",
        ),
        ("index.csv", "a/zero.jpg,train,8", "a/zero.jpg,train,0", "integer >= 1"),
        (
            "index.csv",
            "a/zero.jpg,train,8",
            "a/zero.jpg,train,16",
            "line 4.*16x12.*one",
        ),
        (
            "index.csv",
            "b/whole.jpg,train,8,12,2",
            "b/whole.jpg,train,8,12,4",
            "mask size",
        ),
        ("index.csv", "val,8,12,2,3,,,", "val,8,12,2,3,,", "line 3: 8 cells.* has 9"),
        (
            "index.csv",
            "1;7",
            "1;x",
            "line 5: object: 'x' is neither a number nor a PNG",
        ),
        ("index.csv", "1;7", "1;-7", "'-7' is neither"),
        ("index.csv", "1;7", "1;8", "line 5: object: number 8 is not in label.csv"),
        ("index.csv", "a/p1.png", "../a.png", "line 2: part: '../a.png' leads"),
        ("index.csv", "a/zero.jpg", "/a/zero.jpg", "image: '/a/zero.jpg' leads"),
        ("index.csv", "a/zero.jpg", "", "line 4: image is empty"),
        ("index.csv", "a/zero.jpg", "a/gone.jpg", "line 4: .*gone.jpg does not exist"),
        ("index.csv", "a/p2.png", "c/p2.png", "line 2: .*c/p2.png does not exist"),
        ("index.csv", "part,scene", "part,smell", "column 'smell' is not a category"),
        ("index.csv", "part,scene", "part,part", "two columns of the same name"),
        ("label.csv", "1,sky", "one,sky", "line 2: number is 'one'"),
        ("label.csv", "3,lamp", "1,lamp", "line 4: number 1 is listed twice"),
        ("label.csv", "300,", "70000,", "line 7: number 70000 exceeds 65535"),
        ("label.csv", "scene(4)", "smell(4)", "line 5: category 'smell' is not in"),
        ("label.csv", "scene(4)", "", "line 5: the label has no category"),
        ("label.csv", "number,", "code,", "has no column 'number'"),
        ("c_part.csv", "2.5", "much", "line 2: coverage 'much' is not a number"),
        ("category.csv", "name,", "nom,", "has no column 'name'"),
        ("c_part.csv", "2.5", "nan", "line 2: coverage 'nan' is not a number"),
        ("index.csv", "1;7", "9" * 5000, "line 5: object: '9+\\.\\.\\.9+' is neither"),
        ("index.csv", "1;7", "1;" * 70_000, "not a CSV file: field larger than"),
        ("index.csv", "1;7", "\x1b[2J", r"line 5: object: '\\x1b\[2J' is neither"),
        ("index.csv", "a/zero.jpg", "a/zero.jpg\0", "line 4: a cell has a NUL"),
        ("label.csv", "1,sky", "1,sk\0y", "line 2: a cell has a NUL"),
        ("label.csv", "scene(4)", '"s\nc(4)"', r"line 6: category 's\\nc' is not in"),
        ("label.csv", "scene(4)", f"scene({'4' * 400})", "line 5: category 'scene"),
    ],
)
def test_malformed_tables(broden, config, file, old, new, message):
    text = (broden / file).read_text()
    assert old in text
    (broden / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        open_source(config("broden", broden))
    assert file in str(caught.value)


def test_photographs_stay_as_their_masks_are(broden, config):
    with pytest.raises(UserError, match="exif_rotation is set; source 'broden' does"):
        open_source(config("broden", broden, exif_rotation=True))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("8,12,2,3", "99999,99999,2,3", "line 2: an image of 99999x99999 pixels; at"),
        (
            "8,12,2,3",
            "8,12,999999999,999999999",
            "line 2: 5 label maps of 999999999x999999999 pixels; at most 67,108,864",
        ),
        ("1;7", "1;" * 60_000, r"line 5: 60000 label maps of 20x112 pixels; at most"),
    ],
)
def test_sizes_that_no_memory_holds(broden, config, old, new, message):
    """Refused before anything of that size is allocated."""
    index = broden / "index.csv"
    text = index.read_text().replace("2,3,", "20,112,") if old == "1;7" else None
    index.write_text((text or index.read_text()).replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        open_source(config("broden", broden))
    assert "\n" not in str(caught.value)


def test_tables_as_a_spreadsheet_saves_them(broden, config):
    """A byte order mark, and line ends of Windows."""
    before = open_source(config("broden", broden))
    for path in broden.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = open_source(config("broden", broden))
    assert after.names == before.names and after.known == before.known
    assert after.annotations == before.annotations
    np.testing.assert_array_equal(after.read(0).labels, before.read(0).labels)


def test_missing_and_unreadable_tables(broden, config):
    with pytest.raises(UserError, match="needs config.data.path"):
        open_source(config("broden"))
    with pytest.raises(UserError, match="has no index.csv"):
        open_source(config("broden", broden / "images"))
    (broden / "label.csv").write_bytes(b"number,name,category\n1,\xff,object(1)\n")
    with pytest.raises(UserError, match="label.csv is not UTF-8 text: line 2"):
        open_source(config("broden", broden))
    (broden / "label.csv").unlink()
    with pytest.raises(UserError, match="label.csv does not exist"):
        open_source(config("broden", broden))
    (broden / "index.csv").write_text("image,split,ih,iw,sh,sw\n")
    (broden / "label.csv").write_text("number,name,category\n")
    with pytest.raises(UserError, match="lists no images"):
        open_source(config("broden", broden))


def test_hashes(broden, config, save_mask):
    source = open_source(config("broden", broden))
    photographs = source.content_hashes(None)
    first = (broden / "images/a/mixed.jpg").read_bytes()
    assert photographs[0] == hashlib.sha256(first).hexdigest()
    masks, vocabulary = source.annotation_hashes(None), source.vocabulary_hash
    assert len(set(masks)) == 5

    def changed():
        again = open_source(config("broden", broden))
        assert again.content_hashes(None) == photographs
        return (
            again.vocabulary_hash != vocabulary,
            [a != b for a, b in zip(again.annotation_hashes(None), masks, strict=True)],
        )

    assert changed() == (False, [False] * 5)
    save_mask(broden / "images/b/cross_object.png", [[1, 0, 0], [0, 0, 0]])
    assert changed() == (False, [False, False, False, False, True])
    index = broden / "index.csv"
    index.write_text(index.read_text().replace("1;7", "7;1"))
    assert changed() == (False, [False, False, False, True, True])
    (broden / "c_part.csv").write_text("number,coverage\n2,1.0\n")
    assert changed()[0]


def test_areas(annotated_images, lite0_arrays, config):
    """Pixels of every number, over all images, as netdissect counted them.

    An image counts for a category only if it shows a number of that category; a pixel
    that shows a number in two maps counts once.
    """
    source = open_source(config("broden", annotated_images))
    notes, numbers = source.annotations, len(source.annotations.concepts)
    counts = np.zeros(numbers, int)
    categories = list(dict.fromkeys(kind for _, kind in notes.concepts[1:]))
    for index in range(len(source.names)):
        example = source.read(index)
        once = np.sort(example.labels.reshape(notes.maps, -1), axis=0)
        once[1:][once[1:] == once[:-1]] = 0
        found = np.bincount(once.ravel(), minlength=numbers)
        kinds = {notes.concepts[n][1] for n in found[1:].nonzero()[0] + 1}
        assert example.annotated.tolist() == [kind in kinds for kind in categories]
        counts += found
    expected = np.load(lite0_arrays)["concept_area"]
    np.testing.assert_array_equal(counts[1:], expected[1:])


def test_broden_street(shared, config):
    folder = shared / "data" / "broden_street"
    source = open_source(config("broden", folder))
    assert len(source.names) == 334
    assert source.image_shape == (224, 224)
    assert (source.annotations.maps, len(source.annotations.concepts)) == (2, 23)
    split = config("broden", folder, split="val")
    assert len(open_source(split).names) == 67
