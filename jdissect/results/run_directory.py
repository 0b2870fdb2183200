"""Manages run directories: identifies runs, resumes them, and writes their files.

A run directory holds `config.json`, `images.csv`, `summary.json` and one folder per
layer (see `layer_result`); while unfinished also `checkpoints` (see `run_state`). A run
that replaces a finished one is made in a run directory inside it (see `replacing`): the
old run stays until the new one is complete. A run's *identity* is everything that can
change its numbers, in named parts; the *result hash* is the hash of all parts, so that
a directory is never resumed or reused for another run, and an error can say what
differs.
"""

import concurrent.futures
import contextlib
import json
import os
from collections.abc import Container, Mapping, Sequence
from typing import Any, NoReturn

from jdissect.base import paths, replacing
from jdissect.base.atomic_files import utf8, write_whole
from jdissect.base.csv_cells import csv_text
from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.results.group_counts import block
from jdissect.results.load_layer import load, stored_thresholds

FORMAT_VERSION = 1
MARK = "summary.json"
_FILES = (MARK, "config.json", "images.csv", "report.html")
_SAVED_AT_ONCE = 4  # layers: each is in memory once more, compressed


class Run:
    """A run directory.

    Attributes:
      folder: path of the directory.
      place: where the run is made: in `folder`, or beside a finished run.
      parts: the identity of the run.
    """

    def __init__(self, folder: str | os.PathLike, parts: Mapping[str, Any]):
        self.folder, self.parts = paths.from_user(folder), dict(parts)
        self.place = self.folder
        self._new: list[paths.Path] = []
        self._layers: tuple[str, ...] = ()

    @property
    def result_hash(self) -> str:
        return digest(self.parts)

    def stored_summary(self) -> dict | None:
        """Returns the stored summary; None in a missing or empty directory.

        Raises:
          UserError: the directory holds something else, or a file is damaged.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; give another --workdir")
        summary = _read_summary(replacing.current(self.folder, MARK) / MARK)
        there = self.folder.is_dir() and not paths.is_empty(self.folder)
        if summary is None and there:
            raise UserError(
                f"{self.folder} is not empty and not a run; give another --workdir"
            )
        return summary

    def is_finished(self, overwrite: bool) -> bool:
        """Returns whether this run is there, complete; otherwise chooses `place`.

        Args:
          overwrite: whether to replace an existing run: a finished one once this one is
            complete, or an unfinished one of another identity. This very run, if
            unfinished, is resumed.

        Raises:
          UserError: another run is there, and `overwrite` is False.
        """
        summary = self.stored_summary()
        self.place = self.folder
        if summary is None:
            return False
        same = summary["result_hash"] == self.result_hash
        finished = summary["status"] == "finished"
        if not same and not overwrite:
            self._refuse(summary["identity"])
        if same and finished and not overwrite:
            return True
        if finished:
            self.place = replacing.replacement_of(self.folder, self.result_hash)
            made = _read_summary(self.place / MARK) or {}
            # Complete except for the switch.
            return made.get("status") == "finished" and self._is_this(made)
        return False

    def recount(self, config: Mapping[str, Any], thresholds: Sequence[float]) -> bool:
        """Recounts the finished run at other IoU thresholds, from its stored results.

        Removes the run's page, which shows the old thresholds.

        Args:
          config: config that replaces the stored one.
          thresholds: IoU thresholds in [0, 1).

        Returns:
          whether the thresholds have changed.

        Raises:
          UserError: a stored file is damaged.
          OSError: a file cannot be written.
        """
        folder = replacing.current(self.folder, MARK)
        summary = _read_summary(folder / MARK) or {}
        layers = [folder / _plain(layer) for layer in summary.get("layers", [])]
        wanted = tuple(thresholds)
        changed = [layer for layer in layers if stored_thresholds(layer) != wanted]
        results = {layer: load(layer) for layer in changed}
        if changed:
            (folder / "report.html").unlink(missing_ok=True)
            self._write("config.json", config)
        for layer, result in results.items():
            result.replace(iou_thresholds=wanted).save_summary(layer)
        return bool(changed)

    def settle(self) -> None:
        """Finishes an interrupted switch to a newer run."""
        replacing.finish_interrupted(self.folder, MARK, _owned)

    def _is_this(self, summary: Mapping) -> bool:
        return summary.get("result_hash") == self.result_hash

    def _refuse(self, stored: Mapping) -> NoReturn:
        changed = [
            key
            for key in dict.fromkeys([*self.parts, *stored])
            if self.parts.get(key) != stored.get(key)
        ]
        raise UserError(
            f"{self.folder} holds another run (different: {', '.join(changed)}); "
            "give another --workdir, or --overwrite to replace it"
        )

    @property
    def checkpoints(self) -> paths.Path:
        """Folder with the state of the unfinished run."""
        return self.place / "checkpoints"

    def begin(self, config: Mapping[str, Any], layers: Sequence[str]) -> None:
        """Prepares `place` for the run, which may have been interrupted before."""
        if not paths.is_remote(self.place):
            above = [self.place, *self.place.parents]
            self._new = [path for path in above if not path.exists()]
        self._layers = tuple(layers)
        replacing.finish_interrupted(self.folder, MARK, _owned, keep=self.place)
        previous = _read_summary(self.place / MARK) or {}
        going_on = self._is_this(previous) and previous["status"] == "running"
        paths.make_folder(self.place)
        if not going_on:
            # First, so that no run resumes from another's state.
            paths.remove_folder(self.checkpoints)
        # Next, so that an interruption leaves an unfinished run, never a finished one
        # without its arrays, or files that belong to no run.
        self._summarize("running", images=0, skipped=[], seconds={}, layers=layers)
        for layer in previous.get("layers", []):
            paths.remove_folder(self.place / _plain(layer))
        for name in ("images.csv", "report.html"):
            (self.place / name).unlink(missing_ok=True)
        self._write("config.json", config)

    def tell_progress(self, layers: Sequence[str], progress: Mapping) -> None:
        """Adds the progress of an unfinished run to its summary.

        Args:
          layers: as `begin` has them.
          progress: JSON; see `base.progress_log.Record`.
        """
        self._summarize(
            "running",
            images=0,
            skipped=[],
            seconds={},
            layers=layers,
            progress=dict(progress),
        )

    def abandon(self) -> bool:
        """Removes what was written since `begin`, unless a state was saved.

        Returns:
          whether nothing is left to resume or to read.
        """
        summary = _read_summary(self.place / MARK) or {}
        if summary.get("status") == "finished" or self._has_saved():
            return False
        for layer in self._layers:
            paths.remove_folder(self.place / _plain(layer))
        paths.remove_folder(self.checkpoints)
        for name in _FILES:
            with contextlib.suppress(OSError):  # the earlier error matters more
                (self.place / name).unlink()
        for folder in self._new:
            try:
                folder.rmdir()
            except OSError:
                break
        return True

    def _has_saved(self) -> bool:
        from jdissect.checkpoints.run_state import (
            Checkpoints,  # loads Orbax, which readers avoid
        )

        return bool(Checkpoints(self.checkpoints).steps())

    def finish(
        self,
        *,
        found: Mapping[str, Any],
        names: Sequence[str],
        hashes: Sequence[str],
        skipped: Mapping[int, str],
        images: int,
        seconds: Mapping[str, float],
        sent_bytes: int = 0,
        top1_error: float | None = None,
    ) -> None:
        """Writes the results; the summary last.

        `hashes` are the images' content hashes, for images.csv: a later drawing can
        check that an image is the one that was counted. `sent_bytes` is the total that
        the run's processes sent in exchanges, `top1_error` the network's top-1 error in
        percent, if known.
        """

        def save(layer):
            found[layer].save(self.place / _plain(layer))

        # Mostly compression, which releases the GIL.
        with concurrent.futures.ThreadPoolExecutor(_SAVED_AT_ONCE) as pool:
            list(pool.map(save, found))
        write_whole(self.place / "images.csv", utf8(images_csv(names, hashes, skipped)))
        self._summarize(
            "finished",
            images=images,
            skipped=[names[index] for index in sorted(skipped)],
            skipped_reasons={names[i]: skipped[i] for i in sorted(skipped)},
            seconds=dict(seconds),
            layers=list(found),
            sent_bytes=sent_bytes,
            **({} if top1_error is None else {"top1_error": top1_error}),
        )
        paths.remove_folder(self.checkpoints)
        if self.place != self.folder:
            replacing.switch(self.folder, self.place, MARK, _owned)
            self.place = self.folder

    def _summarize(self, status, **fields):
        self._write(
            MARK,
            {
                "format_version": FORMAT_VERSION,
                "result_hash": self.result_hash,
                "identity": self.parts,
                "status": status,
                **fields,
            },
        )

    def _write(self, name, content):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_whole(self.place / name, utf8(text + "\n"))


def _read_summary(path: paths.Path) -> dict | None:
    """Returns a run's summary; None if there is none.

    Raises:
      UserError: the file is something else, or of a newer version.
    """
    if not path.is_file():
        return None
    try:
        summary = json.loads(paths.read_bytes(path))
        version = summary["format_version"]
        summary["result_hash"], summary["status"], summary["identity"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is not the summary of a run; give another --workdir"
        ) from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, newer than this program's "
            f"{FORMAT_VERSION}; update jdissect or give another --workdir"
        )
    return summary


def _owned(folder: paths.Path) -> list[str]:
    """Returns the names of everything in a folder that belongs to the run."""
    summary = _read_summary(folder / MARK) or {}
    layers = [layer for layer in summary.get("layers", []) if isinstance(layer, str)]
    return [*_FILES, "checkpoints", *layers]


def images_csv(
    names: Sequence[str], hashes: Sequence[str], skipped: Container[int] = ()
) -> str:
    """Returns the content of images.csv: images by index, with block and content hash.

    Names are made safe for a spreadsheet; `csv_cells.true_text` restores them.
    """
    rows = (
        (index, name, block(name), int(index in skipped), digest)
        for index, (name, digest) in enumerate(zip(names, hashes, strict=True))
    )
    return csv_text([("index", "name", "block", "skipped", "sha256"), *rows])


def _plain(layer: str) -> str:
    """Returns a layer's folder name; one from a damaged summary must not lead out."""
    if not layer or "/" in layer or "\\" in layer or layer in (".", ".."):
        raise UserError(f"'{layer}' cannot be the name of a layer's folder")
    return layer
