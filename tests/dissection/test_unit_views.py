"""Units in their lower tail, and units that are not channels, against brute force."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import jdissect
from jdissect.base.errors import UserError
from jdissect.dissection import engine, unit_views
from tests.devices import environment
from tests.ops import reference

CONCEPTS = [("-", "-"), ("cat", "object"), ("red", "color"), ("leg", "part")]
SHAPE = (8, 10)
QUANTILE = 0.05
# What is the negated array, and what is equal, if x is dissected in its lower tail.
ALIKE = (
    *("thresholds", "intersection", "union", "fires", "top_value", "top_image"),
    *("histogram_counts", "histogram_edges", "top_map"),
)


def data(count=17, features=5, seed=0):
    """Maps with ties, zeros of both signs and subnormals; label maps."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(count, 4, 5, features)).astype(np.float32)
    maps[..., 1] = np.round(2 * maps[..., 1])  # many ties, at the threshold too
    maps[..., 2] = np.maximum(maps[..., 2], -0.0)
    maps[::2, ..., 2] = np.where(maps[::2, ..., 2] == 0, -0.0, maps[::2, ..., 2])
    maps[..., 3] = -1 - np.abs(maps[..., 3])  # fires on the border of zeros
    maps[3, 1, 1, 4] = -1e-40
    return maps, rng.integers(0, 4, (count, 2, *SHAPE))


def dissect(maps, labels, **options):
    options = {"concepts": CONCEPTS, "layers": "x", "batch_size": 4, **options}
    return jdissect.dissect(
        lambda _, x: {"x": x}, None, maps, labels, quantile=QUANTILE, **options
    )


@functools.cache
def in_tail(tail):
    """The result for `data()`."""
    return dissect(*data(), tail=tail)


def arrays(result):
    found = {name: getattr(result, name) for name in ALIKE}
    found |= {f"blocks.{n}": getattr(result.blocks, n) for n in ("gap", "low", "unit")}
    return found


def brute_force(maps, labels):
    """(thresholds, intersection, union) of units that fire where they are high."""
    pixels = reference.upsample(maps, SHAPE)
    units = pixels.shape[-1]
    cuts = reference.thresholds(pixels.reshape(-1, units), QUANTILE)
    fires = pixels > np.where(cuts == 0, np.finfo(np.float32).tiny / 2, cuts)
    common, union = np.zeros((2, units, len(CONCEPTS) - 1), int)
    for number in range(1, len(CONCEPTS)):
        there = (labels == number).any(axis=1)[..., None]
        common[:, number - 1] = (fires & there).sum(axis=(0, 1, 2))
        union[:, number - 1] = (fires | there).sum(axis=(0, 1, 2))
    return cuts, common, union


def test_the_lower_tail_is_the_upper_one_of_negated_maps_to_the_bit():
    maps, labels = data()
    lower, negated = in_tail("lower"), dissect(-maps, labels)
    for name, array in arrays(negated).items():
        np.testing.assert_array_equal(arrays(lower)[name], array, name)
        assert arrays(lower)[name].dtype == array.dtype
    assert (in_tail("upper").intersection != lower.intersection).any(axis=1).all()


@pytest.mark.parametrize("tail", ["upper", "lower", "both"])
def test_tails_against_brute_force(tail):
    maps, labels = data()
    found = in_tail(tail)
    ends = {"upper": [maps], "lower": [-maps], "both": [maps, -maps]}[tail]
    for place, end in enumerate(ends):
        cuts, common, union = brute_force(end, labels)
        of_end = slice(place, None, len(ends))
        np.testing.assert_array_equal(found.thresholds[of_end], cuts)
        np.testing.assert_array_equal(found.intersection[of_end], common)
        np.testing.assert_array_equal(found.union[of_end], union)
        tops = np.sort(end.max(axis=(1, 2)), axis=0)[::-1][:5].T
        np.testing.assert_array_equal(
            found.top_value[of_end], np.where(np.abs(tops) < 1e-38, 0, tops)
        )


def test_integer_and_unsigned_maps_are_negated_as_floats():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 200, (9, 4, 5, 5)).astype(np.uint8)
    labels = rng.integers(0, 4, (9, 1, *SHAPE))
    lower = dissect(maps, labels, tail="lower")
    expected = dissect(-maps.astype(np.float32), labels)
    np.testing.assert_array_equal(lower.intersection, expected.intersection)


