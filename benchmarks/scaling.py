"""How much do the processes of a run send each other?

    python -m benchmarks.scaling --config=configs/mixup.py [--config.KEY=VALUE ...]

It should not grow with the images. Runs the config on 1, 2 and 4 processes of this
machine, with 1 and 2 devices each, over all of its images and over half of them, and
prints what all processes together gave to exchanges (`sent_bytes` of summary.json):
agreements at the start, one reduction at the end of each pass, and one at each save.
Steps send nothing. On one machine the processes share its cores, so no time is printed.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from jdissect.runtime import command_line

LAYOUTS = ((1, 1), (2, 1), (2, 2), (4, 1))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run(arguments: list[str], processes: int, devices: int) -> dict:
    """The summary of a run."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flag}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jdissect.main", *arguments]
        command += [f"--workdir={folder}/run"]
        address = f"127.0.0.1:{free_port()}"
        started: list[subprocess.Popen] = []
        for index in range(processes):
            joining = [
                f"--coordinator_address={address}",
                f"--num_processes={processes}",
                f"--process_id={index}",
            ]
            started.append(
                subprocess.Popen(
                    [*command, *(joining if processes > 1 else [])],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                )
            )
        try:
            failed = any(process.wait() for process in started)
        finally:
            for process in started:  # the end of one is the end of all
                process.kill()
        if failed:
            raise SystemExit(2)
        return json.loads((Path(folder) / "run" / "summary.json").read_bytes())


def main(argv: list[str]) -> int:
    """Runs and prints."""
    command_line.parse(command_line.define(argv, {}, {}), argv)
    lines = ["processes  devices each  images   sent in all   bytes an image"]
    for processes, devices in LAYOUTS:
        whole = run(argv[1:], processes, devices)
        half = [*argv[1:], f"--config.data.num_images={whole['images'] // 2}"]
        for summary in (run(half, processes, devices), whole):
            images, sent = summary["images"], summary["sent_bytes"]
            lines.append(
                f"{processes:9d}  {devices:12d}  {images:6d}  {sent:12,d}  "
                f"{sent / images:14,.0f}"
            )
        print("\n".join(lines), flush=True)
        lines = []
    return 0


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
