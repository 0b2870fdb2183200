"""Batches: order, padding, skipping, errors and what is left behind."""

import multiprocessing
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.data.loader import batches
from jdissect.datasets import open_source
from jdissect.scenes import open_scenes


def test_padding_and_skipping(photos, config):
    source = open_source(config("folder", photos))
    result = list(batches(source, 2))
    assert [batch.index.tolist() for batch in result] == [[0, 1], [2, 3], [4, -1]]
    assert [batch.valid.tolist() for batch in result] == [
        [True, True],
        [False, True],
        [True, False],
    ]
    assert [batch.skipped for batch in result] == [
        (),
        ((2, "not an image that PIL can identify"),),
        (),
    ]
    for batch in result:
        assert batch.pixels.shape == (2, 224, 224, 3)
        assert batch.index.dtype == np.int32
        assert batch.labels is None
        assert batch.annotated is None
        for slot, index in enumerate(batch.index):
            if batch.valid[slot]:
                pixels = source.read(index).pixels
                np.testing.assert_array_equal(batch.pixels[slot], pixels)
            else:
                assert not batch.pixels[slot].any()


def test_annotations_travel(broden, config):
    (broden / "images/a/empty.jpg").write_bytes(b"")
    (broden / "images/b/whole.jpg").write_bytes(b"")
    source = open_source(config("broden", broden))
    (batch,) = batches(source, 8)
    assert batch.labels.shape == (8, 5, 2, 3)
    assert batch.labels.dtype == np.int32
    assert batch.annotated.shape == (8, 3)
    assert batch.valid.tolist() == [True, False, True, False, True, *[False] * 3]
    for index in (0, 2, 4):
        example = source.read(index)
        np.testing.assert_array_equal(batch.labels[index], example.labels)
        np.testing.assert_array_equal(batch.annotated[index], example.annotated)
    assert not batch.labels[~batch.valid].any()
    assert not batch.annotated[~batch.valid].any()


def test_start(photos, config):
    source = open_source(config("folder", photos))
    rest = list(batches(source, 2, start=1))
    for ours, whole in zip(rest, list(batches(source, 2))[1:], strict=True):
        np.testing.assert_array_equal(ours.index, whole.index)
        np.testing.assert_array_equal(ours.pixels, whole.pixels)
    assert list(batches(source, 2, start=3)) == []


def test_strict(photos, config):
    source = open_source(config("folder", photos))
    with pytest.raises(UserError, match=r"image 2.png cannot be read: not an image"):
        list(batches(source, 2, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_written(broden, config, workers, capfd):
    (broden / "images/b/cross_object.png").write_bytes(b"")
    source = open_source(config("broden", broden))
    with pytest.raises(UserError) as here:
        source.read(4)
    with pytest.raises(UserError) as there:
        list(batches(source, 2, workers=workers))
    assert str(there.value) == str(here.value)
    assert there.value.__cause__ is None
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


def test_any_number_of_workers_gives_the_same(broden, config, capfd):
    (broden / "images/a/zero.jpg").write_bytes(b"")
    source = open_source(config("broden", broden))
    expected = list(batches(source, 2))
    for workers in (1, 3):
        for ours, theirs in zip(
            batches(source, 2, workers=workers), expected, strict=True
        ):
            for field in ("index", "valid", "pixels", "labels", "annotated"):
                np.testing.assert_array_equal(
                    getattr(ours, field), getattr(theirs, field)
                )
            assert ours.skipped == theirs.skipped
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_abandoning(workers):
    iterator = batches(open_scenes("probe", 300), 4, workers=workers)
    next(iterator)
    iterator.close()
    assert multiprocessing.active_children() == []
    end = time.monotonic() + 300
    while any("grain-prefetch" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < end, "a thread lives on"
        time.sleep(0.01)


_SCRIPT = """
from jdissect.data.loader import batches
from jdissect.scenes import open_scenes

if __name__ == "__main__":
    iterator = batches(open_scenes("probe", 300), 4, workers=2)
    print(next(iterator).index.tolist())
    raise SystemExit(3)
"""


def test_a_script_that_never_parsed_flags():
    """Workers from a plain script, whose iterator lives to its end."""
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "[0, 1, 2, 3]\n", "")


@pytest.mark.timing
def test_an_iterator_that_lives_to_the_end_delays_nothing():
    start = time.monotonic()
    command = [sys.executable, "-c", _SCRIPT]
    subprocess.run(command, capture_output=True)
    assert time.monotonic() - start < 20


@pytest.mark.timing
def test_workers_go_on_for_a_while_after_sigterm():
    """As SLURM tells all processes of a job, and the parent has to save itself."""
    iterator = batches(open_scenes("probe", 40), 4, workers=2)
    next(iterator)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        worker.terminate()
    assert len(list(iterator)) == 9


def test_abandoning_waits_for_nothing():
    iterator = batches(open_scenes("probe", 300), 4, workers=2)
    next(iterator)
    time.sleep(0.5)  # until the workers wait for us
    start = time.monotonic()
    iterator.close()
    assert time.monotonic() - start < 10


def test_sources_need_no_jax():
    """Worker processes that only read should start fast."""
    code = "import sys, jdissect.data; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
