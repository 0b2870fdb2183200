"""The machine: where caches live and how much fits in memory.

A cache that cannot be written or read costs time and nothing else. For compiled
programs and hashes of files that is seconds, and not worth a word; `label_cache` warns,
once, as label maps take half a second an image.
"""

import functools
import os
import shutil
import warnings
from pathlib import Path

import jax

from jdissect.base.errors import UserError
from jdissect.base.paths import local
from jdissect.runtime import resources

FEATURES = ("auto", "memory", "disk", "none")
MOST_CORES = 8  # each holds counters of its own
_SHARE = 0.5  # of the free memory, or disk, that kept features may take


def cache_dir(configured: str) -> Path | None:
    """The cache folder; whoever first keeps something there makes it.

    It may be one that cannot be made or written: what is there is still read.

    Args:
      configured: `config.cache.dir`; '' is the user's cache folder.

    Returns:
      None where nothing is configured and the user has no home.

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
    """Lets compiled programs be found again by later runs.

    A cache chosen through JAX's own environment variable stays, with its warnings.
    """
    if folder is None or jax.config.jax_compilation_cache_dir:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # Beside JAX's cache XLA would keep one of its own on a GPU, and not compile at all
    # where it cannot write there.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "")
    # One for each program: the folder or the disk is full, read-only, not ours...
    warnings.filterwarnings(
        "ignore",
        r"Error (reading|writing) persistent compilation cache entry",
        UserWarning,
    )


@functools.cache  # a second run in this process gets the devices of the first
def offer_cores() -> bool:
    """Makes the processor's cores devices of their own, where that still can be.

    One device alone would use all cores in its products only, and one in all the rest:
    in counting, and in the fifth of a network's time that goes to other operations.

    Returns:
      Whether the devices are cores. Not so with an accelerator, or where somebody has
      already said how many devices there are to be.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return False
    cores = min(resources.cores(), MOST_CORES)
    try:
        if jax.config.jax_num_cpu_devices > 0:
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
) -> str:
    """Where to keep features between the passes.

    Args:
      choice: one of FEATURES.
      feature_bytes: of all layers, an image.
      images: how many this process keeps.
      folder: where they would go on disk; None: nowhere.
      sharing: processes that keep as many on this host and in this container, from
        `resources.sharing`.

    Returns:
      'memory', 'disk' or 'none'.

    Raises:
      UserError: 'disk' is wanted, and there is no folder.
    """
    if choice == "disk" and folder is None:
        raise UserError("config.cache.features is 'disk'; config.cache.dir must be set")
    if choice != "auto":
        return choice
    if feature_bytes * images <= _SHARE * resources.free_memory(*sharing):
        return "memory"
    if folder is not None:
        free = free_disk(folder) // sharing[0]
        if feature_bytes * images <= _SHARE * free:
            return "disk"
    return "none"


def free_disk(folder: Path) -> int:
    """Bytes that can be written where `folder` is or will be; 0 if not known."""
    for place in (folder, *folder.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return 0
    return 0
