"""Several dissections side by side: what of them can be compared, and what differs.

Counts can be compared that come from the same images, labels and quantile, and the same
vocabulary. What else differs between two runs (network, layer, dtype, versions) is what
a comparison is about, or changes little.
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

# What must be the same: part of a run's identity, in words.
_COMPARABLE = {
    "images": "probe images",
    "data.exif_rotation": "rotations of photographs",
    "segmenter": "segmenters",
    "segmenter.name": "segmenters",
    "segmenter.quarters": "quarters",
    "quantile": "quantiles",
    "mask_size": "mask sizes",
}
# What may change last digits.
_NOTED = ("dtype", "platform", "jaxlib", "pillow", "source", "data.batch_size")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """One layer of one run, as it is compared.

    Attributes:
      name: unique among those compared.
      run: where it comes from.
      layer: its name.
      result: of the concepts that all have.
      samples: resamples; None where counts by block were not kept.
      error: top-1 error of the network in percent; None: not known.
    """

    name: str
    run: StoredRun
    layer: str
    result: Result
    samples: Samples | None
    error: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Models that can be compared.

    Attributes:
      models: in the order given; the first is what the others are compared with.
      thresholds: IoU.
      paired: whether they stand on the same images.
      notes: what a reader must know, for every figure and page.
    """

    models: tuple[Model, ...]
    thresholds: tuple[float, ...]
    paired: bool
    notes: tuple[str, ...]

    @functools.cache  # noqa: B019
    def estimates(self, model: Model) -> uncertainty.LayerEstimates | None:
        """Intervals of a model's counts, None where there are no resamples."""
        if model.samples is None:
            return None
        return uncertainty.summarize(model.samples, self.thresholds)

    def difference(
        self, first: Model, second: Model, threshold: float, category: str = "total"
    ) -> Estimate | None:
        """Of `second` less `first`; None where there are no resamples."""
        if first.samples is None or second.samples is None:
            return None
        function = uncertainty.difference if self.paired else uncertainty.unpaired
        return function(first.samples, second.samples, threshold, category)


@dataclasses.dataclass(frozen=True)
class Change:
    """A concept that one model detects and another does not.

    Attributes:
      concept, category: its name.
      iou: of the best unit for it in each of the two models (0: no unit has it).
      share: of the resamples in which it is so, too; None: not known.
    """

    concept: str
    category: str
    iou: tuple[float, float]
    share: float | None


def levels(result: Result) -> np.ndarray:
    """float64[concept], the IoU up to which some unit detects each concept."""
    found = np.zeros(len(result.concepts))
    named = result.best_concept >= 0
    np.maximum.at(found, result.best_concept[named], result.best_iou[named])
    return found


def changes(
    comparison: Comparison, first: Model, second: Model, threshold: float
) -> tuple[list[Change], list[Change]]:
    """(gained, lost): concepts that only `second`, and only `first`, detects.

    The surest come first.
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
    """Of the resamples in which each concept is gained, and lost."""
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
    """Puts runs side by side.

    Args:
      found: finished runs, the one to compare with first.
      layers: to be compared; by default all of each run.
      names: of the runs; by default those of their directories.
      errors: top-1 error of each run's network, percent, None for what the run itself
        knows.
      thresholds: IoU; by default those of the first run.
      force: compare what is common of runs that cannot be compared.

    Raises:
      UserError: runs that cannot be compared, naming what differs; numbers of names or
        errors that are not that of the runs.
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
            f"these runs have different {_and(differences)}; --force compares what is "
            "common"
        )
    notes = _notes(found)
    if all(run.by_itself for run in found) and len(found) > 1:
        notes.append("Taken to be of the same images: the results do not say.")
    if differences:
        notes.insert(0, f"Compared by force: different {_and(differences)}.")
    if "vocabularies" in differences:
        common = [c for c in vocabularies[0] if all(c in v for v in vocabularies)]
        if not common:
            raise UserError("these runs have no concept in common")
        notes.append(f"Only the {len(common)} concepts that all runs know count.")
        results = {key: _only(result, common) for key, result in results.items()}
    models, several = [], any(len(layers or run.layers) > 1 for run in found)
    thresholds = tuple(thresholds) or next(iter(results.values())).iou_thresholds
    lowest = min((*thresholds, resampling.LOWEST))
    samples = _at_once(
        lambda result: uncertainty.sample(result, lowest=lowest), results.values()
    )
    for ((number, layer), result), drawn in zip(results.items(), samples, strict=True):
        given = errors[number] if errors else None
        models.append(
            Model(
                name=f"{names[number]} {layer}" if several else names[number],
                run=found[number],
                layer=layer,
                result=result,
                samples=drawn,
                error=_known_error(found[number]) if given is None else given,
            )
        )
    fewest = min(result.images for result in results.values())
    if fewest < FEW_IMAGES:
        notes.append(
            f"Only {fewest} image{'s' * (fewest != 1)}: counts of fewer than "
            f"{FEW_IMAGES} tell little of a network."
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
    """A line a reason, with the models that have no intervals for it."""
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
    """The results, two at a time: unpacking and arithmetic use a core each."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, arguments))


def _folder_names(found: Sequence[StoredRun]) -> tuple[str, ...]:
    """The directories' names, with as much of the path as tells them apart."""
    places = [as_text(run.path.absolute()).split("/") for run in found]
    for length in range(1, max(map(len, places)) + 1):
        names = tuple("/".join(parts[-length:]) for parts in places)
        if len(set(names)) == len(names):
            break
    return names


def _differences(found: Sequence[StoredRun]) -> list[str]:
    first = found[0].identity
    if all(run.by_itself for run in found):
        # They do not say which images they stand on; their number is a hint.
        images = len({run.images for run in found}) > 1
        quantiles = len({run.identity["quantile"] for run in found}) > 1
        return ["probe images"] * images + ["quantiles"] * quantiles
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
    """A result with some concepts only, in that order."""
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