def test_names_and_signs(tmp_path):
    maps, both = data()[0], in_tail("both")
    assert both.unit_names[:4].tolist() == ["0+", "0-", "1+", "1-"]
    assert in_tail("lower").unit_names[3] == "3-"
    assert in_tail("upper").unit_names.tolist() == [0, 1, 2, 3, 4]
    both.save(tmp_path / "saved")
    rows = (tmp_path / "saved" / "units.csv").read_text().splitlines()[1:]
    cells = [row.split(",") for row in rows]
    assert [row[0] for row in cells[:2]] == ["0+", "0-"]
    pixels = reference.upsample(maps, SHAPE)
    for unit, low in ((0, False), (0, True), (3, True)):
        shown = float(cells[2 * unit + low][4])  # in the activation's own sign
        there = pixels[..., unit]
        fires = (there < shown).sum() if low else (there > shown).sum()
        assert fires == both.fires[2 * unit + low] > 0
    again = jdissect.load(tmp_path / "saved")
    assert (
        again.tail == "both" and again.unit_names.tolist() == both.unit_names.tolist()
    )
    np.testing.assert_array_equal(
        again.shown_top_value[1], np.sort(maps[..., 0].min(axis=(1, 2)))[:5]
    )


def encoded(maps, encoder, bias, center, activation, threshold=None, k=0):
    """Latents, position by position, in float64; ties by a loop."""
    values = (maps.astype(np.float64) - center) @ encoder + bias
    if activation == "linear":
        return values
    values = np.where(values > 0, values, 0)
    if activation == "jumprelu":
        return np.where(values > threshold, values, 0)
    if activation == "topk":
        for row in values.reshape(-1, values.shape[-1]):
            kept = sorted(range(len(row)), key=lambda unit: (-row[unit], unit))[:k]
            row[[unit for unit in range(len(row)) if unit not in kept]] = 0
    return values


