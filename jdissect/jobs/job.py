"""What a config asks for, opened: images, network, segmenter, and how they run."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections
import PIL

from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.identity import identity
from jdissect.base.progress import ImageBars, Progress
from jdissect.checkpoints import networks
from jdissect.checkpoints.networks import model_identity
from jdissect.data.source import none_read
from jdissect.datasets import exif_rotation, open_source
from jdissect.dissection.engine import Dissection, NoneRead, Settings
from jdissect.dissection.resume import Journal
from jdissect.jobs.inputs import Reader, feature_bytes, network_of
from jdissect.results import group_counts, layer_result
from jdissect.results.run_directory import Run
from jdissect.runtime import machine, resources
from jdissect.runtime.devices import network_devices
from jdissect.runtime.processes import Processes
from jdissect.segmenters import open_segmenter, smallest_image

_LABEL_BYTES = 2  # of a pixel of a map, of which there is one at least


class Job:
    """What a config asks for, opened.

    Args:
      config: of values that `dissection.settings.check` has passed.

    Attributes:
      source: of the images.
      layers: names of the feature maps.
      run: its directory, once opened.

    Raises:
      UserError: something given is wrong.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self._config = config
        self._devices, self._counters = network_devices(config.parallel)
        self._cache_dir = machine.cache_dir(config.cache.dir)
        machine.use_compilation_cache(self._cache_dir)
        self._spill = self._cache_dir and self._cache_dir / "features"
        self.source = open_source(config.data, smallest_image(config.segmenter.name))
        self._model = networks.load_configured(config)
        self.layers = tuple(config.model.layers)
        for layer in self.layers:
            if layer not in self._model.endpoint_names:
                raise UserError(
                    f"{config.model.name} has no layer '{layer}'; it has "
                    f"{', '.join(self._model.endpoint_names)}"
                )

    def hashes(self, processes: Processes) -> list[str]:
        """Content hashes of all images; each process reads its share of them."""
        count, parts = len(self.source.names), processes.count
        ends = [count * part // parts for part in range(parts + 1)]
        with processes.agreeing():
            mine = self.source.content_hashes(
                self._cache_dir, slice(*ends[processes.index :][:2])
            )
        return [each for part in processes.gather(list(mine)) for each in part]

    def open_run(self, workdir: str, hashes: list[str]) -> Run:
        """The run that is asked for, in its directory."""
        config = self._config
        self._segmenter = open_segmenter(
            config, self.source, hashes, self._devices, self._cache_dir
        )
        self._check_batch()
        self.run = Run(
            workdir,
            _identity(
                config,
                self.source,
                hashes,
                self._model,
                self._segmenter,
                self._cache_dir,
            ),
        )
        return self.run

    def _check_batch(self) -> None:
        """Refuses batches whose pixels and label maps alone exceed what is free."""
        free, data = resources.free_memory(), self._config.data
        pixels = 3 * math.prod(self.source.image_shape)
        labels = _LABEL_BYTES * math.prod(self._segmenter.mask_shape)
        size = data.batch_size * len(self._devices) * (pixels + labels)
        if free and size > free:
            raise UserError(
                f"config.data.batch_size is {data.batch_size}; a batch on "
                f"{len(self._devices)} devices with masks of "
                f"{self._segmenter.mask_shape[0]}x{self._segmenter.mask_shape[1]} "
                f"takes {size / 1e9:,.1f} GB at least, of which {free / 1e9:,.1f} are "
                "free"
            )

    def layout(self, overwrite: bool) -> dict[str, Any]:
        """What must be the same on all processes, though it changes no number."""
        return {
            "--overwrite": overwrite,
            "checkpoint_every": self._config.checkpoint_every,
            "iou_thresholds": list(self._config.iou_thresholds),
            "number of devices": len(self._devices),
            "workdir": os.fspath(self.run.folder),
        }

    def check_layout(self, processes: Processes) -> None:
        """Refuses what cannot be shared out.

        Raises:
          UserError: more processes than images; a mesh that the devices do not fit.
        """
        images, parts = len(self.source.names), self._config.mesh.unit
        if processes.count > images:
            raise UserError(
                f"{processes.count} processes are more than the {images} images"
            )
        if len(self._counters) % parts:
            raise UserError(
                f"config.mesh.unit is {parts}; it must divide the "
                f"{len(self._counters)} devices of a process"
            )

    def journal(
        self,
        processes: Processes,
        progress: Progress,
        overwrite: bool,
        tell: Callable[[str], None],
    ) -> Journal:
        """That of the run, with what is saved of it.

        Args:
          processes: of the run.
          progress: shows that it is being read.
          overwrite: begin anew where what is saved cannot be read.
          tell: takes a line for a person.
        """
        config = self._config
        size = config.data.batch_size * len(self._devices)
        journal = Journal(
            self.run.checkpoints,
            processes,
            config.checkpoint_every,
            size * processes.count,
            len(self.source.names),
        )
        unreadable = ""
        with processes.agreeing(), progress.stage("last save"):
            try:
                going_on = journal.restore()
            except UserError as error:
                if not overwrite:
                    raise
                going_on, unreadable = "", str(error)
        if unreadable and processes.first:
            paths.remove_folder(self.run.checkpoints)
        if going_on and processes.first:
            tell(f"going on where this run was last saved, {going_on}\n")
        return journal

    def dissect(
        self, journal: Journal, progress: Progress
    ) -> tuple[dict[str, layer_result.Result], dict[str, float]]:
        """All layers' results, and seconds by stage."""
        config, processes = self._config, journal.processes
        count = len(self.source.names)
        mine = -(-count // processes.count)
        reader = Reader(
            self.source,
            self._segmenter,
            config,
            len(self._devices),
            processes,
            progress,
        )
        network = network_of(self._model, self.layers, config.dtype)
        size = feature_bytes(network, self._model.params, self.source.image_shape)
        sharing = resources.sharing(processes)
        dissection = Dissection(
            network,
            self._model.params,
            self._segmenter.concepts,
            Settings(
                layers=self.layers,
                quantile=config.quantile,
                topk=min(config.topk, count),
                keep=machine.keep_features(
                    config.cache.features, size, mine, self._spill, sharing
                ),
                folder=self._spill,
                unit_parts=config.mesh.unit,
            ),
            self._devices,
            self._counters,
            ImageBars(progress, count, processes.count),
            journal,
        )
        blocks = group_counts.blocks_of(self.source.names)
        try:
            results_of = dissection.run(reader.read, count, blocks)
        except NoneRead:
            skipped = sorted((int(i), w) for i, w in journal.notes["skipped"].items())
            named = [(self.source.names[index], why) for index, why in skipped]
            raise none_read(named) from None
        found = {
            layer: result.replace(
                model=config.model.name, iou_thresholds=tuple(config.iou_thresholds)
            )
            for layer, result in results_of.items()
        }
        # Label maps: part of the pass that asked for them, the first or the last.
        return found, {"segmenter": round(reader.seconds, 3), **dissection.seconds}


def _identity(config, source, hashes, model, segmenter, cache_dir: Path | None):
    return identity(
        images=list(zip(source.names, hashes, strict=True)),
        model=model_identity(model),
        segmenter=segmenter.identity(cache_dir),
        keys={
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
            "pillow": PIL.__version__,  # which files it decodes, and to which bits
            **({"data.exif_rotation": True} if exif_rotation(config.data) else {}),
        },
    )
