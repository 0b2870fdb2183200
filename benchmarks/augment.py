"""How long does each part of augmentation take?

    python -m benchmarks.augment                       # 32 images of 224 x 224
    python -m benchmarks.augment --height=256 --width=256

Milliseconds an image of each recipe and of its parts. `standard` is random resized
crop, flip, jitter and lighting of photographs that fill a canvas of --height x --width;
`crop alone` its first part. A recipe is measured with the normalization, which `none`
is; `saliency` is the map that saliencymix needs. Everything is compiled, then measured
in turns; medians over --rounds.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.support.options import parse
from jdissect.augment import RECIPES, mix, random_resized_crop, standard
from jdissect.models.preprocess import IMAGENET
from jdissect.ops.saliency import fine_grained
from jdissect.runtime import command_line

OPTIONS = {
    "batch_size": (32, "Images a call."),
    "side": (224, "Of the images trained on."),
    "height": (375, "Of the photographs."),
    "width": (500, "Of the photographs."),
    "rounds": (15, "Medians are over these."),
}


def normalize(images):
    """ImageNet's normalization of pixels in [0, 1]."""
    mean, std = (jnp.array(part, jnp.float32) for part in (IMAGENET.mean, IMAGENET.std))
    return (images - mean) / std


def stages(options) -> dict:
    """{name: a call without arguments}."""
    rng = np.random.default_rng(0)
    batch, side = options.batch_size, options.side
    canvas = (batch, options.height, options.width, 3)
    pixels = jnp.asarray(rng.integers(0, 256, canvas, np.uint8))
    sizes = jnp.broadcast_to(jnp.array(canvas[1:3], jnp.int32), (batch, 2))
    small = jnp.asarray(rng.integers(0, 256, (batch, side, side, 3), np.uint8))
    images, labels = small / jnp.float32(255), jnp.arange(batch)
    key = jax.random.key(0)

    def recipe(name):
        function = jax.jit(lambda *batch: mix(name, *batch, normalize=normalize))
        return lambda: function(key, images, labels)

    crop = jax.jit(lambda *batch: random_resized_crop(*batch, side))
    whole = jax.jit(lambda *batch: standard(*batch, side=side))
    saliency = jax.jit(fine_grained)
    return {
        "crop alone": lambda: crop(key, pixels, sizes),
        "standard": lambda: whole(key, pixels, sizes),
        **{name: recipe(name) for name in RECIPES},
        "saliency": lambda: saliency(small),
    }


def measure(options) -> dict[str, float]:
    """Milliseconds an image."""
    calls = stages(options)
    for call in calls.values():
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    each = 1e3 / options.batch_size
    return {name: statistics.median(some) * each for name, some in times.items()}


def main(argv) -> int:
    """Prints the table."""
    options = parse(argv, "augment", OPTIONS)
    found = measure(options)
    device = jax.devices()[0]
    print(
        f"batch {options.batch_size}, {options.side} x {options.side} from photographs "
        f"of {options.height} x {options.width}, {device.device_kind}, "
        f"jax {jax.__version__}"
    )
    for name, milliseconds in found.items():
        print(f"{name:14s} {milliseconds:8.3f} ms/image")
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