def whole_numbers(count=12, features=5, units=10, seed=1):
    """Data whose latents are exact in float32, with many ties."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(-4, 5, (count, 4, 5, features)).astype(np.float32)
    return (
        maps,
        rng.integers(0, 4, (count, 2, *SHAPE)),
        {
            "encoder": rng.integers(-2, 3, (features, units)).astype(np.float32),
            "bias": rng.integers(-2, 3, units).astype(np.float32),
            "center": rng.integers(-1, 2, features).astype(np.float32),
        },
        rng.integers(1, 4, units).astype(np.float32),
    )


@pytest.mark.parametrize("activation", ["linear", "relu", "jumprelu", "topk"])
def test_latents_against_brute_force(activation, tmp_path):
    maps, labels, codes, threshold = whole_numbers()
    about = {"activation": activation}
    if activation == "jumprelu":
        codes["threshold"] = threshold
    if activation == "topk":
        about["k"] = "3"
    expected = encoded(
        maps,
        codes["encoder"],
        codes["bias"],
        codes["center"],
        activation,
        codes.get("threshold"),
        3,
    ).astype(np.float32)
    file = tmp_path / "units.safetensors"
    safetensors.numpy.save_file(codes, file, metadata=about)
    found = dissect(maps, labels, units=file)
    cuts, common, union = brute_force(expected, labels)
    np.testing.assert_array_equal(found.thresholds, cuts)
    np.testing.assert_array_equal(found.intersection, common)
    np.testing.assert_array_equal(found.union, union)
    given = dissect(maps, labels, units={**codes, **about})
    np.testing.assert_array_equal(given.intersection, found.intersection)


def test_latents_counted_in_parts_against_brute_force(monkeypatch):
    """With room for the counters of five of ten latents."""
    maps, labels, codes, _ = whole_numbers()
    expected = encoded(
        maps, codes["encoder"], codes["bias"], codes["center"], "topk", k=3
    )
    cuts, common, union = brute_force(expected.astype(np.float32), labels)
    monkeypatch.setattr(engine, "MOST_COUNTERS", 5 * len(maps) * len(CONCEPTS))
    found = dissect(maps, labels, units={**codes, "activation": "topk", "k": 3})
    np.testing.assert_array_equal(found.thresholds, cuts)
    np.testing.assert_array_equal(found.intersection, common)
    np.testing.assert_array_equal(found.union, union)


def test_both_ends_of_directions():
    maps, labels, codes, _ = whole_numbers()
    encoder = codes["encoder"][:, :5]
    found = dissect(maps, labels, units=encoder.astype(np.float64), tail="both")
    expected = dissect(maps @ encoder, labels, tail="both")
    for name, array in arrays(expected).items():
        np.testing.assert_array_equal(arrays(found)[name], array, name)


def test_one_of_several_layers_has_units_of_its_own():
    maps, _, codes, _ = whole_numbers()
    views = unit_views.given({"b": codes["encoder"]}, "both", ("a", "b"))
    assert views.units({"a": 5, "b": 5}) == {"a": 10, "b": 20}
    found = views.step()(None, {"a": maps, "b": maps}, views.arrays)
    for layer, values in (("a", maps), ("b", maps @ codes["encoder"])):
        np.testing.assert_array_equal(found[layer][..., ::2], values)
        np.testing.assert_array_equal(found[layer][..., 1::2], -values)
    with pytest.raises(UserError, match="for several layers it must be a dict"):
        unit_views.given(codes["encoder"], "upper", ("a", "b"))


def test_a_stream_of_batches():
    maps, labels, codes, _ = whole_numbers()
    batches = (maps[start : start + 5] for start in range(0, len(maps), 5))
    found = dissect(batches, labels, units=codes["encoder"])
    expected = dissect(maps, labels, units=codes["encoder"])
    np.testing.assert_array_equal(found.intersection, expected.intersection)
    batches = (maps[start : start + 5] for start in range(0, len(maps), 5))
    with pytest.raises(
        UserError, match=r"units has encoder .* \[4, 10\], but layer 'x'"
    ):
        dissect(batches, labels, units=codes["encoder"][1:])


def test_an_activation_that_is_not_a_number_is_found():
    maps, labels, codes, threshold = whole_numbers()
    maps[2, 1, 1, 3] = np.nan
    for about in (
        {"activation": "topk", "k": 2},
        {"activation": "jumprelu", "threshold": threshold},
    ):
        with pytest.raises(UserError, match="NaN"):
            dissect(maps, labels, units={**codes, **about})


@pytest.mark.parametrize(
    ("units", "tail", "message"),
    [
        (None, "middle", "tail is 'middle'; it must be one of upper, lower, both"),
        (
            np.ones(5),
            "upper",
            r"units has encoder \[5\]; it must be \[features, units\]",
        ),
        (np.ones((9, 5)), "upper", "layer 'x' has 5 features; transpose it"),
        ({"encoder": np.ones((5, 2))}, "upper", "does not say its activation"),
        ({"activation": "relu"}, "upper", "lacks 'encoder'"),
        ({"y": np.ones((5, 2))}, "upper", "units has y; it may have only encoder"),
        ("nowhere.safetensors", "upper", "units: nowhere.safetensors is not a file"),
        ("a network", "upper", "units: a network is not a file"),
    ],
)
def test_what_is_refused(units, tail, message):
    maps, labels, _, _ = whole_numbers(count=3)
    with pytest.raises(UserError, match=message):
        dissect(maps, labels, units=units, tail=tail)


BITS = """
import hashlib, sys
import numpy as np
from jdissect.dissection import unit_views
from jdissect.runtime.devices import Devices
rng, devices = np.random.default_rng(0), Devices()
assert len(devices) == int(sys.argv[1])
for units in (1, 10, 3000):
    for shape in ((8, 7, 7, 768), (1, 1, 1, 2048)):
        codes = {"encoder": rng.normal(size=(shape[-1], units)), "activation": "relu"}
        views = unit_views.given({"x": codes}, "both", ("x",))
        maps = rng.normal(size=(4 * shape[0], *shape[1:])).astype(np.float32)
        step, arrays = devices.spmd(views.step()), devices.replicate(views.arrays)
        at_once, digest = shape[0] * len(devices), hashlib.sha256()
        for start in range(0, len(maps), at_once):
            batch = devices.scatter({"x": maps[start : start + at_once]})
            found = step(devices.states(np.zeros(())), batch, arrays)["x"]
            digest.update(np.asarray(found).tobytes())
        print(units, shape, digest.hexdigest())
"""


@pytest.mark.slow
def test_latents_have_the_same_bits_on_any_number_of_devices():
    printed = []
    for devices in (1, 2, 4):
        done = subprocess.run(
            [sys.executable, "-c", BITS, str(devices)],
            env=environment(devices),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert len(printed[0].splitlines()) == 6 and len(set(printed)) == 1
