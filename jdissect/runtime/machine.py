"""Finds the cache folder, and decides what fits into memory or on disk.

A cache that cannot be read or written costs only time. For compiled programs and file
hashes that is seconds, so nothing is printed; `label_cache` warns once, as a label map
takes half a second per image.
"""

import functools
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax

from jdissect.base.errors import UserError
from jdissect.base.paths import local
from jdissect.runtime import resources

FEATURES = ("auto", "device", "memory", "disk", "none")
MOST_CORES = 8  # each has its own counters
_SHARE = 0.5  # share of free memory or disk that cached features may take


def cache_dir(configured: str) -> Path | None:
    """Returns the cache directory; it is created on first write.

    It may not be writable: existing entries are still read.

    Args:
      configured: `config.cache.dir`; '' means the user's cache folder.

    Returns:
      The folder, or None if nothing is configured and the user has no home.

    Raises:
      UserError: it is a URL; locks and renames need a disk.
    """
    if configured:
        return local(configured, "config.cache.dir")
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(home) / "jdissect"


def use_compilation_cache(folder: Path | None) -> None:
    """Stores compiled programs in a folder, where later runs find them.

    A cache set by JAX's own environment variable takes precedence, with its warnings.
    """
    # JAX makes its options at run time.
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None or chosen:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # On a GPU, XLA would add its own cache beside JAX's, and fail to compile where it
    # cannot write there.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "")
    # JAX warns once per program if the disk is full or the folder is not writable.
    warnings.filterwarnings(
        "ignore",
        r"Error (reading|writing) persistent compilation cache entry",
        UserWarning,
    )


@functools.cache  # a later run in this process has the same devices
def offer_cores() -> bool:
    """Makes each CPU core a device, if that is still possible.

    A single device uses all cores only in matrix products, and one core for the rest:
    for counting, and for the fifth of a network's time spent in other operations.

    Returns:
      Whether the devices are cores: False with an accelerator, or if the number of
      devices has been set already.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return False
    cores = min(resources.cores(), MOST_CORES)
    try:
        if jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
            return False
        jax.config.update("jax_num_cpu_devices", cores)
    except (RuntimeError, AttributeError):  # JAX has started already
        return False
    return jax.default_backend() == "cpu" and jax.local_device_count() == cores > 1


def keep_features(
    choice: str,
    feature_bytes: int,
    images: int,
    folder: Path | None,
    sharing: tuple[int, int] = (1, 1),
    free_on_devices: int = 0,
) -> str:
    """Decides where to keep features between the passes.

    Args:
      choice: one of FEATURES.
      feature_bytes: bytes per image, over all layers.
      images: number of images that this process keeps.
      folder: folder for features on disk; None if there is none.
      sharing: number of processes that keep as many features on this host and in this
        container, from `resources.sharing`.
      free_on_devices: bytes free on this process's accelerators together.

    Returns:
      'device', 'memory', 'disk' or 'none'.

    Raises:
      UserError: `choice` is 'disk', and there is no folder.
    """
    if choice == "disk" and folder is None:
        raise UserError("config.cache.features is 'disk'; config.cache.dir must be set")
    if choice != "auto":
        return choice
    if feature_bytes * images <= _SHARE * free_on_devices:
        return "device"
    if feature_bytes * images <= _SHARE * resources.free_memory(*sharing):
        return "memory"
    if folder is not None:
        free = free_disk(folder) // sharing[0]
        if feature_bytes * images <= _SHARE * free:
            return "disk"
    return "none"


def free_on(devices: Sequence[jax.Device]) -> int:
    """Returns the bytes free on these devices of this process, 0 for those on CPUs."""
    free = 0
    for device in devices:
        memory = device.platform != "cpu" and device.memory_stats()
        if memory:
            free += memory["bytes_limit"] - memory["bytes_in_use"]
    return free


def free_disk(folder: Path) -> int:
    """Returns the bytes free for `folder`, which need not exist; 0 if not known."""
    for place in (folder, *folder.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return 0
    return 0
