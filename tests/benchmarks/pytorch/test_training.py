"""PyTorch's training step, which benchmarks compare with, is jdissect's step."""

import functools

import jax
import numpy as np
import pytest
from scipy import stats

from jdissect import augment
from jdissect.augment.mix import _draw, _uniform_centres
from jdissect.augment.standard import _draw_crops, _draw_jitter, _resize
from jdissect.ops import saliency
from jdissect.training import step
from jdissect.training.initialization import initial_parameters

torch = pytest.importorskip("torch", reason="torch absent: nothing to compare with")

from benchmarks import versus_training  # noqa: E402
from benchmarks.pytorch import mixing, originals, standard  # noqa: E402
from benchmarks.pytorch.training import MOMENTUM, TorchTraining  # noqa: E402
from benchmarks.support.options import parse  # noqa: E402
from benchmarks.train_step import Training  # noqa: E402
from tests import sgd  # noqa: E402

BATCH, SIDE, WIDTH, CLASSES = 6, 48, 8, 7
SHAPE = (40, 56)
NETWORK = {"width": WIDTH, "classes": CLASSES, "side": SIDE, "rate": 0.1}


def channels_first(images):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def channels_last(tensor):
    return np.moveaxis(tensor.numpy(), 1, -1)


def draw_images(seed=0, batch=BATCH, shape=SHAPE):
    """Noise of values a little beyond [0, 1], a patch in each stands out."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-0.1, 0.6, (batch, *shape, 3)).astype(np.float32)
    for image in images:
        y, x = rng.integers(0, shape)
        image[y : y + 5, x : x + 5] += 0.6
    return images


@pytest.fixture(scope="module")
def ours():
    """jdissect's step, compiled once."""
    start = initial_parameters(sgd.ARCHITECTURE, 0)
    return Training(BATCH, model="resnet18", start=start, **NETWORK)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["faithful", "best"])
def test_steps_of_sgd_are_those_of_jdissect(form, ours):
    """PyTorch's in float64; each from the same numbers, see `sgd`."""
    theirs = TorchTraining(form, depth=18, workers=0, **NETWORK)
    network, optimizer = theirs.network.double(), theirs.optimizer
    rng = np.random.default_rng(1)
    for _ in range(2):  # the second has momentum
        sgd.round_to_float32(network, optimizer)
        before = sgd.values(network), sgd.momenta(network, optimizer)
        images = rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
        while not sgd.decisive(network, channels_first(images).double()):
            images = rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
        first, second = rng.integers(0, CLASSES, (2, BATCH)).astype(np.int32)
        weight = rng.uniform(size=BATCH).astype(np.float32)
        loss = theirs.train(
            mixing.Mixture(
                channels_first(images).double(),
                torch.from_numpy(first).long(),
                torch.from_numpy(second).long(),
                torch.from_numpy(weight),
            )
        )
        after = sgd.values(network), sgd.momenta(network, optimizer)
        state = sgd.continued(step.first_copy(ours.state), *before)
        ours.state = ours.devices.states(state)
        mixture = augment.Mixture(images, first, second, weight)._asdict()
        found = ours.train(ours.devices.scatter(mixture))
        np.testing.assert_allclose(found[0], loss.item(), rtol=1e-5)
        moved = sgd.read(step.first_copy(ours.state))
        sgd.compare(moved, after, before, MOMENTUM)


@pytest.mark.parametrize("form", ["faithful", "best"])
@pytest.mark.parametrize("recipe", augment.RECIPES)
def test_every_recipe_trains(form, recipe):
    training = TorchTraining(form, depth=18, workers=0, **NETWORK)
    rng = np.random.default_rng(2)
    pixels = np.zeros((BATCH, 80, 80, 3), np.uint8)
    pixels[:, :60, :70] = rng.integers(0, 256, (BATCH, 60, 70, 3))
    sizes = np.tile(np.int32([[60, 70]]), (BATCH, 1))
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    batch = training.augment(recipe, pixels, sizes, labels)
    assert batch.images.shape == (BATCH, 3, SIDE, SIDE)
    assert batch.images.dtype == batch.weight.dtype == torch.float32
    mixes = recipe in ("mixup", "cutmix", "saliencymix")
    assert bool((batch.weight < 1).any()) == mixes
    assert (batch.first == torch.from_numpy(labels)).all()
    losses = [training.step(recipe, pixels, sizes, labels).item() for _ in range(2)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]


