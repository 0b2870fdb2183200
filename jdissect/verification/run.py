"""Verifies the labels of a finished run: on drawn pairs, or on held-out images."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from jdissect.base import safe_reading
from jdissect.base.errors import UserError
from jdissect.base.progress import Progress
from jdissect.jobs.replay import Replay, open_replay
from jdissect.results.finished_run import StoredRun
from jdissect.results.layer_result import Result
from jdissect.results.run_directory import MARK
from jdissect.runtime.devices import in_32_bits
from jdissect.scenes import ScenesSource
from jdissect.verification import held_out, judgement
from jdissect.verification.counterfactuals import Counterfactuals, number_of
from jdissect.verification.examples import examples
from jdissect.verification.judgement import FEWEST, Labels, Rows, labels_of
from jdissect.verification.responses import Responses, measure
from jdissect.verification.verified import Verified

PAIRS = 30  # of each concept
MOST_PAIRS = 1000


@in_32_bits
def verify(
    run: StoredRun,
    layers: Sequence[str] = (),
    *,
    all_units: bool = False,
    pairs: int = PAIRS,
    **places: str,
) -> dict[str, Verified]:
    """Returns what is known of the labels of a run's units, by layer.

    Args:
      run: the finished run.
      layers: names of the layers; () for all.
      all_units: whether to judge all units with a concept, not only detectors.
      pairs: number of pairs of pictures for each concept, for a run on scenes.
      places: where the run's inputs are, see `jobs.replay.open_replay`.

    Raises:
      UserError: the run's inputs are no longer what they were; it has no such layer, no
        labels, or, on photographs, no counts by block.
    """
    if not FEWEST <= pairs <= MOST_PAIRS:
        raise UserError(
            f"pairs is {pairs}; it must be a number from {FEWEST} to {MOST_PAIRS}"
        )
    layers = tuple(dict.fromkeys(layers)) or run.layers
    results = {layer: run.result(layer) for layer in layers}
    labels = {layer: labels_of(each, all_units) for layer, each in results.items()}
    if not any(len(each.unit) for each in labels.values()):
        what = "unit with a concept" if all_units else "detector"
        raise UserError(f"{run.path} has no {what}, so there is no label to verify")
    with Progress() as progress:
        replay = open_replay(run, progress, **places)
        drawn = isinstance(replay.inputs.source, ScenesSource)
        if drawn:
            return _by_pictures(replay, results, labels, pairs)
        return _by_images(replay, results, labels)


def _hash(run: StoredRun) -> str:
    return str(safe_reading.read_json(run.folder / MARK).get("result_hash"))


Results = Mapping[str, Result]


def _by_pictures(
    replay: Replay, results: Results, labels: Mapping[str, Labels], pairs: int
) -> dict[str, Verified]:
    """Judges by pictures of the world that follow those of the run."""
    inputs = replay.inputs
    assert isinstance(inputs.source, ScenesSource)
    units = {layer: units_by_number(results[layer], labels[layer]) for layer in labels}
    numbers = sorted({number for each in units.values() for number in each})
    shape = inputs.segmenter.mask_shape
    drawn = Counterfactuals(inputs.source, numbers, shape, pairs)

    def network(batches):
        return replay.records_of(batches, tuple(results))

    with replay.progress.counted("pictures", before="compiling") as task:
        found = measure(drawn, units, network, inputs.images_a_step, task.advance)
    judged = {}
    for layer, read in found.items():
        about = results[layer], labels[layer], units[layer], read, drawn
        one = rows_of_pictures(*about).verified(_hash(replay.run))
        with replay.progress.stage("example pictures"):
            pictures = examples(
                results[layer],
                one,
                units[layer],
                read,
                drawn,
                network,
                inputs.images_a_step,
            )
        judged[layer] = dataclasses.replace(one, examples=pictures)
    return judged


def _by_images(
    replay: Replay, results: Results, labels: Mapping[str, Labels]
) -> dict[str, Verified]:
    """Judges by images of the run, each half of which judges the other's labels."""
    run = replay.run
    counted = ~np.isin(np.arange(len(run.names)), list(run.skipped))
    halves = {
        layer: held_out.halves(result, run.blocks, counted)
        for layer, result in results.items()
    }
    maxima, shown = held_out.look(
        replay.records(tuple(results)),
        {layer: each.unit for layer, each in labels.items()},
        replay.inputs.segmenter.concepts,
        len(run.names),
    )
    return {
        layer: held_out.judge(
            result, labels[layer], maxima[layer], shown, *halves[layer]
        ).verified(_hash(run))
        for layer, result in results.items()
    }


def units_by_number(
    result: Result, labels: Labels
) -> dict[int, Int[np.ndarray, " unit"]]:
    """Returns {number in the world: units with that label, ascending}."""
    found: dict[int, list[int]] = {}
    for unit, column in zip(*labels, strict=True):
        number = number_of(result.concepts[column], result.categories[column])
        if number is not None:
            found.setdefault(number, []).append(int(unit))
    return {number: np.array(units) for number, units in sorted(found.items())}


def rows_of_pictures(
    result: Result,
    labels: Labels,
    units: Mapping[int, Int[np.ndarray, " unit"]],
    found: Responses,
    drawn: Counterfactuals,
) -> Rows:
    """Judges the labels of a layer by drawn pictures.

    Args:
      result: result of the layer.
      labels: the labels to judge.
      units: {number of a concept: units that were read for it, ascending}.
      found: activations of the layer.
      drawn: the pictures.
    """
    rows = Rows(result, labels)
    shown = judgement.shown_in_pictures(drawn.shares)
    for column in np.unique(labels.column):
        of = np.flatnonzero(labels.column == column)
        number = number_of(result.concepts[column], result.categories[column])
        if number is None:
            rows.skip(of, "the drawn world has no such concept")
            continue
        own = labels.unit[of]
        at = np.searchsorted(units[number], own)
        if judgement.by_pairs(rows, of, number, found, at):
            continue
        pictures = judgement.contrast(found.maximum[:, own], shown, number)
        judgement.set_contrast(rows, of, pictures)
    return rows
