"""`jdissect.dissect`, and README's example."""

import dataclasses
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jdissect
from tests.ops import reference

CONCEPTS = [("-", "-"), ("cat", "object"), ("red", "color")]
README = pathlib.Path(__file__).parents[2] / "README.md"


def data(count=21):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, 8, 8, 5)).astype(np.float32)
    return images, rng.integers(0, 3, (count, 1, 8, 8))


def apply(params, images):
    return {"a": images + params, "b": images[:, ::2, ::2]}


def test_exact_thresholds_and_counts():
    images, labels = data()
    result = jdissect.dissect(
        apply, 1.0, images, labels, concepts=CONCEPTS, layers="a", batch_size=4
    )
    maps = images + np.float32(1)
    expected = reference.thresholds(maps.reshape(-1, 5), 0.01)
    np.testing.assert_array_equal(result.thresholds, expected)
    masks = maps > expected
    there = labels == 2
    both = (masks & there.transpose(0, 2, 3, 1)).sum(axis=(0, 1, 2))
    np.testing.assert_array_equal(result.intersection[:, 1], both)
    iou = both / (masks.sum(axis=(0, 1, 2)) + there.sum() - both)
    np.testing.assert_array_equal(result.iou[:, 1], iou.astype(np.float32))


def test_forms_of_input_agree():
    images, labels = data()
    options = {"concepts": CONCEPTS, "batch_size": 4}
    expected = jdissect.dissect(apply, 1.0, images, labels, layers="b", **options)
    batches = (images[i : i + 5] for i in range(0, 21, 5))
    from_batches = jdissect.dissect(apply, 1.0, batches, labels, layers="b", **options)
    np.testing.assert_array_equal(from_batches.intersection, expected.intersection)
    place = {image.tobytes(): maps for image, maps in zip(images, labels, strict=True)}

    def label(batch):
        return np.stack([place[image.tobytes()] for image in np.asarray(batch)])

    by_function = jdissect.dissect(apply, 1.0, images, label, layers=["b"], **options)
    np.testing.assert_array_equal(by_function["b"].union, expected.union)
    all_count = np.ones((21, 2), bool)
    annotated = jdissect.dissect(
        apply, 1.0, images, labels, layers="b", annotated=all_count, **options
    )
    np.testing.assert_array_equal(annotated.union, expected.union)
    all_count[:, 1] = False
    none_red = jdissect.dissect(
        apply, 1.0, images, labels, layers="b", annotated=all_count, **options
    )
    assert not none_red.union[:, 1].any() and not none_red.iou[:, 1].any()


def test_a_number_may_mean_no_label():
    images, labels = data()
    options = {"concepts": CONCEPTS, "batch_size": 4, "layers": "b"}
    expected = jdissect.dissect(apply, 1.0, images, labels, **options)
    void = np.where(labels == 0, 255, labels).astype(np.uint8)
    pairs = list(zip(images, void, strict=True))
    for given in ((images, void), (pairs,)):
        found = jdissect.dissect(apply, 1.0, *given, ignore=255, **options)
        np.testing.assert_array_equal(found.intersection, expected.intersection)
        np.testing.assert_array_equal(found.union, expected.union)
    assert void.max() == 255  # the caller's array


def test_planted_detectors_are_found():
    """Units that are the masks themselves: IoU by hand."""
    labels = np.zeros((40, 1, 10, 10), int)
    labels[::2, 0, 0, 0] = 1  # 20 of 4,000 pixels
    labels[1::4, 0, 5, :4] = 2  # 40 pixels
    images = np.zeros((40, 10, 10, 3), np.float32)
    images[..., 0] = labels[:, 0] == 1
    images[..., 1] = labels[:, 0] == 2
    images[:, 0, 0, 1] = 2  # 40 wrong pixels too: 80 fire above 2 %
    result = jdissect.dissect(
        lambda _, x: {"x": x},
        None,
        images,
        labels,
        concepts=CONCEPTS,
        layers="x",
        quantile=0.02,
    )
    assert result.thresholds.tolist() == [0, 0, 0]
    assert result.best_concept.tolist() == [0, 0, -1] or result.best_concept[1] == 1
    assert result.iou[0].tolist() == [1, 0]
    # 80 fire; 40 of them are 'red' (of 40), 20 are 'cat' (of 20).
    np.testing.assert_allclose(result.iou[1], [20 / 80, 40 / 80])
    assert result.detectors(0.5).tolist() == [True, False, False]
    assert result.unique_concepts(0.04) == {
        "object": 1,
        "part": 0,
        "material": 0,
        "color": 1,
        "total": 2,
    }


