"""Trainings that take seconds: pictures, a command line, a network of two layers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image

from jdissect.models.endpoints import run_stages
from jdissect.models.layers import ConvNorm, classifier_head, spatial_mean
from jdissect.models.resnet import pad
from jdissect.runtime import command_line
from tests import devices as devices_of

STEPS = 5  # an epoch of `command`, of which there are three


class Tiny(nnx.Module):
    """Compiled in a second: for tests of what is around a network."""

    epsilon = 1e-5
    endpoint_names = ("first", "second")

    def __init__(self, *, classes, folded=False, dtype="float32", rngs):
        options = {"folded": folded, "dtype": dtype, "rngs": rngs}
        self.first = ConvNorm(3, 8, 3, stride=2, padding=pad(3), **options)
        self.second = ConvNorm(8, 16, 3, stride=2, padding=pad(3), **options)
        self.fc = classifier_head(16, classes, rngs=rngs)

    def __call__(self, images, endpoints=None):
        steps = [
            ("first", lambda images: nnx.relu(self.first(images))),
            ("second", lambda maps: nnx.relu(self.second(maps))),
        ]
        return run_stages(
            steps, images, lambda maps: self.fc(spatial_mean(maps)), endpoints
        )


def draw(root):
    """Class folders: noise of three colours, of several sizes; 40 to train on."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (13, 13, 14)), ("validation", (5, 5, 5))):
        for name, color, count in zip(
            ("blue", "green", "red"), (30, 120, 220), counts, strict=True
        ):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                height, width = rng.integers(30, 90, 2)
                pixels = rng.normal(color, 40, (height, width, 3)).clip(0, 255)
                path = root / split / name / f"{index}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def command(folder, name="tiny"):
    """Three epochs of five steps on what `draw` drew; tuples can only be added to."""
    return [
        "--config=configs/mixup.py:imagenet",
        f"--config.model.name={name}",
        "--config.data.source=folder",
        f"--config.data.path={folder}",
        "--config.data.batch_size=8",
        "--config.train.width=8",
        "--config.train.image_size=32",
        "--config.train.epochs=3",
        "--config.train.batch_size=8",
        "--config.train.bn_group=4",
        "--config.train.learning_rate=0.02",
        "--config.train.milestones=1,2",
        "--config.train.log_every=1",
        "--config.train.checkpoint_every=2",
    ]


def run(capsys, entry, *arguments):
    """(exit code, standard output, standard error) of an entry point, here."""
    code = command_line.entry(entry.main, ["program", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# `python -m jdissect.ENTRY` that knows the tiny network.
_WITH_TINY = """
import importlib, sys
from jdissect.runtime import command_line
from jdissect import models
from tests.small_trainings import Tiny
models.ARCHITECTURES["tiny"] = Tiny
sys.exit(command_line.entry(importlib.import_module(sys.argv.pop(1)).main))
"""


def start(arguments, folder, entry="train", devices=0):
    """An entry point as a process of its own, with as many devices if that is given."""
    tiny = "--config.model.name=tiny" in arguments
    program = ["-c", _WITH_TINY] if tiny else ["-m"]
    environment = devices_of.environment(devices) if devices else dict(os.environ)
    environment["JDISSECT_PROGRESS"] = "0"
    if folder is not None:
        arguments = [*arguments, f"--workdir={folder}"]
    return subprocess.Popen(
        [sys.executable, *program, f"jdissect.{entry}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(arguments, folder, **options):
    """Standard output of the same, when it is over."""
    process = start(arguments, folder, **options)
    output, error = process.communicate()
    assert process.returncode == 0, error
    return output


def interrupt(arguments, folder, lines, number, delay):
    """The same, sent a signal `delay` seconds after metrics.jsonl has `lines`.

    Returns:
      (exit code, standard output); None where it was over before.
    """
    process = start(arguments, folder)
    path = Path(folder) / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    output, error = process.communicate()
    if process.returncode in (-number, 128 + number):
        return process.returncode, output
    assert process.returncode == 0, error
    return None


def metrics(folder):
    """Lines of metrics.jsonl without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for record in found:
        record.pop("images_per_second", None)
    return found


def weights(folder):
    """The hash of the trained network."""
    return json.loads((folder / "model" / "model.json").read_text())["weights_sha256"]
