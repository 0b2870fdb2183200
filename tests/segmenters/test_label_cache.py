"""Label maps on disk: what comes back, what is not believed, what goes wrong."""

import contextlib
import errno
import hashlib
import os
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from jdissect.segmenters import label_cache
from jdissect.segmenters.label_cache import LabelCache

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOBODY = 65534
HOUR = 3600
FIRST_LINES = (
    "import sys, numpy as np\nfrom jdissect.segmenters.label_cache import LabelCache\n"
)


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def a_map(seed=0, shape=(6, 56, 56), values=300):
    """Random numbers in blocks, which pack about as well as real maps."""
    small = np.random.default_rng(seed).integers(
        -1, values, (shape[0], -(-shape[1] // 2), -(-shape[2] // 2))
    )
    large = small.repeat(2, axis=1).repeat(2, axis=2)[:, : shape[1], : shape[2]]
    return large.astype(np.int16)


def entry_path(folder, name):
    return folder / name[:2] / name


def entries(folder):
    """Sizes of entries by name, found without the code under test."""
    return {
        path.name: path.stat().st_size
        for path in folder.glob("??/*")
        if not path.name.startswith(".")
    }


def temporaries(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def forge(name, shape, payload, magic=b"jdlm", version=1, dtype=b"i2"):
    """An entry by the format's description, its checksum right whatever it says."""
    content = struct.pack("<4sH2s", magic, version, dtype)
    content += bytes.fromhex(name) + struct.pack("<3I", *shape) + payload
    return content + hashlib.sha256(content).digest()


def store_bytes(folder, name, content):
    path = entry_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def warned():
    return []


@pytest.fixture
def cache(tmp_path, warned):
    """An empty cache; a warning that a test does not expect fails it."""
    yield LabelCache(tmp_path / "new" / "labels", warn=warned.append)
    assert warned == []


@pytest.fixture
def nobody():
    """Where modes bind: as an ordinary user, in a folder that one can reach."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jdissect-nobody-"))
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_owner(folder):
    """The other user, whose `folder` it is: root, if that is who runs the tests."""
    root = os.getuid() == 0
    if root:
        os.seteuid(0)
    yield folder
    if root:
        os.seteuid(NOBODY)


# --- what comes back


@pytest.mark.parametrize(
    "shape", [(6, 56, 56), (1, 1, 1), (1, 112, 112), (2, 3, 700), (40, 5, 1)]
)
@pytest.mark.parametrize("kind", ["blocks", "noise", "zeros"])
def test_round_trip(cache, shape, kind):
    maps = {
        "blocks": a_map(1, shape),
        "noise": np.random.default_rng(2)
        .integers(-32768, 32768, shape)
        .astype(np.int16),
        "zeros": np.zeros(shape, np.int16),
    }[kind]
    assert cache.get(key(0)) is None
    cache.put(key(0), maps)
    found = cache.get(key(0))
    np.testing.assert_array_equal(found, maps)
    assert found.dtype == np.int16 and found.dtype.isnative
    assert found.flags.c_contiguous and found.flags.writeable
    found[:] = 7  # one's own
    np.testing.assert_array_equal(cache.get(key(0)), maps)
    assert cache.get(key(1)) is None


def test_any_layout_in_memory(cache):
    maps = a_map(3, (4, 20, 30))
    for number, view in enumerate(
        [maps[::2, ::-1, 3:], maps.transpose(2, 0, 1), np.asfortranarray(maps)]
    ):
        cache.put(key(number), view)
        np.testing.assert_array_equal(cache.get(key(number)), view)


def test_layout_on_disk(cache, tmp_path):
    """The format is what the module says, so that another version can read it."""
    maps = a_map(4, (2, 5, 6))
    cache.put(key(0), maps)
    content = entry_path(tmp_path / "new" / "labels", key(0)).read_bytes()
    packed = content[52:-32]
    assert content == forge(key(0), (2, 5, 6), packed)
    assert zlib.decompress(packed) == maps.astype("<i2").tobytes()
    assert temporaries(tmp_path) == []


def test_a_second_put_replaces(cache, tmp_path):
    cache.put(key(0), a_map(5))
    cache.put(key(0), a_map(6, (1, 8, 8)))
    np.testing.assert_array_equal(cache.get(key(0)), a_map(6, (1, 8, 8)))
    assert len(entries(tmp_path / "new" / "labels")) == 1


def test_another_run_finds_them(cache, tmp_path):
    for number in range(30):
        cache.put(key(number), a_map(number))
    again = LabelCache(str(tmp_path / "new" / "labels"))
    for number in range(30):
        np.testing.assert_array_equal(again.get(key(number)), a_map(number))


def test_no_folder_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = LabelCache(None, max_bytes=10, warn=pytest.fail)
    cache.put(key(0), a_map())
    assert cache.get(key(0)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    "maps",
    [
        a_map().astype(np.int32),
        a_map().astype(np.uint16),
        a_map().astype(">i2"),
        a_map().astype(np.float32),
        a_map()[0],
        a_map()[None],
        np.zeros((0, 5, 5), np.int16),
        np.zeros((1, 5, 0), np.int16),
    ],
    ids=lambda maps: f"{maps.dtype}{maps.shape}",
)
def test_other_arrays_are_refused(tmp_path, maps, kept):
    cache = LabelCache(tmp_path if kept else None)
    with pytest.raises(ValueError, match="int16"):
        cache.put(key(0), maps)
    assert entries(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        key(0)[1:],
        key(0) + "0",
        key(0).upper(),
        "../" + key(0)[3:],
        key(0)[:63] + "\n",
    ],
)
def test_other_keys_are_refused(cache, tmp_path, name):
    with pytest.raises(ValueError, match="is not a key"):
        cache.put(name, a_map())
    with pytest.raises(ValueError, match="is not a key"):
        cache.get(name)
    assert list(tmp_path.iterdir()) == []


def test_too_large_to_keep(cache, tmp_path, monkeypatch):
    cache.put(key(0), a_map())
    monkeypatch.setattr(label_cache, "MAX_MAP_BYTES", a_map().nbytes)
    cache.put(key(0), a_map(1, (6, 56, 57)))
    np.testing.assert_array_equal(cache.get(key(0)), a_map())
    monkeypatch.setattr(label_cache, "MAX_MAP_BYTES", a_map().nbytes - 1)
    assert cache.get(key(0)) is None


# --- what is not believed


@pytest.fixture
def small(cache, tmp_path):
    """A small entry of key 0: (its maps, its file, its bytes)."""
    maps = a_map(7, (2, 5, 6), 20)
    cache.put(key(0), maps)
    path = entry_path(tmp_path / "new" / "labels", key(0))
    return maps, path, path.read_bytes()


def test_every_changed_byte_is_noticed(cache, small):
    maps, path, content = small
    for place in range(len(content)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            path.write_bytes(damaged)
            assert cache.get(key(0)) is None, (place, change)
    path.write_bytes(content)
    np.testing.assert_array_equal(cache.get(key(0)), maps)


def test_every_other_length_is_noticed(cache, small):
    _, path, content = small
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert cache.get(key(0)) is None, length
        path.write_bytes(content[:length] + bytes(len(content) - length))
        assert cache.get(key(0)) is None, length
    for more in (b"\0", b"x", b"\0" * 4096, content):
        path.write_bytes(content + more)
        assert cache.get(key(0)) is None, more


def test_a_renamed_entry_is_noticed(cache, small):
    _, path, content = small
    other = key(0)[:2] + key(1)[2:]
    path.rename(path.with_name(other))
    assert cache.get(other) is None
    assert cache.get(key(0)) is None


def test_a_damaged_entry_is_replaced(cache, small):
    maps, path, content = small
    path.write_bytes(content[:-1])
    cache.put(key(0), maps)
    np.testing.assert_array_equal(cache.get(key(0)), maps)
    assert path.read_bytes() == content


ONE = np.arange(4, dtype="<i2").tobytes()  # of shape (1, 2, 2)


def test_forged_entries_can_be_right(cache, tmp_path):
    """Or else the test below would pass whatever the reason."""
    entry = forge(key(0), (1, 2, 2), zlib.compress(ONE))
    store_bytes(tmp_path / "new" / "labels", key(0), entry)
    assert cache.get(key(0)).tolist() == [[[0, 1], [2, 3]]]


SHAPE, PACKED = (1, 2, 2), zlib.compress(ONE)
FORGED = {
    "longer than the shape": ((1, 1, 2), PACKED, {}),
    "shorter than the shape": ((1, 2, 3), PACKED, {}),
    "nothing": ((0, 2, 2), zlib.compress(b""), {}),
    "something of shape 0": ((0, 2, 2), PACKED, {}),
    "not packed": (SHAPE, ONE, {}),
    "no maps": (SHAPE, b"", {}),
    "cut short": (SHAPE, PACKED[:-1], {}),
    "without zlib's checksum": (SHAPE, PACKED[:-4], {}),
    "more behind": (SHAPE, PACKED + b"\0", {}),
    "twice": (SHAPE, PACKED * 2, {}),
    "another version": (SHAPE, PACKED, {"version": 2}),
    "another program's": (SHAPE, PACKED, {"magic": b"jdlx"}),
    "other numbers": (SHAPE, PACKED, {"dtype": b"u2"}),
    "a huge shape": ((2**32 - 1,) * 3, PACKED, {}),
    "just too large": ((6, 2365, 2365), PACKED, {}),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_entries(cache, tmp_path, name):
    shape, payload, header = FORGED[name]
    entry = forge(key(0), shape, payload, **header)
    store_bytes(tmp_path / "new" / "labels", key(0), entry)
    assert cache.get(key(0)) is None


@pytest.mark.parametrize("shape", [(6, 56, 56), (2**20, 2**20, 2**20), (1, 1, 1)])
def test_a_bomb_takes_no_memory(cache, tmp_path, shape):
    """A checksum is right for whoever computes it."""
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200))
    bomb += packer.flush()
    assert len(bomb) < 1 << 18
    store_bytes(tmp_path / "new" / "labels", key(0), forge(key(0), shape, bomb))
    tracemalloc.start()
    try:
        assert cache.get(key(0)) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_huge_file_is_not_read(cache, tmp_path):
    path = store_bytes(tmp_path / "new" / "labels", key(0), b"")
    os.truncate(path, 1 << 40)  # takes no space
    tracemalloc.start()
    try:
        assert cache.get(key(0)) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_file(cache, tmp_path, warned):
    path = store_bytes(tmp_path / "new" / "labels", key(0), b"")
    path.unlink()
    os.mkfifo(path)  # must not wait for a writer
    assert cache.get(key(0)) is None
    cache.put(key(0), a_map())
    np.testing.assert_array_equal(cache.get(key(0)), a_map())
    path.unlink()
    path.mkdir()
    assert cache.get(key(0)) is None
    cache.put(key(0), a_map())
    assert cache.get(key(0)) is None
    assert "Is a directory" in warned.pop()


# --- several at once


def start(script, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            FIRST_LINES + textwrap.dedent(script),
            *map(str, arguments),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes):
    """What each printed; fails if one failed or complained."""
    found = [process.communicate(timeout=600) for process in processes]
    for process, (_, error) in zip(processes, found, strict=True):
        assert (process.returncode, error) == (0, "")
    return [output for output, _ in found]


WORK = """
    import hashlib
    folder, bound, expect = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "always"
    rng = np.random.default_rng(int(sys.argv[4]))
    cache = LabelCache(folder, bound)
    keys = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(12)]
    hits = 0
    for _ in range(200):
        n = int(rng.integers(12))
        if rng.random() < 0.5:
            cache.put(keys[n], np.full((6, 80, 80), n, np.int16))
        else:
            found = cache.get(keys[n])
            assert found is not None or not expect, "an entry was away"
            if found is not None:
                assert found.shape == (6, 80, 80) and (found == n).all()
                hits += 1
    print(hits)
"""


def test_processes_share_a_folder(tmp_path):
    """An entry once there is there at every moment while others write it again."""
    cache = LabelCache(tmp_path)
    for number in range(12):
        cache.put(key(number), np.full((6, 80, 80), number, np.int16))
    size = sum(entries(tmp_path).values())
    output = finish(*(start(WORK, tmp_path, 0, "always", n) for n in range(3)))
    assert all(int(hits) > 50 for hits in output)
    assert len(entries(tmp_path)) == 12 and sum(entries(tmp_path).values()) == size
    assert temporaries(tmp_path) == []


@pytest.mark.slow
def test_processes_delete_at_once(tmp_path):
    one = 200
    output = finish(*(start(WORK, tmp_path, 6 * one, "-", n) for n in range(3)))
    assert all(int(hits) > 5 for hits in output)
    sizes = entries(tmp_path)
    assert max(sizes.values()) < one and 0 < sum(sizes.values()) <= 9 * one
    cache = LabelCache(tmp_path)
    assert all(cache.get(name) is not None for name in sizes)


KILLED = """
    import os, signal, time
    from hashlib import sha256
    from jdissect.segmenters import label_cache

    rng, pack = np.random.default_rng(0), label_cache._pack
    maps = [rng.integers(0, 9999, (6, 300, 300), np.int16) for n in range(7)]
    keys = [sha256(str(n).encode()).hexdigest() for n in range(7)]
    # Packed beforehand, so that a writer does nothing but write.
    packed = {key: pack(key, some) for key, some in zip(keys, maps)}
    label_cache._pack = lambda key, maps: packed[key]
    for seconds in map(float, sys.argv[2:]):
        process = os.fork()
        while not process:
            for key, some in zip(keys, maps):
                LabelCache(sys.argv[1]).put(key, some)
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    for key, some in zip(keys, maps):  # on a slow machine none came so far
        LabelCache(sys.argv[1]).put(key, some)
"""


def test_killed_writers_leave_whole_entries(tmp_path):
    seed = random.randrange(10**6)
    print("seed", seed)
    moments = random.Random(seed)
    finish(start(KILLED, tmp_path, *(moments.uniform(0, 0.05) for _ in range(60))))
    rng = np.random.default_rng(0)
    cache = LabelCache(tmp_path)
    for number in range(7):
        maps = rng.integers(0, 9999, (6, 300, 300), np.int16)
        np.testing.assert_array_equal(cache.get(key(number)), maps)
    assert set(entries(tmp_path)) == {key(number) for number in range(7)}
    halves = temporaries(tmp_path)
    print(len(halves), "of 60 were killed while writing")
    for path in halves:
        os.utime(path, (time.time() - 2 * HOUR,) * 2)
    LabelCache(tmp_path).put(key(0), a_map())
    assert temporaries(tmp_path) == []


def test_only_stale_temporaries_are_removed(cache, tmp_path):
    folder = tmp_path / "new" / "labels"
    mine = [f"{key(0)[:2]}/.{key(0)}.{n * 32}.tmp" for n in "ab"]
    others = [f"{key(0)[:2]}/.nfs0001", "notes.tmp", f".{key(0)}.{'c' * 32}.tmp"]
    others.append(f"other/.{key(0)}.{'c' * 32}.tmp")
    for name in [*mine, *others]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")
        if name != mine[0]:
            os.utime(folder / name, (time.time() - 2 * HOUR,) * 2)
    cache.put(key(1), a_map())
    assert [name for name in [*mine, *others] if (folder / name).exists()] == [
        mine[0],
        *others,
    ]


def at_once(work, count=8):
    """Calls work(0), work(1), ... each in a thread, starting together."""
    together = threading.Barrier(count)

    def run(number):
        together.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads(tmp_path, warned):
    one = 14_000
    cache = LabelCache(tmp_path, 10 * one, warned.append)
    wrong = []

    def work(number):
        rng = np.random.default_rng(number)
        try:
            for _ in range(60):
                n = int(rng.integers(30))
                found = cache.get(key(n))
                if found is None:
                    cache.put(key(n), a_map(n, values=900))
                elif (found != a_map(n, values=900)).any():
                    wrong.append(n)
        except BaseException as error:
            wrong.append(error)

    at_once(work)
    assert wrong == [] and warned == []
    assert 0 < sum(entries(tmp_path).values()) <= 10 * one
    assert temporaries(tmp_path) == []


def test_threads_keep_the_bound_with_slow_writes(tmp_path, monkeypatch):
    replace = pathlib.Path.replace
    monkeypatch.setattr(
        pathlib.Path,
        "replace",
        lambda *paths: time.sleep(0.02) or replace(*paths),
    )
    cache = LabelCache(tmp_path, 30_000)
    at_once(lambda number: cache.put(key(number), a_map(number)))
    assert 10_000 < sum(entries(tmp_path).values()) <= 30_000


# --- the bound


def aged(folder, number, seconds):
    then = time.time() - seconds
    os.utime(entry_path(folder, key(number)), (then, then))


def test_oldest_go_first(tmp_path):
    unbounded = LabelCache(tmp_path)
    for number in range(10):
        unbounded.put(key(number), a_map(number))
        # Not in the order of writing, names or numbers.
        aged(tmp_path, number, 100 + number * 7 % 10)
    sizes = entries(tmp_path)
    total = sum(sizes.values())
    ages = sorted(range(10), key=lambda number: -(number * 7 % 10))
    # What is there fits; one more does not.
    cache = LabelCache(tmp_path, total)
    cache.put(key(10), a_map(10))
    # Down to nine tenths with the new one: the two oldest of about equal size.
    assert set(sizes) - set(entries(tmp_path)) == {key(n) for n in ages[:2]}
    assert key(10) in entries(tmp_path)


def test_the_bound_holds_after_every_put(tmp_path):
    bound = 50_000
    cache = LabelCache(tmp_path, bound)
    most = 0
    for number in range(40):
        cache.put(key(number), a_map(number))
        np.testing.assert_array_equal(cache.get(key(number)), a_map(number))
        most = max(most, sum(entries(tmp_path).values()))
        assert most <= bound
    assert most > 0.8 * bound  # and is made use of
    # The newest are there, but for the last that did not fit.
    ages = sorted(
        entries(tmp_path), key=lambda n: entry_path(tmp_path, n).stat().st_mtime_ns
    )
    assert ages == [key(n) for n in range(40 - len(ages), 40)]


def test_a_folder_that_is_too_full(tmp_path):
    unbounded = LabelCache(tmp_path)
    for number in range(20):
        unbounded.put(key(number), a_map(number))
        aged(tmp_path, number, 100 - number)
    size = max(entries(tmp_path).values())
    cache = LabelCache(tmp_path, 5 * size)
    assert cache.get(key(0)) is not None  # reading deletes nothing
    cache.put(key(20), a_map(20))
    assert sum(entries(tmp_path).values()) <= 5 * size
    assert key(0) not in entries(tmp_path) and key(19) in entries(tmp_path)


@pytest.mark.parametrize("bound", [1, 100, 3000])
def test_a_bound_below_one_entry(tmp_path, bound, warned):
    LabelCache(tmp_path).put(key(0), a_map(0))
    cache = LabelCache(tmp_path, bound, warned.append)
    for number in range(1, 6):
        cache.put(key(number), a_map(number))
        assert entries(tmp_path) == {}
    assert warned == []
    # A bound between small and large keeps the small ones.
    cache.put(key(6), np.zeros((1, 2, 2), np.int16))
    assert len(entries(tmp_path)) == (bound > 1)


def test_the_bound_is_met_exactly(tmp_path):
    LabelCache(tmp_path).put(key(0), a_map(0))
    (size,) = entries(tmp_path).values()
    LabelCache(tmp_path, size).put(key(0), a_map(0))
    assert entries(tmp_path) == {key(0): size}
    LabelCache(tmp_path, size - 1).put(key(0), a_map(0))
    assert entries(tmp_path) == {}


def test_what_another_run_writes_counts(tmp_path):
    bound = 100_000
    one, other = LabelCache(tmp_path, bound), LabelCache(tmp_path, bound)
    for number in range(40):
        (one, other)[number % 2].put(key(number), a_map(number))
        # A twentieth and an entry, for the one that looks last.
        assert sum(entries(tmp_path).values()) <= bound * 1.05 + 14_000


def test_deleted_meanwhile(tmp_path, monkeypatch, warned):
    """Another run deletes between this one's looking and deleting."""
    bound = 60_000
    cache = LabelCache(tmp_path, bound, warned.append)
    unlink = pathlib.Path.unlink
    others = []

    def unlink_after_another(path, missing_ok=False):
        if path.parent.parent == tmp_path and not path.name.startswith("."):
            others.append(path)
            unlink(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", unlink_after_another)
    for number in range(20):
        cache.put(key(number), a_map(number))
        assert sum(entries(tmp_path).values()) <= bound
    assert len(others) > 5 and warned == []


def test_deleting_by_another_thread(tmp_path, warned):
    bound, done = 60_000, threading.Event()

    def delete():
        while not done.is_set():
            for path in tmp_path.glob("??/*"):
                if not path.name.startswith("."):
                    path.unlink(missing_ok=True)
            for path in tmp_path.glob("??"):
                with contextlib.suppress(OSError):
                    path.rmdir()

    thread = threading.Thread(target=delete)
    cache = LabelCache(tmp_path, bound, warned.append)
    thread.start()
    try:
        for number in range(200):
            cache.put(key(number), a_map(number % 10))
            found = cache.get(key(number))
            assert found is None or (found == a_map(number % 10)).all()
    finally:
        done.set()
        thread.join()
    # The folder may vanish in the instant between being made and written to.
    assert len(warned) <= 1


def test_what_is_not_ours_stays(tmp_path):
    LabelCache(tmp_path).put(key(0), a_map(0))
    mine = [tmp_path / "letter.txt", tmp_path / key(0)[:2] / "letter.txt"]
    mine += [tmp_path / "photos" / key(1), tmp_path / "zz" / key(2)]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100_000))
        os.utime(path, (0, 0))
    LabelCache(tmp_path, 1).put(key(3), a_map())
    assert all(path.is_file() for path in mine)
    assert not entry_path(tmp_path, key(0)).exists()


def test_what_cannot_be_deleted(tmp_path, monkeypatch, warned):
    LabelCache(tmp_path).put(key(0), a_map(0))
    before = entries(tmp_path)

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    cache = LabelCache(tmp_path, sum(before.values()) + 1, warned.append)
    for number in range(1, 4):
        cache.put(key(number), a_map(number))
    assert entries(tmp_path) == before
    assert len(warned) == 1 and "Operation not permitted" in warned[0]


# --- what goes wrong


def check_stopped(cache, warned, folder, reason, kept=()):
    """One warning for any number of attempts, and reading goes on."""
    for number in range(100, 105):
        cache.put(key(number), a_map(number))
        assert cache.get(key(number)) is None
    assert warned == [
        f"label maps are not cached: {folder}: {reason}; the run continues without"
    ]
    for number in kept:
        np.testing.assert_array_equal(cache.get(key(number)), a_map(number))


def test_the_warning_as_it_is_seen(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cache = LabelCache(tmp_path / "file")
    for number in range(3):
        cache.put(key(number), a_map())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"warning: label maps are not cached: {tmp_path / 'file'}: Not a directory; "
        "the run continues without\n"
    )


@pytest.mark.parametrize("bound", [0, 10**6])
@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_file_where_a_folder_should_be(tmp_path, warned, bound, place):
    (tmp_path / "file").write_text("mine")
    cache = LabelCache(tmp_path / place, bound, warned.append)
    check_stopped(cache, warned, tmp_path / place, "Not a directory")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_where_a_shard_should_be(tmp_path, warned):
    cache = LabelCache(tmp_path, warn=warned.append)
    cache.put(key(0), a_map(0))
    for number in range(100, 105):
        (tmp_path / key(number)[:2]).write_text("")
    check_stopped(cache, warned, tmp_path, "Not a directory", [0])


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE],
    ids=errno.errorcode.get,
)
@pytest.mark.parametrize("step", ["open", "replace"])
def test_any_failure_to_write(tmp_path, warned, monkeypatch, number, step):
    cache = LabelCache(tmp_path, warn=warned.append)
    cache.put(key(0), a_map(0))
    real, attempts = getattr(pathlib.Path, step), []

    def fail(path, *arguments):
        if path.name.endswith(".tmp"):
            attempts.append(path)
            raise OSError(number, os.strerror(number))  # a full disk does not say where
        return real(path, *arguments)

    monkeypatch.setattr(pathlib.Path, step, fail)
    check_stopped(cache, warned, tmp_path, os.strerror(number), [0])
    assert len(attempts) == 1
    assert list(entries(tmp_path)) == [key(0)] and temporaries(tmp_path) == []
    monkeypatch.undo()
    cache.put(key(1), a_map(1))
    assert cache.get(key(1)) is None  # no further attempt


