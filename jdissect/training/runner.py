"""From a configuration to a trained network, and to a network's errors."""

import functools
import json
import re
from typing import Any

import ml_collections

from jdissect import checkpoints, environment, models, termination
from jdissect.data.labelled import Labelled, imagenet_wnids, open_labelled
from jdissect.errors import UserError
from jdissect.files import write_whole
from jdissect.parallel import Devices
from jdissect.store import digest
from jdissect.training import job, recipe, settings, step
from jdissect.training.batches import canvas_shape, training_batches
from jdissect.training.evaluation import Counts, Evaluator
from jdissect.training.run_directory import RunDirectory


def train(
    config: ml_collections.ConfigDict, workdir: str, overwrite: bool = False
) -> int:
    """Trains the config's network into `workdir`; returns the exit code.

    A training that was interrupted goes on; a finished one is reported again.

    Returns:
      0; 128 + SIGTERM where that signal ended it, with the state saved.

    Raises:
      UserError: something given is wrong, or the loss is not finite.
    """
    settings.check(config)
    environment.use_compilation_cache(environment.cache_dir(config.cache.dir))
    devices = Devices(config.parallel)
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
    directory = RunDirectory(workdir, identity)
    result = directory.result(overwrite)
    if result is not None:
        print(f"{workdir} is finished (--overwrite trains anew)")
        _report(result, directory)
        return 0
    architecture = settings.architecture(config, len(images.classes))
    rate = recipe.learning_rate(config.train.learning_rate, drops)
    done = job.run(
        config,
        architecture,
        devices,
        directory,
        overwrite=overwrite,
        rate=rate,
        steps_per_epoch=steps_per_epoch,
        batches=_batches(config, images),
        make_step=functools.partial(_step, config, architecture, devices),
        evaluate=_evaluate(config, architecture, devices, validation),
    )
    if done is None:
        return termination.EXIT_CODE
    parameters, steps, counts = done
    errors = {} if counts is None else counts.to_json()
    result = {
        "steps": steps,
        "classes": len(images.classes),
        "top1_error": errors.get("top1_error"),
        "top5_error": errors.get("top5_error"),
        "validation_images": errors.get("images", 0),
    }
    _save_model(config, architecture, images, parameters, directory, result)
    directory.finish(result)
    _report(result, directory)
    return 0


def evaluate(config: ml_collections.ConfigDict, output: str = "") -> dict[str, Any]:
    """Prints the errors of the config's network on its data.

    Args:
      config: `model.weights` and `data` say what.
      output: JSON file to write them to, too; '' for none.

    Returns:
      what that file holds.

    Raises:
      UserError: something given is wrong.
    """
    environment.use_compilation_cache(environment.cache_dir(config.cache.dir))
    if not config.model.weights:
        raise UserError(
            "config.model.weights is not set; give the folder of a converted or a "
            "trained network"
        )
    settings.check_evaluation(config)
    devices = Devices(config.parallel)
    model = checkpoints.load_classifier(
        config.model.weights, config.model.name, dtype=config.dtype
    )
    description = checkpoints.read_description(config.model.weights)
    images = _for_network(
        config, model.classes, description.get("source", {}).get("classes")
    )
    evaluator = Evaluator(
        model.apply,
        model.preprocessing,
        devices,
        batch_size=config.data.batch_size,
        image_size=config.train.image_size,
        dtype=config.dtype,
        workers=config.data.workers,
        strict=config.data.strict,
    )
    counts = evaluator.run(devices.replicate(model.params), images, "evaluation")
    found = {
        "model": config.model.name,
        "weights_sha256": model.weights_sha256,
        "source": config.data.source,
        "split": config.data.split,
        **counts.to_json(),
    }
    print(f"{config.model.name}: {counts.images} images, {model.classes} classes\n")
    print(counts.table())
    if counts.skipped:
        name, reason = counts.skipped[0]
        print(
            f"skipped {len(counts.skipped)} images that could not be read, such as "
            f"{name}: {reason}"
        )
    if output:
        write_whole(output, (json.dumps(found, indent=2) + "\n").encode())
    return found


def _open(config) -> tuple[Labelled, Labelled | None]:
    """Images to train and, if asked for, to evaluate on."""
    train = config.train
    images = _open_split(config, "split", train.num_images)
    if len(images.classes) < 2:
        raise UserError(
            f"there is only one class to train on, {images.classes[0]}; a classifier "
            "needs two"
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
    return images


def _batches(config, images):
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


def _evaluate(config, architecture, devices, validation):
    """`(state of all devices, description) -> Counts`, by the running statistics."""
    if validation is None:
        return None
    apply, like = models.as_function(
        models.build_abstract(**architecture, dtype=config.dtype)
    )
    evaluator = Evaluator(
        apply,
        settings.preprocessing(config),
        devices,
        batch_size=config.data.batch_size,
        image_size=config.train.image_size,
        dtype=config.dtype,
        workers=config.data.workers,
        strict=config.data.strict,
    )

    def evaluate_state(state, description) -> Counts:
        values = step.parameters(step.first_copy(state))
        params = models.with_parameters(like, values)
        return evaluator.run(devices.replicate(params), validation, description)

    return evaluate_state


def _save_model(config, architecture, images, parameters, directory, result) -> None:
    source = {
        **job.origin(config, result["steps"]),
        "top1_error": result["top1_error"],
        "classes": list(images.classes),
    }
    side = config.train.image_size if images.stored is None else images.stored[0]
    description = checkpoints.describe_classifier(
        architecture, settings.preprocessing(config), input_size=side, source=source
    )
    checkpoints.save(directory.model, parameters, description, overwrite=True)


def _report(result: dict[str, Any], directory: RunDirectory) -> None:
    line = f"{result['steps']} steps, {result['classes']} classes"
    if result["top1_error"] is not None:
        line += (
            f"; top-1 error {result['top1_error']:.2f} %, top-5 error "
            f"{result['top5_error']:.2f} % on {result['validation_images']} images"
        )
    print(line)
    print(f"network in {directory.model}")
