"""Cores and memory of a process, under the bounds of made-up control groups."""

import os
from pathlib import Path

import pytest

from jdissect.base.errors import UserError
from jdissect.jobs import inputs
from jdissect.runtime import machine, resources
from jdissect.runtime.processes import Processes

GB = 10**9


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes files of a made-up /proc and /sys/fs/cgroup; 8 cores, 100 GB are free."""
    monkeypatch.setattr(resources, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def put(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    put("proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:   {100 * GB // 1024} kB")
    return put


def test_no_bounds(system):
    assert resources.cores() == 8
    assert resources.free_memory() == 100 * GB // 1024 * 1024
    # Eight processes of a host take together what one may take alone.
    assert 8 * resources.free_memory(8, 8) <= resources.free_memory()


def test_groups_of_version_2(system):
    system("proc/self/cgroup", "0::/job/task")
    system("cgroup/job/task/memory.max", "max")
    system("cgroup/job/task/memory.current", 3 * GB)
    system("cgroup/job/task/cpu.max", "max 100000")
    assert resources.free_memory() > 99 * GB and resources.cores() == 8
    # The bound of a group above, of which pages of files can be had back.
    system("cgroup/job/memory.max", 10 * GB)
    system("cgroup/job/memory.current", 4 * GB)
    system("cgroup/job/memory.stat", f"anon 5\ninactive_file {GB}\nfile 7")
    system("cgroup/job/cpu.max", "250000 100000")
    assert resources.free_memory() == 7 * GB and resources.cores() == 3
    assert resources.free_memory(8, 7) == GB
    system("cgroup/job/task/memory.max", 5 * GB)
    assert resources.free_memory() == 2 * GB
    # More than it may use: nothing is left.
    system("cgroup/job/task/memory.current", 6 * GB)
    assert resources.free_memory() == 0
    system("cgroup/job/task/cpu.max", "20000 100000")
    assert resources.cores() == 1


def test_groups_of_version_1(system):
    system(
        "proc/self/cgroup",
        "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc",
    )
    # In the container its own group is the root.
    system("cgroup/memory/memory.limit_in_bytes", 6 * GB)
    system("cgroup/memory/memory.usage_in_bytes", 2 * GB)
    system("cgroup/memory/memory.stat", f"cache 1\ntotal_inactive_file {GB // 2}")
    system("cgroup/cpu,cpuacct/cpu.cfs_quota_us", 200000)
    system("cgroup/cpu,cpuacct/cpu.cfs_period_us", 100000)
    assert resources.free_memory() == 4 * GB + GB // 2 and resources.cores() == 2
    # On the host it is a folder, and the root has no bound.
    system("cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    system("cgroup/cpu,cpuacct/cpu.cfs_quota_us", -1)
    assert resources.free_memory() > 99 * GB and resources.cores() == 8
    system("cgroup/memory/docker/abc/memory.limit_in_bytes", 3 * GB)
    system("cgroup/memory/docker/abc/memory.usage_in_bytes", GB)
    assert resources.free_memory() == 2 * GB


@pytest.mark.parametrize("text", ["", "nonsense", "0:", "0::/../..", "::::::"])
def test_odd_files(system, text):
    system("proc/self/cgroup", text)
    system("cgroup/memory.max", "many")
    system("cgroup/cpu.max", "1 0")
    assert resources.cores() == 8 and resources.free_memory() > 99 * GB


def test_a_mac(system, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    (tmp_path / "proc/meminfo").unlink()
    pages = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert resources.cores() == 6
    assert resources.free_memory() == 500 * 4096


def test_who_shares_a_host(system, monkeypatch):
    """Hosts a and b; a has two containers, of which one holds two of the processes."""
    system("proc/sys/kernel/random/boot_id", "a")
    monkeypatch.setattr(resources.platform, "node", lambda: "one")
    everyone = [["a", "one"], ["a", "one"], ["a", "two"], ["b", "one"]]

    class Four(Processes):
        def gather(self, value):
            assert value == ["a", "one"]
            return everyone

    assert resources.sharing(Four(0, 4)) == (3, 2)
    assert resources.sharing(Processes()) == (1, 1)


def test_features_of_many_processes(system, tmp_path, monkeypatch):
    """What fits for one process a host does not for eight."""
    monkeypatch.setattr(machine, "free_disk", lambda folder: 100 * GB)
    keep = machine.keep_features
    # 40 GB of features each.
    assert keep("auto", 4 * 10**6, 10_000, None) == "memory"
    assert keep("auto", 4 * 10**6, 10_000, None, (2, 1)) == "none"
    assert keep("auto", 5 * 10**5, 10_000, None, (8, 8)) == "memory"
    # 60 GB fit neither here nor there, 10 GB on the disk that five share.
    assert keep("auto", 6 * 10**6, 10_000, tmp_path) == "none"
    assert keep("auto", 45 * 10**5, 10_000, tmp_path, (2, 1)) == "none"
    system("proc/meminfo", "MemAvailable: 1 kB")
    assert keep("auto", 10**6, 10_000, tmp_path, (5, 1)) == "disk"
    assert keep("auto", 10**6, 10_000, tmp_path, (6, 1)) == "none"


def test_a_batch_that_no_memory_holds(system):
    """Before anything is begun, rather than by the system's killing the process."""

    def check(batch_size, mask):
        inputs._check_batch(batch_size, 4, (224, 224), (mask, mask))

    check(32, 56)
    # 224 x 224 x 3 bytes and two a pixel of a map, 4 times.
    for size, mask, needed in ((200_000, 56, "125.4"), (1024, 4096, "138.1")):
        with pytest.raises(UserError, match=f"takes at least {needed} GB") as error:
            check(size, mask)
        assert f"config.data.batch_size is {size}; " in str(error.value)
        assert "100.0 GB are free" in str(error.value)
    system("proc/self/cgroup", "0::/")
    system("cgroup/memory.max", GB)
    system("cgroup/memory.current", GB // 2)
    with pytest.raises(UserError, match=r"takes at least 0\.6 GB, but only 0\.5"):
        check(1000, 56)


def test_nobody_else_asks_the_system():
    """Only here, as the call is missing on macOS."""
    root = Path(resources.__file__).parents[2]
    for folder in ("jdissect", "converters", "configs", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            if path.name != "resources.py":
                text = path.read_text(encoding="utf-8")
                assert "sched_getaffinity" not in text, path
                assert "cpu_count(" not in text, path
