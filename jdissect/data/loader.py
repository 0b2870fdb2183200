"""Batches of a source, read ahead by Grain while the device computes.

The order is that of the indices and every batch has one shape, so a pass over a source
is the same for any number of threads and worker processes. An image's outcome travels
from a worker as a value, not as an exception: skipping and refusing are decided here,
and an error reaches the user as it was written, without Grain's traceback.
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
from collections.abc import Callable, Iterator
from pathlib import Path

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Int32, UInt8

from jdissect.base.concepts import categories
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.data.source import Example, Source, UnreadableImage
from jdissect.runtime import resources

# Images an element of the Grain pipeline: its cost an element grows with the buffer.
CHUNK = 4
# More threads than this wait for the interpreter's lock rather than decode.
MAX_THREADS = 8
# Seconds that a worker process goes on after SIGTERM.
GRACE = 30.0


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some consecutive images of a source.

    Attributes:
        index: image index in the source; -1 where padded.
        valid: False for padding and for skipped images.
        pixels: RGB, 0 .. 255; zeros where not valid.
        labels: label numbers; zeros where not valid. None without annotations.
        annotated: which categories the image counts for; False where not valid. None
            without annotations.
        skipped: (index, reason) of the images that could not be read.
    """

    index: Int32[np.ndarray, " batch"]
    valid: Bool[np.ndarray, " batch"]
    pixels: UInt8[np.ndarray, "batch height width 3"]
    labels: Int32[np.ndarray, "batch maps grid_height grid_width"] | None
    annotated: Bool[np.ndarray, "batch categories"] | None
    skipped: tuple[tuple[int, str], ...]


def batches(
    source: Source,
    batch_size: int,
    *,
    workers: int = 0,
    prefetch: int = 2,
    strict: bool = False,
    start: int = 0,
    at_least: int = 0,
) -> Iterator[Batch]:
    """Reads a source once, in index order.

    Args:
        source: what to read.
        batch_size: images a batch; the last batch is padded to it.
        workers: 0 reads in threads of this process; else this many processes, which
            pays where decoding keeps more than a few cores busy.
        prefetch: batches to read ahead.
        strict: refuse a source with an unreadable image rather than skip it.
        start: leave out this many batches, to go on where a run was interrupted.
        at_least: of batches, the last of them perhaps of padding only.

    Yields:
        batches of equal shapes. Abandoning the iterator stops its threads and worker
        processes.

    Raises:
        UserError: what a source's `read` raises; with `strict` also for the first
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
                    if batch.labels is not None:
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
    """Why an image could not be read, and whether that condemns the source."""

    text: str
    of_source: bool


@dataclasses.dataclass(frozen=True)
class _ReadChunk:
    """What Grain maps over the first indices of chunks, here or in a worker."""

    source: Source
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
    source: Source, first: int, ahead: int
) -> tuple[grain.DatasetIterator, Callable[[], None]]:
    """Chunks from image `first` on, `ahead` of them early, and how to stop."""
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
    source: Source, first: int, ahead: int, workers: int
) -> tuple[grain.DatasetIterator, Callable[[], None]]:
    """As `_start_threads`, from worker processes."""
    if not flags.FLAGS.is_parsed():
        # Grain's worker processes read its absl flags, which a user of the library
        # has had no reason to parse.
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
        # A worker with half a chunk in its pipe cannot end, and Grain would wait for
        # it half a minute. So the workers are told to send empty chunks, and what was
        # under way is taken first, until each of them (they take turns) obeys.
        atexit.unregister(stop)
        try:
            stop_file.touch()
            empty = 0
            while empty < workers:
                empty = 0 if next(chunks) else empty + 1
        except Exception:
            pass  # the end, or a worker that died: nothing is under way
        finally:
            chunks.close()
            stop_file.unlink(missing_ok=True)

    # Where an exception's traceback holds the iterator until the very end.
    atexit.register(stop)
    return chunks, stop


def _start_worker(worker: int, workers: int) -> None:
    """Ties a worker process to its parent: no farewell of its own, no orphans."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # SLURM sends SIGTERM to all processes of a job, and the parent needs this one for
    # the step under way.
    signal.signal(signal.SIGTERM, lambda *_: _end_in(GRACE))
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _end_in(seconds: float) -> None:
    """Ends this process, unless it has ended by then."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _empty(source: Source, batch_size: int) -> Batch:
    """A batch of nothing but padding."""
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
