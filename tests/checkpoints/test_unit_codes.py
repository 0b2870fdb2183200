"""Files of units: what is read of them, and what is refused in a line."""

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jdissect.base.errors import UserError
from jdissect.checkpoints import unit_codes

ENCODER = np.arange(12, dtype=np.float32).reshape(3, 4)


def write(path, activation="relu", *, encoder=ENCODER, k=None, **arrays):
    about = {"activation": activation, **({} if k is None else {"k": k})}
    arrays = {"encoder": encoder, **arrays}
    safetensors.numpy.save_file(arrays, path, metadata=about)
    return path


@pytest.mark.parametrize(
    "kind", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
)
def test_floats_of_any_size_are_read_as_float32(tmp_path, kind):
    path = write(tmp_path / "a", encoder=ENCODER.astype(kind), bias=np.ones(4, kind))
    found = unit_codes.read(path, "x", "units", 3)
    assert found.units == 4 and (found.activation, found.k) == ("relu", 0)
    assert all(array.dtype == np.float32 for array in found.arrays.values())
    np.testing.assert_array_equal(found.arrays["encoder"], ENCODER)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def claiming(path, shape):
    """A file of a few bytes whose header claims an array of a shape."""
    size = int(np.prod(shape)) * 4
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"activation": "relu"}, "encoder": entry})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    return path


REFUSED = {
    "has encoder [features, units] [5, 4], but layer 'x' has 3 features": {
        "encoder": np.ones((5, 4), np.float32)
    },
    "but layer 'x' has 3 features; transpose it": {"encoder": ENCODER.T.copy()},
    "it must be [features, units]": {"encoder": np.ones(3, np.float32)},
    "has decoder; it may have only encoder, bias, center, threshold": {
        "decoder": ENCODER
    },
    "'bias' has shape [3], not [4]": {"bias": np.ones(3, np.float32)},
    "'center' has shape [4], not [3]": {"center": np.ones(4, np.float32)},
    "'encoder' holds I64, not floats": {"encoder": np.ones((3, 4), np.int64)},
    "'bias' has a number that is not finite": {"bias": np.full(4, np.nan, np.float32)},
    "'bias' has a number that is not finite: it": {"bias": np.full(4, 1e300)},
    "says activation 'gelu'; it must be linear, relu, jumprelu, topk": {
        "activation": "gelu"
    },
    "lacks 'threshold', but its activation is jumprelu": {"activation": "jumprelu"},
    "has a threshold, but its activation is relu": {
        "threshold": np.ones(4, np.float32)
    },
    "does not say k, but its activation is topk": {"activation": "topk"},
    "says k, but its activation is relu": {"k": "3"},
    "k is 5, not 1 .. 4": {"activation": "topk", "k": "5"},
    "k is 0, not 1 .. 4": {"activation": "topk", "k": "0"},
    "k is two\\n, not 1 .. 4": {"activation": "topk", "k": "two\n"},
    "k is 9999": {"activation": "topk", "k": "9" * 10_000},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_together_is_refused(tmp_path, message):
    path = write(tmp_path / "units.safetensors", **REFUSED[message])
    with pytest.raises(UserError) as error:
        unit_codes.read(path, "x", "units", 3)
    text = str(error.value)
    assert message.partition(": it")[0] in text and str(path) in text
    assert "\n" not in text and len(text) < 400


def test_files_that_are_none_are_refused(tmp_path):
    for name, content in (("empty", b""), ("junk", b"\xff" * 100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is not a safetensors file: "):
            unit_codes.read(tmp_path / name, "x", "units", 3)
    with pytest.raises(UserError, match="config.model.units: .* is not a file"):
        unit_codes.read(tmp_path, "x", "config.model.units", 3)
    # Larger than the file: found before memory is taken.
    path = claiming(tmp_path / "large", (2**20, 2**20))
    with pytest.raises(UserError, match="large is not a safetensors file"):
        unit_codes.read(path, "x", "units", 2**20)
