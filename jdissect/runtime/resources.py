"""What this process may use of its machine: cores and memory.

A container, a job of a cluster or a systemd unit is bounded by its control group, which
Linux keeps in files: `cpu.max` and `memory.max` of version 2, `cpu.cfs_quota_us` and
`memory.limit_in_bytes` of version 1. A bound of any group above holds, too.
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
# macOS does not say what is free; so much of what it has is taken for it.
_FREE_UNKNOWN = 0.5


def cores() -> int:
    """Cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    quotas = [*_quotas_of_v2(), *_quotas_of_v1()]
    return max(1, min([there, *(math.ceil(quota) for quota in quotas)]))


def free_memory(on_host: int = 1, in_container: int = 1) -> int:
    """Bytes that this process can have without swapping; 0 where that is not known.

    Args:
      on_host: processes that take as much of this host's memory at the same time.
      in_container: those of them that share this one's control group.
    """
    bounds = [free // in_container for free in _free_in_groups()]
    if host := _free_on_host():
        bounds.append(host // on_host)
    return max(0, min(bounds, default=0))


def sharing(processes: "Processes") -> tuple[int, int]:
    """How many processes of a run share this one's host, and its container.

    All of them call this. Containers of one host are told apart by their host names,
    and hosts by the identity that a kernel draws when it starts.
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
    """What every memory bound leaves; what can be dropped at once counts as free."""
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
    """Folders of this process's control group and of all above it.

    In a container the paths of /proc/self/cgroup may be the host's: folders that are
    not there are passed over, and the container's own is the last.

    Args:
      controller: of version 1; '' is version 2.
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
    if controller:  # mounted by one name, or by all that go together
        places = dict.fromkeys([_CGROUPS / controller, _CGROUPS / names])
        return [place for place in places if place.is_dir()][:1]
    unified = _CGROUPS / "unified"  # beside version 1
    return [unified if unified.is_dir() else _CGROUPS]


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, such as in 'max' or '-1'."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
