"""Vocabularies of the segmenters: what is read, what is refused, the numbers."""

import copy
import json

import pytest

from jdissect.base import concepts
from jdissect.base.errors import UserError
from jdissect.models import segmenter_labels

UPERNET = {
    "object": ["-", "wall", "door", "cat"],
    "part": ["-", "knob", "door", "tail"],
    "material": ["-", "wood"],
    "scene": ["attic", "bar"],
    "object_part": {"cat": ["-", "tail", "knob"], "wall": ["-", "door", "tail"]},
}
COLOR = {
    "labels": [
        {"name": "red", "category": "color"},
        {"name": "-", "category": "color"},
        {"name": "dots", "category": "pattern"},
        {"name": "-", "category": "pattern"},
        {"name": "red", "category": "pattern"},
    ],
    "categories": [{"name": "color"}, {"name": "pattern"}],
    "imageformat": {"byteorder": "BGR", "mean": [0, 0.5, 1], "stdev": [1, 2, 0.5]},
    "segsizes": [128, 256],
}


@pytest.fixture
def upernet():
    return copy.deepcopy(UPERNET)


@pytest.fixture
def color():
    return copy.deepcopy(COLOR)


def read_json(path):
    return json.loads(path.read_text())


def test_the_vocabularies_of_checkpoints(golden):
    content = read_json(golden / "upp_labels.json")
    labels = segmenter_labels.read_upernet(content)
    heads = read_json(golden / "state_dicts.json")["upp_decoder"]
    for head, channels in labels.channels.items():
        layer = 2 if head == "scenes" else 1
        shape, _ = heads[f"{head[:-1]}_head.{layer}.bias"]
        assert [channels] == shape
    assert len(labels.parts) == len(content["part"])
    owners = [content["object"][number] for number, _ in labels.object_parts]
    assert owners == list(content["object_part"])
    assert labels.to_json() == content
    colors = segmenter_labels.read_color(read_json(golden / "color_labels.json"))
    assert colors.to_json() == read_json(golden / "color_labels.json")
    assert colors.channels == {"classes": 12}


def test_netdissects_numbers(golden):
    expected = read_json(golden / "upp_concepts.json")
    labels = segmenter_labels.read_upernet(read_json(golden / "upp_labels.json"))
    found, part_numbers, material_offset = segmenter_labels.upernet_concepts(
        labels, True
    )
    assert [list(concept) for concept in found] == expected
    assert material_offset == 5 * (len(labels.objects) - 1)
    assert expected[material_offset + 1] == [labels.materials[1], "material"]
    assert len(part_numbers) == len(labels.object_parts)
    for (_, names), numbers in zip(labels.object_parts, part_numbers, strict=True):
        assert [expected[number][0] for number in numbers] == list(names)
    merged = read_json(golden / "merged_concepts.json")
    colors = segmenter_labels.read_color(read_json(golden / "color_labels.json"))
    found = segmenter_labels.merged_concepts(found, colors)
    assert [list(concept) for concept in found] == merged
    # Without 0 and the colours' '-'.
    assert len(concepts.columns(found)) == len(merged) - 2


def test_without_quarters_the_numbers_close_up(golden):
    labels = segmenter_labels.read_upernet(read_json(golden / "upp_labels.json"))
    full, full_parts, _ = segmenter_labels.upernet_concepts(labels, True)
    found, parts, material_offset = segmenter_labels.upernet_concepts(labels, False)
    most = len(labels.objects)
    assert found == (*full[:most], *full[5 * most - 4 :])
    assert material_offset == most - 1
    for numbers, others in zip(parts, full_parts, strict=True):
        assert [found[n] for n in numbers] == [full[n] for n in others]


def test_numbers_of_a_small_vocabulary(upernet):
    labels = segmenter_labels.read_upernet(upernet)
    assert labels.object_parts == (
        (1, ("-", "door", "tail")),
        (3, ("-", "tail", "knob")),
    )
    found, part_numbers, material_offset = segmenter_labels.upernet_concepts(
        labels, False
    )
    assert found == (
        ("-", "object"),
        ("wall", "object"),
        ("door", "object"),
        ("cat", "object"),
        ("wood", "material"),
        ("tail", "part"),
        ("knob", "part"),
    )
    assert part_numbers == ((0, 2, 5), (0, 5, 6))
    assert material_offset == 3
    found, part_numbers, material_offset = segmenter_labels.upernet_concepts(
        labels, True
    )
    assert [name for name, _ in found[4:16]] == [
        f"{name}-{quarter}" for quarter in "tlbr" for name in ("wall", "door", "cat")
    ]
    assert {category for _, category in found[4:16]} == {"part"}
    assert part_numbers == ((0, 2, 17), (0, 17, 18))
    assert found[material_offset + 1] == ("wood", "material")


