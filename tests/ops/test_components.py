import collections
import json
import math

import jax
import numpy as np
import pytest

from jdissect.ops import components as cc

_label = jax.jit(cc._label)
_quarters = jax.jit(cc.quarters, static_argnums=(1, 2))


def flood(labels):
    """[(label, pixels)] of one map, by flood fill in raster order of first pixels."""
    height, width = labels.shape
    seen = labels == 0
    found = []
    for start in zip(*np.nonzero(labels), strict=True):
        if seen[start]:
            continue
        seen[start] = True
        pixels, waiting = [], collections.deque([start])
        while waiting:
            y, x = waiting.popleft()
            pixels.append((y, x))
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    if not seen[v, u] and labels[v, u] == labels[start]:
                        seen[v, u] = True
                        waiting.append((v, u))
        found.append((int(labels[start]), np.array(pixels)))
    return found


def flood_roots(labels):
    """What `components` should give, by flood fill."""
    roots = np.full(labels.shape, labels.size)
    for _, pixels in flood(labels):
        y, x = pixels.T
        roots[y, x] = y[0] * labels.shape[1] + x[0]
    return roots


def flood_quarters(labels, num_objects, mode):
    """What `quarters` should give for one map, component by component."""
    result = np.zeros((2, *labels.shape), int)
    found = flood(labels)
    for label, pixels in found[: -1 if mode == "netdissect" else None]:
        (top, left), (bottom, right) = pixels.min(axis=0), pixels.max(axis=0)
        for y, x in pixels:
            below = y >= (top + bottom + 1) // 2
            beyond = x >= (left + right + 1) // 2
            result[0, y, x] = label + (3 if below else 1) * num_objects
            result[1, y, x] = label + (4 if beyond else 2) * num_objects
    return result


def bound(shape):
    """The rounds that the module's argument allows."""
    return max(1, 2 * math.floor(math.log2(math.prod(shape))))


def random_maps(shape, batch=6, seed=0):
    """Maps of several densities and label counts, with some of large regions."""
    rng = np.random.default_rng(seed)
    maps = []
    for index in range(batch):
        labels = rng.integers(1, (2, 3, 8)[index % 3], shape)
        labels[rng.random(shape) > (0.95, 0.5, 0.25, 0.4)[index % 4]] = 0
        if index % 2:
            labels = labels.repeat(4, axis=0).repeat(3, axis=1)
        maps.append(labels[: shape[0], : shape[1]])
    return np.stack(maps).astype(np.int32)


SHAPES = [(1, 1), (1, 37), (41, 1), (7, 50)]


@pytest.mark.parametrize("shape", SHAPES)
def test_against_flood_fill(shape):
    maps = random_maps(shape)
    roots, work = _label(maps)
    assert roots.dtype == np.int32
    np.testing.assert_array_equal(roots, [flood_roots(labels) for labels in maps])
    assert 1 <= work.rounds <= bound(shape)


def test_every_small_map():
    # All 4,096 ways to set the pixels of 3x4, one batch.
    bits = (np.arange(4096)[:, None] >> np.arange(12)) & 1
    maps = bits.reshape(-1, 3, 4).astype(np.int32)
    roots, work = _label(maps)
    np.testing.assert_array_equal(roots, [flood_roots(labels) for labels in maps])
    assert work.rounds <= bound((3, 4))


def spiral(size, diagonal=False):
    """A line of width one that winds inwards; `diagonal`: with its corners cut."""
    line = np.zeros((size, size), int)
    y, x, step, turned = 0, -1, (0, 1), 0
    while turned < 2:

        def taken(far, y=y, x=x, step=step):
            v, u = y + far * step[0], x + far * step[1]
            outside = not (0 <= v < size and 0 <= u < size)
            return far == 1 if outside else bool(line[v, u])

        if taken(1) or taken(2):
            step, turned = (step[1], -step[0]), turned + 1
        else:
            y, x, turned = y + step[0], x + step[1], 0
            line[y, x] = 1
    if diagonal:
        around = np.pad(line, 1)
        vertical = around[:-2, 1:-1] + around[2:, 1:-1]
        horizontal = around[1:-1, :-2] + around[1:-1, 2:]
        line[(vertical == 1) & (horizontal == 1)] = 0
    return line


def serpentine(size):
    line = np.zeros((size, size), int)
    line[::2] = 1
    line[1:-1:4, -1] = line[3:-1:4, 0] = 1
    return line


def comb(size, heights):
    """Teeth on a common base: the roots of the teeth are ordered as `heights`."""
    line = np.zeros((size, size), int)
    line[-1] = 1
    for tooth, height in enumerate(heights):
        line[height:, 2 * tooth] = 1
    return line


def maze(size, rng):
    """A random spanning tree, drawn as lines of width one: long winding paths."""
    line = np.zeros((size, size), int)
    cells = (size + 1) // 2
    path = [tuple(rng.integers(cells, size=2))]
    line[2 * path[0][0], 2 * path[0][1]] = 1
    while path:
        y, x = path[-1]
        ways = [
            (v, u)
            for v, u in ((y, x + 1), (y + 1, x), (y, x - 1), (y - 1, x))
            if 0 <= v < cells and 0 <= u < cells and not line[2 * v, 2 * u]
        ]
        if ways:
            v, u = ways[rng.integers(len(ways))]
            line[y + v, x + u] = line[2 * v, 2 * u] = 1
            path.append((v, u))
        else:
            path.pop()
    return line


