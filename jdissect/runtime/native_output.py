"""Separates the output of native libraries from that of the program.

XLA, gRPC and Gloo write to file descriptors 1 and 2 from C++: ranks as they connect,
stack traces when another machine is lost. This module moves Python's streams to copies
of those descriptors, so that lines, tracebacks and progress bars still reach the
terminal (or pipe, or file), and points the descriptors themselves elsewhere.
"""

import faulthandler
import os
import sys
from typing import TextIO

LOG = "JDISSECT_NATIVE_LOG"  # environment variable: the file, set by `jdissect.launch`

_state = {"log": ""}


def to_log() -> None:
    """Sends native output to the file that the variable `LOG` names, if it is set.

    Call it before JAX is imported. It removes the variable, so that child processes do
    not use the file.
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
    """Discards native output to standard output, unless it goes to the log."""
    if _state["log"]:
        return
    target = os.open(os.devnull, os.O_WRONLY)
    try:
        _part("stdout", 1, target)
    finally:
        os.close(target)


def supervised() -> bool:
    """Returns whether a launcher started this process and will report how it ended."""
    return bool(_state["log"])


def note(text: str) -> None:
    """Appends a line to the log."""
    with open(_state["log"], "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text + "\n")


def _part(name: str, number: int, target: int) -> None:
    """Points a descriptor to `target`, and its Python stream to a copy of it."""
    stream: TextIO | None = getattr(sys, name)
    if _descriptor(stream) == number:
        assert stream is not None  # it has a descriptor
        stream.flush()
        copy = open(  # noqa: PTH123, SIM115
            os.dup(number),
            "w",
            buffering=1,  # line buffered
            encoding=stream.encoding,
            errors=stream.errors,
        )
        setattr(sys, name, copy)
        setattr(sys, f"__{name}__", copy)
    os.dup2(target, number)


def _descriptor(stream: TextIO | None) -> int:
    """Returns a stream's descriptor; -1 if it has none (in a notebook, or closed)."""
    try:
        return -1 if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return -1
