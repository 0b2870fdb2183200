"""Runs an ablation from a config: opens the inputs, zeroes units, and sums up.

It zeroes, in turn: the requested units; every unit by itself; and the *interpretable*
units, those that detect a concept, against the others.

For the last layer, one forward pass answers everything (`interventions`). For other
layers, the network runs once for every set of units, and single units are measured only
if they were requested.
"""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np
from jaxtyping import Float, Int, Shaped

from jdissect.ablation import interventions, network_units
from jdissect.ablation.detector_groups import Groups, Interpretable
from jdissect.ablation.forward_passes import ForwardPasses
from jdissect.ablation.interventions import Effects, Outcomes, zeroing
from jdissect.ablation.unit_selection import UnitChoice
from jdissect.analysis import paired_bootstrap
from jdissect.analysis.paired_bootstrap import Change
from jdissect.base import paths
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.base.log import LOG
from jdissect.base.progress import waiting
from jdissect.checkpoints.networks import Classifier, model_identity
from jdissect.dissection import settings
from jdissect.evaluation import folder_split
from jdissect.evaluation.run import open_network
from jdissect.models.endpoints import listed
from jdissect.results.finished_run import StoredRun, open_run
from jdissect.results.layer_result import Result
from jdissect.runtime import machine
from jdissect.runtime.devices import in_32_bits

DRAWS, DRAWS_BY_PASSES = 200, 10


@dataclasses.dataclass(frozen=True, eq=False)
class Ablation:
    """Result of an ablation.

    Attributes:
      model: name of the model; weights_sha256, source, split: its weights and images.
      layer, units: the layer, and its number of units.
      choice: the requested units; chosen: their numbers.
      linear: whether one forward pass was enough; passes: number of passes.
      classes: class names; labels: int[image].
      skipped: name and reason of unreadable images.
      before, after: outcomes of all images, one row each.
      change: change of top-1.
      alone: effects of single units; ranking: [class, place] in them, see
        `interventions.ranking`.
      run: name of the dissection's directory, or ''; result: the layer's result, with
        one unit for each of the network; names: names of these, see `network_units`.
      interpretable: None if there is nothing to compare; `note` says why.
      seed: seed of everything random.
    """

    model: str
    weights_sha256: str
    source: str
    split: str
    layer: str
    units: int
    choice: UnitChoice
    chosen: Int[np.ndarray, " unit"]
    linear: bool
    passes: int
    classes: tuple[str, ...]
    labels: Int[np.ndarray, " image"]
    skipped: tuple[tuple[str, str], ...]
    before: Outcomes
    after: Outcomes
    change: Change
    alone: Effects
    ranking: Int[np.ndarray, "class unit"]
    run: str
    result: Result | None
    names: Shaped[np.ndarray, " unit"]
    interpretable: Interpretable | None
    note: str
    seed: int


def open_dissection(
    given: str, default: str, choice: UnitChoice, layer: str = ""
) -> StoredRun | None:
    """Opens the run that knows the units; None if there is none and none is needed.

    Args:
      given: its directory, as requested; '' uses `default` if that is a run.
      default: the directory of the config's run, which may not exist.
      choice: choice of the units.
      layer: the units' layer; '' is the run's last. A default run without the layer
        is ignored.

    Raises:
      UserError: there is no such run, and it was requested or `choice` needs it.
    """
    there = (paths.from_user(default) / "summary.json").is_file()
    if not given and not there:
        if choice.needs_result:
            raise UserError(
                f"--units={choice.text} needs a dissection, but there is no {default}; "
                "run python -m jdissect.main, or give a run directory by --run"
            )
        return None
    run = open_run(given or default)
    if not given and layer and layer not in run.layers and not choice.needs_result:
        return None
    return run


