"""Launchers and their workers, as hosts of a run start them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 600  # seconds, on a machine that does other things too
LOST = "another process of this run was lost"
AGAIN = "; run the same command again on all hosts"

WORK = [
    "jdissect.main",
    "--config=configs/mixup.py",
    "--config.data.num_images=24",
    "--config.data.batch_size=4",
    "--config.checkpoint_every=2",
    "--config.segmenter.name=annotations",
    "--config.report=false",
]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Host:
    """A launcher and its worker.

    Args:
      command: what comes after '--'.
      flags: of the launcher.
    """

    def __init__(self, command, *flags):
        self._seen = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jdissect.launch", *flags, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "JDISSECT_PROGRESS": "0"},
        )

    def worker(self):
        """Process id of the worker."""
        launcher = self.process.pid
        path = Path(f"/proc/{launcher}/task/{launcher}/children")
        self._seen = int(path.read_text().split()[0])
        return self._seen

    def signal(self, number):
        """Sends the worker a signal."""
        os.kill(self.worker(), number)

    def end(self, timeout=PATIENCE):
        """(exit code, standard output, standard error)."""
        output, error = self.process.communicate(timeout=timeout)
        return self.process.returncode, output, error

    def kill(self):
        """Leaves nothing behind, the worker's group included."""
        with contextlib.suppress(OSError, IndexError):
            self.worker()
        for group in filter(None, (self._seen, self.process.pid)):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        self.process.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def hosts(command, *flags, count=2, indices=None):
    """All hosts of a run; none outlives the block."""
    port, there = free_port(), []
    try:
        for index in range(count) if indices is None else indices:
            there.append(
                Host(
                    command,
                    f"--coordinator_address=127.0.0.1:{port}",
                    f"--num_processes={count}",
                    f"--process_id={index}",
                    *flags,
                )
            )
        yield there
    finally:
        for host in there:
            host.kill()


def wait_for(path, running, timeout=PATIENCE):
    """Until a file is there; a host that ends before it is an error."""
    end = time.monotonic() + timeout
    while not path.exists():
        for host in running:
            assert host.process.poll() is None, host.end()
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)


def one_line(error, *parts):
    """Whether that is all on standard error."""
    assert error.endswith("\n") and error.count("\n") == 1, error
    for part in parts:
        assert part in error, error
    return True