def test_cutout_is_ours():
    images = draw_images()
    key = jax.random.key(3)
    centre = np.array(_uniform_centres(key, BATCH, SHAPE))
    expected = augment.mix("cutout", key, images, np.arange(BATCH), normalize=_same)
    found = mixing.cutout(channels_first(images), torch.from_numpy(centre))
    np.testing.assert_array_equal(channels_last(found), expected.images)
    assert (channels_last(found) == 0).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("recipe", ["mixup", "cutmix", "saliencymix"])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))]
)
def test_mixing_is_ours(recipe, seed):
    images = draw_images(seed)
    key, labels = jax.random.key(seed), np.arange(BATCH)
    expected = augment.mix(recipe, key, images, labels, normalize=_same)
    once = recipe != "saliencymix"
    drawn = _draw(recipe, key, BATCH, SHAPE, alpha=1.0, group=0, once=once)
    partner, share, centre = (torch.from_numpy(np.array(part)) for part in drawn)
    own = channels_first(images)
    np.testing.assert_array_equal(torch.arange(BATCH)[partner], expected.second)
    if recipe == "mixup":
        found, weight = mixing.mixup(own, partner, share), share
    else:
        if recipe == "saliencymix":
            pixels = (own * 255).round().clamp(0, 255).to(torch.uint8)
            centre = mixing.peaks(mixing.saliency(pixels))[partner]
        found, weight = mixing.paste(own, partner, share, centre)
    exact = {"atol": 1e-6 if recipe == "mixup" else 0, "rtol": 0}
    np.testing.assert_allclose(channels_last(found), expected.images, **exact)
    np.testing.assert_array_equal(weight, expected.weight)
    assert (expected.weight < 1).any()


def _same(images):
    return images


def faithful_saliency(pixels):
    return np.stack([originals.salient_by_numpy(image) for image in pixels])


def best_saliency(pixels):
    return mixing.saliency(channels_first(pixels)).numpy()


FORMS = {"faithful": faithful_saliency, "best": best_saliency}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", ["", "_small"])
def test_saliency_is_the_golden_one(form, size, golden):
    with np.load(golden / "saliency.npz") as arrays:
        pixels, expected = arrays[f"rgb{size}"], arrays[f"saliency{size}"]
    np.testing.assert_array_equal(FORMS[form](pixels), expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_saliency_is_ours(form):
    rng = np.random.default_rng(4)
    bright = rng.integers(200, 256, (1, 224, 224, 3), np.uint8)  # sums are rounded
    small = rng.integers(0, 256, (4, 33, 70, 3), np.uint8)
    small[0] = 77  # nothing stands out
    for pixels in (bright, small):
        expected = np.asarray(saliency.fine_grained(pixels))
        np.testing.assert_array_equal(FORMS[form](pixels), expected)


def test_opencv_measures_the_same_saliency():
    if originals.opencv is None:
        pytest.skip("opencv-contrib absent: NumPy computes the published saliency")
    pixels = np.random.default_rng(5).integers(0, 256, (3, 90, 70, 3), np.uint8)
    found = [originals.salient(image) for image in pixels]
    np.testing.assert_array_equal(found, faithful_saliency(pixels))


@pytest.mark.parametrize(
    "crop, error",  # that on a CPU rounds to 8 bits
    [(standard.crop_at_once, 2e-6), (standard.crop, 1.01 / 255)],
)
def test_crops_are_ours(crop, error):
    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 256, (4, 90, 120, 3), np.uint8)
    boxes = np.int32([[0, 0, 90, 120], [3, 7, 20, 11], [50, 0, 40, 95], [9, 9, 48, 48]])
    flips = np.array([False, True, True, False])
    expected = np.array(_resize(pixels, boxes, SIDE))
    expected[flips] = expected[flips, :, ::-1]
    found = crop(*(torch.from_numpy(part) for part in (pixels, boxes, flips)), SIDE)
    np.testing.assert_allclose(channels_last(found), expected, atol=error)


