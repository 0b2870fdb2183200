"""Trains a classifier, from a config to a trained network."""

import functools
from collections.abc import Callable
from typing import Any

import ml_collections

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.base.printable import printable
from jdissect.checkpoints import networks
from jdissect.datasets.labelled import Labelled, open_labelled
from jdissect.evaluation.classifier import Counts
from jdissect.evaluation.run import evaluator_of
from jdissect.runtime.devices import all_devices
from jdissect.runtime.processes import ALONE, Processes
from jdissect.training import job, recipe, settings, step
from jdissect.training.batches import canvas_shape, training_batches


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    overwrite: bool = False,
    processes: Processes = ALONE,
    tell: Callable[[str], None] = print,
) -> int:
    """Trains the config's network into `workdir`; see `job.train`."""
    return job.train(config, workdir, overwrite, processes, _prepare, tell)


def _prepare(config: ml_collections.ConfigDict, processes: Processes) -> job.Job:
    settings.check(config)
    devices = all_devices(config.parallel)
    settings.check_batch(config, len(devices))
    images, validation = _open(config)
    steps_per_epoch = len(images.names) // config.train.batch_size
    drops = recipe.boundaries(
        config.train.milestones, config.train.epochs, steps_per_epoch
    )
    identity = settings.identity(config)
    for name, source in (("images", images), ("validation images", validation)):
        names = None if source is None else [*source.classes, *source.names]
        identity[name] = digest(names)
    architecture = settings.architecture(config, len(images.classes))
    return job.Job(
        identity=identity,
        architecture=architecture,
        devices=devices,
        rate=recipe.learning_rate(config.train.learning_rate, drops),
        steps_per_epoch=steps_per_epoch,
        batches=_batches(config, images, processes),
        make_step=functools.partial(_step, config, architecture, devices),
        evaluate=_evaluate(config, architecture, validation, processes),
        result=functools.partial(_result, len(images.classes)),
        describe=functools.partial(_describe, config, architecture, images),
        report=_report,
    )


def _open(config) -> tuple[Labelled, Labelled | None]:
    """Opens the images for training and, if configured, for evaluation."""
    train = config.train
    images = _open_split(config, "split", train.num_images)
    if len(images.classes) < 2:
        raise UserError(
            f"there is only one class to train on, {printable(images.classes[0])}; a "
            "classifier needs two"
        )
    if len(images.names) < train.batch_size:
        raise UserError(
            f"there are {len(images.names)} training images, fewer than "
            f"config.train.batch_size, {train.batch_size}"
        )
    if not train.validation_split:
        return images, None
    count = train.validation_images
    return images, _open_split(config, "validation_split", count, images.classes)


def _open_split(config, key, *options) -> Labelled:
    """Calls `open_labelled` with config.train[key] as split; errors name that key."""
    try:
        return open_labelled(config.data, config.train[key], *options)
    except UserError as error:
        text = str(error).replace("config.data.split", f"config.train.{key}")
        raise UserError(text) from error


def _batches(config, images, processes):
    shape = canvas_shape(images, config.train.image_size, config.train.canvas)

    def batches(epoch, start):
        return training_batches(
            images,
            config.train.batch_size,
            shape,
            seed=config.train.seed,
            epoch=epoch,
            start=start,
            workers=config.data.workers,
            strict=config.data.strict,
            processes=processes,
        )

    return batches


def _step(config, architecture, devices, optimizer):
    augmented = step.augmentation(
        config.augment,
        config.train.image_size,
        settings.preprocessing(config),
        config.train.seed,
        devices,
    )
    moved = step.train_step(
        architecture,
        optimizer,
        devices,
        batch_size=config.train.batch_size,
        bn_group=config.train.bn_group,
        dtype=config.dtype,
    )

    def whole(state, number, batch):
        return moved(state, augmented(number, batch.pixels, batch.sizes, batch.labels))

    return whole


def _evaluate(config, architecture, validation, processes):
    """Returns `(device states, description) -> Counts`, by running statistics."""
    if validation is None:
        return None
    apply, like = models.as_function(
        models.build_abstract(**architecture, dtype=config.dtype)
    )
    preprocessing = settings.preprocessing(config)
    evaluator = evaluator_of(config, apply, preprocessing, processes)

    def evaluate_state(state, description) -> Counts:
        values = step.parameters(step.first_copy(state))
        params = models.with_parameters(like, values)
        return evaluator.run(params, validation, description)

    return evaluate_state


def _result(classes: int, steps: int, counts: Counts | None) -> dict[str, Any]:
    errors = {} if counts is None else counts.to_json()
    return {
        "steps": steps,
        "classes": classes,
        "top1_error": errors.get("top1_error"),
        "top5_error": errors.get("top5_error"),
        "validation_images": errors.get("images", 0),
    }


def _describe(config, architecture, images, result) -> dict[str, Any]:
    source = {
        **job.origin(config, result["steps"]),
        "top1_error": result["top1_error"],
        "classes": list(images.classes),
    }
    side = config.train.image_size if images.stored is None else images.stored[0]
    return networks.describe_classifier(
        architecture, settings.preprocessing(config), input_size=side, source=source
    )


def _report(result: dict[str, Any]) -> str:
    line = f"{result['steps']} steps, {result['classes']} classes"
    if result["top1_error"] is not None:
        line += (
            f"; top-1 error {result['top1_error']:.2f} %, top-5 error "
            f"{result['top5_error']:.2f} % on {result['validation_images']} images"
        )
    return line
