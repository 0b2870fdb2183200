"""Compares several dissections: checks that they are comparable, and finds differences.

Counts are comparable if images, labels, quantile and vocabulary are the same. Any other
difference between two runs (network, layer, dtype, versions) is either the subject of
the comparison or has little effect.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Int

from jdissect.analysis import resampling, uncertainty
from jdissect.analysis.uncertainty import Estimate, Samples
from jdissect.base.errors import UserError
from jdissect.base.paths import as_text
from jdissect.results.finished_run import StoredRun
from jdissect.results.layer_result import FEW_IMAGES, Result

# What must be equal: parts of a run's identity, and their names in messages.
_COMPARABLE = {
    "images": "probe images",
    "data.exif_rotation": "rotations of photographs",
    "segmenter": "segmenters",
    "segmenter.name": "segmenters",
    "segmenter.quarters": "quarters",
    "quantile": "quantiles",
    "mask_size": "mask sizes",
    "tail": "tails",
}
# Parts that may change last digits.
_NOTED = ("dtype", "platform", "jaxlib", "pillow", "source", "data.batch_size")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """One layer of one run in a comparison.

    Attributes:
      name: unique name among the compared models.
      run: the run that it comes from.
      layer: name of the layer.
      result: result for the concepts that all models have.
      samples: resamples; None if counts by block were not kept.
      error: top-1 error of the network in percent; None if not known.
    """

    name: str
    run: StoredRun
    layer: str
    result: Result
    samples: Samples | None
    error: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Models that are compared.

    Attributes:
      models: models in the given order; the first is the baseline.
      thresholds: IoU thresholds.
      paired: whether all use the same images.
      notes: lines that a reader must know, for every figure and page.
    """

    models: tuple[Model, ...]
    thresholds: tuple[float, ...]
    paired: bool
    notes: tuple[str, ...]

    @functools.cache  # noqa: B019
    def estimates(self, model: Model) -> uncertainty.LayerEstimates | None:
        """Returns intervals of a model's counts; None without resamples."""
        if model.samples is None:
            return None
        return uncertainty.summarize(model.samples, self.thresholds)

    def difference(
        self, first: Model, second: Model, threshold: float, category: str = "total"
    ) -> Estimate | None:
        """Returns the estimate of `second` minus `first`; None without resamples."""
        if first.samples is None or second.samples is None:
            return None
        function = uncertainty.difference if self.paired else uncertainty.unpaired
        return function(first.samples, second.samples, threshold, category)


@dataclasses.dataclass(frozen=True)
class Change:
    """A concept that one model detects and another does not.

    Attributes:
      concept, category: name of the concept.
      iou: IoU of the best unit for it in each of the two models (0: no unit has it).
      share: share of the resamples that agree; None if not known.
    """

    concept: str
    category: str
    iou: tuple[float, float]
    share: float | None


def levels(result: Result) -> np.ndarray:
    """Returns float64[concept], the IoU up to which some unit detects each concept."""
    found = np.zeros(len(result.concepts))
    named = result.best_concept >= 0
    np.maximum.at(found, result.best_concept[named], result.best_iou[named])
    return found


def changes(
    comparison: Comparison, first: Model, second: Model, threshold: float
) -> tuple[list[Change], list[Change]]:
    """Returns (gained, lost): concepts that only `second`, or only `first`, detects.

    The most certain come first.
    """
    before, after = levels(first.result), levels(second.result)
    shares = _shares(comparison, first, second, threshold)

    def named(columns: Int[np.ndarray, " column"], share) -> list[Change]:
        found = [
            Change(
                first.result.concepts[column],
                first.result.categories[column],
                (float(before[column]), float(after[column])),
                None if share is None else float(share[column]),
            )
            for column in columns
        ]
        return sorted(found, key=lambda c: (-(c.share or 0), -max(c.iou), c.concept))

    had, has = before > threshold, after > threshold
    return (
        named(np.flatnonzero(has & ~had), shares and shares[0]),
        named(np.flatnonzero(had & ~has), shares and shares[1]),
    )


def _shares(comparison, first, second, threshold):
    """Returns the shares of resamples in which each concept is gained, and lost."""
    if first.samples is None or second.samples is None or not comparison.paired:
        return None
    had = first.samples.plain[1:] > threshold
    has = second.samples.plain[1:] > threshold
    return (has & ~had).mean(axis=0), (had & ~has).mean(axis=0)


