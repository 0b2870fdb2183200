import json

import jax
import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.models import preprocess


@pytest.mark.parametrize(
    ("preprocessing", "pixel", "expected"),
    [
        (preprocess.LITE, [0, 127, 255], [-127 / 128, 0, 1]),
        (
            preprocess.IMAGENET,
            [0, 255, 51],
            [-0.485 / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225],
        ),
    ],
)
def test_normalize_by_hand(preprocessing, pixel, expected):
    images = np.tile(np.array(pixel, np.uint8), (2, 4, 5, 1))
    normalize = jax.jit(preprocess.normalize, static_argnums=(1, 2))
    actual = normalize(images, preprocessing, "float32")
    assert actual.shape == images.shape
    np.testing.assert_allclose(actual[1, 3, 4], expected, rtol=1e-5, atol=1e-7)
    rounded = normalize(images, preprocessing, "bfloat16")
    assert rounded.dtype == "bfloat16"
    np.testing.assert_array_equal(rounded, actual.astype("bfloat16"))


def test_json_is_exact():
    for preprocessing in (preprocess.IMAGENET, preprocess.LITE):
        text = json.dumps(preprocessing.to_json())
        assert preprocess.Preprocessing.from_json(json.loads(text)) == preprocessing


@pytest.mark.parametrize(
    "change", [{"mean": [1, 2]}, {"std": [1, 0, 1]}, {"scale": "x"}, {"std": None}]
)
def test_damaged_json_is_a_users_error(change):
    description = {**preprocess.IMAGENET.to_json(), **change}
    with pytest.raises(UserError, match="preprocessing"):
        preprocess.Preprocessing.from_json(description)
