"""From a config, a run and a choice of units to what the network loses without them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from jaxtyping import Bool, Float, Int

from jdissect import environment, interventions
from jdissect.checkpoints import Classifier
from jdissect.errors import UserError
from jdissect.job import model_identity
from jdissect.models.layers import spatial_mean
from jdissect.models.preprocess import normalize
from jdissect.report import ablation_tables
from jdissect.results import Result
from jdissect.runs import StoredRun, open_run
from jdissect.store import digest
from jdissect.training import runner
from jdissect.training.batches import evaluation_batches


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What was measured.

    Attributes:
      units: that were zeroed.
      labels: int64[image], of the images that could be read.
      classes: names by number.
      before, after: bool[image], whether each is classified rightly.
      single: numbers of units that were zeroed by themselves, too.
      right: int[single, class], images of a class that are right without the unit.
      loss: float[single, class], mean log-probability that its images lose.
      contrast: detectors against others; None where it was not measured.
      threshold: IoU above which `contrast` calls a unit a detector.
    """

    units: Int[np.ndarray, "zeroed"]
    labels: Int[np.ndarray, "image"]
    classes: tuple[str, ...]
    before: Bool[np.ndarray, "image"]
    after: Bool[np.ndarray, "image"]
    single: Int[np.ndarray, "single"]
    right: Int[np.ndarray, "single class"]
    loss: Float[np.ndarray, "single class"]
    contrast: interventions.Contrast | None
    threshold: float


def ablate(
    config: ml_collections.ConfigDict,
    folder: str,
    layer: str,
    units: str,
    output: str = "",
    seed: int = 0,
) -> Outcome:
    """Measures, prints, and writes tables.

    Args:
      config: `model.weights` and `data` say which network and which labelled images.
      folder: run directory of the network's dissection.
      layer: '' for the last one of the run.
      units: 'detectors:0.04', 'top:20' or '3,14,15'.
      output: folder for tables; '' for none.
      seed: of random draws.

    Raises:
      UserError: something given is wrong; nothing is written then.
    """
    if output and Path(output).is_file():
        raise UserError(f"{output} is a file; give another --output")
    run = open_run(folder)
    layer = layer or run.layers[-1]
    result = run.result(layer)
    zeroed = pick_units(units, result)
    environment.use_compilation_cache(environment.cache_dir(config.cache.dir))
    model, images = runner.open_network(config)
    _check_same(run, model)
    if layer not in model.endpoint_names:
        raise UserError(f"{config.model.name} has no layer '{layer}'")
    threshold = _middle(result.iou_thresholds)
    measure = _linear if layer == model.endpoint_names[-1] else _masked
    outcome = measure(config, model, images, result, layer, zeroed, threshold, seed)
    name = f"{config.model.name} {layer}"
    print(ablation_tables.text(outcome, result, name, seed))
    if output:
        ablation_tables.write(outcome, result, name, output, seed)
        print(f"\nwritten to {output}")
    return outcome


def pick_units(text: str, result: Result) -> Int[np.ndarray, "zeroed"]:
    """The units that --units names, ascending.

    Raises:
      UserError: it names none, or one that is not there.
    """
    count = len(result.thresholds)
    kind, colon, value = text.partition(":")
    try:
        if kind == "detectors" and colon:
            threshold = float(value)
            if not 0 <= threshold < 1:
                raise ValueError
            found = np.flatnonzero(result.detectors(threshold))
        elif kind == "top" and colon:
            if int(value) < 1:
                raise ValueError
            found = np.argsort(-result.best_iou, kind="stable")[: int(value)]
        else:
            found = np.array([int(part) for part in text.split(",")])
    except ValueError:
        raise UserError(
            f"--units is '{text}'; give detectors:IOU, top:COUNT or numbers 3,14,15"
        ) from None
    if not len(found):
        raise UserError(f"--units={text} names no unit")
    if found.min() < 0 or found.max() >= count:
        raise UserError(f"--units names unit {found.max()}; there are 0 to {count - 1}")
    return np.unique(found)


def _check_same(run: StoredRun, model: Classifier) -> None:
    if run.identity.get("model") != digest(model_identity(model)):
        raise UserError(
            f"{run.folder} is the dissection of another network than config.model"
        )


