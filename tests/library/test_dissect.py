"""`jdissect.dissect` of networks from folders, with segmenters, and its pictures."""

import dataclasses
import pydoc
import types

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import jdissect
from jdissect.data.source import UnreadableImage
from jdissect.datasets.broden import open_broden
from jdissect.jobs import dissect as jobs
from jdissect.runtime import machine
from jdissect.segmenters.colornames import name_colors

COUNTS = ("thresholds", "intersection", "union", "fires", "top_image", "top_value")
CONCEPTS = [("-", "-"), ("dark", "color"), ("light", "color")]


@pytest.fixture(scope="module")
def folder(tiny_classifier):
    """The folder of a small network; see `tests/conftest.py`."""
    return tiny_classifier[0].removeprefix("--config.model.weights=")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(7):
        spots = np.random.default_rng(index).integers(0, 256, (5, 5, 3), np.uint8)
        image = Image.fromarray(spots).resize((300, 260), Image.Resampling.NEAREST)
        image.save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def pixels(photos):
    from jdissect.datasets.folder import open_folder

    source = open_folder(str(photos))
    return np.stack([source.read(index).pixels[:64, :64] for index in range(7)])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "cache_dir", lambda configured: tmp_path / "cache")


def assert_equal(found, expected):
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.concepts == expected.concepts


def by_command_line(config, tmp_path):
    jobs.dissect(config, str(tmp_path / "run"), tell=lambda line: None)
    return jdissect.load(tmp_path / "run")["layer4"]


@pytest.fixture
def config(folder, photos):
    from jdissect.configs.common import get_common

    config = get_common()
    config.model.name, config.model.weights = "resnet18", folder
    config.data.path = str(photos)
    config.data.batch_size = 4
    config.segmenter.name = "colornames"
    return config


@pytest.mark.slow
def test_a_folder_of_images_is_dissected_as_by_the_command_line(
    config, folder, photos, tmp_path
):
    expected = by_command_line(config, tmp_path)
    found = jdissect.dissect(
        folder, photos, segmenter="colornames", layers="layer4", batch_size=4
    )
    assert_equal(found, expected)
    np.testing.assert_array_equal(found.blocks.gap, expected.blocks.gap)
    assert found.model == "resnet18" and found.layer == "layer4"
    assert found.pictures.names == tuple(f"{n}.png" for n in range(7))
    # Pictures of a run are the images themselves, those of a dissection smaller.
    small = found.pictures.read(3).pixels
    large = Image.fromarray(expected.pictures.read(3).pixels).resize((160, 160))
    assert small.shape == (160, 160, 3)
    assert np.abs(small.astype(int) - np.asarray(large)).mean() < 8


@pytest.mark.slow
def test_upernet_labels_as_on_the_command_line(
    config, folder, photos, small, tmp_path, monkeypatch
):
    config.segmenter.name = "upernet"
    config.segmenter.upernet = str(small.upernet)
    config.segmenter.batch_size, config.data.num_images = 2, 2
    two = tmp_path / "two"
    two.mkdir()
    for name in ("0.png", "1.png"):
        (two / name).write_bytes((photos / name).read_bytes())
    expected = by_command_line(config, tmp_path)
    # Label maps of the run are read from the cache: nothing is segmented again.
    monkeypatch.setattr("jdissect.segmenters.upernet.UPerNetSegmenter._segment", None)
    upernet = jdissect.segmenters.UPerNet(small.upernet, batch_size=2)
    found = jdissect.dissect(
        folder, two, segmenter=upernet, layers="layer4", batch_size=4
    )
    assert_equal(found, expected)


@pytest.fixture(scope="module")
def expected(folder, pixels):
    options = {"segmenter": "colornames", "layers": "layer4", "batch_size": 4}
    return jdissect.dissect(folder, pixels, **options)


FORMS = {
    "floats, channels first": lambda p: np.moveaxis(p, -1, 1) / np.float32(255),
    "dicts": lambda p: ({"image": image, "label": 1} for image in p),
    "batches of PIL": lambda p: [
        (list(map(Image.fromarray, p[:5])), np.zeros(5)),
        (list(map(Image.fromarray, p[5:])), np.zeros(2)),
    ],
}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
def test_forms_of_images_agree(form, folder, pixels, expected):
    given = FORMS[form](pixels)
    names = [f"photograph {n}" for n in range(7)]
    model = dataclasses.replace(jdissect.load_model(folder), input_size=64)
    found = jdissect.dissect(
        model,
        given,
        segmenter=jdissect.segmenters.ColorNames(),
        layers=["layer4"],
        batch_size=4,
        names=names,
    )["layer4"]
    assert_equal(found, expected)
    assert found.pictures.names == tuple(names)