def test_colours_of_one_name_share_a_number(color):
    labels = segmenter_labels.read_color(color)
    found, numbers = segmenter_labels.color_concepts(labels)
    assert found == (("-", "-"), ("red", "color"), ("dots", "pattern"))
    assert numbers == (1, 0, 2, 0, 1)
    merged = segmenter_labels.merged_concepts(
        [["-", "object"], ["wall", "object"]], labels
    )
    assert merged == (("-", "object"), ("wall", "object"), *found)


def test_what_is_read_is_written_again(upernet, color):
    for content, read in (
        (upernet, segmenter_labels.read_upernet),
        (color, segmenter_labels.read_color),
    ):
        labels = read({**content, "comment": [1, None]})
        assert labels.to_json() == content
        assert read(json.loads(json.dumps(labels.to_json()))) == labels


def test_colour_images(color):
    labels = segmenter_labels.read_color(color)
    assert (labels.byteorder, labels.segsizes) == ("BGR", (128, 256))
    assert (labels.mean, labels.stdev) == ((0.0, 0.5, 1.0), (1.0, 2.0, 0.5))
    del color["segsizes"]
    assert segmenter_labels.read_color(color).segsizes == (256,)


def put(*path_and_value):
    """A change: the value at a path of keys becomes another; None takes it away."""
    *path, key, value = path_and_value

    def change(content):
        for step in path:
            content = content[step]
        if value is None:
            del content[key]
        else:
            content[key] = value

    return change


UPERNET_FAULTS = {
    "here lacks 'scene'": put("scene", None),
    "here lacks 'object_part'": put("object_part", None),
    "here: object is 'wall', not a list": put("object", "wall"),
    "here: material has 0 entries": put("material", []),
    r"here: part\[2\] is 7, not a string": put("part", 2, 7),
    r"here: scene\[0\] is '', not a name": put("scene", 0, ""),
    r"here: object\[1\] is 'a\\nb', not a name": put("object", 1, "a\nb"),
    r"here: object\[1\] is '\\ud800', not a name": put("object", 1, "\ud800"),
    "here: object must begin with '-'": put("object", 0, "sky"),
    "here: part must begin with '-'": put("part", 0, "sky"),
    "here: material must begin with '-'": put("material", 0, "sky"),
    "here: object_part is \\[\\], not an object": put("object_part", []),
    "object_part has 'sky', not an object": put("object_part", "sky", ["-"]),
    "object_part has '-', not an object": put("object_part", "-", ["-"]),
    "object_part: cat is 3, not a list": put("object_part", "cat", 3),
    "object_part: cat has 0 entries": put("object_part", "cat", []),
    "object_part: cat must begin with '-'": put("object_part", "cat", ["tail"]),
    "object_part 'cat' has 'fin', not a part": put("object_part", "cat", ["-", "fin"]),
}


@pytest.mark.parametrize("words", UPERNET_FAULTS)
def test_upernet_labels_that_are_refused(words, upernet):
    UPERNET_FAULTS[words](upernet)
    with pytest.raises(UserError, match=words) as error:
        segmenter_labels.read_upernet(upernet, "here")
    assert str(error.value).startswith("here")
    assert len(str(error.value).splitlines()) == 1


def test_columns_are_the_distinct_pairs_in_the_order_of_their_first_numbers():
    """Number 0 is nothing even where its name comes again."""
    words = [
        ("cat", "object"),
        ("door", "object"),
        ("-", "object"),
        ("door", "part"),
        ("cat", "object"),
        ("door", "object"),
        ("-", "part"),
    ]
    assert concepts.columns(words).tolist() == [1, 3, 4]
    assert concepts.first_numbers(words).tolist() == [0, 1, 0, 3, 4, 1, 0]
    assert concepts.categories(words) == ("object", "part")


