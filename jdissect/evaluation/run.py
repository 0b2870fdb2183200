"""Evaluates a config's network: measures its errors."""

import json
import re
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.base.log import LOG
from jdissect.base.progress import waiting
from jdissect.checkpoints import networks
from jdissect.data.source import skipped_line
from jdissect.datasets import exif_rotation
from jdissect.datasets.class_order import doubt
from jdissect.datasets.labelled import Labelled, imagenet_wnids, open_labelled
from jdissect.evaluation import folder_split, settings
from jdissect.evaluation.classifier import Evaluator
from jdissect.runtime import consistency, machine
from jdissect.runtime.devices import Devices, in_32_bits
from jdissect.runtime.processes import ALONE, Processes


@in_32_bits
def evaluate(
    config: ml_collections.ConfigDict,
    output: str = "",
    processes: Processes = ALONE,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures and prints the errors of the config's network on its data.

    Args:
      config: `model.weights` and `data` select network and images.
      output: JSON file to write the errors to, or ''.
      processes: processes that share the images; all of them call this.
      tell: prints lines for the user.

    Returns:
      the content of that file.

    Raises:
      UserError: an input is invalid, on any process.
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
        LOG.info(note)
    evaluator = evaluator_of(config, model.apply, model.preprocessing, processes)
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
    """Opens the config's network, and the images for it to classify.

    Raises:
      UserError: there are no weights or classes, or the two do not match.
    """
    settings.check_evaluation(config)
    if config.model.get("baseline"):
        raise UserError(
            "config.model.baseline is for dissections (jdissect.main); leave it empty"
        )
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


def _for_network(config, classes: int, known: list[str] | None) -> Labelled:
    """Opens the config's images with the network's class numbers.

    Args:
      config: selects the images.
      classes: number of classes of the network.
      known: the classes' names, if jdissect trained the network.
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
            f"the images have {len(images.classes)} classes, with labels 0 .. "
            f"{len(images.classes) - 1}, but the network has {classes}"
        )
    if known is None and data.source == "folder" and not data.get("class_order"):
        warning = doubt(images.classes)
        if warning and jax.process_index() == 0:
            LOG.warning(warning)
    return images


def evaluator_of(config, apply, preprocessing, processes) -> Evaluator:
    """Returns an `Evaluator` configured by the config.

    Args:
      config: `data`, `train.image_size`, `dtype` and `parallel` are used.
      apply: (params, images) -> (logits, endpoints).
      preprocessing: preprocessing of the network.
      processes: processes that share the images.
    """
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
