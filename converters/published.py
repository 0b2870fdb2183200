"""Locates the files of a published segmenter: on disk, or at an address."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jdissect.base.errors import UserError
from jdissect.base.printable import listed
from jdissect.converters import download
from jdissect.runtime.machine import cache_dir


class Published(NamedTuple):
    """The files of a segmenter.

    Attributes:
      encoder, decoder: PyTorch files.
      labels: JSON file with its vocabulary; None if it is published without one.
      address: address from which they were downloaded; '' if they were on disk.
    """

    encoder: Path
    decoder: Path
    labels: Path | None
    address: str


def locate(
    checkpoint: str, epoch: int | None, default_epoch: int, labels: bool = True
) -> Published:
    """Finds a segmenter's files; downloads them if needed.

    Args:
      checkpoint: a folder, or the http(s) address of one.
      epoch: training epoch; None is the last in a folder, `default_epoch` at an
        address.
      default_epoch: epoch of the published files.
      labels: whether a labels.json belongs to them.

    Raises:
      UserError: a file is missing or cannot be downloaded.
    """
    if "://" not in checkpoint:
        folder = Path(checkpoint)
        return _published(folder, _choose(folder, epoch, labels), "")
    cache = cache_dir("")
    if cache is None:
        raise UserError("there is no folder to download to; set XDG_CACHE_HOME to one")
    names = _names(default_epoch if epoch is None else epoch, labels)
    folder = download.fetch(checkpoint, names, cache / "downloads")
    return _published(folder, names, checkpoint)


def _published(folder: Path, names: Sequence[str], address: str) -> Published:
    encoder, decoder, *labels = (folder / name for name in names)
    return Published(encoder, decoder, labels[0] if labels else None, address)


def _names(epoch: int | str, labels: bool) -> tuple[str, ...]:
    names = f"encoder_epoch_{epoch}.pth", f"decoder_epoch_{epoch}.pth"
    return (*names, "labels.json") if labels else names


def _choose(folder: Path, epoch: int | None, labels: bool) -> tuple[str, ...]:
    """Returns a folder's file names for `epoch`, or for the last complete epoch."""
    needed = ", ".join(_names("N", labels))
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "is missing"
        raise UserError(f"checkpoint {folder} {state}; give a folder with {needed}")
    try:
        there = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    if epoch is None:
        found = [re.fullmatch(r"encoder_epoch_(\d+)\.pth", name) for name in there]
        epochs = [match[1] for match in found if match]
        epochs = [text for text in epochs if f"decoder_epoch_{text}.pth" in there]
        names = _names(max(epochs, key=int) if epochs else "N", labels)
    else:
        names = _names(epoch, labels)
    lacks = [name for name in names if name not in there]
    if lacks:
        holds = listed(there, 8) if there else "nothing"
        hint = ""
        if lacks == ["labels.json"]:
            hint = "; for ADE20K's 150 objects, which have none, use converters.ade20k"
        raise UserError(
            f"checkpoint {folder} lacks {', '.join(lacks)}\n(it holds {holds}){hint}"
        )
    return names
