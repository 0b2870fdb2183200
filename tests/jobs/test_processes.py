"""One run on many processes: the same bits, and refusals that reach all of them."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.many_processes import ROOT, Group, arrays, run

# 37 images: no number of processes and devices shares them out evenly.
ARGUMENTS = (
    "--config=configs/mixup.py",
    "--config.data.num_images=37",
    "--config.data.batch_size=4",
    "--config.segmenter.name=annotations",
    "--config.report=false",
)


@pytest.fixture(scope="module")
def command(tiny_classifier):
    """Arguments of Python for a run in a folder."""
    program = ["-m", "jdissect.main", *ARGUMENTS, *tiny_classifier]
    return lambda workdir, *more: [*program, f"--workdir={workdir}", *more]


def done(results):
    assert [code for code, _, _ in results] == [0] * len(results), results
    assert all(out == "" for _, out, _ in results[1:]), "only the first one speaks"
    return results[0][1]


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    """The arrays of a run of one process with one device."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done(run([command(folder)]))
    return arrays(folder)


PMAP = "--config.parallel=pmap"


# Every kind of mesh, parallelism, cache and kernels is there, those that depend on
# processes with several of them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "devices", "more"),
    [
        (3, 1, ("--config.cache.features=disk", "--config.kernels=gpu")),
        (2, 2, (PMAP, "--config.cache.features=none")),
        (2, 2, (PMAP, "--config.mesh.unit=2")),
        (2, 4, ("--config.mesh.unit=2",)),
        (1, 8, ("--config.cache.features=device", "--config.kernels=gpu")),
        (1, 2, (PMAP, "--config.cache.features=device", "--config.kernels=tpu")),
    ],
)
def test_same_bits(command, alone, tmp_path, processes, devices, more):
    folder = tmp_path / "run"
    again = command(folder, *more)
    out = done(run([again] * processes, devices))
    assert f"written to {folder}" in out
    assert arrays(folder) == alone
    if processes == 3:
        assert "is finished" in done(run([again] * processes, devices))


@pytest.mark.slow
def test_same_bits_with_the_shipped_upernet(command, tmp_path):
    """Label maps by a network too, and caches that the processes share."""
    few = ["--config.data.num_images=13", "--config.segmenter.name=upernet"]

    def bits(processes, devices, cache):
        folder, cache = tmp_path / "run", f"--config.cache.dir={tmp_path / cache}"
        again = command(folder, *few, cache, "--overwrite")
        done(run([again] * processes, devices))
        return arrays(folder)

    def kept():  # a file that is written again is another one
        files = (tmp_path / "shared" / "labels").rglob("*")
        return {file: file.stat().st_ino for file in files if file.is_file()}

    expected = bits(1, 1, "own")
    assert bits(2, 2, "shared") == expected
    maps = kept()
    assert bits(2, 1, "shared") == expected  # it reads what the others kept
    assert maps and kept() == maps


@pytest.mark.slow
def test_same_bits_of_a_real_network(tmp_path, lite0, drawn):
    """EfficientNet-Lite0 on 17 drawn scenes."""
    expected = None
    for processes, devices in ((1, 1), (2, 2)):
        folder = tmp_path / f"{processes}x{devices}"
        here = [
            *("-m", "jdissect.main", "--config=configs/efficientnet_lite0.py"),
            f"--config.model.weights={lite0}",
            f"--config.data.path={drawn}",
            "--config.data.num_images=17",
            "--config.data.batch_size=4",
            f"--workdir={folder}",
        ]
        done(run([here] * processes, devices))
        expected = expected or arrays(folder)
        assert arrays(folder) == expected


def refused(results, text):
    for code, _, err in results:
        lines = err.splitlines()
        assert code == 2 and len(lines) == 1 and text in lines[0], (code, err)


def test_processes_that_differ_are_refused(command, tmp_path):
    folder = tmp_path / "run"
    results = run([command(folder), command(folder, "--config.quantile=0.02")])
    refused(results, "differ in: quantile")
    assert not folder.exists()


