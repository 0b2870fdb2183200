"""Trees of host arrays in Orbax's format, for one process and silent.

Orbax's defaults make every process of a run wait for the others, and tell the terminal
about shardings. Here any process may read, and the first may write, by itself, on any
number of devices; what is read are NumPy arrays. (Orbax writes NumPy arrays from
process 0 only; from another, `write` would leave a tree without them.)
"""

import contextlib
import itertools
import logging
import os
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp

from jdissect.base.paths import Path

# Barriers of one process are named, and a name may not come twice.
_count = itertools.count()


def write(path: Path, tree: dict) -> None:
    """Writes a nested dict of arrays to `path`, absolute, which must not exist.

    Raises:
      RuntimeError: this is not the run's first process.
    """
    if jax.process_index() != 0:
        raise RuntimeError("only process 0 can write a checkpoint")
    with _checkpointer() as checkpointer, _in_ascii(path) as place:
        checkpointer.save(place, args=ocp.args.PyTreeSave(tree))


def shapes(path: Path) -> dict:
    """The shapes of what `read` would give, as tuples, without reading an array.

    Raises:
      Exception: as `read`.
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
    """Reads what `write` wrote, as NumPy arrays.

    Raises:
      Exception: of many kinds, if there is no such tree or it is damaged.
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
    """The same place by a link, where TensorStore cannot be given its name.

    It takes UTF-8, which the name is not where the locale is another.
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
