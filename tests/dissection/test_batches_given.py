"""What a caller may hand over for images, and how what he may not is refused."""

import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jdissect.base.errors import UserError
from jdissect.dissection.batches_given import Given, as_array, parameters

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
    "one-tuples": lambda: ((PIXELS[i : i + 2],) for i in range(0, 7, 2)),
    "data set": Folder,
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
            [{"image": PIXELS, "label": 3}],
            "batch 0 of images is a dict of image, label",
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
