"""Finds the exact thresholds of all units: edges, sketch, sweeps."""

import functools

import jax
import numpy as np
from jaxtyping import Int

from jdissect.base.errors import UserError
from jdissect.dissection import passes
from jdissect.dissection.features import Features
from jdissect.dissection.kernels import Kernels
from jdissect.ops import edge_codes, edges, float_keys, refine, sketch
from jdissect.runtime.processes import Processes

PILOT_IMAGES = 128  # sampled to place the sketch's edges
_KEY_BITS = 32
_MORE_SWEEPS = 2  # than 32 bits need, if a bracket turns out wrong


def place_edges(
    features: Features, processes: Processes, quantile: float, count: int
) -> dict[str, Int[np.ndarray, "edge unit"]]:
    """Returns edges for the sketches, from images spread evenly over all.

    Every process samples the images that it holds; the samples are merged in the order
    of the images.
    """
    pilots = np.unique(np.linspace(0, count - 1, min(count, PILOT_IMAGES)).round())
    pilots = pilots.astype(int)
    found = {
        # Bits of float32, so that sums leave them unchanged: one process has an image.
        name: np.zeros((len(pilots), edges.samples(geometry), units), np.int32)
        for (name, geometry), units in zip(
            features.geometry.items(), features.units.values(), strict=True
        )
    }
    seen = np.zeros(len(pilots), np.int64)
    with processes.agreeing():
        for record in features.holding(list(pilots)):
            picked = np.flatnonzero(np.isin(record.index, pilots) & record.valid)
            if not len(picked):
                continue
            place = np.searchsorted(pilots, record.index[picked])
            seen[place] = 1
            # Few different sizes, as each is compiled.
            some = np.resize(picked, 1 << (len(picked) - 1).bit_length())
            for name, maps in record.features.items():
                values = _sample(maps[some], features.geometry[name], np.int32(0))
                bits = np.asarray(values)[: len(picked)].view(np.int32)
                found[name][place] = bits
    seen, found = processes.total((seen, found))
    if not seen.all():
        found = {name: bits[seen > 0] for name, bits in found.items()}
    return {
        # Popped, as samples of many units are large.
        name: edges.place_edges(_floats(found.pop(name)), quantile)
        for name in list(found)
    }


@functools.partial(jax.jit, static_argnames="geometry")
def _sample(maps, geometry, zero):
    return edges.sample(float_keys.canonical(maps), geometry, zero)


def _floats(bits):
    if not len(bits):  # no image could be read
        return np.zeros((1, bits.shape[-1]), np.float32)
    bits = bits.astype(np.int32, copy=False)  # sums of processes are int64
    return bits.view(np.float32).reshape(-1, bits.shape[-1])


def sketch_all(
    counting: passes.Passes,
    kernels: Kernels,
    coded: dict[str, edge_codes.Codes],
    placed: dict[str, Int[np.ndarray, "edge unit"]],
) -> dict[str, sketch.Sketch]:
    """Sketches all layers in one pass.

    Args:
      counting: runs the passes.
      kernels: the counting kernels.
      coded, placed: edges of every layer, from `edge_codes.of_edges`.

    Raises:
      UserError: an activation is NaN or infinite.
    """
    edges_of = {name: kernels.edges(coded[name], placed[name]) for name in coded}
    found = counting.run("sketch", kernels.sketch(), edges_of)
    for name, state in found.items():
        if state.invalid.any():
            unit = int(np.argmax(state.invalid))
            raise UserError(
                f"layer '{name}', unit {unit}: an activation is NaN or infinite; "
                "check the weights, the preprocessing and dtype"
            )
    return found


def exact(
    counting: passes.Passes,
    kernels: Kernels,
    sketches: dict[str, sketch.Sketch],
    placed: dict[str, Int[np.ndarray, "edge unit"]],
    pixels: int,
    quantile: float,
) -> dict[str, Int[np.ndarray, " unit"]]:
    """Sweeps until every threshold is exact; returns their keys.

    Args:
      counting: runs the passes.
      kernels: the counting kernels.
      sketches: sketches from `sketch_all`.
      placed: keys of the edges at which the sketches counted.
      pixels: number of pixels of all images.
      quantile: maximum share of pixels above a threshold.
    """
    allowed = sketch.allowance(pixels, quantile)
    brackets = {
        name: jax.tree.map(
            np.array, sketch.certify(state, placed[name], pixels, quantile).bracket
        )
        for name, state in sketches.items()
    }
    tally = kernels.sweep()
    # Other counts have other names, so that none is taken for another.
    more = "" if kernels.slots == refine.SLOTS else f" of {kernels.slots} slots"
    most = -(-_KEY_BITS // (kernels.slots.bit_length() - 1)) + _MORE_SWEEPS
    for number in range(1, most + 1):
        # Only layers and units whose thresholds are not yet known.
        picked = {
            name: _some_units(bracket.high - bracket.low > 1)
            for name, bracket in brackets.items()
            if (bracket.high - bracket.low > 1).any()
        }
        if not picked:
            break
        open_ = {
            name: type(brackets[name])(*(ends[units] for ends in brackets[name]))
            for name, units in picked.items()
        }
        counts = counting.run(
            f"sweep {number}{more}",
            tally,
            {name: kernels.bracket(open_[name]) for name in open_},
            picked=picked,
        )
        for name, units in picked.items():
            narrowed, wrong = refine.narrow(open_[name], counts[name], allowed)
            state = sketches[name]
            low, high = (np.asarray(ends)[units] for ends in (state.low, state.high))
            whole = refine.widest(low, high, pixels)
            for ends, some, every in zip(brackets[name], narrowed, whole, strict=True):
                ends[units] = np.where(wrong, every, some)
    if any((b.high - b.low > 1).any() for b in brackets.values()):
        raise RuntimeError(f"thresholds not exact after {most} sweeps")
    return {name: bracket.high for name, bracket in brackets.items()}


def _some_units(wanted: np.ndarray) -> np.ndarray:
    """Pads the wanted units with others to a power of two, or to all units.

    This keeps later sweeps, for few units, cheap, and the number of compiled shapes
    small.
    """
    units = len(wanted)
    size = max(64, 1 << int(wanted.sum() - 1).bit_length())
    if size > units // 2:
        return np.arange(units)
    first = np.argsort(~wanted, kind="stable")[:size]
    return np.sort(first)