@pytest.mark.slow
def test_a_folder_with_a_damaged_image(folder, photos, tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n")
    options = {"segmenter": "colornames", "layers": "layer4", "batch_size": 4}
    line = "skipped 1 of 3 images that could not be read, such as 2.png: "
    with pytest.warns(UserWarning, match=line):
        found = jdissect.dissect(folder, tmp_path, **options)
    assert found.images == 2
    for name in ("0.png", "1.png"):
        (tmp_path / name).unlink()
    with pytest.raises(jdissect.UserError, match="none of the images could be read"):
        jdissect.dissect(folder, tmp_path, **options)


@pytest.mark.slow
def test_masks_of_a_source(annotated_images, folder):
    source = open_broden(str(annotated_images), num_images=5)
    found = jdissect.dissect(
        folder, source, segmenter="annotations", layers="layer4", batch_size=4
    )
    read = [source.read(index) for index in range(5)]
    by_hand = jdissect.dissect(
        folder,
        np.stack([example.pixels for example in read]),
        np.stack([example.labels for example in read]),
        concepts=source.annotations.concepts,
        annotated=np.stack([example.annotated for example in read]),
        layers="layer4",
        batch_size=4,
    )
    assert_equal(found, by_hand)


def plain(params, images):
    return {"maps": images * params}


def data(count=9):
    rng = np.random.default_rng(0)
    images = rng.random((count, 8, 8, 3), np.float32)
    return images, (1 + (images[..., 0] > 0.5))[:, None]


# The same shapes everywhere, so that programs are compiled once.
OPTIONS = {"concepts": CONCEPTS, "layers": "maps", "batch_size": 4}


def test_pairs_of_images_and_masks():
    torch = pytest.importorskip("torch")
    images, masks = data()
    expected = jdissect.dissect(plain, 2.0, images, masks, **OPTIONS)
    pairs = torch.utils.data.TensorDataset(torch.tensor(images), torch.tensor(masks))
    loader = torch.utils.data.DataLoader(pairs, batch_size=5)
    assert_equal(jdissect.dissect(plain, 2.0, loader, **OPTIONS), expected)
    items = [{"image": image, "mask": mask[0]} for image, mask in pairs]
    assert_equal(jdissect.dissect(plain, 2.0, items, **OPTIONS), expected)


def test_a_function_with_a_segmenter():
    """Floats from 0 to 1 are the same pixels to it as integers to 255."""
    pixels = np.rint(data()[0] * 255).astype(np.uint8)
    colors = jdissect.segmenters.ColorNames(mask_size=8)
    options = {"segmenter": colors, "layers": "maps", "batch_size": 4}
    floats = pixels / np.float32(255)
    found = jdissect.dissect(plain, 1.0, floats, **options)

    def apply(params, images):
        return {"maps": images / np.float32(255)}

    again = jdissect.dissect(apply, None, pixels, **options)
    np.testing.assert_array_equal(again.intersection, found.intersection)
    by_hand = name_colors(pixels, (8, 8))
    there = np.array([(by_hand == number).sum() for number in range(1, 12)])
    np.testing.assert_array_equal(
        found.union, found.fires[:, None] + there - found.intersection
    )
    with pytest.raises(jdissect.UserError, match="not normalized"):
        jdissect.dissect(plain, 1.0, floats - 0.5, **options)


class Redness(nnx.Module):
    def __init__(self):
        self.factor = nnx.Param(jnp.array([2.0, 0.0, 0.0]))

    def __call__(self, images):
        return {"maps": images * self.factor[...]}


def test_a_flax_module_brings_its_parameters():
    images, masks = data()
    factor = np.array([2.0, 0, 0], np.float32)
    expected = jdissect.dissect(plain, factor, images, masks, **OPTIONS)
    assert_equal(jdissect.dissect(Redness(), images, masks, **OPTIONS), expected)


def test_pictures_of_arrays():
    images, masks = data()
    images = (
        0.1 * images + np.linspace(0, 0.9, 9, dtype=np.float32)[:, None, None, None]
    )
    given = (images, iter([images]))  # read again, or while they pass
    for found in (jdissect.dissect(plain, 1.0, x, masks, **OPTIONS) for x in given):
        for index in found.top_image[0].tolist():
            picture = found.pictures.read(index).pixels
            assert np.abs(picture - images[index] * 255).mean() < 12
        assert found.pictures.names[:2] == ("image 0", "image 1")
        least = int(np.setdiff1d(np.arange(8), found.top_image)[0])
        with pytest.raises(UnreadableImage, match="not kept"):
            found.pictures.read(least)
    deep = np.concatenate([images, images], axis=-1)
    assert jdissect.dissect(plain, 1.0, deep, masks, **OPTIONS).pictures is None


def test_help_can_be_read():
    text = pydoc.plain(pydoc.render_doc(jdissect.dissect))
    signature = next(line for line in text.splitlines() if line.startswith("dissect("))
    assert "jaxtyping" not in signature and "jaxlib" not in signature
    assert len(signature) < 520
    for name in ("segmenter", "label_maps", "names", "progress"):
        assert f"      {name}: " in text


def test_progress_is_shown_on_demand(capsys, monkeypatch):
    monkeypatch.setattr("jdissect.base.progress_log.FIRST", 0.0)
    monkeypatch.setattr("jdissect.base.progress._TICK", 0.01)
    images, masks = data()

    def slow(batch):
        import time

        time.sleep(0.1)
        return masks[: len(batch)]

    jdissect.dissect(plain, 1.0, images, slow, **OPTIONS)
    assert capsys.readouterr().err == ""
    jdissect.dissect(plain, 1.0, iter([images]), slow, **OPTIONS, progress=True)
    assert "network" in capsys.readouterr().err


MESSAGES = [
    ({"apply": "no/such/folder"}, "no/such/folder is not a folder; give that of a"),
    (
        {"layers": "layer5"},
        "no layer 'layer5'; is it layer4.* it has conv1, relu, stem, layer1",
    ),
    ({"segmenter": "colors"}, "segmenter is 'colors'; use colornames, annotations"),
    ({"segmenter": "upernet"}, r"needs its weights; give jdissect.segmenters.UPerNet"),
    ({"segmenter": None}, "concepts is missing; name the numbers of label_maps"),
    ({"concepts": CONCEPTS}, "a segmenter has its own concepts"),
    ({"images": None}, "images is missing"),
    ({"images": "no/such/images"}, "images: .*no/such/images does not exist"),
    ({"names": ["a"]}, "names holds 1 names, not 7 as images does"),
    ({"names": list(range(7))}, "names must be strings, one per image"),
    ({"label_maps": np.ones((7, 1, 4, 4), int)}, "either label_maps or a segmenter"),
    (
        {"segmenter": None, "concepts": CONCEPTS},
        "label_maps is missing, and images gives no masks",
    ),
    (
        {"images": np.zeros((7, 64, 64, 5), np.uint8)},
        r"images\[0\] is uint8\[1, 64, 64, 5\]; it must be pixels",
    ),
    ({"segmenter": "annotations"}, "needs a source with annotations"),
]


@pytest.mark.parametrize("change, message", MESSAGES)
@pytest.mark.usefixtures("types_unchecked")
def test_what_is_refused(change, message, folder, pixels):
    options = {
        **{"apply": folder, "images": pixels, "layers": "layer4"},
        **{"segmenter": "colornames", **change},
    }
    with pytest.raises(jdissect.UserError, match=message) as error:
        jdissect.dissect(**options)
    assert len(str(error.value).splitlines()) == 1


def test_small_images_and_too_many_arguments(folder, pixels, small):
    upernet = jdissect.segmenters.UPerNet(small.upernet)
    with pytest.raises(jdissect.UserError, match="16x16 pixels; the segmenter needs"):
        jdissect.dissect(
            folder, pixels[:, :16, :16], segmenter=upernet, layers="layer4"
        )
    with pytest.raises(jdissect.UserError, match="has its own parameters"):
        jdissect.dissect(
            folder, None or {}, pixels, pixels, concepts=CONCEPTS, layers="layer4"
        )


def test_a_network_is_printed_on_a_line(folder):
    text = repr(jdissect.load_model(folder))
    assert text.startswith(
        "<Classifier: resnet18, 16 classes, layers conv1, relu, stem"
    )
    assert len(text.splitlines()) == 1 and len(text) < 500


def test_a_pytorch_module_is_to_be_converted():
    torch = pytest.importorskip("torch")
    with pytest.raises(jdissect.UserError, match="convert it with jdissect.convert_t"):
        jdissect.dissect(
            torch.nn.Conv2d(3, 4, 3), None, data()[0], segmenter="x", layers="0"
        )


@pytest.mark.usefixtures("types_unchecked")
def test_a_namespace_is_not_a_network():
    with pytest.raises(jdissect.UserError, match="it must be a function"):
        jdissect.dissect(
            types.SimpleNamespace(), {}, *data(), concepts=CONCEPTS, layers="maps"
        )
