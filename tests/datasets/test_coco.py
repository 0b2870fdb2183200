"""The source 'coco': which annotation belongs to which image, and what overlaps."""

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.data.images import decode_cropped
from jdissect.datasets import open_source
from jdissect.segmenters.annotations import open_annotations
from tests.datasets.test_coco_masks import compress, lengths

H, W = 40, 60
CATEGORIES = [
    {"id": 7, "name": "person", "supercategory": "person"},
    {"id": 3, "name": "tie", "supercategory": "accessory"},
    {"id": 90, "name": "café", "supercategory": "place"},
]


def box(left, top, right, bottom):
    """A region's pixels, and the polygon of its outline."""
    pixels = np.zeros((H, W), bool)
    pixels[top:bottom, left:right] = True
    return pixels, [left, top, right, top, right, bottom, left, bottom]


PERSON, PERSON_OUTLINE = box(10, 5, 40, 35)
TIE, TIE_OUTLINE = box(20, 10, 24, 30)
CAFE, _ = box(0, 0, W, 20)
CROWD, _ = box(45, 0, W, H)


def annotation(image, category, segmentation, number, **more):
    return {
        **{"id": number, "image_id": image, "category_id": category, "area": 1.5},
        **{"bbox": [0, 0, 1, 1], "iscrowd": 0, "segmentation": segmentation, **more},
    }


def content():
    rle = {"size": [H, W], "counts": compress(lengths(CAFE))}
    crowd = {"size": [H, W], "counts": lengths(CROWD)}
    value = {
        "info": {"description": 'a "quote", é, [{', "url": None},
        "images": [
            {"id": 52, "file_name": "b.png", "height": H, "width": W},
            {"id": 9, "file_name": "a.png", "height": H, "width": W},
            {"id": 1, "file_name": "d/empty.png", "height": H, "width": W},
        ],
        "annotations": [
            annotation(52, 7, [PERSON_OUTLINE], 1),
            annotation(9, 90, rle, 2),
            annotation(52, 3, [TIE_OUTLINE], 3),
            annotation(52, 90, rle, 4),
            annotation(52, 7, crowd, 5, iscrowd=1),
        ],
        "categories": CATEGORIES,
    }
    return json.loads(json.dumps(value))  # nothing is shared


@pytest.fixture
def coco(tmp_path, save_image, config):
    """Writes a file and opens it with its images."""
    for seed, name in enumerate(("a", "b", "d/empty", "other")):
        save_image(tmp_path / f"val/{name}.png", H, W, seed)

    def make(value, **changes):
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        (tmp_path / "x.json").write_bytes(text)
        file = str(tmp_path / "x.json")
        changes = {"annotations": file, **changes}
        return open_source(config("coco", tmp_path / "val", **changes))

    return make


def cropped(pixels):
    rows, columns = (
        [int((16 + y + Fraction(1, 2)) * side / 256) for y in range(224)]
        for side in pixels.shape
    )
    return pixels[rows][:, columns]


def test_instances(coco, tmp_path):
    source = coco(content())
    assert source.names == ("a.png", "b.png", "d/empty.png")
    assert source.annotations.concepts == (
        *(("-", ""), ("person", "object"), ("tie", "object"), ("café", "object")),
    )
    assert source.annotations.maps == 3  # an image has three classes
    a, b, empty = (source.read(index) for index in range(3))
    np.testing.assert_array_equal(
        a.pixels, decode_cropped(str(tmp_path / "val/a.png"), "x")
    )
    np.testing.assert_array_equal(a.labels[0] == 3, cropped(CAFE))
    assert not a.labels[1:].any()
    for label, region in {1: PERSON | CROWD, 2: TIE, 3: CAFE}.items():
        found = (b.labels == label).sum(axis=0)  # at most once per pixel
        np.testing.assert_array_equal(found, cropped(region).astype(int))
    assert not empty.labels.any()
    # What a file does not outline is not there.
    assert all(example.annotated.tolist() == [True] for example in (a, b, empty))
    assert coco(content(), num_images=1).names == ("a.png",)