def _middle(thresholds) -> float:
    return sorted(thresholds)[len(thresholds) // 2]


def _linear(config, model, images, result, layer, units, threshold, seed) -> Outcome:
    """By the means of the last layer's maps: one forward pass for everything."""

    def pool(params, pixels):
        normal = normalize(pixels, model.preprocessing, config.dtype)
        return spatial_mean(model.apply(params, normal, (layer,))[1][layer])

    pooled, labels = _over_images(config, model, images, pool, "forward pass")
    kernel, bias = _last_layer(model.params)
    if kernel.shape[0] != len(result.thresholds):
        raise UserError(
            f"{layer} has {kernel.shape[0]} units, its dissection "
            f"{len(result.thresholds)}"
        )

    @jax.jit
    def right(mask):
        logits = interventions.logits_without(pooled, kernel, bias, mask)
        return interventions.is_right(logits, labels)

    def right_without(zeroed):
        return np.asarray(right((~zeroed).astype(np.float32)))

    nothing = np.zeros(len(result.thresholds), bool)
    before = right_without(nothing)
    some = nothing.copy()
    some[units] = True
    by_class, loss = interventions.single_units(
        pooled, kernel, bias, labels, len(images.classes)
    )
    return Outcome(
        units=units,
        labels=labels,
        classes=images.classes,
        before=before,
        after=right_without(some),
        single=np.arange(len(nothing)),
        right=np.asarray(by_class),
        loss=np.asarray(loss) / _of_class(labels, images.classes),
        contrast=interventions.contrast(
            right_without, result.detectors(threshold), before, seed
        ),
        threshold=threshold,
    )


def _masked(config, model, images, result, layer, units, threshold, seed) -> Outcome:
    """By forward passes with units masked: of a layer that others follow."""
    del seed

    def classify(params, pixels, mask):
        normal = normalize(pixels, model.preprocessing, config.dtype)
        return model.apply(params, normal, (), {layer: mask})[0]

    def logits(zeroed, description):
        mask = np.ones(len(result.thresholds), np.float32)
        mask[zeroed] = 0
        run = functools.partial(classify, mask=mask)
        return _over_images(config, model, images, run, description)

    whole, labels = logits([], "all units")
    without, _ = logits(units, "without the units")
    before = interventions.true_log_probability(whole, labels)
    right, loss = [], []
    for unit in units:
        changed, _ = logits([unit], f"without unit {unit}")
        lost = before - interventions.true_log_probability(changed, labels)
        counts = np.zeros((2, len(images.classes)))
        is_right = np.asarray(interventions.is_right(changed, labels))
        np.add.at(counts[0], labels, is_right)
        np.add.at(counts[1], labels, np.asarray(lost))
        right.append(counts[0].astype(int))
        loss.append(counts[1])
    return Outcome(
        units=units,
        labels=labels,
        classes=images.classes,
        before=np.asarray(interventions.is_right(whole, labels)),
        after=np.asarray(interventions.is_right(without, labels)),
        single=units,
        right=np.array(right),
        loss=np.array(loss) / _of_class(labels, images.classes),
        contrast=None,
        threshold=threshold,
    )


def _of_class(labels, classes) -> np.ndarray:
    """How many images each class has, at least 1."""
    return np.maximum(np.bincount(labels, minlength=len(classes)), 1)


def _over_images(
    config, model: Classifier, images: Any, function: Callable, description: str
) -> tuple[np.ndarray, np.ndarray]:
    """(function(params, pixels), labels) of all images that can be read."""
    function = jax.jit(function)
    values, labels = [], []
    batches = evaluation_batches(
        images,
        config.data.batch_size,
        config.train.image_size,
        workers=config.data.workers,
        strict=config.data.strict,
    )
    total = -(-len(images.names) // config.data.batch_size)
    for batch in tqdm.tqdm(
        batches, total=total, desc=description, disable=None, leave=False
    ):
        found = np.asarray(function(model.params, batch.pixels))
        values.append(found[batch.valid])
        labels.append(batch.labels[batch.valid])
    if not sum(map(len, labels)):
        raise UserError("none of the images can be read")
    return np.concatenate(values), np.concatenate(labels).astype(np.int32)


def _last_layer(params) -> tuple[jax.Array, jax.Array]:
    """(kernel [unit, class], bias [class]) of the linear layer after the mean."""
    return params["fc"]["kernel"][...], params["fc"]["bias"][...]
