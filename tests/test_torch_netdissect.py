"""The PyTorch pipelines that benchmarks measure against count what jdissect counts."""

import numpy as np
import pytest

import jdissect
from jdissect.concepts import columns
from jdissect.ops import components
from jdissect.ops.upsample import upsample

torch = pytest.importorskip("torch", reason="torch absent: nothing to compare with")
pytest.importorskip("scipy", reason="scipy absent")

from benchmarks import torch_netdissect  # noqa: E402
from benchmarks.running_quantile import RunningQuantile  # noqa: E402
from benchmarks.torch_segmenter import TorchSegmenter, quarters  # noqa: E402
from tests.ops import reference  # noqa: E402

UNITS, IMAGES, GRID = 40, 60, 56
CONCEPTS = (("-", "-"), *((f"c{i}", "object") for i in range(1, 9)), ("-", "color"))


@pytest.fixture(scope="module")
def scene():
    """Label maps, and features of which many show one of their concepts."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CONCEPTS), (IMAGES, 6, 7, 7))
    labels *= rng.random(labels.shape) < 0.02
    shown = (labels == 1 + np.arange(UNITS)[:, None, None, None, None] % 9).any(2)
    noise = rng.normal(0, 1, (IMAGES, 7, 7, UNITS))
    strength = np.linspace(0, 3, UNITS)
    maps = noise + strength * shown.transpose(1, 2, 3, 0)
    labels = labels.repeat(8, axis=2).repeat(8, axis=3)
    return np.maximum(maps, 0).astype(np.float32), labels.astype(np.int16)


@pytest.fixture(scope="module")
def ours(scene):
    maps, labels = scene
    return jdissect.dissect(
        lambda params, images: {"x": images},
        None,
        maps,
        labels,
        concepts=CONCEPTS,
        layers="x",
    )


def stub(maps, form):
    """A network of whose images the first pixel is their number."""

    def network(images):
        found = torch.from_numpy(maps[images[:, 0, 0, 0]])
        return {"x": found.permute(0, 3, 1, 2)}

    network.device, network.form = "cpu", form
    return network


def numbered():
    images = np.zeros((IMAGES, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(IMAGES)
    return images


def unique(iou, threshold=0.04):
    """Names of the concepts that any unit detects."""
    names = [CONCEPTS[n][0] for n in columns(CONCEPTS)]
    return {names[i] for i in iou.argmax(1)[iou.max(1) > threshold]}


def test_best_counts_what_jdissect_counts(scene, ours):
    """Few pixels may differ: products round otherwise; equal pixels come in fours."""
    maps, labels = scene
    found = torch_netdissect.best(
        stub(maps, "best"), numbered(), labels, CONCEPTS, ("x",)
    )["x"]
    np.testing.assert_allclose(found.thresholds, ours.thresholds, rtol=1e-5)
    assert np.abs(found.intersection - ours.intersection).max() <= 4
    assert np.abs(found.union - ours.union).max() <= 4
    assert unique(found.iou) == unique(ours.iou) and len(unique(ours.iou)) >= 3


def test_faithful_counts_what_jdissect_counts(scene, ours):
    """Up to its sampled thresholds: T_k of 99 +- 0.3 %, and IoU by as little."""
    maps, labels = scene

    def segmenter(images):
        return labels[images[:, 0, 0, 0]]

    segmenter.concepts = CONCEPTS
    found = torch_netdissect.faithful(
        stub(maps, "faithful"), numbered(), segmenter, "x"
    )
    pixels = np.asarray(upsample(maps, (GRID, GRID)))
    above = (pixels > found.thresholds).mean(axis=(0, 1, 2))
    assert np.abs(above - 0.01).max() < 0.003
    assert np.abs(found.iou - ours.iou).max() < 0.02
    assert unique(found.iou) == unique(ours.iou) and len(unique(ours.iou)) >= 3


def test_exact_levels_where_the_first_images_mislead():
    """Unit 0 is silent later, unit 1 silent at first: bounds too low and too high."""
    rng = np.random.default_rng(1)
    maps = rng.normal(0, 1, (40, 7, 7, 3)).astype(np.float32)
    maps[:4, ..., 0] += 9
    maps[4:, ..., 1] += 9
    maps[:4, ..., 2] += 9
    batches = torch.from_numpy(maps).permute(0, 3, 1, 2).split(10)
    found = torch_netdissect.exact_levels(batches, 0.01).numpy()
    pixels = np.concatenate([torch_netdissect.upsampled(b).numpy() for b in batches])
    expected = reference.thresholds(pixels.reshape(-1, 3), 0.01)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_running_quantile(share):
    """Of 60,000 values, 3,072 held: ranks within half a percent."""
    values = torch.randn(60_000, 30, generator=torch.Generator().manual_seed(0))
    running = RunningQuantile(30)
    for part in values.split(7_001):
        running.add(part)
    found = (values <= running.quantile(share)).float().mean(0)
    assert (found - share).abs().max() < 0.005
    assert (found - share).abs().max() > 0  # it is no sort


def test_quarters():
    rng = np.random.default_rng(2)
    objects = rng.integers(0, 4, (6, 7, 7)).repeat(8, axis=1).repeat(8, axis=2)
    objects[0] = 0
    expected = np.asarray(components.quarters(objects, 4, "netdissect"))
    found = np.stack([quarters(one, 4) for one in objects])
    np.testing.assert_array_equal(found, expected)
    assert (found[1:] > 0).any()


@pytest.fixture(scope="module")
def pipeline(published):
    """{form: (classifier, segmenter)} from published files."""
    network = torch_netdissect.load_resnet
    file = published / "resnet50" / "model_best.pth.tar"
    folders = ("upp-resnet50-upernet", "color-resnet18dilated-ppm_deepsup")
    return {
        form: (
            torch_netdissect.Classifier(network(file), form),
            TorchSegmenter(*(published / name for name in folders), form),
        )
        for form in ("faithful", "best")
    }


@pytest.fixture(scope="module")
def expected(golden):
    return np.load(golden / "dissection.npz")


@pytest.fixture(scope="module")
def images(golden):
    return np.load(golden / "resnet50.npz")["images"]


@pytest.mark.parametrize("form", ["faithful", "best"])
def test_label_maps_are_the_originals(pipeline, expected, images, form):
    found = pipeline[form][1](images[:2])
    agreement = (found == expected["segmentation"][:2]).mean(axis=(0, 2, 3))
    assert (agreement >= 0.999).all(), agreement


@pytest.mark.slow
def test_both_forms_find_what_the_original_found(pipeline, expected, golden):
    """24 photographs, ResNet-50, UPerNet and colours, from published formats."""
    files = sorted((golden / "images").iterdir())
    images = torch_netdissect.decode(files, "best")
    labels = expected["segmentation"]
    network, segmenter = pipeline["best"]
    concepts = segmenter.concepts
    found = torch_netdissect.best(network, images, labels, concepts, ("layer4",))
    found, wanted = found["layer4"], columns(concepts)
    np.testing.assert_allclose(
        found.thresholds, expected["thresholds_exact"], rtol=1e-3
    )
    iou = np.nan_to_num(expected["iou_exact"][wanted].T)
    assert (np.abs(found.iou - iou) > 1e-3).mean() < 1e-4
    network, segmenter = pipeline["faithful"]
    sampled = torch_netdissect.faithful(network, images, segmenter, "layer4")
    best_iou = expected["best_iou_netdissect"]
    assert np.median(np.abs(sampled.iou.max(1) - best_iou)) < 2e-3
    same = sampled.iou.argmax(1) == found.iou.argmax(1)
    assert same.mean() > 0.85
