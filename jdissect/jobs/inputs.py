"""Opens the inputs of a dissection: images, network, segmenter, devices."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import PIL

from jdissect.base.errors import UserError
from jdissect.base.identity import identity
from jdissect.base.log import LOG
from jdissect.base.printable import printable
from jdissect.base.progress import Progress
from jdissect.checkpoints import networks
from jdissect.data.source import Source
from jdissect.datasets import exif_rotation, open_source
from jdissect.dissection import settings
from jdissect.dissection.unit_views import UnitViews
from jdissect.jobs import baselines, own_network, units
from jdissect.jobs.batches import feature_shapes, network_of
from jdissect.models.endpoints import listed
from jdissect.runtime import machine, resources
from jdissect.runtime.devices import Devices, network_devices
from jdissect.runtime.processes import Processes
from jdissect.segmenters import Segmenter, open_segmenter, smallest_image

_LABEL_BYTES = 2  # per pixel and label map; there is at least one map


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The opened inputs that a config names.

    Attributes:
      config: the config, checked by `dissection.settings.check`.
      source: source of the images.
      hashes: content hash of every image.
      model: the network.
      segmenter: provides the label maps.
      devices: devices that run networks.
      counters: devices that count activations.
      cache: the cache directory, or None.
      views: what the units of the layers are.
    """

    config: ml_collections.ConfigDict
    source: Source
    hashes: tuple[str, ...]
    model: networks.Classifier
    segmenter: Segmenter
    devices: Devices
    counters: Devices
    cache: Path | None
    views: UnitViews = UnitViews()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the feature maps."""
        return tuple(self.config.model.layers)

    @property
    def images_a_step(self) -> int:
        """Images per step of one process."""
        return self.config.data.batch_size * len(self.devices)


def open_inputs(
    config: ml_collections.ConfigDict, processes: Processes, progress: Progress
) -> Inputs:
    """Opens the inputs that the config names; the processes share the hashing.

    Raises:
      UserError: an input is invalid, on any process.
    """
    with processes.agreeing(), progress.stage("opening images and network"):
        settings.check(config)
        baselines.check(config)
        devices, counters = network_devices(config.parallel)
        cache = machine.cache_dir(config.cache.dir)
        machine.use_compilation_cache(cache)
        _name_generator(config)
        source = open_source(config.data, smallest_image(config.segmenter.name))
        model = open_network(config, source.image_shape, processes.first)
        _check_layers(config, model)
        views = units.open_views(
            config, lambda: _features(config, model, source.image_shape)
        )
        _check_shares(config, len(source.names), len(counters), processes.count)
    with progress.stage("hashing images"):
        hashes = _hashes(source, cache, processes)
    with processes.agreeing(), progress.stage("opening the segmenter"):
        segmenter = open_segmenter(config, source, hashes, devices, cache)
        _check_batch(
            config.data.batch_size,
            len(devices),
            source.image_shape,
            segmenter.mask_shape,
        )
    return Inputs(
        config,
        source,
        tuple(hashes),
        model,
        segmenter,
        devices,
        counters,
        cache,
        views,
    )


def open_network(
    config: ml_collections.ConfigDict, image_shape: tuple[int, int], tells: bool = True
) -> networks.Classifier:
    """Opens the config's network: of a checkpoint, or of a function of the user's.

    Args:
      config: the config; `model.name` is filled in.
      image_shape: (height, width) of the images.
      tells: whether to log how the user's network is used.

    Raises:
      UserError: see `networks.load_configured`, `own_network.load` and
        `baselines.untrained`.
    """
    if not config.model.get("python"):
        model = networks.load_configured(config)
        _check_input(config, model)
        if tells and model.image_shape not in (None, image_shape):
            LOG.info(
                "images of %dx%d are resized to the network's %dx%d",
                *image_shape,
                *model.image_shape,
            )
        if baselines.of(config) == baselines.UNTRAINED:
            seed = config.model.baseline_seed
            return baselines.untrained(model, seed, config.dtype)
        return model
    model, note = own_network.load(config, image_shape)
    if tells:
        LOG.info(note)
    return model


def _name_generator(config: ml_collections.ConfigDict) -> None:
    """Fills in the folder of the generator whose images are dissected: the network."""
    if config.data.source != "generator":
        return
    if config.data.path not in ("", config.model.weights):
        raise UserError(
            f"config.data.path is {printable(config.data.path)!r}; source 'generator' "
            "takes the images of config.model.weights itself: leave the path empty"
        )
    config.data.path = config.model.weights


def _check_input(config: ml_collections.ConfigDict, model: networks.Classifier) -> None:
    """Rejects a generator for images that it does not make itself."""
    if config.data.source != "generator" and model.latent:
        raise UserError(
            f"{model.name} is a generator: it makes images of latents of "
            f"{model.latent} numbers; give --config.data.source=generator"
        )


def identity_of(inputs: Inputs) -> dict[str, Any]:
    """Returns the identity of a run with these inputs, part by part."""
    config, hashes = inputs.config, inputs.hashes
    return identity(
        images=list(zip(inputs.source.names, hashes, strict=True)),
        model=networks.model_identity(inputs.model),
        segmenter=inputs.segmenter.identity(inputs.cache),
        keys={
            **_keys(config),
            **units.identity(inputs.views),
            **baselines.identity(config, inputs.views.codes),
        },
    )


def _keys(config: ml_collections.ConfigDict) -> Mapping[str, Any]:
    """Returns the keys of a config that can change a number."""
    return {
        "model.name": config.model.name,
        "model.layers": list(config.model.layers),
        "data.source": config.data.source,
        "data.batch_size": config.data.batch_size,
        "segmenter.name": config.segmenter.name,
        "segmenter.batch_size": config.segmenter.batch_size,
        "segmenter.quarters": config.segmenter.quarters,
        "quantile": config.quantile,
        "mask_size": config.mask_size,
        "dtype": config.dtype,
        "topk": config.topk,
        "pillow": PIL.__version__,  # decides which files decode, and to which bits
        **({"data.exif_rotation": True} if exif_rotation(config.data) else {}),
    }


def _features(config, model, image_shape: tuple[int, int]) -> dict[str, int]:
    """Returns {layer: its number of features}."""
    network = network_of(model, tuple(config.model.layers), config.dtype)
    shapes = feature_shapes(network, model.params, image_shape, model.latent)
    return {layer: maps.shape[-1] for layer, maps in shapes.items()}


def _check_layers(config, model) -> None:
    for layer in config.model.layers:
        if layer not in model.endpoint_names:
            raise UserError(
                f"{config.model.name} has no layer '{layer}'; it has "
                f"{listed(model.endpoint_names)}"
            )


def _check_shares(config, images: int, counters: int, processes: int) -> None:
    """Rejects more processes than images, and a mesh that does not fit the devices."""
    if processes > images:
        raise UserError(f"{processes} processes are more than the {images} images")
    if counters % config.mesh.unit:
        raise UserError(
            f"config.mesh.unit is {config.mesh.unit}; it must divide the {counters} "
            "devices of a process"
        )


def _hashes(source: Source, cache: Path | None, processes: Processes) -> list[str]:
    """Returns content hashes of all images; each process reads its shard of them."""
    count, parts = len(source.names), processes.count
    ends = [count * part // parts for part in range(parts + 1)]
    with processes.agreeing():
        mine = source.content_hashes(cache, slice(*ends[processes.index :][:2]))
    return [each for part in processes.gather(list(mine)) for each in part]


def _check_batch(
    batch_size: int,
    devices: int,
    image_shape: tuple[int, int],
    mask_shape: tuple[int, int],
) -> None:
    """Rejects batches whose pixels and label maps alone exceed the free memory."""
    free = resources.free_memory()
    image = 3 * math.prod(image_shape) + _LABEL_BYTES * math.prod(mask_shape)
    size = batch_size * devices * image
    if free and size > free:
        raise UserError(
            f"config.data.batch_size is {batch_size}; a batch on {devices} devices "
            f"with masks of {mask_shape[0]}x{mask_shape[1]} takes at least "
            f"{size / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are free"
        )
