"""The sketch and the sweeps, against a sort."""

import jax
import numpy as np
import pytest

from benchmarks.support.streams import streams
from jdissect.ops import bit_masks, edge_codes, edges, float_keys, refine, sketch
from tests.ops import reference

ZERO = np.zeros((), np.int32)


def run_sketch(maps, geometry, coded, batch=64):
    """The sketch of [image, h, w, unit], batch by batch."""
    step = jax.jit(
        lambda state, maps, valid, coded, zero: sketch.update(
            state, maps, valid, coded, geometry, zero
        )
    )
    state = sketch.empty(maps.shape[-1])
    for start in range(0, len(maps), batch):
        some = maps[start : start + batch]
        valid = np.arange(batch) < len(some)
        some = np.pad(some, [(0, batch - len(some))] + [(0, 0)] * 3)
        state = step(state, some, valid, coded, ZERO)
    return jax.tree.map(np.asarray, state)


def place(maps, geometry, images=128, quantile=0.01):
    """Codes and keys of edges, from images spread over the data as in a run."""
    pick = np.unique(np.linspace(0, len(maps) - 1, images).round().astype(int))
    samples = jax.jit(lambda m, zero: edges.sample(m, geometry, zero))
    values = np.asarray(samples(float_keys.canonical(maps[pick]), ZERO))
    placed = edges.place_edges(values.reshape(-1, values.shape[-1]), quantile)
    return edge_codes.of_edges(placed)


@pytest.mark.parametrize(
    ("size", "target"),
    [((5, 7), (20, 30)), ((16, 16), (16, 16)), ((3, 12), (16, 12)), ((1, 6), (4, 6))],
)
def test_samples_are_pixels_of_a_lattice(size, target):
    maps = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    geometry = bit_masks.plan(size, target)
    rows, columns = (
        (2 * np.arange(min(8, n)) + 1) * n // (2 * min(8, n)) for n in target
    )
    expected = reference.upsample(maps, target)[:, rows][:, :, columns]
    found = edges.sample(maps, geometry, ZERO)
    assert edges.samples(geometry) == found.shape[1]
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


def sweep_until_exact(maps, geometry, state, bracket, pixels, quantile, batch=64):
    """(threshold keys, number of sweeps)."""
    step = jax.jit(
        lambda counts, maps, valid, arguments, zero: refine.update(
            counts, maps, valid, arguments, geometry, zero
        )
    )
    allowed = sketch.allowance(pixels, quantile)
    for number in range(6):
        if (bracket.high - bracket.low <= 1).all():
            return bracket.high, number
        counts = refine.empty(maps.shape[-1])
        for start in range(0, len(maps), batch):
            some = maps[start : start + batch]
            valid = np.arange(batch) < len(some)
            some = np.pad(some, [(0, batch - len(some))] + [(0, 0)] * 3)
            counts = step(counts, some, valid, refine.as_arguments(bracket), ZERO)
        narrowed, wrong = refine.narrow(bracket, np.asarray(counts, np.int64), allowed)
        widest = refine.widest(state.low, state.high, pixels)
        bracket = sketch.Bracket(
            *(np.where(wrong, a, b) for a, b in zip(widest, narrowed, strict=True))
        )
    raise AssertionError("not exact after 6 sweeps")


@pytest.fixture(scope="module")
def hard():
    """Every stream as a unit: 2^20 values each, on 64x64 grids taken as they are."""
    found = streams(2**20)
    maps = np.stack([v.reshape(256, 64, 64) for v in found.values()], axis=-1)
    geometry = bit_masks.plan((64, 64), (64, 64))
    coded, placed = place(maps, geometry)
    state = run_sketch(maps, geometry, coded)
    return list(found), maps, geometry, placed, state


@pytest.mark.parametrize("quantile", [0.01, 0.3])
def test_exact_on_hard_streams(hard, quantile):
    names, maps, geometry, placed, state = hard  # the edges suit 0.01 only
    pixels = 2**20
    certificate = sketch.certify(state, placed, pixels, quantile)
    found, sweeps = sweep_until_exact(
        maps, geometry, state, certificate.bracket, pixels, quantile
    )
    expected = reference.thresholds(maps.reshape(-1, len(names)), quantile)
    for name, got, want in zip(
        names, float_keys.from_keys_host(found), expected, strict=True
    ):
        assert got == want and not (got == 0 and np.signbit(got)), name
    assert sweeps <= 5


def test_certificate_is_never_below_the_error(hard):
    names, maps, geometry, placed, state = hard
    pixels, quantile = 2**20, 0.01
    certificate = sketch.certify(state, placed, pixels, quantile)
    exact = reference.thresholds(maps.reshape(-1, len(names)), quantile)
    exact_keys = float_keys.to_keys_host(exact)
    assert (certificate.bracket.low < exact_keys).all()
    assert (certificate.bracket.high >= exact_keys).all()
    all_keys = float_keys.to_keys_host(maps.reshape(-1, len(names)))
    above = (all_keys > float_keys.to_keys_host(certificate.threshold)).sum(axis=0)
    error = np.abs(above - sketch.allowance(pixels, quantile))
    is_exact = certificate.threshold == exact
    for unit, name in enumerate(names):
        assert is_exact[unit] or error[unit] <= certificate.rank_error[unit], name
    # Where the data are alike throughout, the sketch alone is already close.
    for name in ("relu", "Cauchy", "1e4 + N(0, 1)", "all negative"):
        unit = names.index(name)
        assert error[unit] / pixels <= 1e-4, (name, error[unit] / pixels)
    # Atoms are found exactly.
    for name in ("zeros", "constant", "99.5 % zeros", "two atoms", "ReLU6"):
        assert is_exact[names.index(name)], name


