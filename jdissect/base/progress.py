"""What a person sees of a long command: where it is, how far, and for how long yet.

On a terminal that is a bar, or the words for what is not counted, with seconds that go
on. Where standard error is none (a batch system, a file, `nohup`) it is a line now and
then, unless `SILENCE` is 0; a command that ends before the first is due prints none.
The same can be kept in a file by a function of the caller's.

What is under way is a stack, as one thing is done within another:

    with Progress() as progress:
        with progress.stage("hashing images"):
            ...
        with progress.counted("network", total=5000) as task:
            with task.stage("label maps"):  # shown as "network, label maps"
                ...
            task.advance(32)
"""

import collections
import contextlib
import dataclasses
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

import tqdm

SILENCE = "JDISSECT_PROGRESS"  # environment variable; 0: no lines
FIRST, EVERY = 10.0, 30.0  # seconds before the first line, and from one to the next
EVERY_REMOTE = 300.0  # from one writing of an object in a store to the next
_TICK = 1.0  # seconds
_SAMPLE, _SAMPLES = 1.0, 60  # the rate is that of about the last minute
_UNITS = {"img": "images", "B": "bytes"}


@dataclasses.dataclass(eq=False)
class _Activity:
    """What is under way; `total` counts where `counted`, None where not known.

    `before` says what is done until the first part of it is.
    """

    name: str
    since: float
    counted: bool = False
    total: int | None = None
    unit: str = "img"
    done: int = 0
    before: str = ""
    remark: str = ""
    samples: collections.deque = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=_SAMPLES)
    )
    last: tuple[float, int] | None = None

    def advance(self, count: int, now: float) -> None:
        self.done += count
        self.last = now, self.done
        # From the end of the first batch on, which also compiles.
        if not self.samples or now - self.samples[-1][0] >= _SAMPLE:
            self.samples.append(self.last)

    def rate(self) -> float | None:
        """A second; None where it is not yet known."""
        if not self.samples:
            return None
        seconds = self.last[0] - self.samples[0][0]
        done = self.last[1] - self.samples[0][1]
        return done / seconds if seconds > 0 and done > 0 else None

    def seconds_left(self) -> float | None:
        """Of this activity; None where that is not known."""
        rate = self.rate()
        if rate is None or self.total is None:
            return None
        return max(0, self.total - self.done) / rate


class Task:
    """Something that is counted, under way."""

    def __init__(self, progress: "Progress", activity: _Activity):
        self._progress, self._activity = progress, activity

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._progress._advance(self._activity, count)

    def remark(self, text: str) -> None:
        """Is shown at the end of the line, such as 'loss=0.123'."""
        self._activity.remark = text

    def stage(self, name: str) -> contextlib.AbstractContextManager:
        """As `Progress.stage`."""
        return self._progress.stage(name)


