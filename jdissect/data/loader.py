"""Reads batches of a source ahead with Grain while the device computes.

Batches follow the order of indices and all have one shape, so a pass over a source is
the same for any number of threads and worker processes. Workers return an unreadable
image as a value, not as an exception: this module decides whether to skip or refuse it,
and the user sees the error without Grain's traceback.
"""

import atexit
import dataclasses
import itertools
import multiprocessing
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Int32, UInt8

from jdissect.base.concepts import categories
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.source import Example, Readable, UnreadableImage
from jdissect.runtime import resources

# Images per element of the Grain pipeline; the cost per element grows with the buffer.
CHUNK = 4
# More threads than this would only wait for the GIL.
MAX_THREADS = 8
# Seconds that a worker process goes on after SIGTERM.
GRACE = 30.0


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive images of a source.

    Attributes:
        index: image index in the source; -1 for padding.
        valid: False for padding and for skipped images.
        pixels: RGB, 0 .. 255; zeros where not valid.
        labels: label numbers; zeros where not valid. None without annotations.
        annotated: categories for which the image counts; False where not valid. None
            without annotations.
        skipped: (index, reason) of each unreadable image.
    """

    index: Int32[np.ndarray, " batch"]
    valid: Bool[np.ndarray, " batch"]
    pixels: UInt8[np.ndarray, "batch height width 3"]
    labels: Int32[np.ndarray, "batch maps grid_height grid_width"] | None
    annotated: Bool[np.ndarray, "batch categories"] | None
    skipped: tuple[tuple[int, str], ...]


def batches(
    source: Readable,
    batch_size: int,
    *,
    workers: int = 0,
    prefetch: int = 2,
    strict: bool = False,
    start: int = 0,
    at_least: int = 0,
) -> Generator[Batch, None, None]:
    """Reads a source once, in index order.

    Args:
        source: what to read.
        batch_size: images per batch; the last batch is padded to it.
        workers: number of worker processes; 0 reads in threads of this process.
            Processes pay off if decoding keeps more than a few cores busy.
        prefetch: batches to read ahead.
        strict: refuse a source with an unreadable image instead of skipping the image.
        start: number of batches to skip, to resume an interrupted run.
        at_least: minimum number of batches; added ones contain only padding.

    Yields:
        batches of equal shapes. Closing the iterator stops its threads and worker
        processes.

    Raises:
        UserError: an error of the source's `read`, or with `strict` the first
            unreadable image.
    """
    first = start * batch_size
    count = len(source.names)
    ahead = -(-max(1, prefetch) * batch_size // CHUNK)
    padding = max(0, at_least - start - max(0, -(-(count - first) // batch_size)))
    if first >= count:
        yield from (_empty(source, batch_size) for _ in range(padding))
        return
    if workers == 0:
        chunks, stop = _start_threads(source, first, ahead)
    else:
        chunks, stop = _start_processes(source, first, ahead, workers)
    results = itertools.chain.from_iterable(chunks)
    try:
        for begin in range(first, count, batch_size):
            batch = _empty(source, batch_size)
            skipped = []
            for slot in range(min(batch_size, count - begin)):
                batch.index[slot] = index = begin + slot
                result = next(results)
                if isinstance(result, Example):
                    batch.valid[slot] = True
                    batch.pixels[slot] = result.pixels
                    if batch.labels is not None and batch.annotated is not None:
                        batch.labels[slot] = result.labels
                        batch.annotated[slot] = result.annotated
                elif result.of_source:
                    raise UserError(result.text)
                elif strict:
                    raise UserError(
                        f"image {printable(source.names[index])} cannot be read: "
                        f"{result.text}. (config.data.strict is set.)"
                    )
                else:
                    skipped.append((index, result.text))
            yield dataclasses.replace(batch, skipped=tuple(skipped))
        yield from (_empty(source, batch_size) for _ in range(padding))
    finally:
        stop()


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Why an image could not be read, and whether that invalidates the source."""

    text: str
    of_source: bool


@dataclasses.dataclass(frozen=True)
class _ReadChunk:
    """Reads a chunk by its first index; Grain maps it, here or in a worker."""

    source: Readable
    stop_file: str = ""  # once it exists, chunks are empty

    def __call__(self, begin: int) -> list[Example | _Problem]:
        if self.stop_file and Path(self.stop_file).exists():
            return []
        end = min(begin + CHUNK, len(self.source.names))
        return [self._read(index) for index in range(begin, end)]

    def _read(self, index: int) -> Example | _Problem:
        try:
            return self.source.read(index)
        except UnreadableImage as error:
            return _Problem(error.reason, of_source=False)
        except UserError as error:
            return _Problem(str(error), of_source=True)


def _start_threads(
    source: Readable, first: int, ahead: int
) -> tuple[grain.DatasetIterator, Callable[[], None]]:
    """Starts reading chunks from image `first`; returns them and a stop function."""
    chunks = iter(
        grain.MapDataset.range(first, len(source.names), CHUNK)
        .map(_ReadChunk(source))
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=min(ahead, MAX_THREADS, resources.cores()),
                prefetch_buffer_size=ahead,
            )
        )
    )
    return chunks, chunks.close


def _start_processes(
    source: Readable, first: int, ahead: int, workers: int
) -> tuple[grain.DatasetIterator, Callable[[], None]]:
    """Like `_start_threads`, with worker processes."""
    if not flags.FLAGS.is_parsed():
        # Grain's worker processes read its absl flags, which a library user has no
        # reason to parse.
        flags.FLAGS.mark_as_parsed()
    stop_file = Path(tempfile.gettempdir()) / f"jdissect-stop-{uuid.uuid4().hex}"
    chunks = iter(
        grain.MapDataset.range(first, len(source.names), CHUNK)
        .map(_ReadChunk(source, str(stop_file)))
        .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        .mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=workers, per_worker_buffer_size=-(-ahead // workers)
            ),
            worker_init_fn=_start_worker,
        )
    )

    def stop() -> None:
        # A worker with half a chunk in its pipe cannot exit, and Grain would wait for
        # it for half a minute. So the workers are told to send empty chunks, and
        # pending chunks are consumed until each worker (they take turns) sends one.
        atexit.unregister(stop)
        try:
            stop_file.touch()
            empty = 0
            while empty < workers:
                empty = 0 if next(chunks) else empty + 1
        except Exception:
            pass  # exhausted, or a worker died: nothing is pending
        finally:
            chunks.close()
            stop_file.unlink(missing_ok=True)

    # Needed where an exception's traceback keeps the iterator alive until exit.
    atexit.register(stop)
    return chunks, stop


def _start_worker(worker: int, workers: int) -> None:
    """Makes a worker process end silently, and with its parent."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # SLURM sends SIGTERM to all processes of a job, and the parent needs this one for
    # the step under way.
    signal.signal(signal.SIGTERM, lambda *_: _end_in(GRACE))
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _end_in(seconds: float) -> None:
    """Ends this process, unless it has ended by then."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _empty(source: Readable, batch_size: int) -> Batch:
    """Returns a batch that contains only padding."""
    labels = annotated = None
    if source.annotations is not None:
        notes = source.annotations
        labels = np.zeros((batch_size, notes.maps, *notes.grid), np.int32)
        annotated = np.zeros((batch_size, len(categories(notes.concepts))), bool)
    return Batch(
        index=np.full(batch_size, -1, np.int32),
        valid=np.zeros(batch_size, bool),
        pixels=np.zeros((batch_size, *source.image_shape, 3), np.uint8),
        labels=labels,
        annotated=annotated,
        skipped=(),
    )