@pytest.mark.slow
def test_crops_are_drawn_as_ours():
    sizes = np.int32([[375, 500]] * 2000 + [[20, 500]] * 500 + [[500, 20]] * 500)
    torch.manual_seed(0)
    found = standard.draw_crops(torch.from_numpy(sizes)).numpy()
    drawn = _draw_crops(jax.random.key(0), sizes, (0.08, 1.0), (3 / 4, 4 / 3))
    for boxes in (found, np.asarray(drawn)):
        corner, taken = boxes[:, :2], boxes[:, 2:]
        assert (corner >= 0).all() and (taken > 0).all()
        assert (corner + taken <= sizes).all()
    for some in (slice(2000), slice(2000, 2500), slice(2500, 3000)):
        for ours, theirs in zip(drawn[some].T, found[some].T, strict=True):
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_colours_are_ours():
    images, key = draw_images(7), jax.random.key(7)
    order, amounts = _draw_jitter(key, BATCH, 0.4)
    alpha = 0.1 * jax.random.normal(key, (BATCH, 3))
    expected = augment.color_jitter(key, images, 0.4)
    expected = augment.pca_lighting(key, expected, 0.1)
    drawn = [torch.from_numpy(np.array(part)) for part in (order, amounts, alpha)]
    found = standard.colours(channels_first(images), *drawn)
    np.testing.assert_allclose(channels_last(found), expected, atol=2e-6)


def test_jitter_an_image_at_a_time_is_the_same():
    images = channels_first(draw_images(8))
    amounts = torch.linspace(-0.4, 0.4, 3 * BATCH).reshape(BATCH, 3)
    order = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 0, 2]] * (BATCH // 3))
    found = standard.colours(images, order, amounts, torch.zeros(BATCH, 3))
    for image, kinds, some, result in zip(images, order, amounts, found, strict=True):
        pairs = zip(kinds.tolist(), some.tolist(), strict=True)
        expected = functools.reduce(
            lambda image, pair: originals._jitter(image, *pair), pairs, image
        )
        np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"compile": True}])
def test_faithful_refuses_what_was_not_published(options):
    with pytest.raises(ValueError, match="faithful"):
        TorchTraining("faithful", depth=18, **NETWORK, **options)


RUNS = ("jdissect", "best", "faithful")


@pytest.mark.slow
def test_a_comparison_has_a_row_a_recipe_and_run():
    flags = ["--depth=18", "--batch_size=2", "--side=32", "--rounds=3", "--workers=0"]
    flags = ["versus_training", *flags, "--recipes=none,saliencymix"]
    options = parse(flags, "versus_training", versus_training.OPTIONS)
    rows = versus_training.measure(options)
    pairs = [(row["recipe"], row["run"]) for row in rows]
    assert pairs == [(r, run) for r in ("none", "saliencymix") for run in RUNS]
    for row in rows:
        assert row["augment_ms"] > 0 and row["rounds"] == 3
        assert 0 < row["step_ms_least"] <= row["step_ms"] <= row["step_ms_most"]
        ours = next(r for r in rows if r["recipe"] == row["recipe"])
        assert row["ratio"] == row["step_ms"] / ours["step_ms"]


@pytest.mark.parametrize("slowest, warned", [(1.4, False), (1.6, True)])
def test_rows_become_a_table(slowest, warned):
    rows = [
        {
            "recipe": recipe,
            "run": run,
            "step_ms": 100 * n,
            "step_ms_least": 100 * n,
            "step_ms_most": 100 * n * (slowest if run == "best" else 1),
            "augment_ms": n,
            "ratio": n,
        }
        for recipe in ("none", "mixup")
        for n, run in enumerate(RUNS, 1)
    ]
    _, runs, *lines = versus_training.describe(rows).splitlines()
    assert runs.split() == list(RUNS)
    numbers = "100.0 ( 1.0) 1.00 x 200.0 ( 2.0) 2.00 x 300.0 ( 3.0) 3.00 x"
    found = [" ".join(line.split()) for line in lines]
    assert found[:2] == [f"none {numbers}", f"mixup {numbers}"]
    assert ("factor of 1.6" in "".join(found[2:])) == warned == bool(found[2:])