def test_save_and_load(tmp_path):
    images, labels = data()
    result = jdissect.dissect(apply, 0.0, images, labels, concepts=CONCEPTS, layers="a")
    result.save(tmp_path / "kept")
    again = jdissect.load(tmp_path / "kept")
    assert again.summary() == result.summary()
    for name in ("thresholds", "intersection", "union", "iou", "top_image"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    arrays = np.load(tmp_path / "kept" / "dissection.npz")
    assert arrays["thresholds"].dtype == arrays["iou"].dtype == np.float32
    assert arrays["intersection"].dtype == arrays["union"].dtype == np.int64
    assert arrays["concepts"].tolist() == ["cat", "red"]
    top = np.load(tmp_path / "kept" / "topk.npz")
    assert top["value"].shape == (5, 5) and top["image"].dtype == np.int32
    histogram = np.load(tmp_path / "kept" / "histogram.npz")
    assert histogram["edges"].shape[1] == histogram["counts"].shape[1] + 1 <= 257


@pytest.mark.parametrize(
    "change, message",
    [
        ({"quantile": 1.0}, "quantile is 1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"layers": ()}, "layers is empty"),
        ({"layers": "c"}, "no layer 'c'; there are: a, b"),
        ({"label_maps": np.zeros((3, 1, 8, 8), int)}, "holds 3 images, not 21"),
        ({"label_maps": np.zeros((21, 8, 8), int)}, "maps, height, width"),
        ({"label_maps": np.full((21, 1, 8, 8), 3)}, "numbers from 3 to 3"),
        ({"label_maps": np.zeros((21, 1, 8, 8))}, "must be integers"),
        ({"label_maps": np.zeros((21, 1, 0, 8), int)}, "it is empty"),
        ({"label_maps": "masks"}, "label_maps is a str, not an array"),
        ({"annotated": np.ones((21, 3), bool)}, "must be"),
        ({"annotated": np.ones((20, 2), bool)}, "annotated holds 20 images, not 21"),
        ({"annotated": np.full((21, 2), 2)}, "numbers other than 0 and 1"),
        ({"quantile": "1%"}, "quantile is 1%"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"layers": ("a", "a")}, "layers has 'a' twice"),
        ({"layers": (1,)}, "layers has a int"),
        ({"concepts": ["--", "ab", "cd"]}, "pairs"),
        ({"concepts": ["cat"]}, "pairs"),
        ({"concepts": [("-", "-")] * 3}, "names no concept"),
        ({"ignore": "255"}, "ignore is '255'; it must be a number"),
        ({"ignore": True}, "ignore is True; it must be a number"),
        ({"ignore": 255, "segmenter": "colornames"}, "leave it out with a segmenter"),
        ({"ignore": 7, "label_maps": np.full((21, 1, 8, 8), 9)}, "from 9 to 9"),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_refusals(change, message):
    images, labels = data()
    arguments = {"label_maps": labels, "concepts": CONCEPTS, "layers": "a"} | change
    label_maps = arguments.pop("label_maps")
    with pytest.raises(jdissect.UserError, match=message):
        jdissect.dissect(apply, 1.0, images, label_maps, **arguments)


def later(change):
    """Label maps of the first batch as they should be, of later ones changed."""
    calls = []

    def label(batch):
        calls.append(len(batch))
        maps = np.ones((len(batch), 1, 8, 8), int)
        return maps if len(calls) < 3 else change(maps)

    return label


# What a function, a generator or an array gives for a later batch.
LATE = {
    "another grid": (
        {"label_maps": later(lambda maps: maps[:, :, ::2])},
        r"label_maps of the batch from image \d+ is .*\[1, 4, 8\], but those",
    ),
    "more maps": (
        {"label_maps": later(lambda maps: maps.repeat(2, axis=1))},
        r"\[2, 8, 8\], but those before are \[1, 8, 8\]",
    ),
    "another type": ({"label_maps": later(lambda maps: maps / 2)}, "must be integers"),
    "a number too many": ({"label_maps": later(lambda maps: maps + 2)}, "from 3 to 3"),
    "no number": ({"label_maps": later(lambda maps: maps - 2)}, "from -1 to -1"),
    "fewer maps": (
        {"label_maps": later(lambda maps: maps[1:])},
        "holds 3 images, not 4",
    ),
    "larger images": (
        {"images": lambda images: [images[:8], images[8:].repeat(2, axis=1)]},
        r"batch 1 of images holds .*\[16, 8, 5\], but those before are .*\[8, 8, 5\]",
    ),
    "images of another type": (
        {"images": lambda images: [images[:8], images[8:].astype(int)]},
        "batch 1 of images holds .* int64.* before are float32",
    ),
    "more images than label maps": (
        {"images": lambda images: iter([images, images[:4]])},
        "label_maps ends before the images: it holds 21, but images gave 24 so far",
    ),
    "fewer images than label maps": (
        {"images": lambda images: iter([images[:8], images[8:19]])},
        "images ends before label_maps: it gave 19 images, but label_maps holds 21",
    ),
    "fewer images than annotated": (
        {
            "images": lambda images: iter([images[:19]]),
            "label_maps": later(lambda maps: maps),
            "annotated": np.ones((21, 2), bool),
        },
        "images ends before annotated: it gave 19 images, but annotated holds 21",
    ),
    "more images than annotated": (
        {"images": iter, "annotated": np.ones((8, 2), bool)},
        "annotated ends before the images: it holds 8, but images gave 12 so far",
    ),
    "a generator that was read": (
        {"images": lambda images: iter(())},
        "images yields no image; is it a generator that was read before",
    ),
}


@pytest.mark.parametrize("case", LATE)
@pytest.mark.usefixtures("types_unchecked")
def test_every_batch_is_checked(case):
    images, labels = data()
    change, message = LATE[case]
    change = dict(change)
    given = change.pop("images", lambda images: images)(images)
    label_maps = change.pop("label_maps", labels)
    options = {"concepts": CONCEPTS, "layers": "a", "batch_size": 4} | change
    with pytest.raises(jdissect.UserError, match=message) as error:
        jdissect.dissect(apply, 1.0, given, label_maps, **options)
    assert len(str(error.value).splitlines()) == 1


def warned(*arguments, **options):
    """The result, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = jdissect.dissect(*arguments, **options)
    return result, [str(each.message) for each in caught]


def test_a_first_concept_that_is_lost_is_named():
    images, labels = data()
    options = {"layers": "a", "batch_size": 4}
    vocabulary = [("dog", "object"), *CONCEPTS[1:]]
    found, (line,) = warned(apply, 1.0, images, labels, concepts=vocabulary, **options)
    assert found.concepts == ("cat", "red")
    assert "concepts[0] is ('dog', 'object'), but number 0 means no label" in line
    assert not warned(apply, 1.0, images, labels, concepts=CONCEPTS, **options)[1]


def test_a_network_in_training_mode_is_noticed():
    """Batch statistics and dropout; in inference mode nothing is said."""
    images, labels = data()
    options = {"layers": "a", "batch_size": 4, "concepts": CONCEPTS}

    class Small(nnx.Module):
        def __init__(self, layer):
            self.layer = layer

        def __call__(self, images):
            return {"a": self.layer(images)}

    for layer in (
        nnx.BatchNorm(5, rngs=nnx.Rngs(0)),
        nnx.Dropout(0.5, rngs=nnx.Rngs(0)),
    ):
        model = Small(layer)
        for lines in (1, 0):
            graph, state = nnx.split(model)

            def network(state, images, graph=graph):
                return nnx.merge(graph, state)(images)

            _, found = warned(network, state, images, labels, **options)
            assert len(found) == lines
            for line in found:
                assert "training mode? Call model.eval()" in line
                assert "thresholds depend on batch_size" in line
            model.eval()


def test_a_run_in_which_no_unit_can_fire_says_why():
    images, labels = data()
    small, few = images[:3, :4, :4], labels[:3, :, :4, :4]
    options = {"layers": "a", "batch_size": 4, "concepts": CONCEPTS}
    found, (line,) = warned(apply, 1.0, small, few, **options)
    assert not found.fires.any() and not found.can_fire
    assert "no unit can fire: quantile 0.01 of 3 label maps of 4x4 pixels" in line
    enough = warned(apply, 1.0, small, few, quantile=0.03, **options)
    assert enough[0].can_fire and enough[0].fires.any() and not enough[1]


def test_channels_first_maps_are_noticed():
    images, labels = data()
    options = {"layers": "a", "batch_size": 4, "concepts": CONCEPTS}

    def network(params, images):
        return jnp.moveaxis(images @ params, -1, 1)

    _, (line,) = warned(network, np.eye(5, 12), images, labels, **options)
    assert "layer 'a' is [batch, 12, 8, 8], read as height 12, width 8" in line


def test_64_bit_mode_changes_nothing():
    """Neither the bits nor the types; values of 64 bits are taken as in 32."""
    images, labels = data()
    options = {"layers": "a", "batch_size": 4, "concepts": CONCEPTS}
    wide, scale = images.astype(np.float64), np.float64(0.1)

    def network(params, images):
        return {"a": (images + jnp.arange(5) / 3) * params}

    expected = jdissect.dissect(network, scale, wide, labels, **options)
    with jax.enable_x64(True):
        for params in (scale, jnp.asarray(scale)):
            found = jdissect.dissect(network, params, wide, labels, **options)
            assert found.thresholds.dtype == np.float32
            for field in dataclasses.fields(expected):
                value = getattr(expected, field.name)
                if isinstance(value, np.ndarray):
                    again = getattr(found, field.name)
                    assert again.dtype == value.dtype, field.name
                    np.testing.assert_array_equal(again, value, field.name)
        assert jnp.zeros(1).dtype == np.float64  # the caller's mode is as it was


def test_what_is_not_a_result(tmp_path):
    with pytest.raises(jdissect.UserError, match="does not hold a dissection"):
        jdissect.load(tmp_path)
    images, labels = data()
    result = jdissect.dissect(apply, 0.0, images, labels, concepts=CONCEPTS, layers="a")
    result.save(tmp_path)
    (tmp_path / "topk.npz").write_bytes(b"PK nonsense")
    with pytest.raises(jdissect.UserError, match="topk.npz cannot be read"):
        jdissect.load(tmp_path)


def test_readme_example():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    example = next(block for block in blocks if "jdissect.dissect" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["result"].unique_concepts(0.02)["total"] == 1
