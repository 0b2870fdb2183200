"""The machine: where caches live and how much fits in memory."""

import os
from pathlib import Path

import jax

FEATURES = ("auto", "memory", "none")
MOST_CORES = 8  # each holds counters of its own
_SHARE = 0.5  # of the free memory that kept features may take


def cache_dir(configured: str) -> Path | None:
    """The cache folder, made if need be; None where that is impossible.

    Args:
      configured: `config.cache.dir`; '' is the user's cache folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(configured) if configured else Path(home) / "jdissect"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def use_compilation_cache(folder: Path | None) -> None:
    """Lets compiled programs be found again by later runs.

    A cache chosen through JAX's own environment variable stays.
    """
    if folder is None or jax.config.jax_compilation_cache_dir:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def offer_cores() -> bool:
    """Makes the processor's cores devices of their own, where that still can be.

    A network uses all cores as one device, through its convolutions and products;
    counting does not, and is shared out among devices instead.

    Returns:
      Whether the devices are cores. Not so with an accelerator, or where somebody has
      already said how many devices there are to be.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return False
    cores = min(len(os.sched_getaffinity(0)), MOST_CORES)
    try:
        if jax.config.jax_num_cpu_devices > 0:
            return False
        jax.config.update("jax_num_cpu_devices", cores)
    except (RuntimeError, AttributeError):  # JAX has started already
        return False
    return jax.default_backend() == "cpu" and jax.device_count() == cores > 1


def free_memory() -> int:
    """Bytes that can be had without swapping; 0 where that is not known."""
    try:
        text = Path("/proc/meminfo").read_text()
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0


def keep_features(choice: str, feature_bytes: int, images: int) -> bool:
    """Whether to keep features between the passes.

    Args:
      choice: one of FEATURES.
      feature_bytes: of all layers, an image.
      images: how many.
    """
    if choice != "auto":
        return choice == "memory"
    return feature_bytes * images <= _SHARE * free_memory()
