"""Turns a layer's feature maps into the maps of the units that a dissection counts.

By default the units are the layer's own channels. They may be latents of a sparse
autoencoder or directions instead (`checkpoints.unit_codes`), and may be counted in
their lower tail: as the negated map, which is exact, so that everything after this step
knows only units that fire where they are high.

Maps keep their grid; they are upsampled later. The layers' own maps are what is kept
between passes, and every pass turns them into units anew: an autoencoder has tens of
units per feature, and one matrix product is about as fast as reading its latents back.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Shaped

from jdissect import models
from jdissect.base import unit_names
from jdissect.base.arrays import AnyArray
from jdissect.base.errors import UserError
from jdissect.checkpoints import unit_codes
from jdissect.checkpoints.unit_codes import UnitCodes
from jdissect.dissection.batches_given import as_array, shown
from jdissect.ops.latents import latents
from jdissect.runtime.devices import Step


@dataclasses.dataclass(frozen=True)
class UnitViews:
    """What the units of each layer are.

    Attributes:
      tail: where units fire, a key of `unit_names.TAILS`.
      codes: {layer: its units, if they are not its own}.
    """

    tail: str = "upper"
    codes: Mapping[str, UnitCodes] = dataclasses.field(default_factory=dict)

    @property
    def changes_nothing(self) -> bool:
        """Whether the units are the layers' own, in the upper tail."""
        return self.tail == "upper" and not self.codes

    @property
    def arrays(self) -> dict[str, dict[str, Any]]:
        """{layer: arrays of its codes}, the constants of `step`."""
        return {layer: dict(codes.arrays) for layer, codes in self.codes.items()}

    def step(self) -> Step:
        """Returns (state, {layer: maps}, arrays) -> {layer: maps of units}."""
        kinds = [(n, (codes.activation, codes.k)) for n, codes in self.codes.items()]
        return _step(self.tail, tuple(sorted(kinds)))

    def units(self, features: Mapping[str, int]) -> dict[str, int]:
        """Returns {layer: its number of units}, for {layer: its number of features}.

        Raises:
          UserError: codes are not of a layer with so many features.
        """
        for layer, codes in self.codes.items():
            if layer in features:
                codes.check_features(features[layer], layer)
        ends = len(unit_names.TAILS[self.tail])
        return {
            layer: ends * (self.codes[layer].units if layer in self.codes else count)
            for layer, count in features.items()
        }


def given(units: Any, tail: str, layers: tuple[str, ...]) -> UnitViews:
    """Returns the units that a caller of the library gives.

    Args:
      units: None; for one layer directions [feature, unit], a dict with `encoder`, or a
        file; for several layers {layer: one of these}.
      tail: a key of `unit_names.TAILS`.
      layers: names of the layers.

    Raises:
      UserError: the tail is unknown, or the units are none of these.
    """
    if tail not in unit_names.TAILS:
        known = ", ".join(unit_names.TAILS)
        raise UserError(f"tail is {tail!r:.40}; it must be one of {known}")
    if units is None:
        return UnitViews(tail)
    if isinstance(units, Mapping) and set(units) <= set(layers):
        return UnitViews(tail, {n: _given(each, n) for n, each in units.items()})
    if len(layers) > 1:
        raise UserError(
            f"units is {shown(units)}; for several layers it must be a dict "
            "{layer: units}"
        )
    return UnitViews(tail, {layers[0]: _given(units, layers[0])})


def _given(units: Any, layer: str) -> UnitCodes:
    if isinstance(units, str | os.PathLike):
        return unit_codes.read(units, layer, "units")
    if not isinstance(units, Mapping):
        units = {"encoder": units, "activation": "linear"}
    arrays, about = dict(units), {}
    for name in ("activation", "k"):
        if name in arrays:
            about[name] = arrays.pop(name)
    arrays = {name: as_array(a, f"units['{name}']") for name, a in arrays.items()}
    return unit_codes.given(arrays, about, "units")


@functools.lru_cache(maxsize=32)
def _step(tail: str, kinds: tuple[tuple[str, tuple[str, int]], ...]) -> Step:
    """Returns the step; the same object for equal arguments, so that it is cached."""
    kind_of = dict(kinds)

    def step(state, maps, arrays):
        del state
        found = {}
        for layer, values in maps.items():
            if layer in kind_of:
                values = _coded(*kind_of[layer])(arrays[layer], values)
            found[layer] = in_tail(values, tail)
        return found

    return Step(step)


def _coded(activation: str, k: int) -> Callable[[Any, Any], Any]:
    # A few images at a time, as a batch of latents is large before the activation.
    return models.by_parts(lambda arrays, maps: latents(maps, arrays, activation, k))


def in_tail(
    maps: Shaped[AnyArray, "*batch unit"], tail: str
) -> Shaped[AnyArray, "*batch counted"]:
    """Returns maps of units that fire where they are high, in the order of their names.

    Args:
      maps: maps of any real type; not changed for the upper tail.
      tail: a key of `unit_names.TAILS`.
    """
    if tail == "upper":
        return maps
    if not jnp.issubdtype(maps.dtype, jnp.floating):
        maps = maps.astype(jnp.float32)  # unsigned numbers have no negative
    ends = [-maps if end == "-" else maps for end in unit_names.TAILS[tail]]
    return jnp.stack(ends, axis=-1).reshape(*maps.shape[:-1], -1)
