"""How fast is a dissection, against PyTorch?

    python -m benchmarks.versus_torch --published=DIR --weights=DIR --images=DIR

`--published` holds PyTorch's files (resnet50/model_best.pth.tar,
upp-resnet50-upernet/, color-resnet18dilated-ppm_deepsup/), `--weights` what the
converters made of them (resnet50/, upernet/, color/). Four pipelines, each in a process
of its own on the same cores or device: jdissect, from image files to run directories;
`best` and `faithful` of `benchmarks.pytorch.netdissect`; and `forwards`, the forward
passes that jdissect makes and nothing else. They run in turn; medians count.

What a run pays once (tracing, reading compiled programs, counters for 32 blocks of
images) is measured apart: jdissect and `best` run over few and over more images, and
the difference is the time of an image. The others have nothing of that kind.

On a GPU, which takes more images to be timed:

    python -m benchmarks.versus_torch ... --device=cuda --dtype=bfloat16 --compile \
        --times=16 --save=versus_torch_gpu

A table saved of a CPU's figures has those of `versus_torch_gpu` beside them, or nothing
where no GPU has been measured.
"""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.options import parse
from jdissect.base.errors import UserError
from jdissect.runtime import command_line

LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")
_FORWARDS, _OURS = "forwards", "jdissect"


def scenario(
    images: dict[str, tuple[int, ...]],
    networks: int = 1,
    layers: tuple[str, ...] = LAYERS[-1:],
    cached: bool = False,
    batch_size: int = 8,  # a device
) -> dict[str, Any]:
    """Numbers of images by pipeline, few and more or one, and what they go through."""
    task = {"networks": networks, "layers": layers, "cached": cached}
    return {"images": images, "task": {**task, "batch_size": batch_size}}


# Also the aims on a CPU in float32: against faithful, best, and the forward passes.
# Of fewer than 32 images jdissect keeps fewer counters; of up to 128, it looks at all
# to place the sketch's edges, so that the first 64 of the difference count against it.
# Differences are large beside what the timing of a whole run varies by. The forward
# passes take whole steps: so many images times the devices, or a multiple.
_ONE = {_OURS: (64, 192), _FORWARDS: (32,), "best": (8, 24), "faithful": (10,)}
_MANY = {_OURS: (64, 192), _FORWARDS: (64,), "best": (8, 24), "faithful": (2,)}
_DEEP = {**_MANY, _OURS: (64, 128)}
_CACHED = {_OURS: (128, 640), _FORWARDS: (192,), "best": (32, 128), "faithful": (10,)}
SCENARIOS = {
    "one ResNet-50": (scenario(_ONE), (3.5, 1.4, 1.05)),
    "with cached segmentation": (
        scenario(_CACHED, cached=True, batch_size=32),
        (35, 1.25, 1.3),
    ),
    "five networks": (scenario(_MANY, networks=5, batch_size=32), (12, 1.4, 1.12)),
    "five layers": (scenario(_DEEP, layers=LAYERS, batch_size=32), (15, 1.3, 1.15)),
}
PIPELINES = (_OURS, _FORWARDS, "best", "faithful")
# In bfloat16 against faithful and best.
_GPU, _GPU_AIMS = "versus_torch_gpu", {"one ResNet-50": (50, 1.5)}


OPTIONS = {
    "published": ("", "Folder of PyTorch's files."),
    "weights": ("", "Folder of converted checkpoints."),
    "images": ("", "Folder of photographs, some hundred."),
    "scenarios": (list(SCENARIOS), "What to measure."),
    "rounds": (5, "Medians are over these."),
    "device": (("cpu", "cuda"), "Of PyTorch."),
    "dtype": (("float32", "bfloat16"), "Of networks."),
    "compile": (False, "torch.compile the best form."),
    "times": (1, "So many times as many images."),
    "save": ("", "Name of files for benchmarks/results."),
}


class Pipeline:
    """A process that runs what it is told."""

    def __init__(self, name: str, options: dict[str, Any]):
        command = [sys.executable, "-m", "benchmarks.support.versus_runs", name]
        self._process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
        self._answer()
        self.name, self.memory = name, 0.0

    def seconds(self, task: dict[str, Any]) -> float:
        """How long a task took."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        seconds, self.memory = json.loads(self._answer())
        return seconds

    def close(self) -> None:
        """Ends it."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a pipeline ended with {self._process.wait()}")
        return line


def measure(name: str, options, tell=print) -> dict[str, Any]:
    """A row of the table: milliseconds an image by pipeline, ratios, once, memory."""
    plan, aims = SCENARIOS[name]
    if options.device != "cpu":
        aims = _GPU_AIMS.get(name, ())
    counts = {
        each: tuple(count * options.times for count in few_and_more)
        for each, few_and_more in plan["images"].items()
    }
    plan = {**plan, "images": counts}
    pipelines = [Pipeline(each, _paths(options)) for each in PIPELINES]
    each_ms = {pipeline.name: [] for pipeline in pipelines}
    once = {pipeline.name: [] for pipeline in pipelines}
    for pipeline in pipelines:  # compiles, and fills the cache
        most = max(plan["images"][pipeline.name])
        pipeline.seconds({**plan["task"], "images": most})
    for number in range(1, options.rounds + 1):
        for pipeline in pipelines:
            per_image, start = _one(pipeline, plan)
            each_ms[pipeline.name].append(1e3 * per_image)
            once[pipeline.name].append(start)
        tell(f"{name}: round {number} of {options.rounds}", flush=True)
    for pipeline in pipelines:
        pipeline.close()
    median = {each: statistics.median(found) for each, found in each_ms.items()}
    row = {"scenario": name}
    for each, value in median.items():
        least, most = min(each_ms[each]), max(each_ms[each])
        row[f"{each}, ms an image"] = f"{value:.4g} ({least:.4g}-{most:.4g})"
    against = {
        "faithful / jdissect": median["faithful"] / median[_OURS],
        "best / jdissect": median["best"] / median[_OURS],
        "jdissect / forwards": median[_OURS] / median[_FORWARDS],
    }
    for (title, ratio), aim in itertools.zip_longest(against.items(), aims):
        row[title] = f"{ratio:.2f}" + (f" (aim {aim:g})" if aim else "")
    row["jdissect, once, s"] = round(statistics.median(once[_OURS]), 1)
    for pipeline in pipelines:
        row[f"{pipeline.name}, GB"] = round(pipeline.memory / 1e3, 1)
    return row


