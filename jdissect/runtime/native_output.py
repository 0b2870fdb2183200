"""What native libraries print, kept apart from what this program says.

XLA, gRPC and Gloo write to file descriptors 1 and 2 from C++: which rank is connected,
and a stack trace when another machine is lost. Here Python's streams move to copies of
those descriptors, so that lines, tracebacks and progress bars reach the terminal (or
pipe, or file) as before, and the descriptors themselves are pointed elsewhere.
"""

import faulthandler
import os
import sys
from typing import TextIO

LOG = "JDISSECT_NATIVE_LOG"  # environment variable: the file, set by `jdissect.launch`

_state = {"log": ""}


def to_log() -> None:
    """Sends native output to the file that `LOG` names; does nothing without one.

    To be called before JAX is imported. The variable is taken away, so that processes
    started from here do not take it for theirs.
    """
    path = os.environ.pop(LOG, "")
    if not path:
        return
    _state["log"] = path
    tracebacks = faulthandler.is_enabled()
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for name, number in (("stdout", 1), ("stderr", 2)):
            _part(name, number, target)
    finally:
        os.close(target)
    if tracebacks and sys.stderr is not None:
        faulthandler.enable(file=sys.stderr)


def mute_stdout() -> None:
    """Drops what native code writes to standard output, where it is not in the log."""
    if _state["log"]:
        return
    target = os.open(os.devnull, os.O_WRONLY)
    try:
        _part("stdout", 1, target)
    finally:
        os.close(target)


def supervised() -> bool:
    """Whether a launcher has started this process and will say how it ended."""
    return bool(_state["log"])


def note(text: str) -> None:
    """Adds a line to the log."""
    with open(_state["log"], "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text + "\n")


def _part(name: str, number: int, target: int) -> None:
    """Points a descriptor to `target`, and the stream that used it to a copy."""
    stream: TextIO | None = getattr(sys, name)
    if _descriptor(stream) == number:
        stream.flush()
        copy = open(  # noqa: PTH123, SIM115
            os.dup(number),
            "w",
            buffering=1,  # lines
            encoding=stream.encoding,
            errors=stream.errors,
        )
        setattr(sys, name, copy)
        setattr(sys, f"__{name}__", copy)
    os.dup2(target, number)


def _descriptor(stream: TextIO | None) -> int:
    """Of a stream; -1 where it has none (a notebook's, a closed one)."""
    try:
        return -1 if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return -1
