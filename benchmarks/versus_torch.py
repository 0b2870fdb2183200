"""jdissect against PyTorch, side by side.

    python -m benchmarks.versus_torch --published=DIR --weights=DIR --images=DIR

`--published` holds PyTorch's files (resnet50/model_best.pth.tar,
upp-resnet50-upernet/, color-resnet18dilated-ppm_deepsup/), `--weights` what the
converters made of them (resnet50/, upernet/, color/). Four pipelines, each in a process
of its own on the same cores or device: jdissect, from image files to run directories;
`best` and `faithful` of `benchmarks.torch_netdissect`; and `forwards`, the forward
passes that jdissect makes and nothing else. They run in turn; medians count.

What a run pays once (tracing, reading compiled programs, counters) is measured apart:
every pipeline runs over few and over more images, and the difference is the time of an
image. `faithful` has nothing of that kind and runs over few.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")
_FORWARDS, _OURS = "forwards", "jdissect"


def scenario(
    few: int, more: int, slow: int, networks=1, layers=LAYERS[-1:], cached=False, size=8
) -> dict[str, Any]:
    """Numbers of images (of `faithful`: `slow`), and what is done with them."""
    return {
        "images": (few, more),
        "slow": slow,
        "networks": networks,
        "layers": layers,
        "cached": cached,
        "batch_size": size,
    }


# Also the aims on a CPU in float32: against faithful, best, and the forward passes.
SCENARIOS = {
    "one ResNet-50": (scenario(8, 16, 2), (3.5, 1.4, 1.05)),
    "with cached segmentation": (
        scenario(32, 96, 2, cached=True, size=32),
        (35, 1.25, 1.3),
    ),
    "five networks": (scenario(8, 16, 1, networks=5), (12, 1.4, 1.12)),
    "five layers": (scenario(8, 16, 1, layers=LAYERS), (15, 1.3, 1.15)),
}
PIPELINES = (_OURS, _FORWARDS, "best", "faithful")


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--published", type=Path, required=True, help="PyTorch's files")
    add("--weights", type=Path, required=True, help="converted checkpoints")
    add("--images", required=True, help="folder of photographs, 96 or more")
    add("--scenarios", default=",".join(SCENARIOS), help="some of them")
    add("--rounds", type=int, default=5)
    add("--device", default="cpu", choices=("cpu", "cuda"), help="of PyTorch")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--compile", action="store_true", help="torch.compile `best`")
    add("--save", default="", help="name of files for benchmarks/results")
    return parser.parse_args(argv[1:])


class Pipeline:
    """A process that runs what it is told."""

    def __init__(self, name: str, options: dict[str, Any]):
        command = [sys.executable, "-m", "benchmarks.versus_runs", name]
        self._process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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


def measure(name: str, options: argparse.Namespace, tell=print) -> dict[str, Any]:
    """A row of the table: milliseconds an image by pipeline, ratios, once, memory."""
    plan, aims = SCENARIOS[name]
    pipelines = [Pipeline(each, _paths(options)) for each in PIPELINES]
    each_ms = {pipeline.name: [] for pipeline in pipelines}
    once = {pipeline.name: [] for pipeline in pipelines}
    for number in range(options.rounds + 1):
        for pipeline in pipelines:
            per_image, start = _one(pipeline, plan)
            if number:  # the first round compiles, and fills the cache
                each_ms[pipeline.name].append(1e3 * per_image)
                once[pipeline.name].append(start)
        tell(f"{name}: round {number} of {options.rounds}", flush=True)
    for pipeline in pipelines:
        pipeline.close()
    median = {each: statistics.median(found) for each, found in each_ms.items()}
    row = {"scenario": name}
    for each, value in median.items():
        row[f"{each}, ms an image"] = round(value, 1)
    against = {
        "faithful / jdissect": median["faithful"] / median[_OURS],
        "best / jdissect": median["best"] / median[_OURS],
        "jdissect / forwards": median[_OURS] / median[_FORWARDS],
    }
    for (title, ratio), aim in zip(against.items(), aims, strict=True):
        row[title] = f"{ratio:.2f} (aim {aim:g})"
    row["jdissect, once, s"] = round(statistics.median(once[_OURS]), 1)
    for pipeline in pipelines:
        row[f"{pipeline.name}, GB"] = round(pipeline.memory / 1e3, 1)
    row["all ms"] = {
        each: [round(ms, 1) for ms in found] for each, found in each_ms.items()
    }
    return row


def _one(pipeline, plan) -> tuple[float, float]:
    """(seconds an image, seconds that a run pays once)."""
    task = {k: plan[k] for k in ("networks", "layers", "cached", "batch_size")}
    if pipeline.name == "faithful":
        return pipeline.seconds({**task, "images": plan["slow"]}) / plan["slow"], 0.0
    few, more = plan["images"]
    short = pipeline.seconds({**task, "images": few})
    long = pipeline.seconds({**task, "images": more})
    per_image = (long - short) / (more - few)
    return per_image, short - few * per_image


def _paths(options) -> dict[str, Any]:
    published, weights = options.published, options.weights
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


def main(argv: list[str]) -> int:
    """Measures and prints, and saves if asked."""
    options = parse(argv)
    rows = [measure(name, options) for name in options.scenarios.split(",")]
    import torch

    from benchmarks import record

    every = {row["scenario"]: row.pop("all ms") for row in rows}
    print(record.text(rows))
    if options.save:
        spread = [
            f"{name}, {pipeline}: {', '.join(f'{ms:g}' for ms in found)} ms"
            for name, by_pipeline in every.items()
            for pipeline, found in by_pipeline.items()
        ]
        record.write(
            options.save,
            rows,
            title="jdissect against PyTorch",
            command=f"python -m benchmarks.versus_torch --rounds={options.rounds} ...",
            notes=[
                f"{options.dtype}, PyTorch on {options.device}"
                + ", compiled" * options.compile,
                "GPU columns: empty, none was at hand." * (options.device == "cpu"),
                *spread,
            ],
            versions={"torch": torch.__version__},
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
