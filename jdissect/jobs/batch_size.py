"""Finds good batch sizes for this machine by timing them."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jdissect.base.errors import UserError
from jdissect.data.loader import Batch
from jdissect.datasets import open_source
from jdissect.dissection import settings
from jdissect.jobs.batches import network_of
from jdissect.jobs.inputs import open_network
from jdissect.models.endpoints import listed
from jdissect.runtime import machine
from jdissect.runtime.devices import network_devices
from jdissect.segmenters import open_segmenter, smallest_image

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROUNDS = 3
NEAR = 1.03  # prefer a smaller batch if a larger one is at most this much faster
LONGEST = 20.0  # seconds per batch; larger batches are not tried


def probe(
    config: Any,
    sizes: Sequence[int] = SIZES,
    tell: Callable[[str], None] = print,
) -> dict[str, int]:
    """Returns the config keys for batch sizes, and good values for this machine.

    Args:
      config: as `jdissect.main` takes it.
      sizes: batch sizes to try, per device.
      tell: prints a line: milliseconds per image by batch size.

    Raises:
      UserError: `jdissect.main` could not run the config.
    """
    settings.check(config)
    if config.data.source == "generator":
        raise UserError("batch sizes are timed for networks that take images only")
    devices, _ = network_devices(config.parallel)
    machine.use_compilation_cache(machine.cache_dir(config.cache.dir))
    source = open_source(config.data, smallest_image(config.segmenter.name))
    model = open_network(config, source.image_shape)
    runs = {"data.batch_size": _network(config, model, devices)}
    if config.segmenter.name == "upernet":
        runs["segmenter.batch_size"] = _segmenter(config, source, devices)
    found = {}
    for key, run in runs.items():
        tell(f"\n{key}, on each of {len(devices)} x {devices.devices[0].device_kind}")
        found[key] = choose(_times(run, source.image_shape, sizes, len(devices), tell))
    return found


def choose(times: dict[int, float]) -> int:
    """Returns the smallest batch size that is nearly as fast as the fastest.

    Args:
      times: time per image, by batch size; not empty.
    """
    best = min(times.values())
    return min(size for size, each in times.items() if each <= NEAR * best)


def _times(run, shape, sizes, devices: int, tell=print) -> dict[int, float]:
    """Returns ms per image by batch size, until memory or patience runs out."""
    rng = np.random.default_rng(0)
    found: dict[int, float] = {}
    for size in sizes:
        pixels = rng.integers(0, 256, (size * devices, *shape, 3), np.uint8)
        try:
            run(pixels, size)  # compiles
            seconds = [_timed(run, pixels, size) for _ in range(ROUNDS)]
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not found or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            tell(f"{size:6d}  out of memory")
            break
        typical = statistics.median(seconds)
        found[size] = 1e3 * typical / len(pixels)
        tell(f"{size:6d}  {found[size]:9.2f} ms per image")
        if 2 * typical > LONGEST:
            break
    return found


def _timed(run, pixels, size) -> float:
    start = time.perf_counter()
    run(pixels, size)
    return time.perf_counter() - start


def _network(config, model, devices) -> Callable[[Any, int], None]:
    layers = tuple(config.model.layers)
    missing = [name for name in layers if name not in model.endpoint_names]
    if missing:
        raise UserError(
            f"{config.model.name} has no layer '{missing[0]}'; it has "
            f"{listed(model.endpoint_names)}"
        )
    network = network_of(model, layers, config.dtype)
    step = devices.spmd(lambda state, pixels, params: network(params, pixels))
    params = devices.replicate(model.params)

    def run(pixels, size):
        del size
        state = devices.states(np.zeros(()))
        jax.block_until_ready(step(state, devices.scatter(pixels), params))

    return run


def _segmenter(config, source, devices) -> Callable[[Any, int], None]:
    config = config.copy_and_resolve_references()
    opened: dict[Any, Any] = {}

    def run(pixels, size):
        if size not in opened:
            config.segmenter.batch_size = size
            hashes = ["a random image"] * len(pixels)
            opened.clear()  # only one segmenter's weights in memory
            opened[size] = open_segmenter(config, source, hashes, devices, None)
        count = len(pixels)
        index, valid = np.arange(count, dtype=np.int32), np.ones(count, bool)
        opened[size].label_maps(Batch(index, valid, pixels, None, None, ()))

    return run
