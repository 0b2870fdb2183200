"""Runs of many processes on this machine."""

import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests import devices as devices_of

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Group:
    """Processes of one run; a context manager that leaves none behind.

    Args:
      commands: a process's arguments of Python each, without the flags of
        `command_line.join`.
      devices: of each process.
    """

    def __init__(self, commands: Sequence[Sequence[str]], devices: int = 1):
        environment = devices_of.environment(devices) | {"JDISSECT_PROGRESS": "0"}
        address, self._started = f"127.0.0.1:{free_port()}", []
        for index, command in enumerate(commands):
            flags = [
                f"--coordinator_address={address}",
                f"--num_processes={len(commands)}",
                f"--process_id={index}",
            ]
            self._started.append(
                subprocess.Popen(
                    [sys.executable, *command, *(flags if len(commands) > 1 else [])],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )

    def __enter__(self):
        return self._started

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            process.communicate()


def run(commands, devices: int = 1, timeout: float = 900) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of all processes, without what Gloo tells."""
    with Group(commands, devices) as started:
        texts = [process.communicate(timeout=timeout) for process in started]
        return [
            (process.returncode, *map(_ours, text))
            for process, text in zip(started, texts, strict=True)
        ]


def _ours(text: str) -> str:
    return re.sub(r"^\[Gloo\].*\n", "", text, flags=re.MULTILINE)


def arrays(folder: Path) -> dict[str, bytes]:
    """Every array of a run directory, and its list of images."""
    found = {"images.csv": (folder / "images.csv").read_bytes()}
    for file in sorted(folder.rglob("*.npz")):
        with np.load(file) as content:
            for name in content:
                found[f"{file.relative_to(folder)}/{name}"] = content[name].tobytes()
    assert len(found) > 8
    return found
