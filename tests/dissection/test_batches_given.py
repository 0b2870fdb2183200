"""What a caller may hand over for images, and how what he may not is refused."""

import io
import re
import subprocess
import sys

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.dissection.batches_given import Given, as_array, parameters
from jdissect.dissection.photographs import Geometry, as_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), np.uint8)


class Foreign:
    """An array of another library: DLPack only."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Stored:
    """An array on a disk, which is read by slices."""

    def __init__(self, array):
        self._array, self.shape = array, array.shape

    def __array__(self, *_, **__):
        raise AssertionError("all of it is read at once")

    def __getitem__(self, place):
        assert isinstance(place, slice)
        return self._array[place]


class Folder:
    """A data set as PyTorch's: (image, class), no `__iter__`."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        if index >= len(PIXELS):
            raise IndexError
        return Image.fromarray(PIXELS[index]), index % 3


class Endless:
    """A data set that never raises IndexError."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        return {"img": Image.fromarray(PIXELS[index % len(PIXELS)])}


def four_axes(pixels):
    """A network that takes [batch, height, width, channels]."""
    return len(pixels.shape) == 4


def read(images, makes_maps=four_axes, size=3):
    found = list(Given(images, makes_maps).batches(size))
    assert [len(batch) for batch in found] == [3, 3, 1]
    return np.concatenate(found)


FORMS = {
    "NumPy": lambda: PIXELS,
    "JAX": lambda: jnp.asarray(PIXELS),
    "DLPack": lambda: Foreign(PIXELS),
    "on disk": lambda: Stored(PIXELS),
    "nested lists": lambda: PIXELS.astype(int).tolist(),
    "list of images": lambda: list(PIXELS),
    "list of PIL": lambda: [Image.fromarray(image) for image in PIXELS],
    "list of batches": lambda: [PIXELS[:4], PIXELS[4:]],
    "generator of batches": lambda: (PIXELS[i : i + 2] for i in range(0, 7, 2)),
    "generator of images": lambda: (image for image in PIXELS),
    "generator of PIL": lambda: map(Image.fromarray, PIXELS),
    "generator of lists": lambda: (list(PIXELS[i : i + 2]) for i in range(0, 7, 2)),
    "pairs": lambda: ((PIXELS[i : i + 2], np.zeros(2)) for i in range(0, 7, 2)),
    "lists with labels": lambda: ([PIXELS[i : i + 1], [4]] for i in range(7)),
    "images with masks": lambda: ((image, image[..., 0]) for image in PIXELS),
    "lists of PIL with labels": lambda: (
        (list(map(Image.fromarray, PIXELS[part])), np.zeros(3)) for part in HALVES
    ),
    "one-tuples": lambda: ((PIXELS[i : i + 2],) for i in range(0, 7, 2)),
    "data set": Folder,
    "data set without an end": Endless,
    "dicts": lambda: [{"image": image, "label": 3} for image in PIXELS],
    "dicts of batches": lambda: ({"image": PIXELS[i : i + 2]} for i in range(0, 7, 2)),
    "lists of items": lambda: ([(image, 4)] for image in PIXELS),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_images(form):
    np.testing.assert_array_equal(read(FORMS[form]()), PIXELS)


def test_arrays_of_three_axes_are_what_the_network_takes():
    """A batch of tokens, or an image: as a batch it gives feature maps, or it does not.

    Grey images have two axes, and are told apart likewise.
    """
    tokens = PIXELS[..., 0]
    batches = lambda: (tokens[i : i + 2] for i in range(0, 7, 2))  # noqa: E731
    three = lambda pixels: len(pixels.shape) == 3  # noqa: E731
    np.testing.assert_array_equal(read(batches(), three), tokens)
    np.testing.assert_array_equal(read(list(tokens), three), tokens)


def test_pytorch():
    torch = pytest.importorskip("torch")
    tensor = torch.rand(7, 3, 6, 5)
    expected = tensor.numpy()
    np.testing.assert_array_equal(read(tensor), expected)
    np.testing.assert_array_equal(read(tensor.clone().requires_grad_()), expected)
    np.testing.assert_array_equal(read(list(tensor)), expected)
    labelled = torch.utils.data.TensorDataset(tensor, torch.arange(7))
    for options in ({"batch_size": 2}, {"batch_size": None}):
        loader = torch.utils.data.DataLoader(labelled, **options)
        np.testing.assert_array_equal(read(loader), expected)
    narrow = tensor.to(torch.bfloat16)
    assert read(narrow).dtype == jnp.bfloat16
    np.testing.assert_array_equal(read(narrow), narrow.float().numpy())


def test_pytorch_is_not_imported():
    program = (
        "import sys; import numpy as np;"
        "from jdissect.dissection.batches_given import Given;"
        "list(Given([np.zeros((2, 3, 3, 1))], bool).batches(2));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "images, message",
    [
        ("photos/*.jpg", "images is a str; it must be an array"),
        (None, "images is None"),
        (7, "images is a int"),
        ({"image": PIXELS}, "images is a dict of image"),
        (np.array("a.jpg"), "images must be first"),
        (np.array(["a.jpg", "b.jpg"]), "must hold numbers"),
        (["a.jpg", "b.jpg"], "batch 0 of images is a str; it must be an array"),
        (Image.fromarray(PIXELS[0]), "images is a single image; give a list"),
        ([], "images is empty"),
        (iter([]), "images yields no image; is it a generator"),
        (iter([PIXELS[:0]]), "images yields no image"),
        (PIXELS[:0], "images is empty"),
        (
            [PIXELS[0], PIXELS[1, :4]],
            r"images\[1\] is uint8\[4, 5, 3\], images\[0\] is",
        ),
        ([PIXELS[:2], PIXELS[2:, :4]], r"batch 1 of images holds .*\[4, 5, 3\], but"),
        ([PIXELS[:2], PIXELS[2:] / 255], "batch 1 .* float64.* before are uint8"),
        (
            [{"photo": PIXELS, "label": 3}],
            "batch 0 of images is a dict of photo, label; it has no 'image'",
        ),
        ([(PIXELS, PIXELS)], "batch 0 of images is a tuple of 2 "),
        ([Image.fromarray(PIXELS[0, ..., 0]).convert("P")], "mode P; convert it with"),
        ([PIXELS, 3], "batch 1 of images is a int"),
    ],
)
def test_what_is_refused(images, message):
    with pytest.raises(UserError, match=message) as error:
        list(Given(images, four_axes).batches(100))
    assert len(str(error.value).splitlines()) == 1


MASKS = np.random.default_rng(1).integers(0, 9, (7, 6, 5))
PALETTE = [Image.fromarray(mask.astype(np.uint8)).convert("P") for mask in MASKS]
HALVES = [slice(0, 4), slice(4, 7)]
PAIRED = {
    "batches": lambda: ((PIXELS[part], MASKS[part]) for part in HALVES),
    "lists": lambda: ([list(PIXELS[part]), list(MASKS[part])] for part in HALVES),
    "images": lambda: list(zip(PIXELS, MASKS, strict=True)),
    "PIL": lambda: zip(map(Image.fromarray, PIXELS), PALETTE, strict=True),
    "several maps": lambda: zip(PIXELS, MASKS[:, None], strict=True),
    "maps of batches": lambda: [(PIXELS, MASKS[:, None])],
    "dicts": lambda: (
        {"image": image, "label": 2, "mask": mask}
        for image, mask in zip(PIXELS, MASKS, strict=True)
    ),
    "lists of items": lambda: [list(zip(PIXELS, MASKS, strict=True))],
    "triples": lambda: zip(PIXELS, MASKS, range(7), strict=True),
}


@pytest.mark.parametrize("form", PAIRED)
def test_images_with_their_masks(form):
    found = list(Given(PAIRED[form](), four_axes, with_masks=True).pairs(3))
    np.testing.assert_array_equal(np.concatenate([p for p, _ in found]), PIXELS)
    masks = np.concatenate([mask for _, mask in found])
    np.testing.assert_array_equal(masks, MASKS[:, None])
    assert [len(pixels) for pixels, _ in found] == [3, 3, 1]


def test_a_loader_of_pytorch_gives_masks():
    torch = pytest.importorskip("torch")
    images = torch.rand(7, 3, 6, 5)
    data = torch.utils.data.TensorDataset(images, torch.tensor(MASKS))
    for options in ({"batch_size": 2}, {"batch_size": None}):
        loader = torch.utils.data.DataLoader(data, **options)
        found = list(Given(loader, four_axes, with_masks=True).pairs(10))
        np.testing.assert_array_equal(found[0][0], images.numpy())
        np.testing.assert_array_equal(found[0][1], MASKS[:, None])


def assert_pairs(data):
    found = list(Given(data, four_axes, with_masks=True).pairs(10))
    np.testing.assert_array_equal(found[0][0], PIXELS)
    np.testing.assert_array_equal(found[0][1], MASKS[:, None])


def test_grain():
    items = [{"image": i, "mask": m} for i, m in zip(PIXELS, MASKS, strict=True)]
    data = grain.MapDataset.source(items)
    for form in (data, data.batch(3), data.to_iter_dataset()):
        assert_pairs(form)


def test_data_sets_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    content = {
        "image": list(map(Image.fromarray, PIXELS)),
        "annotation": [Image.fromarray(mask.astype(np.uint8)) for mask in MASKS],
    }
    kinds = datasets.Features(dict.fromkeys(content, datasets.Image()))
    data = datasets.Dataset.from_dict(content, features=kinds)
    for form in (data, data.with_format("numpy"), data.to_iterable_dataset()):
        assert_pairs(form)
    assert_pairs(data.iter(batch_size=4))
    np.testing.assert_array_equal(read(data["image"]), PIXELS)


@pytest.mark.parametrize(
    "images, message",
    [
        ([PIXELS], "batch 0 of images is uint8.*must be a pair .images, masks."),
        ([(PIXELS, MASKS[:6])], "masks of batch 0 are of 6 images, not 7"),
        (
            [(PIXELS, MASKS), (PIXELS, MASKS[:, :4])],
            r"masks of batch 1 are .*\[1, 4, 5\], but those before are \[1, 6, 5\]",
        ),
        ([{"image": PIXELS[0]}], "is a dict of image; it has no 'label_maps'"),
        ([(PIXELS[0], Image.fromarray(PIXELS[0]))], "mode RGB; it must hold a number"),
        ([(PIXELS[0], "mask.png")], "masks of batch 0 of images is a str, not an"),
    ],
)
def test_masks_that_are_refused(images, message):
    with pytest.raises(UserError, match=message) as error:
        list(Given(images, four_axes, with_masks=True).pairs(100))
    assert len(str(error.value).splitlines()) == 1


def photograph(size, seed):
    """(PIL image, its mask): the mask is what the red channel says."""
    spots = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(spots).resize(size, Image.Resampling.NEAREST)
    return image, np.asarray(image)[..., 0] // 32


def test_photographs_of_any_size_are_resized_with_their_masks():
    pairs = [photograph(size, n) for n, size in enumerate([(300, 260), (90, 400)])]
    given = Given(pairs, lambda spec: False, True, Geometry(224))
    ((pixels, masks),) = given.pairs(4)
    assert pixels.shape == (2, 224, 224, 3) and masks.shape == (2, 1, 224, 224)
    # As the source 'folder' does.
    expected = pairs[0][0].resize((256, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels[0], np.asarray(expected)[16:240, 16:240])
    # Where nothing is blended, a mask is still what its image says.
    for image, mask in zip(pixels, masks, strict=True):
        assert (image[..., 0] // 32 == mask[0]).mean() > 0.75
    own = [photograph((112, 112), 3)]
    ((pixels, masks),) = Given(own, lambda spec: False, True, Geometry(112)).pairs(4)
    np.testing.assert_array_equal(pixels[0], np.asarray(own[0][0]))
    wrong = [(pairs[0][0], pairs[0][1][:7])]
    with pytest.raises(UserError, match="is 7x300, but its image 260x300 pixels"):
        list(Given(wrong, lambda spec: False, True, Geometry(112)).pairs(4))


def test_modes_of_photographs():
    image = photograph((300, 260), 0)[0]
    geometry = Geometry(224)
    for mode in ("P", "RGBA", "CMYK", "L", "1"):
        found = geometry.pixels(image.convert(mode), "image")
        assert found.shape == (224, 224, 3) and found.dtype == np.uint8
    with pytest.raises(UserError, match="image is a PIL image of mode F, whose values"):
        geometry.pixels(image.convert("F"), "image")
    file = io.BytesIO()
    image.save(file, "PNG")
    with pytest.raises(UserError, match="image cannot be read: "):
        geometry.pixels(Image.open(io.BytesIO(file.getvalue()[:900])), "image")


def test_pixels():
    floats = np.moveaxis(PIXELS, -1, 1) / np.float32(255)
    for images in (PIXELS, PIXELS.astype(int), floats, np.moveaxis(PIXELS, -1, 1)):
        np.testing.assert_array_equal(as_pixels(images, "images"), PIXELS)
    gray = as_pixels(PIXELS[..., 0], "images")
    np.testing.assert_array_equal(gray[..., 2], PIXELS[..., 0])
    normalized = (PIXELS / 255 - 0.45) / 0.22
    with pytest.raises(UserError, match="values from -2.05 to .*not normalized"):
        as_pixels(normalized, "images")
    with pytest.raises(UserError, match="must be pixels"):
        as_pixels(np.zeros((2, 8, 8, 5), np.uint8), "images")


def test_what_is_no_array_is_named():
    for value, name in ((object(), "a object"), (re.compile("a"), "a re.Pattern")):
        with pytest.raises(UserError, match=f"labels is {name}, not an array"):
            as_array(value, "labels")
    with pytest.raises(UserError, match="labels is a list of 2 .*, not an array"):
        as_array([[1, 2], [3]], "labels")


def test_parameters():
    tree = {"a": Foreign(np.ones(2)), "b": [3.0, np.float64(2)], "c": jnp.ones(2)}
    found = parameters(tree)
    np.testing.assert_array_equal(found["a"], [1, 1])
    assert found["b"] == [3, 2] and found["c"] is tree["c"]
    with pytest.raises(UserError, match="a leaf of params is a str, not an array"):
        parameters({"name": "resnet"})
