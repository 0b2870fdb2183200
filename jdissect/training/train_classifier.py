"""From a configuration to a trained network, and to a network's errors."""

import functools
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from jdissect import models
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.base.progress import waiting
from jdissect.checkpoints import networks
from jdissect.data.source import skipped_line
from jdissect.datasets import exif_rotation
from jdissect.datasets.class_order import doubt
from jdissect.datasets.labelled import Labelled, imagenet_wnids, open_labelled
from jdissect.evaluation import folder_split
from jdissect.evaluation.classifier import Counts, Evaluator
from jdissect.results.run_directory import digest
from jdissect.runtime import consistency, machine
from jdissect.runtime.devices import Devices, all_devices, in_32_bits
from jdissect.runtime.processes import ALONE, Processes
from jdissect.training import job, recipe, settings, step
from jdissect.training.batches import canvas_shape, training_batches


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    overwrite: bool = False,
    processes: Processes = ALONE,
) -> int:
    """Trains the config's network into `workdir`; as `job.train`."""
    return job.train(config, workdir, overwrite, processes, _prepare)


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


@in_32_bits
def evaluate(
    config: ml_collections.ConfigDict,
    output: str = "",
    processes: Processes = ALONE,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Tells the errors of the config's network on its data.

    Args:
      config: `model.weights` and `data` say what.
      output: JSON file to write them to, too; '' for none.
      processes: that share the images; all of them call this.
      tell: takes lines for a person.

    Returns:
      what that file holds.

    Raises:
      UserError: something given is wrong, on whichever process.
    """
    with processes.agreeing(), waiting("opening images", not processes.first):
        machine.use_compilation_cache(machine.cache_dir(config.cache.dir))
        config, note = folder_split.chosen(config)
        model, images = open_network(config)
    parts = {
        "weights": model.weights_sha256,
        "images": digest([*images.classes, *images.names]),
        "image_size": config.train.image_size,
        "dtype": config.dtype,
        "data.batch_size": config.data.batch_size,
        "data.exif_rotation": exif_rotation(config.data),
        "number of devices": jax.local_device_count(),
    }
    consistency.check_alike(processes, parts, {})
    if note and processes.first:
        print(note, file=sys.stderr)
    evaluator = _evaluator(config, model.apply, model.preprocessing, processes)
    counts = evaluator.run(model.params, images, "evaluation")
    found = {
        "model": config.model.name,
        "weights_sha256": model.weights_sha256,
        "source": config.data.source,
        "split": config.data.split,
        **counts.to_json(),
    }
    with processes.agreeing():
        if processes.first:
            _tell(tell, config, model, counts)
            if output:
                content = json.dumps(found, indent=2) + "\n"
                write_whole(output, content.encode())
    return found


def open_network(config) -> tuple[networks.Classifier, Labelled]:
    """The config's network, and the images that it is to classify.

    Raises:
      UserError: no weights or classes, or the two do not fit.
    """
    settings.check_evaluation(config)
    model = networks.load_configured(config)
    if not model.classes:
        raise UserError(
            f"checkpoint {config.model.weights} has no classifier: it can be "
            "dissected, but not evaluated or ablated"
        )
    description = networks.read_description(config.model.weights)
    return model, _for_network(
        config, model.classes, description.get("source", {}).get("classes")
    )


def _tell(tell, config, model, counts) -> None:
    tell(f"{config.model.name}: {counts.images} images, {model.classes} classes\n")
    tell(counts.table())
    if counts.skipped:
        tell(skipped_line(counts.skipped))


def _open(config) -> tuple[Labelled, Labelled | None]:
    """Images to train and, if asked for, to evaluate on."""
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
    """`open_labelled` of config.train[key], which its errors then name."""
    try:
        return open_labelled(config.data, config.train[key], *options)
    except UserError as error:
        text = str(error).replace("config.data.split", f"config.train.{key}")
        raise UserError(text) from error


def _for_network(config, classes: int, known: list[str] | None) -> Labelled:
    """The config's images with the numbers that a network gives to classes.

    Args:
      config: says which images.
      classes: of the network.
      known: their names, if the network was trained here.
    """
    data = config.data
    images = open_labelled(data, data.split, data.num_images, known)
    wnids = imagenet_wnids()
    if known is None and len(images.classes) < classes == len(wnids):
        named = [name for name in images.classes if re.fullmatch(r"n\d{8}", name)]
        if len(named) == len(images.classes):
            return open_labelled(data, data.split, data.num_images, wnids)
    if len(images.classes) != classes:
        raise UserError(
            f"the images are of {len(images.classes)} classes, their labels 0 .. "
            f"{len(images.classes) - 1}; the network knows {classes}"
        )
    if known is None and data.source == "folder" and not data.get("class_order"):
        warning = doubt(images.classes)
        if warning and jax.process_index() == 0:
            print(f"warning: {warning}", file=sys.stderr)
    return images


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
    """`(state of all devices, description) -> Counts`, by the running statistics."""
    if validation is None:
        return None
    apply, like = models.as_function(
        models.build_abstract(**architecture, dtype=config.dtype)
    )
    preprocessing = settings.preprocessing(config)
    evaluator = _evaluator(config, apply, preprocessing, processes)

    def evaluate_state(state, description) -> Counts:
        values = step.parameters(step.first_copy(state))
        params = models.with_parameters(like, values)
        return evaluator.run(params, validation, description)

    return evaluate_state


def _evaluator(config, apply, preprocessing, processes) -> Evaluator:
    return Evaluator(
        apply,
        preprocessing,
        Devices(config.parallel),
        batch_size=config.data.batch_size,
        image_size=config.train.image_size,
        dtype=config.dtype,
        workers=config.data.workers,
        strict=config.data.strict,
        processes=processes,
    )


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
