"""Arrays of files from anywhere: headers are checked before anything is unpacked."""

import concurrent.futures
import gc
import io
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

import jdissect
from jdissect.base import safe_reading
from jdissect.results import group_counts
from tests import small_runs
from tests.detecting import make_result

HUGE = 40_000_000


def npy(shape, dtype="<f4", version=1) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode()


def replace_member(path, name, content: bytes, **how) -> None:
    with zipfile.ZipFile(path) as old:
        kept = {n: old.read(n) for n in old.namelist() if n != name}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for each, data in kept.items():
            new.writestr(each, data)
        new.writestr(name, content, **how)


def peak(function) -> int:
    """Bytes that were allocated at most, and UserError's text."""
    tracemalloc.start()
    try:
        with pytest.raises(jdissect.UserError) as error:
            function()
        return tracemalloc.get_traced_memory()[1], str(error.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("file", "member", "content", "said"),
    [
        # 160 MB of zeros in 160 KB, of another shape than the layer's.
        ("dissection", "union", npy((HUGE,)) + bytes(4 * HUGE), "'union' holds float"),
        ("topk", "value", npy((HUGE, 1)) + bytes(4 * HUGE), "'value' has shape"),
        ("topk", "value", npy((HUGE, HUGE)), "claims"),
        ("topk", "value", npy((7, 2)) + bytes(99), "not match its number of bytes"),
        ("topk", "value", npy((7, 2)), "not match its number of bytes"),
        ("topk", "value", npy((7, 2), "|O") + bytes(8), "Python objects"),
        ("topk", "value", npy((7, 2), version=2) + bytes(56), "header"),
        ("topk", "value", b"", "topk.npz"),
        ("histogram", "edges", b"\x93NUMPY\1\0\4\0zzzz", "histogram.npz"),
        ("topmaps", "map", npy((7, 2, HUGE, 1)), "not match its number of bytes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else str(value),
)
def test_what_is_not_as_it_should_be_is_not_unpacked(
    tmp_path, file, member, content, said
):
    make_result().save(tmp_path)
    replace_member(tmp_path / f"{file}.npz", f"{member}.npy", content)
    most, text = peak(lambda: jdissect.load(tmp_path))
    assert said in text and f"{file}.npz" in text and most < 20_000_000


def test_the_same_of_counts_by_group(tmp_path):
    small_runs.result(units=5).save(tmp_path)
    path = tmp_path / "blocks.npz"
    replace_member(path, "unit.npy", npy((HUGE, 1, 5), "|u1") + bytes(5 * HUGE))
    most, text = peak(lambda: group_counts.load(path, 5, len(small_runs.CONCEPTS)))
    assert "'unit' has shape" in text and most < 20_000_000
    small_runs.result(units=5, images=40).save(tmp_path)
    by_image = (tmp_path / "by_image.npz").read_bytes()  # 40 groups, not 32
    path.write_bytes(by_image)
    with pytest.raises(jdissect.UserError, match=r"blocks.npz: 'concept' has shape"):
        jdissect.load(tmp_path)


def test_files_that_zip_cannot_read(tmp_path):
    make_result().save(tmp_path)
    path = tmp_path / "topk.npz"
    whole = path.read_bytes()
    middle = len(whole) // 4
    damaged = (
        *(b"", b"PK", whole[:-30], whole[: len(whole) // 2]),
        whole[:middle] + bytes(64) + whole[middle + 64 :],
    )
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(jdissect.UserError, match=r"topk.npz"):
            jdissect.load(tmp_path)
    path.write_bytes(whole)
    value = io.BytesIO()
    np.save(value, np.ones((7, 2), np.float32))
    how = {"compress_type": zipfile.ZIP_LZMA}
    replace_member(path, "value.npy", value.getvalue(), **how)
    with pytest.raises(jdissect.UserError, match="NumPy never writes"):
        jdissect.load(tmp_path)


def test_what_it_reads_is_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    written = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": np.asfortranarray(rng.integers(0, 9, (5, 2))),
        "c": np.array(["ü", "name"]),
        "d": np.zeros((0, 3)),
    }
    np.savez_compressed(tmp_path / "x.npz", **written)
    with safe_reading.Arrays(tmp_path / "x.npz", written) as arrays:
        for name, expected in written.items():
            header = arrays.headers[name]
            assert (header.shape, header.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_array_equal(arrays.read(name), expected)
    with (
        pytest.raises(jdissect.UserError, match="lacks 'e'"),
        safe_reading.Arrays(tmp_path / "x.npz", ["e"]),
    ):
        pass


def test_threads_read_at_the_same_time(tmp_path):
    """A garbage collection that yields to another thread in the middle of a header.

    Python's parser fails then (github.com/python/cpython/issues/106905).
    """
    names = [f"a{i}" for i in range(20)]
    np.savez(tmp_path / "x.npz", **dict.fromkeys(names, np.arange(6.0)))

    def total(_):
        with safe_reading.Arrays(tmp_path / "x.npz", names) as arrays:
            return sum(arrays.read(name).sum() for name in names)

    def another_thread(*_):
        time.sleep(1e-4)

    before = gc.get_threshold()
    gc.callbacks.append(another_thread)
    gc.set_threshold(20)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert set(pool.map(total, range(40))) == {300.0}
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(another_thread)
