"""Reports the cores and memory that this process may use.

A container, a cluster job or a systemd unit is limited by its control group, which
Linux exposes in files: `cpu.max` and `memory.max` of cgroup v2, `cpu.cfs_quota_us` and
`memory.limit_in_bytes` of v1. The limits of all parent groups apply as well.
"""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jdissect.runtime.processes import Processes

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# macOS does not report free memory; this share of the total is assumed.
_FREE_UNKNOWN = 0.5


def cores() -> int:
    """Returns the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    quotas = [*_quotas_of_v2(), *_quotas_of_v1()]
    return max(1, min([there, *(math.ceil(quota) for quota in quotas)]))


def free_memory(on_host: int = 1, in_container: int = 1) -> int:
    """Returns the bytes this process can use without swapping; 0 if unknown.

    Args:
      on_host: processes on this host that use as much memory at the same time.
      in_container: those of them that share this process's control group.
    """
    bounds = [free // in_container for free in _free_in_groups()]
    if host := _free_on_host():
        bounds.append(host // on_host)
    return max(0, min(bounds, default=0))


def sharing(processes: "Processes") -> tuple[int, int]:
    """Returns how many processes of a run share this one's host, and its container.

    All processes call this. Host names tell containers apart, and the kernel's boot ID
    tells hosts apart.
    """
    name = platform.node()
    host = _text(_PROC / "sys/kernel/random/boot_id").strip() or name
    everyone = processes.gather([host, name])
    return (
        sum(there == host for there, _ in everyone),
        sum(other == [host, name] for other in everyone),
    )


def _free_on_host() -> int:
    text = _text(_PROC / "meminfo")
    try:
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (IndexError, ValueError):
        pass
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
    return int(_FREE_UNKNOWN * max(size, 0))


def _free_in_groups() -> Iterator[int]:
    """Yields what each memory limit leaves; reclaimable memory counts as free."""
    for folder in _groups(""):
        bound = _number(folder / "memory.max")
        used = _number(folder / "memory.current")
        if bound is not None and used is not None:
            yield bound - used + _cached(folder, "inactive_file")
    for folder in _groups("memory"):
        bound = _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.usage_in_bytes")
        if bound is not None and used is not None:
            yield bound - used + _cached(folder, "total_inactive_file")


def _cached(folder: Path, key: str) -> int:
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdecimal():
            return int(value)
    return 0


def _quotas_of_v2() -> Iterator[float]:
    for folder in _groups(""):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _quotas_of_v1() -> Iterator[float]:
    for folder in _groups("cpu"):
        quota = _number(folder / "cpu.cfs_quota_us")
        period = _number(folder / "cpu.cfs_period_us")
        if quota and period:
            yield quota / period


def _groups(controller: str) -> Iterator[Path]:
    """Yields the folders of this process's control group and its parents.

    In a container, the paths in /proc/self/cgroup may be the host's: missing folders
    are skipped, and the container's own comes last.

    Args:
      controller: the v1 controller; '' for v2.
    """
    for line in _text(_PROC / "self/cgroup").splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if controller not in names.split(",") or (not controller and names):
            continue
        for root in _mounts(controller, names):
            below = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(below), -1, -1):
                folder = root.joinpath(*below[:depth])
                if folder.is_dir():
                    yield folder


def _mounts(controller: str, names: str) -> list[Path]:
    if controller:  # mounted under one name or under the joined names
        places = dict.fromkeys([_CGROUPS / controller, _CGROUPS / names])
        return [place for place in places if place.is_dir()][:1]
    unified = _CGROUPS / "unified"  # v2 mounted beside v1
    return [unified if unified.is_dir() else _CGROUPS]


def _number(path: Path) -> int | None:
    """Returns the number in a file; None without one, such as in 'max' or '-1'."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
