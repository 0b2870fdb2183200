"""Trains a UPerNet on the masks of scenes, from a config to a trained network."""

import functools
from collections.abc import Callable
from typing import Any

import ml_collections

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.checkpoints import networks
from jdissect.evaluation.segmenter import MaskCounts, MaskEvaluator
from jdissect.runtime.devices import Devices, all_devices, in_32_bits
from jdissect.runtime.processes import ALONE, Processes
from jdissect.scenes import ScenesSource, open_scenes
from jdissect.scenes.channels import upernet_labels
from jdissect.training import job, recipe, segmentation, settings, step


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    overwrite: bool = False,
    processes: Processes = ALONE,
    tell: Callable[[str], None] = print,
) -> int:
    """Trains the config's UPerNet into `workdir`; see `job.train`."""
    return job.train(config, workdir, overwrite, processes, _prepare, tell)


def _prepare(config: ml_collections.ConfigDict, processes: Processes) -> job.Job:
    settings.check_segmenter(config)
    devices = all_devices(config.parallel)
    settings.check_batch(config, len(devices))
    source, validation = _open(config)
    identity = settings.identity(config)
    identity |= {f"loss.{head}": weight for head, weight in config.loss.items()}
    for name, some in (("images", source), ("validation images", validation)):
        identity[name] = digest(None if some is None else list(some.names))
    identity["labels"] = digest(upernet_labels().to_json())
    architecture = settings.segmenter_architecture(config, upernet_labels().channels)
    steps_per_epoch = len(source.names) // config.train.batch_size
    rate = recipe.polynomial(
        config.train.learning_rate, config.train.epochs * steps_per_epoch
    )
    return job.Job(
        identity=identity,
        architecture=architecture,
        devices=devices,
        rate=rate,
        steps_per_epoch=steps_per_epoch,
        batches=_batches(config, source, processes),
        make_step=functools.partial(_step, config, architecture, devices),
        evaluate=_evaluate(config, architecture, validation, processes),
        result=_result,
        describe=functools.partial(_describe, config, architecture),
        report=_report,
    )


@in_32_bits
def measure(weights: str, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a checkpoint's scores on the validation split of its training.

    Args:
      weights: a checkpoint folder, or 'shipped:NAME'.
      config: config of the training.

    Returns:
      the result of `MaskCounts.to_json`.

    Raises:
      UserError: it is not a UPerNet with the labels of scenes, or cannot be read.
    """
    network = networks.load_segmenter(weights, "upernet", dtype=config.dtype)
    if network.labels != upernet_labels():
        raise UserError(f"checkpoint {weights} has other labels than scenes")
    evaluator = MaskEvaluator(
        network.apply,
        Devices(config.parallel),
        side=network.side,
        batch_size=config.data.batch_size,
        workers=config.data.workers,
    )
    split, count = config.train.validation_split, config.train.validation_images
    source = open_scenes(split, count, prepared=config.data.path or None)
    return evaluator.run(network.params, source, "evaluation").to_json()


def _open(config) -> tuple[ScenesSource, ScenesSource | None]:
    """Opens the pictures for training and, if configured, for evaluation."""
    train, prepared = config.train, config.data.path or None
    source = open_scenes(train.split, train.num_images, prepared=prepared)
    if len(source.names) < train.batch_size:
        raise UserError(
            f"there are {len(source.names)} training images, fewer than "
            f"config.train.batch_size, {train.batch_size}"
        )
    if train.window > source.image_shape[0]:
        raise UserError(
            f"config.train.window is {train.window}; pictures have "
            f"{source.image_shape[0]} pixels per side"
        )
    if not train.validation_split:
        return source, None
    return source, open_scenes(
        train.validation_split, train.validation_images, prepared=prepared
    )


def _batches(config, source, processes):
    train = config.train
    geometry = segmentation.Geometry(train.window, train.grid, config.augment.flip)

    def batches(epoch, start):
        return segmentation.mask_batches(
            source,
            train.batch_size,
            geometry,
            seed=train.seed,
            epoch=epoch,
            start=start,
            workers=config.data.workers,
            processes=processes,
        )

    return batches


def _step(config, architecture, devices, optimizer):
    train = config.train
    side = settings.segmenter_side(config)
    prepared = segmentation.preparation(
        config.augment, devices, side=side, seed=train.seed
    )
    moved = step.train_step(
        architecture,
        optimizer,
        devices,
        batch_size=train.batch_size,
        bn_group=train.bn_group,
        dtype=config.dtype,
        objective=segmentation.objective(config.loss, train.grid, train.batch_size),
    )
    return lambda state, number, batch: moved(state, prepared(number, batch))


def _evaluate(config, architecture, validation, processes):
    """Returns `(state of all devices, description) -> MaskCounts`, using the Parser."""
    if validation is None:
        return None
    made: dict[str, Any] = {}

    def evaluate_state(state, description) -> MaskCounts:
        values = step.parameters(step.first_copy(state))
        apply, params = models.for_inference(architecture, values, dtype=config.dtype)
        if not made:
            made["evaluator"] = MaskEvaluator(
                apply,
                Devices(config.parallel),
                side=config.train.image_size,
                batch_size=config.data.batch_size,
                workers=config.data.workers,
                processes=processes,
            )
        return made["evaluator"].run(params, validation, description)

    return evaluate_state


def _result(steps: int, counts: MaskCounts | None) -> dict[str, Any]:
    return {
        "steps": steps,
        "scores": None if counts is None else counts.to_json(),
        "table": "" if counts is None else counts.table(),
    }


def _describe(config, architecture, result) -> dict[str, Any]:
    source = {
        **job.origin(config, result["steps"]),
        "scores": result["scores"],
    }
    return networks.describe_segmenter(
        architecture,
        upernet_labels().to_json(),
        side=config.train.image_size,
        source=source,
    )


def _report(result: dict[str, Any]) -> str:
    if result["scores"] is None:
        return f"{result['steps']} steps"
    pictures = result["scores"]["images"]
    return f"{result['steps']} steps; {pictures} pictures:\n\n{result['table']}\n"