def test_a_write_that_breaks_off(tmp_path, warned):
    """The kernel refuses the second half of a file: nothing of it stays."""
    cache = LabelCache(tmp_path, warn=warned.append)
    cache.put(key(0), a_map(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        cache.put(key(100), a_map(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(entries(tmp_path)) == [key(0)] and temporaries(tmp_path) == []
    check_stopped(cache, warned, tmp_path, "File too large", [0])


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"]
    try:
        subprocess.run(
            ["mount", *options, str(folder)], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(disk, warned):
    cache = LabelCache(disk / "labels", warn=warned.append)
    number = 0
    while not warned:
        cache.put(key(number), a_map(number))
        number += 1
        assert number < 100
    assert number > 2
    check_stopped(
        cache, warned, disk / "labels", "No space left on device", range(number - 1)
    )
    assert temporaries(disk) == [] and len(entries(disk / "labels")) == number - 1
    # The bound of another run makes room again.
    LabelCache(disk / "labels", 30_000, pytest.fail).put(key(200), a_map(200))
    assert key(200) in entries(disk / "labels")


def test_a_disk_that_is_read_only(disk, warned):
    LabelCache(disk).put(key(0), a_map(0))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    cache = LabelCache(disk, warn=warned.append)
    check_stopped(cache, warned, disk, "Read-only file system", [0])


def test_a_folder_of_somebody_else(nobody, warned):
    with as_owner(nobody):
        LabelCache(nobody / "labels").put(key(0), a_map(0))
        for path in [*nobody.glob("labels/*"), nobody / "labels"]:
            path.chmod(0o555)
    cache = LabelCache(nobody / "labels", warn=warned.append)
    check_stopped(cache, warned, nobody / "labels", "Permission denied", [0])


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_cannot_be_entered(nobody, warned, mode):
    with as_owner(nobody):
        LabelCache(nobody / "labels").put(key(0), a_map(0))
        (nobody / "labels").chmod(mode)
    cache = LabelCache(nobody / "labels", warn=warned.append)
    assert (cache.get(key(0)) is None) == (mode != 0o111)
    check_stopped(cache, warned, nobody / "labels", "Permission denied")


def test_an_entry_that_may_not_be_read(nobody, warned):
    with as_owner(nobody):
        LabelCache(nobody).put(key(0), a_map(0))
        entry_path(nobody, key(0)).chmod(0)
        entry_path(nobody, key(0)).parent.chmod(0o777)
    cache = LabelCache(nobody, warn=warned.append)
    assert cache.get(key(0)) is None
    cache.put(key(0), a_map(0))
    np.testing.assert_array_equal(cache.get(key(0)), a_map(0))
    assert warned == []


def test_an_entry_that_cannot_be_read(cache, monkeypatch):
    cache.put(key(0), a_map(0))
    real = os.fstat

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fstat", fail)
    assert cache.get(key(0)) is None
    monkeypatch.setattr(os, "fstat", real)
    assert cache.get(key(0)) is not None


def test_a_folder_that_vanishes(cache, tmp_path):
    cache.put(key(0), a_map(0))
    shutil.rmtree(tmp_path / "new")
    assert cache.get(key(0)) is None
    cache.put(key(0), a_map(0))
    np.testing.assert_array_equal(cache.get(key(0)), a_map(0))


def test_a_folder_that_keeps_vanishing(tmp_path, warned, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "mkdir", lambda *_, **__: None)
    cache = LabelCache(tmp_path / "labels", warn=warned.append)
    check_stopped(cache, warned, tmp_path / "labels", "No such file or directory")


def test_threads_that_fail_together_warn_once(tmp_path, warned, monkeypatch):
    def fail(folder):
        time.sleep(0.02)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(label_cache, "_listed", fail)
    cache = LabelCache(tmp_path, warn=warned.append)
    at_once(lambda number: cache.put(key(number), a_map(number)))
    assert len(warned) == 1


def test_an_interrupted_write_leaves_nothing(cache, tmp_path, monkeypatch):
    def interrupt(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(key(0), a_map())
    assert entries(tmp_path / "new" / "labels") == {} and temporaries(tmp_path) == []


def test_size_of_a_segmenters_maps(cache, golden, tmp_path):
    segmentation = np.load(golden / "dissection.npz")["segmentation"]
    for number, maps in enumerate(segmentation):
        cache.put(key(number), maps)
    sizes = entries(tmp_path / "new" / "labels")
    # Rule-drawn weights find 250 numbers on a photograph, 460 on a drawn picture.
    most = 9000 if len(segmentation) == 24 else 15_000
    assert np.mean(list(sizes.values())) < most
    for number, maps in enumerate(segmentation):
        np.testing.assert_array_equal(cache.get(key(number)), maps)


@pytest.mark.timing
def test_time_of_a_segmenters_maps(cache, golden):
    segmentation = np.load(golden / "dissection.npz")["segmentation"]
    for number, maps in enumerate(segmentation):
        cache.put(key(number), maps)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        for number in range(len(segmentation)):
            cache.get(key(number))
        best = min(best, (time.perf_counter() - start) / len(segmentation))
    assert best < 1e-3