def test_names_that_come_twice_are_one_concept(upernet):
    """Each channel keeps its number; parts of an owner are parts of both numbers."""
    upernet["object"] += ["cat", "-"]
    upernet["material"] += ["wood", "-"]
    upernet["part"].append("wall-t")
    upernet["object_part"]["cat"].append("wall-t")
    labels = segmenter_labels.read_upernet(upernet, "here")
    assert labels.to_json() == upernet
    assert [number for number, _ in labels.object_parts] == [1, 3]
    assert labels.channels["objects"] == 6 and labels.channels["parts"] == 7
    for quarters in (False, True):
        words = segmenter_labels.upernet_concepts(labels, quarters).concepts
        pairs = [words[number] for number in concepts.columns(words)]
        assert pairs == list(dict.fromkeys(p for p in words if p[0] != "-"))
        for pair in (("cat", "object"), ("wood", "material")):
            assert words.count(pair) == 2 and pairs.count(pair) == 1
        assert words.count(("cat-t", "part")) == 2 * quarters
        assert words.count(("wall-t", "part")) == 1 + quarters
        assert not any(name.startswith("--") for name, _ in words)


def test_an_owner_that_is_nothing(upernet):
    upernet["object"].append("-")
    upernet["object_part"]["-"] = ["-"]
    with pytest.raises(UserError, match="object_part has '-', not an object"):
        segmenter_labels.read_upernet(upernet)


COLOR_FAULTS = {
    "here lacks 'labels'": put("labels", None),
    "here: labels has 0 entries": put("labels", []),
    "here: label 2 is 'red', not an object": put("labels", 2, "red"),
    "here: label 0 lacks 'category'": put("labels", 0, "category", None),
    "here: label 0: name is 5, not a string": put("labels", 0, "name", 5),
    "here: label 0 'red' has unknown category 'hue'": put(
        "labels", 0, "category", "hue"
    ),
    "here: categories lacks 'name'": put("categories", 0, {}),
    "here: categories: 'color' appears twice": put("categories", 1, "name", "color"),
    "here: category 'shape' has no labels": lambda content: content[
        "categories"
    ].append({"name": "shape"}),
    "here lacks 'imageformat'": put("imageformat", None),
    "here: imageformat lacks 'byteorder'": put("imageformat", "byteorder", None),
    "byteorder is 'RBG', not RGB or BGR": put("imageformat", "byteorder", "RBG"),
    "imageformat lacks 'mean'": put("imageformat", "mean", None),
    r"mean is \[0, 1\], not three numbers": put("imageformat", "mean", [0, 1]),
    r"mean is \[0, 1, True\], not three": put("imageformat", "mean", [0, 1, True]),
    r"mean is \[0, 1, nan\], not three": put("imageformat", "mean", [0, 1, 1e999 * 0]),
    r"mean is \[0, 1, '2'\], not three": put("imageformat", "mean", [0, 1, "2"]),
    r"stdev is \[1, 1, 1000.*\.\.\., not three": put(
        "imageformat", "stdev", [1, 1, 10**400]
    ),
    "stdev has a 0": put("imageformat", "stdev", 1, 0.0),
    "segsizes has 0, not a side": put("segsizes", 1, 0),
    "segsizes has 64.0, not a side": put("segsizes", 1, 64.0),
    "segsizes has True, not a side": put("segsizes", 1, True),
    "segsizes has 1000000, not a side": put("segsizes", 1, 10**6),
    "segsizes has 0 entries": put("segsizes", []),
    "segsizes is 256, not a list": put("segsizes", 256),
}


@pytest.mark.parametrize("words", COLOR_FAULTS)
def test_color_labels_that_are_refused(words, color):
    COLOR_FAULTS[words](color)
    with pytest.raises(UserError, match=words) as error:
        segmenter_labels.read_color(color, "here")
    assert str(error.value).startswith("here")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [None, [], "labels", 3])
def test_what_is_no_object_at_all(content):
    for read in (segmenter_labels.read_upernet, segmenter_labels.read_color):
        with pytest.raises(UserError, match="here is .*, not an object"):
            read(content, "here")


def test_the_other_ones_labels(upernet, color):
    with pytest.raises(UserError, match="lacks 'object'"):
        segmenter_labels.read_upernet(color)
    with pytest.raises(UserError, match="lacks 'categories'"):
        segmenter_labels.read_color(upernet)


def test_labels_fit_the_network(upernet, color):
    labels = segmenter_labels.read_upernet(upernet)
    sizes = {"objects": 4, "parts": 6, "materials": 2, "scenes": 2}
    segmenter_labels.check_channels(
        labels, {"name": "upernet", "depth": 50, **sizes}, "x"
    )
    for head, size in sizes.items():
        wrong = {**sizes, head: size + 1}
        words = f"x names {size} {head}, the network has {size + 1}"
        with pytest.raises(UserError, match=words):
            segmenter_labels.check_channels(labels, wrong, "x")
    with pytest.raises(UserError, match="x names 5 classes, the network has 12"):
        segmenter_labels.check_channels(
            segmenter_labels.read_color(color), {"classes": 12}, "x"
        )
