"""Reads and writes trees of host arrays with Orbax, in one process and silently.

Orbax's defaults make all processes of a run wait for each other, and print messages
about shardings. Here any process may read and the first may write on its own, with any
number of devices; arrays are read as NumPy arrays. (Orbax writes NumPy arrays only from
process 0; from another, `write` would leave a tree without them.)
"""

import contextlib
import errno
import itertools
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

from jdissect.base import paths
from jdissect.base.paths import Path

# Barriers of one process have names, which must be unique.
_count = itertools.count()
_INDEX = 2**20  # upper bound for the bytes of names and shapes beside the arrays


def write(path: Path, tree: dict) -> None:
    """Writes a nested dict of arrays to `path`, absolute, which must not exist.

    Raises:
      RuntimeError: this is not process 0.
      OSError: the disk has less space than the arrays need.
      ValueError: TensorStore cannot write.
    """
    if jax.process_index() != 0:
        raise RuntimeError("only process 0 can write a checkpoint")
    if not paths.is_remote(path):
        size = sum(array.nbytes for array in jax.tree.leaves(tree))
        _reserve(path, size + _INDEX)
    with _checkpointer() as checkpointer, _in_ascii(path) as place:
        checkpointer.save(place, args=ocp.args.PyTreeSave(tree))


def _reserve(path: Path, size: int) -> None:
    """Checks that `size` bytes are free, by reserving and releasing them.

    If the disk fills up while Orbax writes, its threads print hundreds of lines.

    Raises:
      OSError: there is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    file = path.with_name(f"{path.name}.room")
    try:
        with file.open("wb") as room:
            os.posix_fallocate(room.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        file.unlink(missing_ok=True)


def shapes(path: Path) -> dict:
    """Returns the shapes of the arrays that `read` returns, without reading them.

    Raises:
      Exception: see `read`.
    """
    with _checkpointer() as checkpointer, _in_ascii(path) as place:
        tree = checkpointer.metadata(place).item_metadata.tree
        return jax.tree.map(lambda array: _shape(array.shape), tree)


def _shape(sizes) -> tuple[int, ...]:
    shape = tuple(sizes)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape


def read(path: Path) -> dict:
    """Reads a tree that `write` wrote, as NumPy arrays.

    Raises:
      Exception: of many types, if the tree is missing or damaged.
    """
    with _checkpointer() as checkpointer, _in_ascii(path) as place:
        tree = checkpointer.metadata(place).item_metadata.tree
        arguments = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
        )
        return checkpointer.restore(
            place, args=ocp.args.PyTreeRestore(restore_args=arguments)
        )


@contextlib.contextmanager
def _in_ascii(path: Path) -> Iterator[Path]:
    """Yields an ASCII link to the path if TensorStore cannot take its name.

    TensorStore needs UTF-8, which a path is not in some locales.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="jdissect-") as folder:
            link = pathlib.Path(folder) / "link"
            link.symlink_to(path.parent, target_is_directory=True)
            yield link / path.name
    else:
        yield path


@contextlib.contextmanager
def _checkpointer():
    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=index,
        active_processes={index},
        barrier_sync_key_prefix=f"jdissect_{index}_{next(_count)}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
            yield checkpointer
    finally:
        logger.setLevel(level)
