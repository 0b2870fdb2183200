"""`jdissect.dissect`, and README's example."""

import pathlib
import re

import numpy as np
import pytest

import jdissect
from tests.ops import reference

CONCEPTS = [("-", "-"), ("cat", "object"), ("red", "color")]
README = pathlib.Path(__file__).parents[1] / "README.md"


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
        ({"annotated": np.ones((21, 3), bool)}, "must be"),
        ({"concepts": ["cat"]}, "pairs"),
        ({"concepts": [("-", "-")] * 3}, "names no concept"),
    ],
)
def test_refusals(change, message):
    images, labels = data()
    arguments = {"label_maps": labels, "concepts": CONCEPTS, "layers": "a"} | change
    label_maps = arguments.pop("label_maps")
    with pytest.raises(jdissect.UserError, match=message):
        jdissect.dissect(apply, 1.0, images, label_maps, **arguments)


def test_what_is_not_a_result(tmp_path):
    with pytest.raises(jdissect.UserError, match="holds no dissection"):
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
