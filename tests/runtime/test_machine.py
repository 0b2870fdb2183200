"""Caches on a machine that does not want them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from jdissect.runtime import machine, resources
from jdissect.runtime.devices import MOST_NETWORKS
from jdissect.runtime.machine import MOST_CORES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
    import os, pathlib, resource, sys, warnings
    import jax
    from jdissect.runtime import machine

    folder, switch, what = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    hits = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None
    )
    if switch == "jdissect":
        machine.use_compilation_cache(folder)
        # XLA's own cache is fatal on a GPU where it cannot be written.
        assert not jax.config.jax_persistent_cache_enable_xla_caches
    else:
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "nobody" in what and os.geteuid() == 0:
        os.seteuid(65534)  # nobody
    if "short" in what:  # every file breaks off, as on a full disk
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))

    def double(x):
        return x * 2

    def triple(x):
        return x * 3

    assert jax.jit(double)(4.0) + jax.jit(triple)(3.0) == 17
    if "other" in what:
        warnings.warn("Error writing a letter", UserWarning)
    print(len(hits))
"""


def start(folder, *arguments):
    """(programs found in the cache, standard error) of a process that compiles two."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), *arguments],
        cwd=ROOT,
        env=variables | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stderr


@pytest.fixture
def open_folder():
    """A folder that any user can reach."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jdissect-nobody-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_is_said_not_made(tmp_path, monkeypatch):
    place = tmp_path / "some" / "where"
    assert machine.cache_dir(str(place)) == place
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert machine.cache_dir("") == tmp_path / "xdg" / "jdissect"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert machine.cache_dir("") == tmp_path / "home" / ".cache" / "jdissect"
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home(monkeypatch):
    """As in a container that runs under a number."""

    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", fail)
    assert machine.cache_dir("") is None


def test_programs_are_found_again(tmp_path):
    folder = tmp_path / "new" / "cache"
    hits, error = start(folder, "jdissect")
    assert (hits, error) == (0, "")
    assert len(list((folder / "compiled").glob("*-cache"))) >= 2
    hits, error = start(folder, "jdissect")
    assert hits >= 2 and error == ""


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "Error reading" in start(tmp_path / "file", "jax")[1]
    assert start(tmp_path / "file", "jdissect") == (0, "")
    assert start(tmp_path / "file" / "below", "jdissect") == (0, "")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk(tmp_path):
    # JAX by itself has something to say, and of what breaks off so do later runs.
    assert start(tmp_path / "1", "jax", "short")[1].count("Error writing") >= 2
    assert start(tmp_path / "1", "jax")[1].count("Error reading") >= 2
    assert start(tmp_path / "2", "jdissect", "short") == (0, "")
    sizes = [path.stat().st_size for path in (tmp_path / "2/compiled").iterdir()]
    assert len(sizes) >= 2 and max(sizes) <= 200
    assert start(tmp_path / "2", "jdissect") == (0, "")


def test_a_folder_of_somebody_else_is_read(open_folder):
    start(open_folder, "jdissect")
    (open_folder / "compiled").chmod(0o555)
    hits, error = start(open_folder, "jdissect", "nobody")
    assert hits >= 2 and error == ""
    for path in (open_folder / "compiled").iterdir():
        path.chmod(0)
    assert "Permission denied" in start(open_folder, "jax", "nobody")[1]
    assert start(open_folder, "jdissect", "nobody") == (0, "")
    (open_folder / "compiled").chmod(0)
    assert start(open_folder, "jdissect", "nobody") == (0, "")


def test_other_warnings_are_shown(tmp_path):
    assert "Error writing a letter" in start(tmp_path, "jdissect", "other")[1]


def test_cores_are_devices_in_every_run_of_a_process():
    program = (
        "from jdissect.runtime.devices import network_devices as devices\n"
        "print([[len(part) for part in devices('shard_map')] for _ in range(2)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    first, second = json.loads(done.stdout)
    assert first == second
    cores = resources.cores()
    assert first == [min(cores, MOST_NETWORKS), min(cores, MOST_CORES)]