def compare(
    found: Sequence[StoredRun],
    *,
    layers: Sequence[str] = (),
    names: Sequence[str] = (),
    errors: Sequence[float | None] = (),
    thresholds: Sequence[float] = (),
    force: bool = False,
) -> Comparison:
    """Compares runs.

    Args:
      found: finished runs, the baseline first.
      layers: layers to compare; by default all of each run.
      names: names of the runs; by default those of their directories.
      errors: top-1 error of each run's network in percent; None uses the run's own.
      thresholds: IoU thresholds; by default those of the first run.
      force: whether to compare what incomparable runs have in common.

    Raises:
      UserError: the runs are not comparable (the message names what differs), or the
        number of names or errors differs from that of the runs.
    """
    for what, given in (("names", names), ("top1_errors", errors)):
        if given and len(given) != len(found):
            raise UserError(
                f"--{what} has {len(given)} entries, but there are {len(found)} runs"
            )
    names = tuple(names) or _folder_names(found)
    if len(set(names)) < len(names):
        raise UserError(
            f"two runs are both named '{_twice(names)}'; tell them apart with --names"
        )
    differences = _differences(found)
    places = [
        (number, layer)
        for number, run in enumerate(found)
        for layer in (layers or run.layers)
    ]
    results = dict(
        zip(places, _at_once(lambda p: found[p[0]].result(p[1]), places), strict=True)
    )
    vocabularies = [dict.fromkeys(_concepts(result)) for result in results.values()]
    if any(list(vocabularies[0]) != list(other) for other in vocabularies):
        differences.append("vocabularies")
    if differences and not force:
        raise UserError(
            f"these runs have different {_and(differences)}; --force compares what "
            "they have in common"
        )
    notes = _notes(found)
    if all(run.by_itself for run in found) and len(found) > 1:
        notes.append("Assumed to use the same images: the results do not say.")
    if differences:
        notes.insert(0, f"Forced comparison of different {_and(differences)}.")
    if "vocabularies" in differences:
        common = [c for c in vocabularies[0] if all(c in v for v in vocabularies)]
        if not common:
            raise UserError("these runs have no concept in common")
        notes.append(f"Only the {len(common)} concepts common to all runs count.")
        results = {key: _only(result, common) for key, result in results.items()}
    models, several = [], any(len(layers or run.layers) > 1 for run in found)
    thresholds = tuple(thresholds) or next(iter(results.values())).iou_thresholds
    lowest = min((*thresholds, resampling.LOWEST))
    samples = _at_once(
        lambda result: uncertainty.sample(result, lowest=lowest), results.values()
    )
    for ((number, layer), result), drawn in zip(results.items(), samples, strict=True):
        error = errors[number] if errors else None
        models.append(
            Model(
                name=f"{names[number]} {layer}" if several else names[number],
                run=found[number],
                layer=layer,
                result=result,
                samples=drawn,
                error=_known_error(found[number]) if error is None else error,
            )
        )
    fewest = min(result.images for result in results.values())
    if fewest < FEW_IMAGES:
        notes.append(
            f"Only {fewest} image{'s' * (fewest != 1)}: counts of fewer than "
            f"{FEW_IMAGES} say little about a network."
        )
    notes += _without_intervals(models)
    if all(model.samples is not None for model in models):
        notes += filter(None, [uncertainty.caveat()])
    paired = "probe images" not in differences
    if not paired:
        notes.append(
            "Differences are between networks on different images: not paired."
        )
    return Comparison(tuple(models), thresholds, paired, tuple(notes))


def _without_intervals(models: Sequence[Model]) -> list[str]:
    """Returns one line per reason, naming the models without intervals."""
    reasons: dict[str, list[str]] = {}
    for model in models:
        if model.samples is None:
            why = uncertainty.why_not(model.result)
            reasons.setdefault(why, []).append(model.name)
    return [f"No intervals for {_and(n)}: {why}." for why, n in reasons.items()]


def _known_error(run: StoredRun) -> float | None:
    if run.top1_error is not None or run.by_itself:
        return run.top1_error
    from jdissect.results import finished_run

    return finished_run.known_error(run)


def _at_once(function: Callable, arguments: Iterable) -> list:
    """Returns the results, two at a time: unpacking and arithmetic use a core each."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, arguments))


def _folder_names(found: Sequence[StoredRun]) -> tuple[str, ...]:
    """Returns the directories' names, with enough of the path to distinguish them."""
    places = [as_text(run.path.absolute()).split("/") for run in found]
    for length in range(1, max(map(len, places)) + 1):
        names = tuple("/".join(parts[-length:]) for parts in places)
        if len(set(names)) == len(names):
            break
    return names


def _differences(found: Sequence[StoredRun]) -> list[str]:
    first = found[0].identity
    if all(run.by_itself for run in found):
        # They do not identify their images; the number of images is a hint.
        images = len({run.images for run in found}) > 1
        quantiles = len({run.identity["quantile"] for run in found}) > 1
        tails = len({run.identity.get("tail") for run in found}) > 1
        return ["probe images"] * images + ["quantiles"] * quantiles + ["tails"] * tails
    return list(
        dict.fromkeys(
            words
            for part, words in _COMPARABLE.items()
            for run in found[1:]
            if run.identity.get(part) != first.get(part)
        )
    )


def _notes(found: Sequence[StoredRun]) -> list[str]:
    first = found[0].identity
    other = [
        part
        for part in _NOTED
        if any(run.identity.get(part) != first.get(part) for run in found[1:])
    ]
    return [f"The runs also differ in {_and(other)}."] if other else []


def _concepts(result: Result) -> list[tuple[str, str]]:
    return list(zip(result.concepts, result.categories, strict=True))


def _only(result: Result, common: Sequence[tuple[str, str]]) -> Result:
    """Selects concepts of a result, in the given order."""
    column = {concept: number for number, concept in enumerate(_concepts(result))}
    picked = np.array([column[concept] for concept in common])
    return result.replace(
        intersection=np.ascontiguousarray(result.intersection[:, picked]),
        union=np.ascontiguousarray(result.union[:, picked]),
        concepts=tuple(name for name, _ in common),
        categories=tuple(category for _, category in common),
        blocks=result.blocks and result.blocks.picked(picked),
        by_image=result.by_image and result.by_image.picked(picked),
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
