"""Keeps freed memory in the process, for the next batch.

glibc returns large arrays to the system when they are freed, and gets the next ones
page by page. A loop over batches spends a tenth of its time on that, and up to a third
on a virtual machine, whose pages come from its host.
"""

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # from <malloc.h>
_SETTINGS = {
    _ARENA_MAX: 1,  # otherwise each thread keeps memory of its own
    _MMAP_MAX: 0,
    _TRIM_THRESHOLD: -1,  # never
    _TOP_PAD: 1 << 26,  # bytes requested beyond those needed
}


def keep_freed() -> bool:
    """Keeps freed memory in this process; call it before starting threads.

    Returns:
      Whether the settings apply: False without glibc, or if the environment already
      configures malloc.
    """
    if any(n.startswith("MALLOC_") or n == "GLIBC_TUNABLES" for n in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows
        return False
    done = [mallopt(name, value) for name, value in _SETTINGS.items()]
    return all(done)
