"""Exact thresholds of all units: edges, sketch, sweeps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jdissect import passes
from jdissect.errors import UserError
from jdissect.features import Features
from jdissect.ops import edges, keys, sketch, sweep

PILOT_IMAGES = 128  # looked at for placing the sketch's edges
MAX_SWEEPS = 5


def place_edges(
    features: Features, layers: Sequence[str], quantile: float, count: int
) -> dict[str, Int[np.ndarray, "edge unit"]]:
    """Edges of the sketches, from images spread evenly over all."""
    pilots = np.unique(np.linspace(0, count - 1, min(count, PILOT_IMAGES)).round())
    pilots = pilots.astype(int)
    samples = {name: [] for name in layers}
    sample = jax.jit(edges.sample, static_argnames="geometry")
    for record in features.holding(list(pilots)):
        picked = np.isin(record.index, pilots) & record.valid
        if not picked.any():
            continue
        for name, maps in record.features.items():
            values = sample(
                keys.canonical(jnp.asarray(maps)),
                geometry=features.geometry[name],
                zero=np.int32(0),
            )
            values = np.asarray(values)[picked]
            samples[name].append(values.reshape(-1, values.shape[-1]))
    return {
        name: edges.place_edges(
            np.concatenate(found)
            if found
            else np.zeros((1, features.units[name]), np.float32),
            quantile,
        )
        for name, found in samples.items()
    }


def sketch_all(
    counting: passes.Passes, placed: dict[str, Int[np.ndarray, "edge unit"]]
) -> dict[str, sketch.Sketch]:
    """One pass: the sketches of all layers.

    Raises:
      UserError: an activation is NaN or infinite.
    """
    geometry = counting.features.geometry

    def update(state, batch, constants):
        cuts, zero = constants
        return {
            name: sketch.update(
                state[name],
                keys.canonical(maps),
                batch["valid"],
                cuts[name],
                geometry[name],
                zero,
            )
            for name, maps in batch["features"].items()
        }

    found = counting.run(
        "sketch",
        update,
        {name: sketch.empty(units) for name, units in counting.features.units.items()},
        ({name: keys.cuts(places) for name, places in placed.items()}, np.int32(0)),
        passes.each(sketch.merge),
    )
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
    sketches: dict[str, sketch.Sketch],
    placed: dict[str, Int[np.ndarray, "edge unit"]],
    pixels: int,
    quantile: float,
) -> dict[str, Int[np.ndarray, "unit"]]:
    """Sweeps until every threshold is exact; their keys."""
    geometry = counting.features.geometry
    allowed = sketch.allowance(pixels, quantile)
    brackets = {
        name: jax.tree.map(
            np.array, sketch.certify(state, placed[name], pixels, quantile).bracket
        )
        for name, state in sketches.items()
    }

    def update(state, batch, constants):
        arguments, zero = constants
        return {
            name: sweep.update(
                state[name],
                keys.canonical(batch["features"][name]),
                batch["valid"],
                arguments[name],
                geometry[name],
                zero,
            )
            for name in state
        }

    for number in range(1, MAX_SWEEPS + 1):
        # Only layers, and units, whose thresholds are not yet known.
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
            f"sweep {number}",
            update,
            {name: sweep.empty(len(units)) for name, units in picked.items()},
            ({n: sweep.as_arguments(open_[n]) for n in open_}, np.int32(0)),
            passes.each(np.add),
            picked=picked,
        )
        for name, units in picked.items():
            narrowed, wrong = sweep.narrow(open_[name], counts[name], allowed)
            state = sketches[name]
            whole = sweep.widest(state.low[units], state.high[units], pixels)
            for ends, some, every in zip(brackets[name], narrowed, whole, strict=True):
                ends[units] = np.where(wrong, every, some)
    if any((b.high - b.low > 1).any() for b in brackets.values()):
        raise RuntimeError(f"thresholds not exact after {MAX_SWEEPS} sweeps")
    return {name: bracket.high for name, bracket in brackets.items()}


def _some_units(wanted: np.ndarray) -> np.ndarray:
    """The wanted units and some others: as many as there are, or a power of two.

    So that later sweeps, for few units, cost little, and few shapes are compiled.
    """
    units = len(wanted)
    size = max(64, 1 << int(wanted.sum() - 1).bit_length())
    if size > units // 2:
        return np.arange(units)
    first = np.argsort(~wanted, kind="stable")[:size]
    return np.sort(first)