class Progress:
    """Shows what is under way, while it is open as a context.

    Args:
      silent: show nothing.
      stream: where to; standard error by default.
      clock: seconds.
      ticking: show that time passes by itself, in a thread; else whenever `tick` is
        called.
    """

    def __init__(
        self,
        *,
        silent: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ):
        self._clock, self._ticking = clock, ticking
        self._stream = sys.stderr if stream is None else stream
        self._terminal = not silent and _is_terminal(self._stream)
        wanted = self._stream is not None and os.environ.get(SILENCE) != "0"
        self._lines = wanted and not (silent or self._terminal)
        self._lock = threading.RLock()  # of what is under way, and of the stream
        self._keeping = threading.Lock()  # while a file is written
        self._stack: list[_Activity] = []
        self._bar: tqdm.tqdm | None = None
        self._shown: _Activity | None = None  # by the bar
        self._start = clock()
        self._line_at = self._start + FIRST
        self._keep: Callable[[Mapping[str, Any]], None] | None = None
        self._keep_at, self._keep_every = 0.0, EVERY
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        if self._ticking:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._stack.clear()
            self._show()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Says what a block does, which is not counted."""
        with self._under_way(_Activity(name, self._clock())):
            yield

    @contextlib.contextmanager
    def counted(
        self,
        name: str,
        total: int | None = None,
        unit: str = "img",
        start: int = 0,
        before: str = "",
    ) -> Iterator[Task]:
        """Counts what a block does.

        Args:
          name: of the block.
          total: how many there are; None: not known.
          unit: 'img' for images, 'B' for bytes.
          start: how many were done before.
          before: what is done until the next of them are, such as 'compiling'.
        """
        now = self._clock()
        activity = _Activity(name, now, True, total, unit, start, before)
        with self._under_way(activity):
            yield Task(self, activity)

    @contextlib.contextmanager
    def kept(
        self, write: Callable[[Mapping[str, Any]], None], every: float = EVERY
    ) -> Iterator[None]:
        """Within the block, has `write` keep now and then what is shown.

        What goes wrong in a file ends that, and nothing else. After the block nothing
        is written any more.

        Args:
          write: is given JSON: `stage`; `images` done and `of` how many,
            `images_per_second` and `seconds_left` of that stage, None where not known;
            `updated`, UTC.
          every: seconds.
        """
        with self._lock:
            self._keep, self._keep_every = write, every
            self._keep_at = self._clock() + FIRST
        try:
            yield
        finally:
            with self._keeping, self._lock:
                self._keep = None

    def tick(self) -> None:
        """Shows that time has passed; prints or keeps what is due."""
        with self._lock:
            self._show()
            now = self._clock()
            if self._lines and self._stack and now >= self._line_at:
                self._line_at = now + EVERY
                self._print(f"[{_interval(now - self._start)}] {self._line(now)}")
        with self._keeping:
            with self._lock:
                keep, due = self._keep, self._keep and now >= self._keep_at
                if not (due and self._stack):
                    return
                content = self._content()
                self._keep_at = now + self._keep_every
            try:
                keep(content)
            except Exception:  # a disk, or a store, has many ways to fail
                self._keep = None

    def _run(self):
        while not self._end.wait(_TICK):
            self.tick()

    @contextlib.contextmanager
    def _under_way(self, activity):
        with self._lock:
            self._stack.append(activity)
            self._show()
        try:
            yield
        finally:
            with self._lock:
                if activity in self._stack:
                    self._stack.remove(activity)
                self._show()

    def _advance(self, activity, count):
        with self._lock:
            activity.advance(count, self._clock())
            if self._bar is not None and self._shown is activity:
                self._describe()
                with contextlib.suppress(OSError, ValueError):
                    self._bar.update(count)

    def _counted(self) -> _Activity | None:
        return next((one for one in reversed(self._stack) if one.counted), None)

    def _words(self) -> str:
        """The innermost that is counted, and what is done within it."""
        last, counted = self._stack[-1], self._counted()
        if counted is None:
            return last.name
        within = last.name
        if counted is last:
            within = "" if counted.last else counted.before
        return f"{counted.name}, {within}" if within else counted.name

    def _show(self) -> None:
        """Makes the terminal show what is under way."""
        if not self._terminal:
            return
        wanted = None
        if self._stack:
            wanted = self._counted() or self._stack[-1]
        with contextlib.suppress(OSError, ValueError):
            if wanted is not self._shown:
                if self._bar is not None:
                    self._bar.close()
                self._bar, self._shown = None, wanted
                if wanted is not None:
                    self._bar = self._new_bar(wanted)
            elif self._bar is not None:
                self._describe()
                self._bar.refresh()

    def _describe(self) -> None:
        self._bar.set_description(self._words(), refresh=False)
        if self._shown.remark:
            self._bar.set_postfix_str(self._shown.remark, refresh=False)

    def _new_bar(self, activity: _Activity) -> tqdm.tqdm:
        options = {"desc": self._words(), "file": self._stream, "leave": False}
        if not activity.counted:
            return tqdm.tqdm(bar_format="{desc} [{elapsed}]", **options)
        return tqdm.tqdm(
            total=activity.total,
            initial=activity.done,
            unit=activity.unit,
            unit_scale=activity.unit == "B",
            **options,
        )

    def _line(self, now: float) -> str:
        activity = self._counted()
        if activity is None:
            last = self._stack[-1]
            return f"{last.name}, {_interval(now - last.since)} so far"
        rate, left = activity.rate(), activity.seconds_left()
        parts = [_amount(activity)]
        if rate is not None:
            parts.append(f"{_quantity(rate, activity.unit)}/s")
        if left is not None:
            parts.append(f"about {_interval(left)} left")
        if rate is None:
            parts.append(f"{_interval(now - activity.since)} so far")
        if activity.remark:
            parts.append(activity.remark)
        return f"{self._words()}: {', '.join(parts)}"

    def _content(self) -> dict[str, Any]:
        activity = self._counted() or self._stack[-1]
        rate, left = activity.rate(), activity.seconds_left()
        now = datetime.datetime.now(datetime.UTC)
        return {
            "stage": activity.name,
            "images": activity.done if activity.counted else None,
            "of": activity.total,
            "images_per_second": None if rate is None else round(rate, 2),
            "seconds_left": None if left is None else round(left),
            "updated": now.isoformat(timespec="seconds"),
        }

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except (OSError, ValueError):  # a pipe that nobody reads any more
            self._lines = False


class ImageBars:
    """A `progress` for `Dissection`: counts the images of every pass.

    Args:
      progress: shows it.
      total: images of all processes.
      processes: that share them, about evenly.
    """

    def __init__(self, progress: Progress, total: int, processes: int = 1):
        self._progress, self._total, self._processes = progress, total, processes

    def __call__(
        self, records: Iterable[Any], name: str, start: int = 0
    ) -> Iterator[Any]:
        """The records, counted as they are done.

        Args:
          records: with the `index` of each image, -1 where padded.
          name: of the pass.
          start: images that were done before.
        """
        with self._progress.counted(
            name, self._total, start=start, before="compiling"
        ) as task:
            done = start
            for record in records:
                yield record
                images = int((record.index >= 0).sum()) * self._processes
                images = min(images, self._total - done)
                done += images
                task.advance(images)

    def stage(self, name: str) -> contextlib.AbstractContextManager:
        """As `Progress.stage`."""
        return self._progress.stage(name)


class Silent:
    """A `progress` that shows nothing."""

    def __call__(
        self, records: Iterable[Any], name: str, start: int = 0
    ) -> Iterable[Any]:
        del name, start
        return records

    def stage(self, name: str) -> contextlib.AbstractContextManager:
        del name
        return contextlib.nullcontext()


SILENT = Silent()


@contextlib.contextmanager
def counting(
    name: str,
    total: int | None = None,
    unit: str = "img",
    start: int = 0,
    before: str = "",
    silent: bool = False,
) -> Iterator[Task]:
    """Shows how far a block is, which is counted; see `Progress.counted`."""
    with (
        Progress(silent=silent) as progress,
        progress.counted(name, total, unit, start, before) as task,
    ):
        yield task


@contextlib.contextmanager
def waiting(name: str, silent: bool = False) -> Iterator[None]:
    """Says what a block does; see `Progress.stage`."""
    with Progress(silent=silent) as progress, progress.stage(name):
        yield


def _is_terminal(stream: Any) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def _interval(seconds: float) -> str:
    return tqdm.tqdm.format_interval(seconds)


def _amount(activity: _Activity) -> str:
    if activity.total is None:
        return _quantity(activity.done, activity.unit)
    if activity.unit == "B":
        done, total = (_bytes(n) for n in (activity.done, activity.total))
        return f"{done} of {total}"
    return f"{activity.done:,} of {activity.total:,} {_UNITS[activity.unit]}"


def _quantity(number: float, unit: str) -> str:
    if unit == "B":
        return _bytes(number)
    if isinstance(number, int):
        return f"{number:,} {_UNITS[unit]}"
    digits = 1 if number >= 10 else 2
    return f"{number:,.{digits}f} {_UNITS[unit]}"


def _bytes(number: float) -> str:
    return tqdm.tqdm.format_sizeof(number) + "B"
