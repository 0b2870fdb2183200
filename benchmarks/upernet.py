"""How fast is UPerNet, against the same network in plain PyTorch?

    python -m benchmarks.upernet --published=upp-resnet50-upernet \
        --upernet=weights/upernet --images=FOLDER

`--published` holds PyTorch's files, `--upernet` what the converter made of them. Both
networks take images of 256x256 in memory and give scores of objects, parts and
materials at 56x56. They run in turn, in one process, on the same number of cores, and
the medians are compared. PyTorch runs the network as the original has it, under
inference_mode, in either memory format; the faster one counts.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
import torch
from jdissect.converters.twins.upernet import UPerNet

from benchmarks.support.options import parse
from jdissect.checkpoints import networks
from jdissect.converters import torch_files
from jdissect.datasets.folder import open_folder
from jdissect.models import segmenter_labels
from jdissect.ops.resample import pool
from jdissect.runtime import command_line, resources
from jdissect.segmenters.parsing import MEANS, SIDE

OPTIONS = {
    "published": ("", "Folder of PyTorch's files."),
    "upernet": ("", "The converted checkpoint."),
    "images": ("", "Folder of photographs."),
    "count": (4, "Images a round."),
    "rounds": (5, "Medians are over these."),
}


def main(argv: list[str]) -> int:
    """Compares, measures and prints."""
    options = parse(argv, "upernet", OPTIONS, paths=("published", "upernet", "images"))

    source = open_folder(options.images, options.count)
    pixels = np.stack([source.read(i).pixels for i in range(len(source.names))])
    images = pool(pixels.astype(np.float32), SIDE)[..., ::-1] - np.float32(MEANS)
    images = np.array(images)  # PyTorch wants it writable

    ours = load_ours(options.upernet)
    theirs = load_theirs(Path(options.published))
    check(ours(images), theirs["NCHW"](images))

    runs = {"jdissect": ours, **{f"PyTorch {k}": run for k, run in theirs.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(images)
            seconds[name].append((time.perf_counter() - start) / len(images))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    threads = torch.get_num_threads()
    print(f"{len(images)} images, {options.rounds} rounds, {threads} threads")
    for name, each in seconds.items():
        print(
            f"{name:14s} {1e3 * medians[name]:7.0f} ms an image "
            f"({1e3 * min(each):.0f} to {1e3 * max(each):.0f})"
        )
    best = min(value for name, value in medians.items() if name != "jdissect")
    print(f"jdissect is {best / medians['jdissect']:.2f} times as fast as PyTorch")
    return 0


def load_ours(folder: str):
    """As the segmenter runs it: on a CPU one image after the other."""
    network = networks.load_segmenter(folder, "upernet")

    def one_by_one(params, images):
        def one(image):
            return jax.tree.map(lambda s: s[0], network.apply(params, image[None]))

        return jax.lax.map(one, images)

    on_cpu = jax.default_backend() == "cpu"
    run = jax.jit(one_by_one if on_cpu else network.apply)
    return lambda images: jax.block_until_ready(run(network.params, images))


def load_theirs(folder: Path):
    """{memory format: function of NHWC images}."""
    torch.set_num_threads(resources.cores())
    labels = json.loads((folder / "labels.json").read_bytes())
    twin = UPerNet(**segmenter_labels.read_upernet(labels).channels)
    for part in ("encoder", "decoder"):
        tensors = torch_files.read(folder / f"{part}_epoch_40.pth").tensors
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        getattr(twin, part).load_state_dict(state, strict=False)
    formats = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}

    def runner(layout):
        def run(images):
            batch = torch.from_numpy(images.transpose(0, 3, 1, 2))
            network = twin.to(memory_format=layout)
            with torch.inference_mode():
                return network(batch.contiguous(memory_format=layout))

        return run

    twin.eval()
    return {name: runner(layout) for name, layout in formats.items()}


def check(ours, theirs) -> None:
    """Both must compute the same before it matters how fast."""
    for name, scores in ours.items():
        expected = theirs[name].numpy().transpose(0, 2, 3, 1)
        error = np.abs(np.asarray(scores) - expected).max() / np.abs(expected).max()
        print(f"{name}: largest difference {error:.1e} of the largest score")
        assert error < 1e-3, name


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
