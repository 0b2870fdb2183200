"""Shows how far a long command is: stage, images done, rate and time left.

On a terminal and in a notebook that is a progress bar. Elsewhere (a batch system, a
file, `nohup`) it is a line of a log now and then; a command that ends before the first
is due prints none. A function of the caller's can record the same in a file.

Activities nest:

    with Progress() as progress:
        with progress.stage("hashing images"):
            ...
        with progress.counted("network", total=5000) as task:
            with task.stage("label maps"):  # shown as "network, label maps"
                ...
            task.advance(32)
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

from jdissect.base import notebook_bar
from jdissect.base.activity import Activity, Stack
from jdissect.base.notebook_bar import NotebookBar
from jdissect.base.progress_bar import ProgressBar
from jdissect.base.progress_log import EVERY, Lines, Record

_TICK = 1.0  # seconds


class Task:
    """An activity that is counted."""

    def __init__(self, progress: "Progress", activity: Activity):
        self._progress, self._activity = progress, activity

    def advance(self, count: int) -> None:
        """Adds `count` images or bytes that are done."""
        self._progress._advance(self._activity, count)

    def remark(self, text: str) -> None:
        """Shows a text at the end of the line, such as 'loss=0.123'."""
        self._activity.remark = text

    def stage(self, name: str) -> contextlib.AbstractContextManager[None]:
        """As `Progress.stage`."""
        return self._progress.stage(name)


class Progress:
    """Shows what is under way, while it is open as a context.

    Args:
      silent: show nothing.
      stream: where to; standard error by default.
      clock: returns seconds.
      ticking: whether a thread shows that time passes; without it, `tick` does.
    """

    def __init__(
        self,
        *,
        silent: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        ticking: bool = True,
    ):
        stream = sys.stderr if stream is None else stream
        terminal = not silent and _is_terminal(stream)
        self._clock, self._ticking = clock, ticking
        self._lock = threading.RLock()  # guards the stack and the stream
        self._recording = threading.Lock()  # held while a record is written
        self._stack = Stack()
        self._bar: ProgressBar | NotebookBar | None = None
        if terminal:
            self._bar = ProgressBar(stream)
        elif not silent and stream is sys.stderr and notebook_bar.in_notebook():
            self._bar = NotebookBar(clock)
        lines = None if silent or self._bar is not None else stream
        self._lines = Lines(lines, clock())
        self._record: Record | None = None
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
        """Shows that the block is under way; nothing in it is counted."""
        with self._under_way(Activity(name, self._clock())):
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
        """Shows how much of the block is done.

        Args:
          name: what the block does.
          total: number of images, bytes...; None if it is not known.
          unit: 'img' for images, 'B' for bytes, 'permutation'.
          start: how many were done before the block.
          before: what is done until the first of them is, such as 'compiling'.
        """
        now = self._clock()
        activity = Activity(name, now, True, total, unit, start, before)
        with self._under_way(activity):
            yield Task(self, activity)

    @contextlib.contextmanager
    def recorded(
        self, write: Callable[[Mapping[str, Any]], None], every: float = EVERY
    ) -> Iterator[None]:
        """Has `write` record the progress now and then while the block runs.

        An error of `write` ends the recording and nothing else. Nothing is written
        after the block.

        Args:
          write: takes the JSON that `progress_log.Record` describes.
          every: seconds between writes.
        """
        with self._lock:
            self._record = Record(write, every, self._clock())
        try:
            yield
        finally:
            with self._recording, self._lock:
                self._record = None

    def tick(self) -> None:
        """Shows that time has passed; prints or records what is due."""
        with self._lock:
            self._show()
            now = self._clock()
            self._lines.tick(self._stack, now)
        with self._recording:
            with self._lock:
                record = self._record
                content = None if record is None else record.due(self._stack, now)
            if record is None or content is None:
                return
            try:
                record.write(content)
            except Exception:  # disks and object stores fail in many ways
                self._record = None

    def _run(self) -> None:
        while not self._end.wait(_TICK):
            self.tick()

    @contextlib.contextmanager
    def _under_way(self, activity: Activity) -> Iterator[None]:
        with self._lock:
            self._stack.push(activity)
            self._show()
        try:
            yield
        finally:
            with self._lock:
                self._stack.remove(activity)
                self._show()

    def _advance(self, activity: Activity, count: int) -> None:
        with self._lock:
            activity.advance(count, self._clock())
            if self._bar is not None:
                self._bar.advance(self._stack, activity, count)

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.show(self._stack)


class ImageBars:
    """A `progress` for `Dissection`: counts the images of every pass.

    Args:
      progress: where they are shown.
      total: number of images, of all processes; None: known after the first pass.
      processes: number of processes, which share the images about evenly.
    """

    def __init__(self, progress: Progress, total: int | None, processes: int = 1):
        self._progress, self._total, self._processes = progress, total, processes

    def __call__(
        self, records: Iterable[Any], name: str, start: int = 0
    ) -> Iterator[Any]:
        """Yields the records and counts their images.

        Args:
          records: batches; `index` is -1 for padding.
          name: name of the pass.
          start: number of images that were done before.
        """
        with self._progress.counted(
            name, self._total, start=start, before="compiling"
        ) as task:
            done = start
            for record in records:
                yield record
                images = int((record.index >= 0).sum()) * self._processes
                if self._total is not None:
                    images = min(images, self._total - done)
                done += images
                task.advance(images)
        self._total = done if self._total is None else self._total

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
    """Shows how much of a block is done; see `Progress.counted`."""
    with (
        Progress(silent=silent) as progress,
        progress.counted(name, total, unit, start, before) as task,
    ):
        yield task


@contextlib.contextmanager
def waiting(name: str, silent: bool = False) -> Iterator[None]:
    """Shows that a block is under way; see `Progress.stage`."""
    with Progress(silent=silent) as progress, progress.stage(name):
        yield


def is_watched() -> bool:
    """Returns whether somebody sees a bar: on a terminal, or in a notebook."""
    return _is_terminal(sys.stderr) or notebook_bar.in_notebook()


def _is_terminal(stream: Any) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False
