"""The kernels that a program spends its time in, from a profile of one run."""

import collections
import gzip
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax


def longest(run: Callable[[], Any], most: int = 5) -> list[tuple[str, float, float]]:
    """(kernel, seconds, share of all kernels') of the longest, over a run.

    A kernel's calls are added up, and the times of devices that work side by side.

    Args:
      run: what to profile; it is compiled already, and its result is waited for.
      most: how many.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    total = collections.Counter()
    for event in kernels(events):
        total[event["name"]] += event["dur"] / 1e6
    every = sum(total.values())
    return [(name, took, took / every) for name, took in total.most_common(most)]


def kernels(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of a profile's events that are kernels.

    Of an accelerator, what its streams ran; of a CPU, XLA's operations that hold no
    others: loops and calls span those that they consist of.
    """
    events = list(events)
    names = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event.get("ph") == "M" and event["name"] in names:
            place = (event["pid"], event.get("tid", 0))
            names[event["name"]][place] = event["args"]["name"]
    devices = {
        pid for (pid, _), name in names["process_name"].items() if "/device:" in name
    }
    spans = [event for event in events if event.get("ph") == "X" and event.get("dur")]
    if devices:
        streams = {
            place
            for place, name in names["thread_name"].items()
            if place[0] in devices and name.startswith("Stream")
        }
        return [event for event in spans if (event["pid"], event["tid"]) in streams]
    found = [event for event in spans if "hlo_op" in event.get("args", {})]
    outer = ("while", "call", "conditional")
    return [event for event in found if event["name"].split(".")[0] not in outer]


def in_words(found: Iterable[tuple[str, float, float]]) -> str:
    """A line: names and shares."""
    return ", ".join(f"`{name}` {share:.0%}" for name, _, share in found)
