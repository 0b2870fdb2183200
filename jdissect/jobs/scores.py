"""Computes the scores of a finished run that need activations, by reading it again."""

from collections.abc import Mapping, Sequence

import numpy as np

from jdissect.base import safe_reading
from jdissect.base.errors import UserError
from jdissect.base.progress import Progress
from jdissect.jobs.replay import Replay, open_replay
from jdissect.results.finished_run import StoredRun
from jdissect.results.run_directory import MARK
from jdissect.runtime.devices import in_32_bits
from jdissect.scoring.measure import Measuring
from jdissect.scoring.measured import Measured
from jdissect.scoring.samples import Vocabulary


@in_32_bits
def measure(
    run: StoredRun, layers: Sequence[str], places: Mapping[str, str]
) -> dict[str, Measured]:
    """Returns {layer: its scores}.

    The images are read twice, and again for units whose scores are not yet bounded
    closely enough.

    Args:
      run: the run.
      layers: its layers to score.
      places: options of `open_replay`.

    Raises:
      UserError: the run cannot be opened again.
    """
    with Progress() as progress:
        replay = open_replay(run, progress, **places)
        state = {layer: Measuring(run.result(layer)) for layer in layers}
        while open_ := [name for name, one in state.items() if one.unfinished]:
            _read(replay, {name: state[name] for name in open_})
        hash_ = str(safe_reading.read_json(run.folder / MARK).get("result_hash", ""))
        with progress.stage("scores"):
            return {name: one.measured(hash_) for name, one in state.items()}


def _read(replay: Replay, state: Mapping[str, Measuring]) -> None:
    """Reads all images once, for the layers that are not finished."""
    vocabulary = Vocabulary(replay.inputs.segmenter.concepts)
    number = max(one.readings for one in state.values()) + 1
    seen = 0
    for record in replay.records(tuple(state), f"scores, reading {number}"):
        valid, labels = record.valid, record.labels()
        annotated = record.annotated
        seen += int(valid.sum())
        if not valid.any():
            continue
        for layer, one in state.items():
            one.add(
                vocabulary.batch(
                    np.asarray(record.features[layer])[valid],
                    labels[valid],
                    None if annotated is None else annotated[valid],
                )
            )
    if seen != replay.run.images:
        raise UserError(
            f"{replay.run.path} cannot be scored: {seen} images can be read, not "
            f"{replay.run.images}"
        )
    with replay.progress.stage("bounds"):
        for one in state.values():
            one.finish_reading()
