"""Memory that is freed stays with the process, for the next batch.

glibc gives large arrays back to the system when they are freed, and gets the next ones
from there page by page. A loop over batches spends a tenth of its time on that, and on
a virtual machine, whose pages come from its host, up to a third.
"""

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of <malloc.h>
_SETTINGS = {
    _ARENA_MAX: 1,  # or each thread would keep some for itself
    _MMAP_MAX: 0,
    _TRIM_THRESHOLD: -1,  # never
    _TOP_PAD: 1 << 26,  # bytes asked for at a time, beside those needed
}


def keep_freed() -> bool:
    """Sets that for this process; best before it has threads.

    Returns:
      Whether it is so. Not without glibc, nor where the environment already says how
      memory is to be had.
    """
    if any(n.startswith("MALLOC_") or n == "GLIBC_TUNABLES" for n in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows
        return False
    done = [mallopt(name, value) for name, value in _SETTINGS.items()]
    return all(done)
