"""Runs labelled images through a network: once, or once per mask of a layer."""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Int

from jdissect.ablation.interventions import Outcomes, Readout, outcome
from jdissect.base.progress import counting
from jdissect.checkpoints.networks import Classifier
from jdissect.data.source import none_read
from jdissect.datasets.labelled import Labelled
from jdissect.evaluation.batches import EvaluationBatch, evaluation_batches
from jdissect.models.layers import spatial_mean
from jdissect.models.preprocess import normalize
from jdissect.runtime.devices import Devices

_AT_ONCE = 8  # masks that share the computation before the layer


class ForwardPasses:
    """A network with labelled images.

    Args:
      model: the network.
      images: images whose labels are numbers of its classes.
      config: an evaluation config that `settings.check_evaluation` has checked.

    Attributes:
      skipped: name and reason of images that the last pass could not read.
    """

    def __init__(
        self, model: Classifier, images: Labelled, config: ml_collections.ConfigDict
    ):
        self._model, self._images, self._config = model, images, config
        self._devices = Devices(config.parallel)
        self.skipped: list[tuple[str, str]] = []

    def units(self, layer: str) -> int:
        """Returns the number of units of a layer without computing anything."""
        side = self._images.stored or (self._config.train.image_size,) * 2
        pixels = jax.ShapeDtypeStruct((1, *side, 3), np.uint8)

        def maps(params, pixels):
            return self._model.apply(params, self._normalized(pixels), layer)[1]

        return jax.eval_shape(maps, self._model.params, pixels)[layer].shape[-1]

    def readout(self) -> Readout:
        """Runs one pass that keeps the last layer's spatial means and the logits.

        Raises:
          UserError: no image can be read; or see `evaluation_batches`.
        """
        last = self._model.endpoint_names[-1]

        def step(state, pixels, params):
            # The compiler drops the maps that are not used.
            logits, maps = self._model.apply(params, self._normalized(pixels))
            return spatial_mean(maps[last]), logits

        run, params = self._devices.spmd(step), self._replicated(self._model.params)
        pooled: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        labels = []
        for batch in self._batches("forward pass"):
            found = run((), self._devices.scatter(batch.pixels), params)
            for kept, array in zip((pooled, logits), found, strict=True):
                kept.append(_images_first(array)[batch.valid])
            labels.append(batch.labels[batch.valid])
        classifier = self._model.params["fc"]
        return Readout(
            pooled=np.concatenate(pooled),
            logits=np.concatenate(logits),
            labels=self._labels(labels),
            kernel=np.asarray(classifier["kernel"][...]),
            bias=np.asarray(classifier["bias"][...]),
        )

    def masked(
        self, layer: str, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Outcomes, Int[np.ndarray, " image"]]:
        """Returns the images' outcomes with a layer masked, by running what follows it.

        Args:
          layer: any endpoint.
          masks: one factor per unit; the network runs once for each mask.

        Returns:
          the outcomes, and the images' labels.

        Raises:
          UserError: no image can be read; or see `evaluation_batches`.
        """
        count = len(masks)
        chunk = min(_AT_ONCE, count)
        fill = np.ones((-count % chunk, masks.shape[1]), np.float32)
        filled = np.concatenate([masks, fill]).astype(np.float32)
        filled = filled.reshape(-1, chunk, masks.shape[1])

        def step(state, batch, constants):
            params, masks = constants
            images = self._normalized(batch["pixels"])

            def under(mask):
                logits, _ = self._model.apply(params, images, (), {layer: mask})
                return outcome(logits, batch["labels"])

            found = jax.vmap(under)(masks)
            return tuple(array.T for array in found)  # images first

        run, params = self._devices.spmd(step), self._replicated(self._model.params)
        chunks = [self._replicated(masks) for masks in filled]
        right: list[np.ndarray] = []
        own: list[np.ndarray] = []
        labels = []
        for batch in self._batches(f"{count} masks"):
            share = {"pixels": batch.pixels, "labels": batch.labels}
            share = self._devices.scatter(share)
            found = [run((), share, (params, masks)) for masks in chunks]
            for kept, place in ((right, 0), (own, 1)):
                rows = [_images_first(parts[place])[batch.valid] for parts in found]
                kept.append(np.concatenate(rows, axis=1)[:, :count])
            labels.append(batch.labels[batch.valid])
        outcomes = Outcomes(np.concatenate(right).T, np.concatenate(own).T)
        return outcomes, self._labels(labels)

    def _batches(self, description: str) -> Iterator[EvaluationBatch]:
        config, self.skipped = self._config, []
        batches = evaluation_batches(
            self._images,
            config.data.batch_size * len(self._devices),
            config.train.image_size,
            workers=config.data.workers,
            strict=config.data.strict,
        )
        with counting(description, len(self._images.names), before="compiling") as task:
            for batch in batches:
                self.skipped += batch.skipped
                yield batch
                task.advance(int(batch.valid.sum()) + len(batch.skipped))

    def _labels(self, batches: list[np.ndarray]) -> Int[np.ndarray, " image"]:
        labels = np.concatenate(batches)
        if not len(labels):
            raise none_read(self.skipped)
        return labels

    def _normalized(self, pixels: Any) -> Any:
        return normalize(pixels, self._model.preprocessing, self._config.dtype)

    def _replicated(self, tree: Any) -> Any:
        return self._devices.replicate(tree)


def _images_first(array: jax.Array) -> np.ndarray:
    """Reorders [device, image, ...] to [image, ...]."""
    found = np.asarray(array)
    return found.reshape(-1, *found.shape[2:])