def test_a_wrong_bracket_is_noticed_and_costs_a_sweep(hard):
    names, maps, geometry, _, state = hard
    pixels, quantile = 2**20, 0.01
    exact = float_keys.to_keys_host(
        reference.thresholds(maps.reshape(-1, len(names)), 0.01)
    )
    elsewhere = sketch.Bracket(
        low=exact + 5,
        high=exact + 5000,
        above_low=np.full(len(names), 2**18),
        above_high=np.zeros(len(names), np.int64),
    )
    found, sweeps = sweep_until_exact(
        maps, geometry, state, elsewhere, pixels, quantile
    )
    np.testing.assert_array_equal(found, exact)
    assert sweeps <= 5


def test_same_state_for_any_order_and_split(hard):
    names, maps, geometry, _, state = hard
    coded, _ = place(maps, geometry)
    shuffled = maps[np.random.default_rng(0).permutation(len(maps))]
    parts = [
        run_sketch(shuffled[:37], geometry, coded, batch=16),
        run_sketch(shuffled[37:], geometry, coded, batch=48),
    ]
    merged = sketch.merge(*parts)
    for a, b in zip(merged, state, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(57, 56), (3, 300), (1, 9)])
def test_counts_and_histogram_are_exact(shape):
    """Rows that make no whole tile, of more pixels than 8 bits count, and one alone."""
    rng = np.random.default_rng(3)
    maps = np.maximum(rng.normal(size=(9, 7, 7, 40)), 0).astype(np.float32)
    maps[..., 3] = 0
    maps[..., 4] = np.minimum(maps[..., 4] * 20, 6)
    geometry = bit_masks.plan((7, 7), shape)
    coded, placed = place(maps, geometry, images=4)
    state = run_sketch(maps, geometry, coded, batch=4)
    pixels = reference.upsample(maps, shape).reshape(-1, 40)
    for row, edge in zip(state.above, float_keys.from_keys_host(placed), strict=True):
        np.testing.assert_array_equal(row, (pixels > edge).sum(axis=0))
    counts, places = sketch.histogram(state, placed, len(pixels))
    assert counts.shape == (40, edges.EDGES + 1) and counts.shape[1] <= 256
    for unit in range(40):
        expected, _ = np.histogram(pixels[:, unit], places[unit])
        np.testing.assert_array_equal(counts[unit], expected)


@pytest.mark.slow
def test_real_activations(real_features):
    """Exact in two or three sweeps; the sketch alone nearly so.

    Of a million pixels its rank error is at most 1e-4, or it is the atom itself, but
    for atoms in the middle: ReLU6's ceiling faded by the border to 6 * 11/16, say. Of
    fewer pixels an atom is a larger share.
    """
    maps = real_features
    geometry = bit_masks.plan(maps.shape[1:3], (56, 56))
    pixels = len(maps) * 56 * 56
    assert pixels >= 2e5
    most, share, worst = (1e-4, 0.99, 5e-4) if pixels >= 1e6 else (3e-4, 0.97, 1e-3)
    coded, placed = place(maps, geometry)
    state = run_sketch(maps, geometry, coded)
    certificate = sketch.certify(state, placed, pixels, 0.01)
    found, sweeps = sweep_until_exact(
        maps, geometry, state, certificate.bracket, pixels, 0.01
    )
    units = np.arange(0, maps.shape[-1], 12)
    values = reference.upsample(maps[..., units], (56, 56)).reshape(-1, len(units))
    exact = reference.thresholds(values, 0.01)
    np.testing.assert_array_equal(float_keys.from_keys_host(found)[units], exact)
    assert sweeps <= 3
    threshold = certificate.threshold[units]
    above = (values > threshold).sum(axis=0)
    allowed = sketch.allowance(pixels, 0.01)
    error = np.where(threshold == exact, 0, np.abs(above - allowed))
    assert (error <= certificate.rank_error[units]).all()
    atom = (values == exact).sum(axis=0) > 100
    assert (error[~atom] <= most * pixels).all(), error[~atom].max() / pixels
    assert (error <= most * pixels).mean() > share
    assert error.max() <= worst * pixels


def test_not_a_number_is_marked():
    maps = np.ones((4, 3, 3, 5), np.float32)
    maps[2, 1, 1, 3] = np.nan
    maps[1, 0, 0, 4] = -np.inf
    geometry = bit_masks.plan((3, 3), (6, 6))
    coded, placed = place(maps, geometry, images=2)
    state = run_sketch(maps, geometry, coded, batch=4)
    np.testing.assert_array_equal(state.invalid, [0, 0, 0, 1, 1])


def test_allowance_is_exact():
    assert sketch.allowance(100, 0.29) == 29  # 0.29 * 100 is 28.999999999999996
    assert sketch.allowance(4_189_696, 0.01) == 41_896
    assert sketch.allowance(99, 0.01) == 0


def test_listed():
    rng = np.random.default_rng(0)
    for size in (1, 127, 128, 1000):
        flags = rng.random(size) < 0.3
        positions, count = jax.jit(refine.listed)(flags)
        assert count == flags.sum()
        np.testing.assert_array_equal(positions[: int(count)], np.flatnonzero(flags))
