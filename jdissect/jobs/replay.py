"""Opens a finished run again, from its config, to count more on the same images.

Images, network and segmenter are those of the run: the parts of its identity are
compared, and the counts at the end with the stored ones.

A run directory may come from someone else, and its config names places. An object
store or network share is contacted, and code is imported, only if the user names it.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.identity import computing
from jdissect.base.progress import ImageBars, Progress
from jdissect.dissection import firing
from jdissect.dissection.features import Features, Images, Read, Record, Shapes
from jdissect.dissection.firing import OnImage
from jdissect.jobs.batches import Reader, feature_shapes, network_of
from jdissect.jobs.inputs import Inputs, identity_of, open_inputs
from jdissect.results.finished_run import StoredRun
from jdissect.results.layer_result import Result
from jdissect.runtime import config_values
from jdissect.runtime.plain_flags import DATA_PATH
from jdissect.runtime.processes import ALONE

# Flags of every command that opens a run again: {name: (default, description)}.
FLAGS: Mapping[str, tuple[str, str]] = {
    "data_path": DATA_PATH,
    "weights": ("", "The network's weights, in place of config.model.weights."),
    "python": ("", "The run's config.model.python, if it has one: allows its code."),
    "cache_dir": ("", "Folder with cached label maps; '' = ~/.cache/jdissect."),
}
_PLACES = ("model.weights", "model.units", "segmenter.upernet", "segmenter.color")


@dataclasses.dataclass(frozen=True)
class Replay:
    """A finished run, opened again.

    Attributes:
      run: the finished run.
      inputs: its images, network, segmenter and devices.
      progress: shows the progress.
    """

    run: StoredRun
    inputs: Inputs
    progress: Progress

    def records(self, layers: Sequence[str], title: str = "images") -> Iterator[Record]:
        """Yields the batches of all images, in order, with the maps of some layers.

        Args:
          layers: the layers, among those of the run.
          title: what is shown as the name of this pass.
        """
        bars = ImageBars(self.progress, len(self.inputs.source.names), 1)
        return bars(self._features(layers, self._reader().read).again(), title)

    def records_of(
        self, batches: Iterable[Images], layers: Sequence[str]
    ) -> Iterator[Record]:
        """Yields the maps of some layers for other images than those of the run.

        Args:
          batches: the images, `inputs.images_a_step` at a time.
          layers: the layers, among those of the run.
        """
        return self._features(layers, lambda *_, **__: batches).again()

    def images(self, layer: str, title: str = "") -> Iterator[OnImage]:
        """Yields where a layer's units fire on each image that counts, in order.

        Args:
          layer: a layer of the run.
          title: what is shown as the name of this pass; by default the layer's.

        Raises:
          UserError: at the end, if the counts are not those of the run.
        """
        result = self.run.result(layer)
        features = self._features((layer,), self._reader().read)
        bars = ImageBars(self.progress, len(self.inputs.source.names), 1)
        found = firing.on_images(
            bars(features.again(), title or layer),
            layer,
            result.thresholds,
            features.geometry[layer],
            self.inputs.segmenter.concepts,
            self.inputs.devices,
        )
        return self._checked(found, result)

    def _reader(self) -> Reader:
        inputs = self.inputs
        return Reader(
            inputs.source,
            inputs.segmenter,
            inputs.config,
            len(inputs.devices),
            ALONE,
            self.progress,
        )

    def _features(self, layers: Sequence[str], read: Read) -> Features:
        inputs = self.inputs
        network = network_of(inputs.model, tuple(layers), inputs.config.dtype)
        maps = feature_shapes(network, inputs.model.params, inputs.source.image_shape)
        return Features(
            network,
            inputs.model.params,
            layers,
            inputs.devices,
            read,
            "none",
            shapes=Shapes.of(maps, inputs.segmenter.mask_shape),
            views=dataclasses.replace(
                inputs.views,
                codes={n: c for n, c in inputs.views.codes.items() if n in layers},
            ),
        )

    def _checked(self, images: Iterator[OnImage], result: Result) -> Iterator[OnImage]:
        seen, fires = 0, np.zeros_like(result.fires)
        for image in images:
            seen += 1
            fires += np.bincount(image.unit, minlength=len(fires))
            yield image
        wrong = np.flatnonzero(fires != result.fires)
        if seen != result.images or len(wrong):
            what = (
                f"{len(wrong)} of {len(fires)} units fire on other pixels"
                if seen == result.images
                else f"{seen} images can be read, not {result.images}"
            )
            raise UserError(
                f"{self.run.path} cannot be counted again: {what}; if another version "
                "or machine made it, dissect anew with --overwrite"
            )


def open_replay(
    run: StoredRun,
    progress: Progress,
    *,
    data_path: str = "",
    weights: str = "",
    python: str = "",
    cache_dir: str = "",
) -> Replay:
    """Opens a finished run again.

    Args:
      run: the run.
      progress: shows the progress.
      data_path, weights: places of the images and of the weights; by default those of
        the run's config.
      python: the run's `config.model.python`, whose code may then be imported.
      cache_dir: folder with cached label maps; by default the user's.

    Raises:
      UserError: the images, the network or the segmenter are missing, or not those of
        the run.
    """
    if run.by_itself:
        raise UserError(
            f"{run.path} is a result that was saved by itself, without a config: its "
            "images and network are not known; give a run directory"
        )
    config = _stored_config(run)
    config.cache.dir, config.mesh.unit = cache_dir, 1
    if data_path:
        config.data.path = data_path
    if weights:
        config.model.weights = weights
    _check_places(run, config, data_path, weights, python)
    inputs = open_inputs(config, ALONE, progress)
    _check_same(run, identity_of(inputs))
    return Replay(run, inputs, progress)


def _stored_config(run: StoredRun) -> ml_collections.ConfigDict:
    """Returns the run's config, with defaults for keys that its version did not have.

    Raises:
      UserError: a value has another type.
    """
    from jdissect.configs import common

    defaults = common.get_common()
    config = ml_collections.ConfigDict(_filled(defaults.to_dict(), run.config))
    try:
        config_values.check(config, defaults)
    except UserError as error:
        raise UserError(f"{run.folder / 'config.json'}: {error}") from None
    return config


def _filled(defaults: dict[str, Any], stored: Any) -> dict[str, Any]:
    found = dict(defaults)
    for key, default in defaults.items():
        value = stored.get(key, default) if isinstance(stored, dict) else default
        if isinstance(default, dict):
            found[key] = _filled(default, value)
        elif not isinstance(value, dict):
            found[key] = tuple(value) if isinstance(default, tuple) else value
    return found


def _check_places(run, config, data_path, weights, python) -> None:
    """Rejects places and code that only the run directory names."""
    there = run.folder / "config.json"
    if paths.is_elsewhere(config.data.path) and not data_path:
        raise UserError(
            f"{there} says that the images are at {config.data.path}, which is "
            f"contacted only if you name it: --data_path={config.data.path}"
        )
    for key in _PLACES:
        section, name = key.split(".")
        place = config[section][name]
        remote = paths.is_elsewhere(place) or "://" in place  # units: LAYER:FILE
        if remote and not (key == "model.weights" and weights):
            raise UserError(
                f"{there}: {key} is at {place}, which is not contacted because a "
                "run directory names it; copy it to this machine"
                + (", or name it: --weights" if key == "model.weights" else "")
            )
    if config.model.python != python:
        stored = config.model.python
        raise UserError(
            f"{there} names code as the network, which is run only if you name it: "
            f"--python={stored}"
            if stored
            else f"--python is '{python:.60}', but the network of {run.path} is no code"
        )


def _check_same(run: StoredRun, found: Mapping[str, Any]) -> None:
    """Compares identities; code and processor may differ, as counts are checked."""
    ignored = {"source", "segmenter", *computing()}
    changed = [
        key
        for key in dict.fromkeys([*found, *run.identity])
        if key not in ignored and found.get(key) != run.identity.get(key)
    ]
    if changed:
        raise UserError(
            f"{run.path} cannot be counted again: other {', '.join(changed)} than then"
        )
