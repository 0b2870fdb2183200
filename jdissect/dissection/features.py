"""Provides the feature maps of all images, from the network or from a cache.

The network runs once per image if its features can be kept; otherwise every pass runs
it again. Either way a pass sees the same records in the same order.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from jdissect.base.errors import UserError
from jdissect.dissection import batch_dependence
from jdissect.dissection.compiled import Network
from jdissect.dissection.feature_file import Spill
from jdissect.dissection.feature_maps import of_layers, warn_of_axes
from jdissect.dissection.unit_views import UnitViews
from jdissect.ops import bit_masks
from jdissect.runtime.devices import Devices


@dataclasses.dataclass(frozen=True)
class Images:
    """One batch as a pass reads it; the leading axis is batch_size x devices.

    Attributes:
      index: int32, number of each image; -1 for padding.
      valid: bool, whether the image counts.
      pixels: input of the network.
      labels: int[image, map, height, width], concept numbers, 0 for no label; or a
        function that returns them, called if a pass needs them.
      annotated: bool[image, category], or None: every image counts for all.
      skipped: (number, reason) of each unreadable image.
    """

    index: np.ndarray
    valid: np.ndarray
    pixels: Any
    labels: np.ndarray | Callable[[], np.ndarray]
    annotated: np.ndarray | None = None
    skipped: tuple[tuple[int, str], ...] = ()


class Read(Protocol):
    """Reads this process's shard of the images, in batches of one size."""

    def __call__(
        self,
        indices: Sequence[int] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterable[Images]:
        """Returns batches of all images, of `start` to `stop`, or of `indices`.

        All processes get the same number of batches; the last may be only padding.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """The parts of a batch that passes after the network need: as `Images`, and

    Attributes:
      features: {layer: [image, height, width, unit]}.
      labels: returns the label maps, in 16 bits if their numbers fit.
    """

    index: np.ndarray
    valid: np.ndarray
    features: dict[str, Any]
    labels: Callable[[], np.ndarray]
    annotated: np.ndarray | None
    skipped: tuple[tuple[int, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of feature maps and label maps, the same for all images.

    Attributes:
      units: {layer: its number of units}.
      geometry: {layer: how its grid is upsampled to the mask grid}.
      mask_shape: (height, width) of the mask grid, that of the label maps.
    """

    units: Mapping[str, int]
    geometry: Mapping[str, bit_masks.Geometry]
    mask_shape: tuple[int, int]

    @classmethod
    def of(cls, maps: Mapping[str, Any], mask_shape: Sequence[int]) -> "Shapes":
        """Returns the shapes of feature maps and label maps.

        Args:
          maps: {layer: array [image, height, width, unit], or its shape and type}.
          mask_shape: (height, width) of the label maps.
        """
        height, width = map(int, mask_shape)
        return cls(
            units={name: each.shape[-1] for name, each in maps.items()},
            geometry={
                name: bit_masks.plan(tuple(each.shape[1:3]), (height, width))
                for name, each in maps.items()
            },
            mask_shape=(height, width),
        )


_NO_SHAPES = Shapes({}, {}, (0, 0))


class Features:
    """Records of all images, readable any number of times.

    The maps that are kept are the layers' own; those of a record are of its units.

    Args:
      apply: (params, pixels) -> {layer: [image, height, width, unit]}, pure; or a
        caller's `Network`.
      params: a pytree of arrays.
      layers: names of the requested layers.
      devices: devices that run the network.
      read: reads the images; called for every pass unless features are kept.
      keep: where features stay between the passes: 'none', 'device', 'memory' or
        'disk'.
      folder: folder for features if `keep` is 'disk'.
      shapes: shapes of the layers' own maps and of label maps; by default those of the
        first batch.
      views: what the units are; by default the layers' own.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], dict[str, jax.Array]] | Network,
        params: Any,
        layers: Sequence[str],
        devices: Devices,
        read: Read,
        keep: str,
        folder: Path | None = None,
        shapes: Shapes | None = None,
        views: UnitViews | None = None,
    ):
        self._devices, self._read = devices, read
        self._layers = tuple(layers)
        self._shapes, self._looked = shapes, False
        self._views = views or UnitViews()
        self._view: Callable[..., Any] | None = None
        if not self._views.changes_nothing:
            self._view = devices.spmd(self._views.step())
            self._view_arrays = devices.replicate(self._views.arrays)
        # The layers' own shapes, and the units' shapes that follow from them.
        self._viewed_shapes: tuple[Shapes | None, Shapes] = None, _NO_SHAPES
        self._params_given, self._params = params, devices.replicate(params)
        self._keep, self._folder = keep, folder
        # Together, the records of the images from number `_kept_from`.
        self._kept: list[Iterable[Record]] = []
        self._kept_from: int | None = None  # None: nothing is kept
        self._network: Network | None = None
        self._apply: Callable[[Any, Any], dict[str, jax.Array]] | None
        self._forward: Callable[..., Any] | None = None  # for a `Network`: unknown yet
        if isinstance(apply, Network):
            self._network, self._apply = apply, None
        else:
            self._apply = apply

            def forward(state, batch, params):
                del state
                return of_layers(apply(params, batch), layers, len(batch))

            self._forward = devices.spmd(forward)

    @property
    def shapes(self) -> Shapes:
        """Shapes of the units' maps, and of the label maps.

        A batch is read if they are unknown; the network does not run.
        """
        own = self._own_shapes
        if self._view is None:
            return own
        if own is not self._viewed_shapes[0]:
            units = self._views.units(own.units)
            self._viewed_shapes = own, dataclasses.replace(own, units=units)
        return self._viewed_shapes[1]

    @property
    def _own_shapes(self) -> Shapes:
        """Shapes of the layers' own maps, and of the label maps."""
        if self._shapes is None:
            images = next(iter(self._read()), None)
            if images is None:
                return _NO_SHAPES
            maps = self._maps_of(images.pixels)
            self._shapes = Shapes.of(maps, _labels(images.labels).shape[2:])
        return self._shapes

    @property
    def units(self) -> Mapping[str, int]:
        """{layer: its number of units}."""
        return self.shapes.units

    @property
    def geometry(self) -> Mapping[str, bit_masks.Geometry]:
        """{layer: how its grid is upsampled to the mask grid}."""
        return self.shapes.geometry

    @property
    def mask_shape(self) -> tuple[int, int]:
        """(height, width) of the mask grid."""
        return self.shapes.mask_shape

    @property
    def mask_pixels(self) -> int:
        """Number of pixels of the mask grid."""
        return self.mask_shape[0] * self.mask_shape[1]

    def again(self, start: int = 0) -> Iterator[Record]:
        """Yields the records of the images from `start`, kept or from the network.

        Records from the network are kept if `keep` says so.
        """
        yield from map(self._viewed, self._own(start))

    def _own(self, start: int) -> Iterator[Record]:
        """Yields the records with the layers' own maps."""
        kept = self._kept
        if self._kept_from is None or start < self._kept_from:
            new = self._keeper()
            for record in self._run(None, start, self._kept_from):
                yield record
                if new is not None:
                    new.append(record)
            if new is None:
                return
            self._kept, self._kept_from = [new, *kept], start
        yield from itertools.chain.from_iterable(kept)

    def holding(self, indices: Sequence[int]) -> Iterable[Record]:
        """Returns records that contain this process's shard of the given images."""
        if self._kept_from == 0:
            own: Iterable[Record] = itertools.chain.from_iterable(self._kept)
        else:
            own = self._run(indices)
        return map(self._viewed, own)

    def _viewed(self, record: Record) -> Record:
        """Returns the record with the maps of its units."""
        if self._view is None:
            return record
        _ = self.shapes  # refuses codes of another layer
        maps = self._view(
            self._devices.states(np.zeros(())),
            self._devices.scatter(record.features),
            self._view_arrays,
        )
        return dataclasses.replace(record, features=_of_images(maps))

    def _keeper(self) -> "_InMemory | _OnDisk | None":
        if self._keep == "none":
            return None
        if self._keep != "disk":
            return _InMemory(on_device=self._keep == "device")
        assert self._folder is not None  # of 'disk'
        return _OnDisk(self._folder)

    def _run(self, indices=None, start=0, stop=None):
        for images in self._read(indices, start, stop):
            features = self._maps(images.pixels)
            labels = functools.cache(functools.partial(self._labels, images.labels))
            self._check_shapes(features, labels)
            yield Record(
                index=np.asarray(images.index, np.int32),
                valid=np.asarray(images.valid, bool),
                features=features,
                labels=labels,
                annotated=images.annotated,
                skipped=images.skipped,
            )

    def _maps(self, pixels):
        if self._forward is None:
            assert self._network is not None
            share = (len(pixels) // len(self._devices), *pixels.shape[1:])
            step = self._network.step(jax.ShapeDtypeStruct(share, pixels.dtype))
            self._forward = self._devices.spmd(step)
            maps = self._maps(pixels)
            batch_dependence.warn(self._maps, pixels, maps, len(self._devices))
            return maps
        maps = self._forward(
            self._devices.states(np.zeros(())),
            self._devices.scatter(pixels),
            self._params,
        )
        return _of_images(maps)

    def _maps_of(self, pixels):
        """Shapes and types of the layers' feature maps of some pixels."""
        struct = jax.ShapeDtypeStruct(pixels.shape, pixels.dtype)
        if self._network is not None:
            return self._network.maps(struct)
        assert self._apply is not None
        maps = jax.eval_shape(self._apply, self._params_given, struct)
        return {name: maps[name] for name in self._layers}

    def _labels(self, labels):
        labels = _labels(labels)
        if self._shapes is not None and labels.shape[2:] != self._shapes.mask_shape:
            raise UserError(
                f"label maps of a batch are {_size(labels.shape[2:])}, but those "
                f"before are {_size(self._shapes.mask_shape)}; all must be on one grid"
            )
        return labels

    def _check_shapes(self, features, labels):
        if self._shapes is None:
            self._shapes = Shapes.of(features, labels().shape[2:])
        for name, maps in features.items():
            plan = self._shapes.geometry[name]
            before = (plan.rows.size, plan.columns.size, self._shapes.units[name])
            if maps.shape[1:] != before:
                raise UserError(
                    f"layer '{name}' has maps [height, width, units] "
                    f"{list(maps.shape[1:])} in a batch, but {list(before)} "
                    "before; all images must be of one size"
                )
        if self._network is not None and not self._looked:
            self._looked = True
            for name, maps in features.items():
                warn_of_axes(name, maps.shape, self._shapes.mask_shape)


class _InMemory:
    """Records in memory.

    Args:
      on_device: whether features stay where the network computed them.
    """

    def __init__(self, on_device: bool):
        self._on_device = on_device
        self._records: list[Record] = []

    def append(self, record: Record) -> None:
        maps = record.features
        if not self._on_device:
            maps = {name: np.asarray(array) for name, array in maps.items()}
        labels = functools.partial(np.asarray, record.labels())
        self._records.append(dataclasses.replace(record, features=maps, labels=labels))

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)


class _OnDisk:
    """Records on disk, without a copy in memory."""

    def __init__(self, folder: Path):
        self._spill = Spill(folder)
        self._layers: tuple[str, ...] = ()

    def append(self, record: Record) -> None:
        self._layers = tuple(record.features)
        annotated = [] if record.annotated is None else [record.annotated]
        self._spill.put(
            [
                record.index,
                record.valid,
                record.labels(),
                *(record.features[layer] for layer in self._layers),
                *annotated,
            ]
        )

    def __iter__(self) -> Iterator[Record]:
        for number in range(len(self._spill)):
            index, valid, labels, *rest = self._spill.get(number)
            maps, annotated = rest[: len(self._layers)], rest[len(self._layers) :]
            yield Record(
                index=index,
                valid=valid,
                features=dict(zip(self._layers, maps, strict=True)),
                labels=functools.partial(np.asarray, labels),
                annotated=annotated[0] if annotated else None,
            )


def _of_images(maps: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Joins the devices' shards: [device, image, ...] to [image, ...]."""
    return {name: each.reshape(-1, *each.shape[2:]) for name, each in maps.items()}


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _labels(labels: np.ndarray | Callable[[], np.ndarray]) -> np.ndarray:
    """Returns labels in 16 bits if their numbers fit, to be kept with the features."""
    labels = np.asarray(labels() if callable(labels) else labels)
    if labels.size and labels.max() > np.iinfo(np.int16).max:
        return labels.astype(np.int32)
    return labels.astype(np.int16)
