"""Finds the formulas of a finished run's units, and writes them beside its results."""

import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.base.progress import Progress
from jdissect.formulas import atoms, search, stored
from jdissect.formulas.stored import Formulas, Settings
from jdissect.jobs.replay import Replay, open_replay
from jdissect.results.finished_run import StoredRun, open_run
from jdissect.runtime.resources import free_memory

_SHARE = 0.25  # of the free memory for counts; as much again while they are sorted


def compose(
    folder: str | os.PathLike,
    settings: Settings,
    layers: Sequence[str] = (),
    silent: bool = False,
    **places: str,
) -> Iterator[tuple[str, Formulas, float]]:
    """Searches and writes the formulas of a run, layer by layer.

    Args:
      folder: the run directory.
      settings: how to search.
      layers: names of layers; by default all of the run.
      silent: whether to show no progress.
      places: see `jobs.replay.open_replay`.

    Yields:
      (layer, its formulas, seconds it took).

    Raises:
      UserError: a setting is wrong, or the run cannot be counted again.
    """
    search.check(settings)
    run = open_run(folder)
    layers = list(layers) or list(run.layers)
    for layer in layers:
        result = run.result(layer)  # refuses an unknown one
        if not result.concepts:
            raise UserError(f"{run.path}: '{layer}' has no concepts for formulas")
        search.check_memory(settings, len(result.concepts))
    with Progress(silent=silent) as progress:
        with progress.stage("opening the run"):
            replay = open_replay(run, progress, **places)
        for layer in layers:
            start = time.perf_counter()
            found = _of_layer(replay, run, layer, settings, progress)
            with progress.stage("writing formulas"):
                stored.write(run.folder / layer, found)
            yield layer, found, time.perf_counter() - start


def _of_layer(
    replay: Replay, run: StoredRun, layer: str, settings: Settings, progress: Progress
) -> Formulas:
    result = run.result(layer)
    free = free_memory()
    counts = atoms.count(
        replay.images(layer),
        np.asarray(run.blocks),
        result.categories,
        len(result.thresholds),
        int(free * _SHARE) if free else 2**34,
    )
    with progress.stage(f"{layer}, formulas"):
        return search.explain(
            counts,
            settings,
            result.concepts,
            result.categories,
            tuple(map(str, result.unit_names)),
            digest(run.identity),
        )