def test_of_many_classes_a_pixel_keeps_the_smallest(coco):
    many = content()
    many["categories"] = [{"id": k, "name": f"n{k}"} for k in range(6)]
    regions = [box(0, 0, W - 5 * k, H) for k in range(6)]
    many["annotations"] = [
        annotation(9, k, [outline], k) for k, (_, outline) in enumerate(regions)
    ]
    source = coco(many)
    assert source.annotations.maps == 4
    labels = source.read(0).labels
    # Class k has label k + 1; classes 2 to 5 are the four smallest.
    for k, (region, _) in enumerate(regions):
        found = (labels == k + 1).any(axis=0)
        below = regions[k + 4][0] if k < 2 else np.zeros((H, W), bool)
        np.testing.assert_array_equal(found, cropped(region & ~below))


def test_identity(coco):
    def identity(value):
        return open_annotations(coco(value)).identity(None)

    first = identity(content())
    assert len(set(first["annotations"])) == 3
    moved = content()
    moved["annotations"][0]["segmentation"][0][0] += 1
    second = identity(moved)
    same = [
        a == b for a, b in zip(first["annotations"], second["annotations"], strict=True)
    ]
    assert same == [True, False, True]
    assert first["vocabulary"] == second["vocabulary"]
    renamed = content() | {"categories": [*CATEGORIES[:2], {"id": 90, "name": "bar"}]}
    assert identity(renamed)["vocabulary"] != first["vocabulary"]


PANOPTIC = {
    "images": [{"id": 9, "file_name": "a.png", "height": H, "width": W}],
    "annotations": [
        {
            **{"image_id": 9, "file_name": "a_map.png"},
            "segments_info": [
                {"id": 70_000, "category_id": 7},
                {"id": 300, "category_id": 90},
                {"id": 5, "category_id": 7},
            ],
        }
    ],
    "categories": CATEGORIES,
}


def save_segments(folder, numbers):
    folder.mkdir(exist_ok=True)
    rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1)
    Image.fromarray(rgb.astype(np.uint8)).save(folder / "a_map.png")


def test_panoptic(coco, tmp_path):
    numbers = np.random.default_rng(0).choice([0, 5, 300, 70_000], (H, W))
    save_segments(tmp_path / "x", numbers)
    source = coco(PANOPTIC)
    assert source.annotations.maps == 1
    expected = np.select([numbers == 300, numbers > 0], [3, 1], 0)
    np.testing.assert_array_equal(source.read(0).labels, [cropped(expected)])
    first = open_annotations(source).identity(None)
    save_segments(tmp_path / "x", numbers * 0)
    assert open_annotations(source).identity(None) != first
    save_segments(tmp_path / "x", numbers * 0 + 6)
    with pytest.raises(UserError, match=r"a_map\.png: segment 6 is not in .*x\.json"):
        source.read(0)
    Image.new("L", (W, H)).save(tmp_path / "x/a_map.png")
    with pytest.raises(UserError, match=r"a_map\.png is not RGB"):
        source.read(0)
    for wrong in ([7], [{"id": 5, "category_id": []}], 7, [{"id": -1}]):
        annotation = PANOPTIC["annotations"][0] | {"segments_info": wrong}
        save_segments(tmp_path / "x", numbers)
        with pytest.raises(UserError, match=r"annotation of image a\.png is wrong"):
            coco(PANOPTIC | {"annotations": [annotation]}).read(0)
    source = coco(PANOPTIC)
    (tmp_path / "x/a_map.png").unlink()
    with pytest.raises(UserError, match=r"x/a_map\.png cannot be decoded: No such"):
        source.read(0)


