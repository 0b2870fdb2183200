"""How fast is a training step, against PyTorch?

    python -m benchmarks.versus_training --batch_size=8
    python -m benchmarks.versus_training --dtype=bfloat16 --compile   # as on a GPU

Each recipe in turn. jdissect's step and the two forms of `pytorch.training`: what one
would write in PyTorch today ('best'), and the published repositories' way ('faithful',
float32 whatever --dtype is). All start from decoded photographs on a canvas in the
host's memory and end with the new parameters and the loss. They run alternately, in one
process, on the same cores or device; the first round, which compiles, does not count.
Medians, and how long PyTorch takes over how long jdissect takes: above 1 jdissect is
faster. The time of the augmentation by itself is measured beside; it is part of the
step.
"""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# On a GPU JAX would take three quarters of the memory before PyTorch asks for any.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import torch

from benchmarks.pytorch.originals import SALIENCY
from benchmarks.pytorch.training import FORMS, TorchTraining
from benchmarks.support import record
from benchmarks.support.options import parse
from benchmarks.train_step import Training, photographs
from jdissect.augment import RECIPES
from jdissect.runtime import command_line, resources

OURS = "jdissect"
RUNS = (OURS, *reversed(FORMS))

OPTIONS = {
    "depth": (50, "Of the ResNet."),
    "batch_size": (8, "Images a step."),
    "side": (224, "Of the network's images, in pixels."),
    "dtype": (("float32", "bfloat16"), "Of networks."),
    "compile": (False, "torch.compile the best form."),
    "one_box": (False, "Faithful: published SaliencyMix."),
    "workers": (-1, "Faithful: processes; 0: none, -1: one a core."),
    "rounds": (5, "Medians are over these."),
    "recipes": (list(RECIPES), "What to train with."),
    "save": ("", "Name of files for benchmarks/results."),
}


@contextlib.contextmanager
def prepared(options) -> Iterator[dict[str, tuple[Callable, Callable]]]:
    """{run: its augmentation and its step}, which wait for what they compute."""
    count, side = options.batch_size, options.side
    ours = Training(count, options.dtype, model=f"resnet{options.depth}", side=side)
    platform = ours.devices.devices[0].platform
    device = "cuda" if platform == "gpu" else "cpu"
    if device == "cpu":
        torch.set_num_threads(resources.cores())
    shared = {"device": device, "depth": options.depth, "side": side}
    best = TorchTraining("best", dtype=options.dtype, compile=options.compile, **shared)
    workers = None if options.workers < 0 else options.workers
    faithful = TorchTraining(
        "faithful", workers=workers, one_box=options.one_box, **shared
    )

    def waiting(run):
        def waited(*arguments):
            result = run(*arguments)
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return waited

    def ready(run):
        return lambda *arguments: jax.block_until_ready(run(*arguments))

    with contextlib.closing(faithful):
        yield {
            OURS: (ready(ours.augment), ready(ours.step)),
            "best": (waiting(best.augment), waiting(best.step)),
            "faithful": (waiting(faithful.augment), waiting(faithful.step)),
        }


def measure(options) -> list[dict[str, Any]]:
    """A row a recipe and run.

    Args:
      options: flags, as `OPTIONS` has them, on one device.

    Returns:
      {'recipe', 'run', 'dtype', 'batch_size', 'rounds', 'step_ms', 'step_ms_least',
      'step_ms_most', 'augment_ms', 'ratio'}: medians and extremes in milliseconds, and
      the median step over jdissect's of the same recipe.
    """
    batch = photographs(options.batch_size)
    steps = {(recipe, run): [] for recipe in options.recipes for run in RUNS}
    augmentations = {key: [] for key in steps}
    with prepared(options) as runs:
        for number in range(options.rounds + 1):
            for recipe, run in steps:
                for call, times in zip(runs[run], (augmentations, steps), strict=True):
                    start = time.perf_counter()
                    call(recipe, *batch)
                    if number:  # the first round compiles
                        took = 1000 * (time.perf_counter() - start)
                        times[recipe, run].append(took)
    rows = []
    for (recipe, run), times in steps.items():
        median = statistics.median(times)
        rows.append(
            {
                "recipe": recipe,
                "run": run,
                "dtype": "float32" if run == "faithful" else options.dtype,
                "batch_size": options.batch_size,
                "rounds": options.rounds,
                "step_ms": median,
                "step_ms_least": min(times),
                "step_ms_most": max(times),
                "augment_ms": statistics.median(augmentations[recipe, run]),
                "ratio": median / statistics.median(steps[recipe, OURS]),
            }
        )
    return rows


def describe(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, a line a recipe."""
    found = {(row["recipe"], row["run"]): row for row in rows}
    lines = [
        "ms a step (of it augmentation) and times jdissect's",
        f"{'':11s}" + "".join(f"{run:>26s}" for run in RUNS),
    ]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        line = f"{recipe:11s}"
        for run in RUNS:
            row = found[recipe, run]
            line += "{step_ms:10.1f} ({augment_ms:6.1f}) {ratio:5.2f} x".format(**row)
        lines.append(line)
    return "\n".join([*lines, *(f"\n{note}" for note in doubts(rows))])


def doubts(rows: list[dict[str, Any]]) -> list[str]:
    """What speaks against relying on the rows."""
    spread = max(row["step_ms_most"] / row["step_ms_least"] for row in rows)
    if spread <= 1.5:
        return []
    return [
        f"Steps of one kind differ by a factor of {spread:.1f}: something else "
        "was running, so do not rely on the ratios."
    ]


def save(options, rows: list[dict[str, Any]], setting: str) -> None:
    """A JSON and a Markdown table, a line a recipe."""
    found = {(row["recipe"], row["run"]): row for row in rows}
    table = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        line = {"recipe": recipe}
        for run in RUNS:
            line[f"{run}, ms a step"] = round(found[recipe, run]["step_ms"])
        for run in RUNS[1:]:
            line[f"{run} / {OURS}"] = f"{found[recipe, run]['ratio']:.2f}"
        for run in RUNS:
            line[f"{run}, augmentation, ms"] = found[recipe, run]["augment_ms"]
        table.append(line)
    record.write(
        options.save,
        table,
        title="A training step here and in PyTorch",
        command=f"python -m benchmarks.versus_training --rounds={options.rounds} "
        f"--batch_size={options.batch_size}",
        notes=[
            setting,
            "'faithful' is float32 and makes some of its augmentation in processes.",
            "One process runs all three, and keeps the memory that any of them frees.",
            *doubts(rows),
        ],
        versions={"torch": torch.__version__},
    )


def main(argv: list[str]) -> int:
    """Measures and prints."""
    options = parse(argv, "versus_training", OPTIONS)
    rows = measure(options)
    device = jax.devices()[0].device_kind
    setting = (
        f"ResNet-{options.depth}, batch {options.batch_size}, {options.dtype}, "
        f"{options.rounds} rounds, {device}, {torch.get_num_threads()} threads; "
        f"jax {jax.__version__}, torch {torch.__version__}"
        f"{', compiled' * options.compile}; faithful saliency by {SALIENCY}, "
        f"{'one box a batch' if options.one_box else 'a box an image'}"
    )
    print(f"{setting}\n\n{describe(rows)}")
    if options.save:
        save(options, rows, setting)
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
