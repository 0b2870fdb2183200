"""Writes the metrics of a training run for TensorBoard and for Weights & Biases.

`config.train.metrics` names them. `metrics.jsonl` is always written, and is what an
interrupted run resumes from: records after its last checkpoint are written again. So
TensorBoard is told to hide the events from that step on, and Weights & Biases, whose
steps only increase, is sent no step twice.
"""

import importlib
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jdissect.base import paths
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError

# Name in `config.train.metrics`, and of the extra -> package that it needs.
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
Record = Mapping[str, Any]


class Writer(Protocol):
    """Where records go beside `metrics.jsonl`."""

    def add(self, record: Record) -> None:
        """Writes a record: 'step', and numbers by name."""
        ...

    def close(self) -> None:
        """Writes what is pending, and ends."""
        ...


def check(names: Sequence[str], workdir: str | os.PathLike) -> None:
    """Checks `config.train.metrics` before anything is written.

    Raises:
      UserError: a name is unknown, its package is not installed, or TensorBoard's files
        are to be written into a bucket.
    """
    for name in names:
        if name not in PACKAGES:
            raise UserError(
                f"config.train.metrics has {name!r}; it may have {', '.join(PACKAGES)}"
            )
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"config.train.metrics has {name}, which needs {package}: "
                f"pip install {package}"
            )
        if name == "tensorboard" and paths.is_remote(paths.from_user(workdir)):
            raise UserError(
                "config.train.metrics has tensorboard, which writes to disks only; "
                f"--workdir is {workdir}"
            )


def open_writers(
    names: Sequence[str],
    folder: paths.Path,
    name: str,
    config: Mapping[str, Any],
    done: int,
    kept: Callable[[], Sequence[Record]],
) -> list[Writer]:
    """Opens the writers of a run that starts or resumes; on the first process only.

    Args:
      names: names in PACKAGES.
      folder: the run directory.
      name: name of the run.
      config: the whole config.
      done: number of steps that the run resumes after; 0: it starts.
      kept: reads the records in `metrics.jsonl`, up to that step.

    Raises:
      UserError: a service refuses the run.
    """
    writers: list[Writer] = []
    for each in names:
        if each == "tensorboard":
            writers.append(TensorBoard(folder / "tensorboard", done, kept))
        else:
            writers.append(WeightsAndBiases(folder, name, config))
    return writers


class TensorBoard:
    """Event files in a folder; see `open_writers`."""

    def __init__(
        self, folder: paths.Path, done: int, kept: Callable[[], Sequence[Record]]
    ):
        from tensorboardX import SummaryWriter

        resumed = folder.is_dir() and not paths.is_empty(folder)
        # Events from the step `done` on are hidden, so those to keep are added again.
        self._writer = SummaryWriter(
            os.fspath(folder),
            purge_step=done if resumed else None,
            filename_suffix=f".{done}",
        )
        for record in kept():
            if not resumed or record["step"] >= done:
                self.add(record)

    def add(self, record: Record) -> None:
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the service, whose id is kept in the run directory.

    Project, entity and mode are those of the environment (WANDB_PROJECT, WANDB_ENTITY,
    WANDB_MODE); the project is 'jdissect' by default.
    """

    def __init__(self, folder: paths.Path, name: str, config: Mapping[str, Any]):
        wandb = importlib.import_module("wandb")
        paths.make_folder(folder / "wandb")
        known = folder / "wandb" / "run_id"
        if not known.is_file():
            write_whole(known, secrets.token_hex(8).encode())
        options = {} if paths.is_remote(folder) else {"dir": os.fspath(folder)}
        try:
            self._run = wandb.init(
                id=paths.read_bytes(known).decode(),
                resume="allow",
                name=name,
                config=dict(config),
                project=os.environ.get("WANDB_PROJECT", "jdissect"),
                **options,
            )
        except Exception as error:  # no login, no network, a refused id
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"config.train.metrics: wandb: {lines[0]:.300}") from error

    def add(self, record: Record) -> None:
        if record["step"] >= self._run.step:  # otherwise it is there
            self._run.log(numbers(record), step=record["step"])

    def close(self) -> None:
        self._run.finish()


def numbers(record: Record) -> dict[str, float]:
    """Returns a record's numbers as 'train/loss' or 'validation/top1_error'."""
    group = "train" if "loss" in record else "validation"
    return {
        f"{group}/{name}": value for name, value in record.items() if name != "step"
    }