@in_32_bits
def ablate(
    config: ml_collections.ConfigDict,
    run: StoredRun | None,
    choice: UnitChoice,
    *,
    layer: str = "",
    seed: int = 0,
    draws: int | None = None,
) -> Ablation:
    """Zeroes units of the config's network on the images of `config.data`.

    Args:
      config: an evaluation config, see `jdissect.evaluate`.
      run: dissection of the same network; without it, units have no concepts.
      choice: choice of the units.
      layer: the units' layer; '' is the run's last, or the config's.
      seed: seed of random choices of units and of resamples.
      draws: number of random choices; None: as `DRAWS` says.

    Raises:
      UserError: an input is invalid, or the inputs do not fit together.
    """
    settings.check(config)
    layer = layer or (run.layers if run else config.model.layers)[-1]
    network_units.check_own(run, layer, config.model.units)
    result = run.result(layer) if run else None
    choice.check_names(result)
    names = None
    if result is not None:
        result, names = network_units.of_network(result)
    machine.use_compilation_cache(machine.cache_dir(config.cache.dir))
    with waiting("opening images"):
        config, note = folder_split.chosen(config)
        model, images = open_network(config)
    if note:
        LOG.info(note)
    if not model.takes_masks:
        raise UserError(
            f"checkpoint {config.model.weights} holds a graph, whose units cannot be "
            "zeroed; networks of jdissect.models can be ablated"
        )
    if layer not in model.endpoint_names:
        raise UserError(
            f"{config.model.name} has no layer '{layer}'; it has "
            f"{listed(model.endpoint_names)}"
        )
    passes = ForwardPasses(model, images, config)
    units = passes.units(layer)
    if run and result is not None:
        _check_same_network(run, model, config.model.weights)
        if len(result.thresholds) != units:
            raise UserError(
                f"{run.folder / layer} has {len(result.thresholds)} units, but the "
                f"network's {layer} has {units}"
            )
    chosen = choice.units(units, layer, result)
    linear = is_last(layer, model.endpoint_names)
    draws = draws or (DRAWS if linear else DRAWS_BY_PASSES)
    streams = [np.random.default_rng([seed, number]) for number in range(3)]
    groups, note = _groups(config, choice, result)
    parts = [zeroing(units, [])[None], zeroing(units, chosen)[None]]
    if groups:
        parts += groups.masks(draws, streams[0])
    sets = np.concatenate(parts)
    if linear:
        readout = passes.readout()
        labels, count = readout.labels, 1
        outcomes = interventions.outcomes(readout, sets)
        alone = interventions.each_alone(readout, np.arange(units))
    else:
        singles = np.stack([zeroing(units, [unit]) for unit in chosen])
        outcomes, labels = passes.masked(layer, np.concatenate([sets, singles]))
        count = len(sets) + len(singles)
        alone = interventions.effects(
            chosen, outcomes[len(sets) :], labels, model.classes
        )
    before, after = outcomes[:1], outcomes[1:2]
    all_units = interventions.effects(np.array([-1]), before, labels, model.classes)
    return Ablation(
        model=config.model.name,
        weights_sha256=model.weights_sha256,
        source=config.data.source,
        split=config.data.split,
        layer=layer,
        units=units,
        choice=choice,
        chosen=chosen,
        linear=linear,
        passes=count,
        classes=tuple(images.classes),
        labels=labels,
        skipped=tuple(passes.skipped),
        before=before,
        after=after,
        change=paired_bootstrap.change(before.right[0], after.right[0], streams[1]),
        alone=alone,
        ranking=interventions.ranking(alone, all_units.right[0], all_units.loss[0]),
        run=run.name if run else "",
        result=result,
        names=np.arange(units) if names is None else names,
        interpretable=groups
        and groups.compared(
            before.right[0],
            [outcomes.right[rows] for rows in _rows(parts)[2:]],
            _loss_added(alone, all_units) / len(labels) if linear else None,
            result,
            streams[2],
        ),
        note=note,
        seed=seed,
    )


def is_last(layer: str, names: Sequence[str]) -> bool:
    """Returns whether only the spatial mean and `fc` follow a layer of a classifier.

    Args:
      layer: the layer.
      names: the classifier's endpoints; the last may be a stage, which is its last
        block.
    """
    block = layer.startswith(f"{names[-1]}.")
    return layer == names[-1] or (block and layer == names[-2])


def _check_same_network(run: StoredRun, model: Classifier, weights: str) -> None:
    there = run.identity.get("model")
    if there is not None and there != digest(model_identity(model)):
        raise UserError(
            f"{run.folder} is the dissection of another network than {weights}; give "
            "the one of this network by --run"
        )


def _groups(config, choice, result):
    """Returns the groups to compare, or None, and the reason if None."""
    if result is None:
        return None, "without a dissection no unit is known to be interpretable"
    thresholds = sorted(config.iou_thresholds)
    threshold = choice.threshold
    if threshold is None:
        threshold = thresholds[len(thresholds) // 2]
    detectors = result.detectors(threshold)
    if detectors.all() or not detectors.any():
        which = "all" if detectors.any() else "none"
        return None, f"{which} of the units are detectors at IoU > {threshold:g}"
    return Groups(threshold, detectors), ""


def _rows(parts):
    ends = np.cumsum([len(part) for part in parts])
    return [slice(end - len(part), end) for end, part in zip(ends, parts, strict=True)]


def _loss_added(alone: Effects, all_units: Effects) -> Float[np.ndarray, " unit"]:
    """Returns what zeroing each unit adds to the sum of all images' losses."""
    return alone.loss.sum(axis=1) - all_units.loss.sum()
