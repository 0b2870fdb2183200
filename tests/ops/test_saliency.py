import jax
import numpy as np
import pytest

from jdissect.ops import saliency

_saliency = jax.jit(saliency.fine_grained)

# One pixel, a line, smaller than most windows, as trained on (where sums of bright
# images have to be rounded), and so large that the integral image has to be.
SHAPES = [(1, 1), (1, 40), (11, 55), (224, 224), (420, 300)]


def pictures(shape, seed=0):
    """Noise, dark and bright; rectangles; single pixels; a checkerboard; a ramp."""
    rng = np.random.default_rng(seed)
    height, width = shape
    y, x = np.mgrid[:height, :width]
    rectangles = np.full((height, width, 3), 90)
    for color in rng.integers(0, 256, (5, 3)):
        top, bottom = np.sort(rng.integers(0, height + 1, 2))
        left, right = np.sort(rng.integers(0, width + 1, 2))
        rectangles[top:bottom, left:right] = color
    dot = np.zeros((height, width, 3), int)
    dot[height // 3, width // 2] = 255
    checkerboard = ((y // 7 + x // 5) % 2 * 255)[..., None].repeat(3, 2)
    ramp = ((3 * y + 2 * x) % 256)[..., None] * np.array([1, 0, 1])
    found = [
        *(rng.integers(least, 256, (height, width, 3)) for least in (0, 150, 240)),
        *(rectangles, dot, 255 - dot, checkerboard, ramp),
    ]
    return np.stack(found).astype(np.uint8)


def in_floats(image):
    """One image's map in float32, as the original computes it."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    grey = (9798 * red + 19235 * green + 3735 * blue + 2**14) // 2**15
    height, width = grey.shape
    for _ in range(2):
        around = [(1, 1) if size > 1 else (0, 0) for size in grey.shape]
        padded = np.pad(grey, around, mode="reflect")
        padded = np.pad(padded, [(1 - a, 1 - a) for a, _ in around], mode="edge")
        tall = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        grey = (tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:] + 8) // 16
    integral = np.zeros((height + 1, width + 1), np.float32)
    for y, row in enumerate(grey.cumsum(axis=1).astype(np.float32)):
        integral[y + 1, 1:] = integral[y, 1:] + row
    centre = grey.astype(np.float32)
    on, off = np.zeros((2, height, width), np.float32)
    for n in (12, 24, 48, 28, 56, 112):
        y1, y2 = (np.clip(np.arange(height) + d, 0, height) for d in (1 - n, n + 1))
        x1, x2 = (np.clip(np.arange(width) + d, 0, width) for d in (1 - n, n + 1))
        total = integral[np.ix_(y2, x2)] + integral[np.ix_(y1, x1)]
        total = total - integral[np.ix_(y2, x1)] - integral[np.ix_(y1, x2)]
        area = np.outer(y2 - y1, x2 - x1)
        others = np.maximum(area - 1, 1).astype(np.float32)
        mean = np.where(area > 1, (total - centre) / others, centre)
        on += np.trunc(np.maximum(centre - mean, 0))
        off += np.trunc(np.maximum(mean - centre, 0))
    on, off = (scaled(part, part.max()) for part in (on, off))
    both = scaled(on + off, max(on.max(), off.max()))
    return both.astype(int).astype(np.uint8)


def scaled(values, most):
    """(unsigned char)(255. * (float)(values / most)), without the last step."""
    values = np.asarray(values, np.float32)
    quotient = values / np.float32(most) if most else np.zeros_like(values)
    return np.trunc(255.0 * quotient.astype(np.float64))


@pytest.mark.parametrize("size", ["", "_small"])
def test_pictures_as_opencv_has_them(golden, size):
    with np.load(golden / "saliency.npz") as arrays:
        images, expected = arrays[f"rgb{size}"], arrays[f"saliency{size}"]
    assert len(images) >= 4
    found = np.asarray(_saliency(images))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    peaks = [v.reshape(len(v), -1).argmax(axis=1) for v in (found, expected)]
    np.testing.assert_array_equal(*peaks)


@pytest.mark.parametrize("shape", SHAPES)
def test_against_opencv(shape):
    cv2 = pytest.importorskip("cv2", reason="opencv-contrib-python-headless absent")
    if not hasattr(cv2, "saliency"):
        pytest.skip("this OpenCV has no contributed modules")
    detector = cv2.saliency.StaticSaliencyFineGrained_create()
    images = pictures(shape, seed=1)
    for image, found in zip(images, np.asarray(_saliency(images)), strict=True):
        done, expected = detector.computeSaliency(
            np.ascontiguousarray(image[..., ::-1])
        )
        assert done
        np.testing.assert_array_equal(found, np.rint(expected * 255).astype(np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
def test_against_plain_floats(shape):
    images = pictures(shape, seed=2)
    found = np.asarray(_saliency(images))
    np.testing.assert_array_equal(found, [in_floats(image) for image in images])
    if min(shape) > 10:
        assert (found.max(axis=(1, 2)) == 255).all()


def test_constant_images_are_nowhere_salient():
    levels = np.array([0, 1, 2, 77, 128, 200, 254, 255], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (8, 11, 55, 3))
    assert not np.asarray(_saliency(images)).any()


def test_an_image_does_not_depend_on_its_companions():
    images = pictures((11, 55))
    found = np.asarray(_saliency(images))
    order = [5, 2, 5, 0, 7, 1, 3, 3]
    np.testing.assert_array_equal(_saliency(images[order]), found[order])


def test_scaling_is_a_quotient_of_integers():
    """Every contrast below every maximum, and every sum of two scaled ones."""
    most = np.arange(1, 1531)[:, None]
    values = np.minimum(np.arange(1531), most)
    floats = np.float32(values) / np.float32(most)
    np.testing.assert_array_equal(
        np.trunc(255.0 * floats.astype(np.float64)), 255 * values // most
    )
    quotient = jax.jit(saliency._quotient)
    found = quotient(np.float32(255 * values), np.float32(most))
    np.testing.assert_array_equal(found, 255 * values // most)
    total = np.arange(511)
    expected = scaled(total, 255).astype(int) % 256
    np.testing.assert_array_equal(saliency._to_bytes(np.float32(total)), expected)


def test_quotients_beside_whole_numbers():
    rng = np.random.default_rng(0)
    divisor = rng.integers(1, 224 * 224, 200_000)
    whole = rng.integers(0, 256, divisor.size)
    for offset in (-1, 0, 1):
        dividend = np.maximum(whole * divisor + offset, 0)
        found = jax.jit(saliency._quotient)(np.float32(dividend), np.float32(divisor))
        np.testing.assert_array_equal(found, dividend // divisor)