def bit_reversed(count):
    """0 .. count - 1 so that every second one is a local minimum, again and again."""
    bits = (count - 1).bit_length()
    order = [int(f"{n:0{bits}b}"[::-1], 2) for n in range(1 << bits)]
    return [n for n in order if n < count]


def hard_maps(size):
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:size, :size]
    lines = {
        "spiral": spiral(size),
        "spiral, diagonal": spiral(size, diagonal=True),
        "serpentine": serpentine(size),
        "checkerboard": (y + x) % 2,
        "checkerboard of two": 1 + (y + x) % 2,
        "comb": comb(size, range(size // 2)),
        "comb, random": comb(size, rng.permutation(size // 2)),
        "comb, reversed bits": comb(size, bit_reversed(size // 2)),
        "maze": maze(size, rng),
        "another maze": maze(size, rng),
        "percolation": rng.random((size, size)) < 0.41,
    }
    return {name: np.asarray(line, np.int32) for name, line in lines.items()}


@pytest.mark.parametrize(
    "size, most", [(56, 7), pytest.param(200, 9, marks=pytest.mark.slow)]
)
def test_few_rounds_for_hard_maps(size, most):
    """Paths of thousands of pixels in any order, and `most` rounds do."""
    for name, labels in hard_maps(size).items():
        turned = [np.rot90(labels, times) for times in range(4)]
        for line in (*turned, labels[::-1], labels.T):
            roots, work = _label(line[None])
            if size == 56:
                np.testing.assert_array_equal(roots[0], flood_roots(line), name)
            if name not in ("checkerboard of two", "percolation"):
                assert len(np.unique(roots[line[None] != 0])) == 1, name
            assert work.rounds <= most < bound(line.shape), name
            assert work.jumps <= 4 * math.log2(line.size), name


def test_a_map_does_not_depend_on_its_companions():
    maps = random_maps((7, 50))
    found = np.asarray(_quarters(maps, 11, "netdissect"))
    for index in range(len(maps)):
        alone = _quarters(maps[index : index + 1], 11, "netdissect")
        np.testing.assert_array_equal(alone[0], found[index])
    for order in ([5, 2, 4, 2, 0, 1], [3, 3, 3, 3, 3, 3]):
        others = _quarters(maps[order], 11, "netdissect")
        np.testing.assert_array_equal(others, found[order])
    roots = _label(maps)[0]
    np.testing.assert_array_equal(_label(maps)[0], roots)
    one_by_one = jax.jit(jax.vmap(lambda labels: cc.components(labels[None])[0]))
    np.testing.assert_array_equal(one_by_one(maps), roots)


@pytest.mark.parametrize(
    "shape, mode", [*((shape, "netdissect") for shape in SHAPES), ((7, 50), "all")]
)
def test_quarters_against_plain_loops(shape, mode):
    maps = random_maps(shape, seed=1)
    maps[-1] = 0  # no object
    found = _quarters(maps, 11, mode)
    assert found.shape == (len(maps), 2, *shape)
    assert not np.asarray(found[-1]).any()
    expected = [flood_quarters(labels, 11, mode) for labels in maps]
    np.testing.assert_array_equal(found, expected)


def test_quarters_are_netdissects(golden):
    with np.load(golden / "quad.npz") as arrays:
        objects, expanded = arrays["objects"], arrays["expanded"]
    assert len(objects) == 6
    labels = json.loads((golden / "upp_labels.json").read_text())
    most = len(labels["object"]) - 1
    found = _quarters(objects, most, "netdissect")
    np.testing.assert_array_equal(found, expanded[:, 3:])
    # The quirk: there is just one component more.
    everything = np.asarray(_quarters(objects, most, "all"))
    np.testing.assert_array_equal(everything > 0, (objects > 0)[:, None].repeat(2, 1))
    for labels, less, more in zip(objects, found, everything, strict=True):
        last = max(root for root in flood_roots(labels).flat if root < labels.size)
        differs = flood_roots(labels) == last
        np.testing.assert_array_equal((more != less).any(axis=0), differs)


def test_numbers_by_hand():
    objects = np.array([[[2, 2, 2, 0], [2, 2, 2, 0], [2, 2, 2, 1]]])
    # Object 2 has rows 0..2: 0 is top. Object 1, one pixel: it is bottom and right, as
    # (2 + 2 + 1) // 2 = 2 and 2 < 2 is false.
    vertical = [[12, 12, 12, 0], [32, 32, 32, 0], [32, 32, 32, 31]]
    horizontal = [[22, 42, 42, 0], [22, 42, 42, 0], [22, 42, 42, 41]]
    found = _quarters(objects, 10, "all")
    np.testing.assert_array_equal(found, [[vertical, horizontal]])
    found = np.asarray(_quarters(objects, 10, "netdissect"))
    assert found[0, :, 2, 3].tolist() == [0, 0]
    with pytest.raises(ValueError, match="mode is 'none'"):
        cc.quarters(objects, 10, "none")