def _one(pipeline, plan) -> tuple[float, float]:
    """(seconds an image, seconds that a run pays once)."""
    few, *more = plan["images"][pipeline.name]
    short = pipeline.seconds({**plan["task"], "images": few})
    if not more:
        return short / few, 0.0
    long = pipeline.seconds({**plan["task"], "images": more[0]})
    per_image = (long - short) / (more[0] - few)
    return per_image, short - few * per_image


def _paths(options) -> dict[str, Any]:
    published, weights = Path(options.published), Path(options.weights)
    return {
        "published_resnet": str(published / "resnet50" / "model_best.pth.tar"),
        "published_upernet": str(published / "upp-resnet50-upernet"),
        "published_color": str(published / "color-resnet18dilated-ppm_deepsup"),
        "weights": str(weights / "resnet50"),
        "upernet": str(weights / "upernet"),
        "color": str(weights / "color"),
        "images": options.images,
        "device": options.device,
        "dtype": options.dtype,
        "compile": options.compile,
    }


def photographs(folder: str, count: int, under: str, new: bool = False) -> str:
    """A folder of so many of a folder's photographs, again and again.

    Args:
      folder: folder of photographs.
      count: how many are wanted.
      under: where they, or links to them, go.
      new: whether one that is taken again must be segmented again: bytes behind the
        picture's end change nothing but the content hash.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    if not files:
        raise UserError(f"--images: no files in {folder}")
    for number in range(count):
        file = files[number % len(files)].resolve()
        place = Path(under, f"{number:05d}{file.suffix}")
        if new and number >= len(files):
            place.write_bytes(file.read_bytes() + number.to_bytes(4))
        else:
            place.symlink_to(file)
    return under


def save(options, rows: list[dict[str, Any]]) -> None:
    """Writes rows in the place of those of the same scenarios.

    Other scenarios' rows stay if the same machine and versions made them on that day.
    """
    import torch

    from benchmarks.support import record

    versions = {"torch": torch.__version__}
    by_scenario = {row["scenario"]: row for row in rows}
    with contextlib.suppress(FileNotFoundError):
        kept = json.loads((record.RESULTS / f"{options.save}.json").read_bytes())
        if kept["environment"] == {**record.environment(), **versions}:
            by_scenario = {row["scenario"]: row for row in kept["rows"]} | by_scenario
    rows = [by_scenario[name] for name in SCENARIOS if name in by_scenario]
    if options.device == "cpu":
        rows = [row | on_gpu(row["scenario"]) for row in rows]
    record.write(
        options.save,
        rows,
        title="jdissect against PyTorch",
        command="python -m benchmarks.versus_torch --published=... --weights=... "
        f"--images=... --rounds={options.rounds}"
        + f" --device=cuda --dtype={options.dtype} --times={options.times}"
        * (options.device != "cpu")
        + " --compile" * options.compile,
        notes=[
            f"Medians of {options.rounds} rounds, and the least and the most; "
            f"{options.dtype}, PyTorch on {options.device}"
            + ", compiled"
            * options.compile,
            *_no_gpu(options),
            "Once: what a run takes whatever the number of images.",
            "All four keep the memory that they free, as jdissect's commands do.",
        ],
        versions=versions,
    )


def on_gpu(scenario: str) -> dict[str, str]:
    """Columns of what a GPU's table says, empty where there is none."""
    from benchmarks.support import record

    found = {}
    with contextlib.suppress(FileNotFoundError):
        rows = json.loads((record.RESULTS / f"{_GPU}.json").read_bytes())["rows"]
        found = next((row for row in rows if row["scenario"] == scenario), {})
    titles = ("faithful / jdissect", "best / jdissect", "jdissect / forwards")
    return {f"on a GPU: {title}": found.get(title, "") for title in titles}


def _no_gpu(options) -> list[str]:
    from benchmarks.support import record

    if options.device != "cpu" or (record.RESULTS / f"{_GPU}.json").exists():
        return []
    aims = ", ".join(
        f"{name}: {faithful} times as fast as faithful, {best} as best"
        for name, (faithful, best) in _GPU_AIMS.items()
    )
    return [f"On a GPU nothing has been measured, none was at hand (aims, {aims})."]


def main(argv: list[str]) -> int:
    """Measures and prints; if asked, saves after every scenario."""
    required = ("published", "weights", "images")
    options = parse(argv, "versus_torch", OPTIONS, paths=required)
    rows, folder = [], options.images
    for name in options.scenarios:
        plan, _ = SCENARIOS[name]
        most = options.times * max(map(max, plan["images"].values()))
        with tempfile.TemporaryDirectory() as under:
            new = not plan["task"]["cached"]
            options.images = photographs(folder, most, under, new)
            rows.append(measure(name, options))
        if options.save:
            save(options, rows)
    from benchmarks.support import record

    print(record.text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