def changed(key, place, name, value):
    """The file with one entry changed; None removes it."""
    result = content()
    entry = result[key][place] if place is not None else result
    if value is None:
        del entry[name]
    else:
        entry[name] = value
    return result


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "x.json is not a COCO file: there is no '{' at byte 0"),
        (b"[]", "there is no '{' at byte 0"),
        (b"{}", "it has no list 'images'"),
        (b'{"images": [{"id": 1}', "there is no ',' at byte 21"),
        (b'{"images": {}}', "there is no '\\[' at byte 11"),
        (b'{"images": [7]}', "'images' has an element that is not an object"),
        (b'{"images": [{"id": "\xff"}]}', "not a COCO file: 'utf-8' codec"),
        (b'{"x": ' + b"[" * 100_000, "it is nested too deeply"),
        (b'{"images": [{"id": 1' + b"0" * 5000, "not a COCO file: Exceeds the limit"),
        (
            changed("categories", None, "categories", None),
            "it has no list 'categories'\\.",
        ),
        (changed("categories", None, "categories", []), "category 7, which is not"),
        (changed("categories", 0, "id", None), "1 of 'categories' has no id"),
        (changed("categories", 0, "id", 3), "'categories' has two elements of id 3"),
        (changed("categories", 1, "name", "-"), "category 3 has no name, but '-'"),
        (changed("categories", 1, "name", "a\0"), "category 3 has no name, but 'a"),
        (changed("categories", 1, "name", "a\ud800"), "category 3 has no name, but 'a"),
        (changed("images", 0, "file_name", "a\ud800.png"), "image 52 has no file_name"),
        (changed("images", 0, "file_name", "a\0.png"), "image 52 has no file_name"),
        (changed("images", 0, "id", 9), "'images' has two elements of id 9"),
        (changed("images", 0, "id", True), "element 1 of 'images' has no id"),
        (changed("images", 0, "file_name", None), "image 52 has no file_name"),
        (changed("images", 0, "file_name", "a.png"), "lists image a.png twice"),
        (changed("images", 0, "file_name", "../a.png"), "../a.png leads out of its"),
        (changed("images", 0, "file_name", "/a.png"), "/a.png leads out of its"),
        (changed("images", 0, "file_name", "gone.jpg"), "1 of the 3 .*as gone.jpg"),
        (changed("images", 0, "height", None), "image b.png has no height and width"),
        (changed("annotations", 2, "image_id", 4), "of image 4, which is not listed"),
        (changed("annotations", 2, "image_id", []), "annotation 3 has no image_id"),
        (
            changed("annotations", 2, "category_id", 4),
            "category 4, which is not listed",
        ),
        (changed("annotations", 2, "segmentation", []), "annotation 3 has no segment"),
        (changed("annotations", 2, "segments_info", []), "annotation 3 is panoptic"),
        (
            PANOPTIC | {"annotations": PANOPTIC["annotations"] * 2},
            "image a.png does not have one annotation",
        ),
        (content() | {"images": [], "annotations": []}, "x.json lists no images"),
    ],
)
def test_malformed_files(coco, value, message):
    with pytest.raises(UserError, match=message) as caught:
        coco(value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_what_is_found_on_reading(coco, tmp_path, save_image):
    wrong = content()
    wrong["annotations"][1]["segmentation"]["counts"] = [5]
    source = coco(wrong)
    message = r"x\.json: the annotation of image a\.png is wrong: run lengths cover 5"
    with pytest.raises(UserError, match=message):
        source.read(0)
    source.read(1)
    save_image(tmp_path / "val/b.png", H, W + 1)
    with pytest.raises(UserError, match=r"b\.png is 40x61 pixels, but .*says 40x60"):
        source.read(1)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json changed while it was in use"):
        source.read(2)


def test_the_keys(coco, config, tmp_path):
    with pytest.raises(UserError, match="needs config.data.annotations, a JSON file"):
        coco(content(), annotations="")
    with pytest.raises(UserError, match="needs config.data.path, a folder of images"):
        open_source(config("coco", "", annotations="x.json"))
    with pytest.raises(UserError, match=r"none\.json cannot be read: No such file"):
        coco(content(), annotations=str(tmp_path / "none.json"))
    with pytest.raises(
        UserError, match="config.data.annotations is gs://x; it must be"
    ):
        coco(content(), annotations="gs://x")
