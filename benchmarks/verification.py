"""Are units verified that respond to their concept, and no others?

    python -m benchmarks.verification [--runs=RUN,RUN] [--save]

Units whose answer is known are planted: their maps are made of the pictures' own label
maps, on a grid of 14x14, with noise. Per concept, units of these kinds:

- *concept*: the share of a cell that the concept covers, and a quarter and a tenth of
  that; the noise has a standard deviation of 0.3.
- *any thing*: the share that any object covers which is not part of the background.
- *another concept*: the share of one of the other concepts.
- *nothing*: noise alone.

With `--runs`, finished runs on scenes are verified with their own labels, and with
labels that are shuffled among their units, so that no unit keeps its concept.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support import record
from benchmarks.support.options import parse
from jdissect.base.progress import Progress
from jdissect.dissection.features import Record
from jdissect.jobs.replay import open_replay
from jdissect.results.finished_run import open_run
from jdissect.results.layer_result import Result
from jdissect.runtime import command_line
from jdissect.scenes import open_scenes
from jdissect.scenes.counterfactual import shows
from jdissect.scenes.world import OBJECT_NUMBER, OBJECT_PARTS
from jdissect.verification.counterfactuals import Counterfactuals, number_of
from jdissect.verification.judgement import Labels, labels_of
from jdissect.verification.responses import measure
from jdissect.verification.run import PAIRS, rows_of_pictures, units_by_number
from jdissect.verification.verified import Verified

OPTIONS: dict[str, tuple[Any, str]] = {
    "pairs": (PAIRS, "Pairs of pictures for each concept."),
    "concepts": (16, "Number of planted concepts, at most 16."),
    "shuffles": (5, "Shuffles of a run's labels."),
    "runs": ("", "Finished runs on scenes, with commas between."),
    "save": (False, "Write benchmarks/results/verification.md."),
}
CONCEPTS = (
    *(("person", "object"), ("white", "color"), ("leg", "part"), ("wood", "material")),
    *(("tree", "object"), ("blue", "color"), ("crown", "part"), ("fabric", "material")),
    *(("sky", "object"), ("red", "color"), ("torso", "part"), ("glass", "material")),
    *(
        ("chair", "object"),
        ("green", "color"),
        ("frame", "part"),
        ("stone", "material"),
    ),
)
KINDS = {
    "concept": 1.0,
    "concept, a quarter": 0.25,
    "concept, a tenth": 0.1,
    "any thing": 1.0,
    "another concept": 1.0,
    "nothing": 0.0,
}
GRID, NOISE = 14, 0.3
# The first objects of the world are its backgrounds, from sky to ceiling.
BACKGROUND = [OBJECT_NUMBER[name] for name in list(OBJECT_PARTS)[:14]]


def planted(pairs: int, concepts: int) -> list[dict]:
    """Returns a row per kind of unit."""
    names = CONCEPTS[:concepts]
    numbers = [number for name in names if (number := number_of(*name))]
    count = len(names)
    rng = np.random.default_rng(0)
    drawn = Counterfactuals(open_scenes("probe", 1000), numbers, (56, 56), pairs)

    def maps(labels):
        shown = [shows(labels, number) for number in numbers]
        things = ~np.isin(labels[0], [0, *BACKGROUND])
        cells = np.stack([*shown, things], axis=-1)
        side = labels.shape[-1] // GRID
        cells = cells.reshape(GRID, side, GRID, side, -1).mean(axis=(1, 3))
        own, thing = cells[..., :count], cells[..., count:]
        kinds = [own, own, own, thing.repeat(count, -1), np.roll(own, 1, -1), own]
        values = zip(KINDS.values(), kinds, strict=True)
        clean = np.concatenate([strength * one for strength, one in values], axis=-1)
        return clean + NOISE * rng.normal(size=clean.shape)

    def run(batches) -> Iterator[Record]:
        for images in batches:
            values = {"planted": np.stack([maps(each) for each in images.labels()])}
            yield Record(images.index, images.valid, values, images.labels, None)

    every = np.arange(count * len(KINDS))
    units = dict.fromkeys(sorted(numbers), every)
    found = measure(drawn, {"planted": units}, run, 50)["planted"]
    result = _result(len(every), names)

    def judged(columns) -> Verified:
        labels = Labels(every, columns)
        return rows_of_pictures(result, labels, units, found, drawn).verified("")

    own = judged(every % count)
    rows = []
    auc = own.auc.reshape(len(KINDS), count)
    for number, kind in enumerate(KINDS):
        here = every // count == number
        first = (auc[number] > np.delete(auc, number, axis=0).max(axis=0)).mean()
        about = {"units": f"planted: {kind}", "labels": "own"}
        rows.append({**about, **_figures(own, here), "ranks first": first, "s": ""})
    # "Another concept" is the one before: none gets that as its label.
    shuffled = judged((every + 1) % count)
    about = {"units": "planted, all kinds", "labels": "shuffled"}
    return [*rows, {**about, **_figures(shuffled), "ranks first": "", "s": ""}]


def _result(units: int, concepts) -> Result:
    """Returns a result without counts."""
    names, categories = zip(*concepts, strict=True)
    counts, none = np.zeros((units, len(names)), np.int64), np.zeros((units, 0))
    return Result(
        thresholds=np.zeros(units, np.float32),
        intersection=counts,
        union=counts,
        fires=counts[:, 0],
        concepts=names,
        categories=categories,
        top_value=none,
        top_image=none.astype(int),
        histogram_counts=none.astype(int),
        histogram_edges=np.zeros((units, 1)),
        images=0,
        quantile=0.01,
        layer="planted",
    )


def of_run(folder: str, pairs: int, shuffles: int) -> list[dict]:
    """Returns the rows of a run: its labels, and shuffled ones."""
    start = time.perf_counter()
    run = open_run(folder)
    layer = run.layers[-1]
    result = run.result(layer)
    labels = labels_of(result)
    with Progress() as progress:
        replay = open_replay(run, progress)
        numbers = list(units_by_number(result, labels))
        units = dict.fromkeys(numbers, labels.unit)
        inputs = replay.inputs
        drawn = Counterfactuals(
            inputs.source,  # type: ignore[arg-type]  # of scenes
            numbers,
            inputs.segmenter.mask_shape,
            pairs,
        )
        with progress.counted("pictures", before="compiling") as task:
            found = measure(
                drawn,
                {layer: units},
                lambda batches: replay.records_of(batches, (layer,)),
                inputs.images_a_step,
                task.advance,
            )[layer]

    def figures(columns) -> dict:
        one = Labels(labels.unit, columns)
        return _figures(rows_of_pictures(result, one, units, found, drawn).verified(""))

    rng = np.random.default_rng(0)
    own, name = figures(labels.column), Path(folder).name
    several = [figures(_shuffled(rng, labels.column)) for _ in range(shuffles)]
    mean = {key: float(np.mean([one[key] for one in several])) for key in own}
    rest = {"ranks first": "", "s": time.perf_counter() - start}
    return [
        {"units": name, "labels": "own", **own, **rest},
        {"units": name, "labels": f"shuffled {shuffles} times", **mean, **rest},
    ]


def _shuffled(rng, column):
    """Shuffles labels so that almost none stays: those that do are swapped again."""
    found = rng.permutation(column)
    for _ in range(100):
        same = np.flatnonzero(found == column)
        if not len(same):
            break
        other = rng.integers(0, len(found), len(same))
        for one, two in zip(same, other, strict=True):
            found[one], found[two] = found[two], found[one]
    return found


def _figures(found: Verified, here=None) -> dict:
    judged = found.judged if here is None else found.judged & here
    return {
        "judged": float(judged.sum()),
        "verified": found.verified[judged].mean() if judged.any() else float("nan"),
        "AUC": found.auc[judged].mean(),
        "control": found.control[judged].mean(),
    }


def main(argv) -> int:
    """Measures, prints, and saves with --save."""
    options = parse(argv, "verification", OPTIONS)
    rows = planted(options.pairs, options.concepts)
    for folder in filter(None, options.runs.split(",")):
        rows += of_run(folder, options.pairs, options.shuffles)
    print(record.text(rows))
    if options.save:
        written = record.write(
            "verification",
            rows,
            title="Which units are verified",
            command=f"python -m benchmarks.verification --pairs={options.pairs}"
            + f" --runs={options.runs} --save" * bool(options.runs),
            notes=(
                f"{options.pairs} pairs for each concept; {options.concepts} planted "
                "concepts, one unit of each kind for each.",
                "verified: share of the judged units; AUC, control: their means.",
                "ranks first: share of concepts where this kind has the highest AUC.",
                "s: seconds with all units read for all concepts, shuffles included.",
            ),
        )
        print(*(f"written to {path}" for path in written), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