@pytest.mark.slow
def test_other_refusals(command, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    few = ["--config.data.num_images=1"]
    refused(run([command(one, *few)] * 2), "2 processes are more than the 1 images")
    refused(run([command(one), command(two)]), "differ in: workdir")
    uneven = ["--config.mesh.unit=3"]
    refused(
        run([command(one, *uneven)] * 2, 2), "config.mesh.unit is 3; it must divide"
    )
    results = run([command(one), command(one, "--config.model.weights=nowhere")])
    refused(results, "nowhere")
    assert not one.exists() and not two.exists()


@pytest.mark.slow
def test_a_work_directory_that_is_not_shared(tmp_path):
    """The same path in two places: process 1 has another root for it."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    program = (
        f"import os, sys; os.chdir(sys.argv.pop(1)); sys.path.insert(0, {str(ROOT)!r});"
        "from jdissect import main; from jdissect.runtime import command_line;"
        "sys.exit(command_line.entry(main.main))"
    )
    config = f"--config={ROOT}/configs/mixup.py"
    results = run(
        [
            [
                "-c",
                program,
                str(tmp_path / place),
                "--workdir=run",
                config,
                *ARGUMENTS[1:],
            ]
            for place in ("a", "b")
        ]
    )
    refused(results, "process 1 does not see the --workdir run of process 0")
    assert not (tmp_path / "a" / "run").exists()


@pytest.mark.slow
def test_killed_again_and_again(command, alone, tmp_path):
    """kill -9 and SIGTERM at random moments, on layouts that change."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    folder, told = tmp_path / "run", 0
    saving = ["--config.checkpoint_every=1", "--config.cache.features=none"]
    for _ in range(5):
        with Group([command(folder, *saving)], rng.choice([1, 2])) as (process,):
            end = time.monotonic() + 900
            saves = folder / "checkpoints"
            before = set(saves.iterdir()) if saves.exists() else set()
            # Once it has saved something new, at any moment.
            while process.poll() is None and time.monotonic() < end:
                now = set(saves.iterdir()) if saves.exists() else set()
                if any(p.name.isdecimal() for p in now - before):
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
            out, err = process.communicate(timeout=900)
            # The signal came too late, perhaps that of the time before.
            finished = "written to" in out or "is finished" in out
            assert process.returncode in (-9, 143) or finished, (out, err)
            told += "resuming this run from its last save" in out
            if finished:
                break
    done(run([command(folder, *saving)] * 2))
    assert arrays(folder) == alone
    assert told >= 1 and not (folder / "checkpoints").exists()


COLLECTIVES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from jdissect.runtime import devices
texts = []
class Recording(devices.Devices):
    def spmd(self, step):
        compiled = super().spmd(step)
        def call(*arguments):
            texts.append(compiled.lower(*arguments).compile().as_text())
            return compiled(*arguments)
        return call
from tests.dissection import test_engine as t
t.Devices = lambda: Recording(sys.argv[1])
t.run(t.make(), batch=32)
kinds = "all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"
def found(text):
    return [kind for kind in kinds if kind in text]
def summed(state, batch, constants):
    return jax.lax.psum(batch, devices.AXIS)
import numpy as np
recording = Recording(sys.argv[1])
recording.spmd(summed)(recording.states(np.zeros(())), np.ones(4, np.float32), None)
assert found(texts.pop()) == ["all-reduce"], "what this test looks for is not there"
print(len(texts), [found(text) for text in texts if found(text)])
"""


@pytest.mark.parametrize(
    "mode", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)]
)
def test_no_step_communicates(mode):
    """The compiled steps of every pass hold no collective."""
    result = subprocess.run(
        [sys.executable, "-c", COLLECTIVES, mode],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    count, collectives = result.stdout.split(" ", 1)
    assert int(count) >= 5 and collectives.strip() == "[]"
