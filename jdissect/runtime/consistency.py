"""Checks before a run that all its processes do the same thing."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.base.paths import Path
from jdissect.runtime.processes import Processes

_PATIENCE = 10.0  # seconds until a file appears on a shared disk


def check_alike(
    processes: Processes, parts: Mapping[str, Any], layout: Mapping[str, Any]
) -> None:
    """Checks that all processes were started with the same inputs.

    Args:
      processes: the processes of the run.
      parts: the identity of the run (see `base.identity`).
      layout: {name: JSON} of everything else that must agree.

    Raises:
      UserError: the processes differ; raised on all of them, naming what differs.
    """
    mine = {**parts, **layout}
    everyone = processes.gather(mine)
    for process, other in enumerate(everyone):
        names = dict.fromkeys([*everyone[0], *other])
        different = [n for n in names if everyone[0].get(n) != other.get(n)]
        if different:
            raise UserError(
                f"processes 0 and {process} differ in: {', '.join(different)}; start "
                "all of them with the same code, config and data"
            )


def check_shared(processes: Processes, folder: Path) -> None:
    """Checks that all processes see the same work directory.

    Raises:
      UserError: one does not; raised on all processes, naming that one.
    """
    if processes.count == 1:
        return
    token = processes.gather(uuid.uuid4().hex)[0]
    mark = folder / f".seen-{token}"
    with processes.agreeing():
        if processes.first:
            write_whole(mark, b"")
    seen = processes.gather(_appears(mark))
    if processes.first:
        mark.unlink(missing_ok=True)
    if not all(seen):
        raise UserError(
            f"process {seen.index(False)} does not see the --workdir {folder} of "
            "process 0; use a directory that all of them share"
        )


def _appears(path: Path) -> bool:
    end = time.monotonic() + _PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
