"""What a person sees of a long command, by an invented clock."""

import io
import json
import threading
import types

import numpy as np
import pytest
from PIL import Image

from jdissect import main
from jdissect.base import progress, progress_log
from jdissect.base.progress import ImageBars, Progress
from jdissect.jobs import batches, inputs
from jdissect.runtime import command_line


class Clock:
    """Seconds that go by when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def first_line(monkeypatch):
    monkeypatch.setattr(progress_log, "FIRST", 10.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shown(clock):
    """(a progress that prints lines, what it printed)."""
    stream = io.StringIO()
    made = Progress(stream=stream, clock=clock, ticking=False)
    return made, stream


def wait(made, clock, seconds):
    """Second by second."""
    for _ in range(seconds):
        clock.now += 1
        made.tick()


def batch(images, padding=0):
    return types.SimpleNamespace(index=np.array([*range(images), *[-1] * padding]))


def test_lines_where_there_is_no_terminal(shown, clock):
    made, stream = shown
    with made, made.counted("network", 5000, before="compiling") as task:
        wait(made, clock, 9)
        assert stream.getvalue() == ""
        wait(made, clock, 1)
        assert stream.getvalue() == (
            "[00:10] network, compiling: 0 of 5,000 images, 00:10 so far\n"
        )
        task.advance(200)
        for _ in range(40):  # 20 images a second, from the first batch on
            wait(made, clock, 2)
            task.advance(40)
    lines = stream.getvalue().splitlines()[1:]
    assert lines == [
        "[00:40] network: 760 of 5,000 images, 20.0 images/s, about 03:32 left",
        "[01:10] network: 1,360 of 5,000 images, 20.0 images/s, about 03:02 left",
    ]


def test_no_line_of_what_is_short_or_silent(clock):
    for silent, seconds in ((False, 9), (True, 1000)):
        stream = io.StringIO()
        with (
            Progress(silent=silent, stream=stream, clock=clock, ticking=False) as made,
            made.stage("hashing images"),
        ):
            wait(made, clock, seconds)
        assert stream.getvalue() == ""


def test_lines_can_be_switched_off(clock, monkeypatch):
    monkeypatch.setenv("JDISSECT_PROGRESS", "0")
    stream, kept = io.StringIO(), []
    with (
        Progress(stream=stream, clock=clock, ticking=False) as made,
        made.recorded(kept.append),
        made.stage("hashing images"),
    ):
        wait(made, clock, 60)
    assert stream.getvalue() == "" and len(kept) == 2


def test_words_for_what_is_not_counted(shown, clock):
    made, stream = shown
    with made:
        with made.stage("hashing images"):
            wait(made, clock, 12)
        with (
            made.stage("first pass"),
            made.counted("network", 10) as task,
            task.stage("label maps"),
        ):
            wait(made, clock, 30)
        with made.stage("writing results"), made.stage("report"):
            wait(made, clock, 30)
        wait(made, clock, 60)  # nothing is under way
    assert stream.getvalue().splitlines() == [
        "[00:10] hashing images, 00:10 so far",
        "[00:40] network, label maps: 0 of 10 images, 00:28 so far",
        "[01:10] report, 00:28 so far",
    ]


def test_the_rate_is_that_of_the_last_minute(shown, clock):
    made, stream = shown
    with made, made.counted("network", 100_000) as task:
        for _ in range(100):  # label maps from the cache
            wait(made, clock, 1)
            task.advance(100)
        for _ in range(120):  # and from the network
            wait(made, clock, 1)
            task.advance(1)
    last = stream.getvalue().splitlines()[-1]
    assert "1.00 images/s" in last and "about 25:00:" not in last
    assert "[03:40]" in last and "10,119 of 100,000" in last


def test_bytes_and_unknown_totals(shown, clock):
    made, stream = shown
    with made, made.counted("net.pth", None, "B", start=1_000_000) as task:
        for _ in range(10):
            task.advance(500_000)
            wait(made, clock, 1)
    with made.counted("net.pth", 20_000_000, "B", start=10_000_000) as task:
        for _ in range(31):
            task.advance(100_000)
            wait(made, clock, 1)
    assert stream.getvalue().splitlines() == [
        "[00:10] net.pth: 6.00MB, 500kB/s",
        "[00:40] net.pth: 13.0MB of 20.0MB, 100kB/s, about 01:10 left",
    ]


def test_a_resumed_pass_goes_on_where_it_was(shown, clock):
    """Of four processes, the last of which has fewer images than a batch."""
    made, stream = shown
    bars = ImageBars(made, total=1000, processes=4)
    content = []
    with made, made.recorded(content.append):
        for _ in bars([batch(100), batch(25, 75)], "sketch", start=500):
            wait(made, clock, 10)
    assert stream.getvalue().splitlines() == [
        "[00:10] sketch, compiling: 500 of 1,000 images, 00:10 so far",
    ]
    assert content[0]["images"] == 500 and content[0]["of"] == 1000


def test_a_terminal_shows_a_bar_and_words(clock):
    stream = Terminal()
    with Progress(stream=stream, clock=clock, ticking=False) as made:
        with made.stage("hashing images"):
            made.tick()
            assert "hashing images [00:00]" in stream.getvalue()
        with made.stage("first pass"):
            bars = ImageBars(made, total=1000)
            records = iter(bars([batch(50), batch(50)], "network", start=400))
            next(records)
            made.tick()
            assert "network, compiling:  40%|" in stream.getvalue()
            assert "| 400/1000 [" in stream.getvalue()
            with made.stage("label maps"):
                made.tick()
                assert "network, label maps:  40%|" in stream.getvalue()
            next(records)
            made.tick()
            assert "network:  45%|" in stream.getvalue()
            assert "\n" not in stream.getvalue()
            next(records, None)
        with made.stage("writing results"):
            made.tick()
    text = stream.getvalue()
    assert "writing results [" in text
    assert text.split("\r")[-1] == "" and " 0/1000" not in text  # cleared; never at 0
    assert "so far" not in text


def test_what_is_recorded(clock):
    kept = []
    with Progress(silent=True, clock=clock, ticking=False) as made:
        with made.recorded(kept.append, every=30), made.stage("first pass"):
            wait(made, clock, 10)
            with made.counted("network", 1000) as task:
                for _ in range(60):
                    task.advance(5)
                    wait(made, clock, 1)
        with made.stage("writing results"):
            wait(made, clock, 300)
    assert [part.pop("updated")[-6:] for part in kept] == ["+00:00"] * 3
    nothing = {"images_per_second": None, "seconds_left": None}
    assert kept == [
        {"stage": "first pass", "images": None, "of": None, **nothing},
        {
            "stage": "network",
            "images": 150,
            "of": 1000,
            "images_per_second": 5.0,
            "seconds_left": 170,
        },
        {
            "stage": "network",
            "images": 300,
            "of": 1000,
            "images_per_second": 5.0,
            "seconds_left": 140,
        },
    ]


def test_a_full_disk_or_a_closed_pipe_ends_no_run(clock):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    def full(content):
        calls.append(content)
        raise OSError("No space left on device")

    calls = []
    with (
        Progress(stream=Closed(), clock=clock, ticking=False) as made,
        made.recorded(full, every=1),
        made.stage("first pass"),
    ):
        wait(made, clock, 100)
    assert len(calls) == 1


def test_it_ticks_by_itself(monkeypatch):
    """Also while something is compiled, which calls nothing."""
    monkeypatch.setattr(progress, "_TICK", 0.001)
    monkeypatch.setattr(progress_log, "FIRST", 0.0)
    ticked = threading.Event()
    with (
        Progress(silent=True) as made,
        made.recorded(lambda _: ticked.set()),
        made.stage("compiling"),
    ):
        assert ticked.wait(60)
    assert not made._thread.is_alive()


def test_the_summary_of_an_unfinished_run(tmp_path, monkeypatch, capsys):
    """It says how far the run is, and does not hinder the same command's going on."""
    photos, summaries = tmp_path / "photos", []
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    path = tmp_path / "run" / "summary.json"
    label_maps = batches.Reader._labels

    def labels(reader, batch):
        # As after ten seconds, and then a Ctrl-C.
        reader._progress._record._next = 0
        reader._progress.tick()
        summaries.append(json.loads(path.read_text()))
        if len(summaries) == 2:
            raise KeyboardInterrupt
        return label_maps(reader, batch)

    monkeypatch.setattr(batches.Reader, "_labels", labels)
    monkeypatch.setattr(inputs, "network_devices", lambda mode: [job_devices(mode)] * 2)
    arguments = [
        "--config=configs/baseline.py",
        "--config.data.source=folder",
        f"--config.data.path={photos}",
        "--config.model.layers=stem",
        "--config.segmenter.name=colornames",
        "--config.data.batch_size=2",
        "--config.checkpoint_every=1",
        "--config.report=False",
        f"--config.cache.dir={tmp_path / 'cache'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert command_line.entry(main.main, ["main", *arguments]) == 130
    stored = json.loads(path.read_text())
    assert stored["status"] == "running" and stored["identity"]["quantile"] == 0.01
    seen = summaries[-1]["progress"]
    assert seen["updated"].startswith("20") and summaries[-1] == stored
    assert (seen["stage"], seen["images"], seen["of"]) == ("network", 4, 6)
    monkeypatch.setattr(batches.Reader, "_labels", label_maps)
    capsys.readouterr()
    assert command_line.entry(main.main, ["main", *arguments]) == 0
    out = capsys.readouterr().out
    assert "resuming this run from its last save" in out and "Only 6 images" in out
    finished = json.loads(path.read_text())
    assert finished["status"] == "finished" and "progress" not in finished
    assert finished["identity"] == stored["identity"]


def job_devices(mode):
    """One device, so that batches are small."""
    import jax

    from jdissect.runtime.devices import Devices

    return Devices(mode, jax.local_devices()[:1])
