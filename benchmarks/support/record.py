"""Where and when a figure was measured, and files that say so beside it."""

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

from jdissect.runtime import resources

RESULTS = Path(__file__).parents[1] / "results"

Row = Mapping[str, Any]


def environment() -> dict[str, Any]:
    """The hardware, the versions and the date (UTC), as JSON."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": resources.cores(),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def in_words(environment: Mapping[str, Any]) -> str:
    """The same in a line; versions of more packages come last."""
    known = ("processor", "cores", "backend", "device", "devices", "date")
    versions = [f"{k} {v}" for k, v in environment.items() if k not in known]
    accelerator = ""
    if environment["backend"] != "cpu":
        accelerator = f"{environment['devices']} x {environment['device']}; "
    return (
        f"{accelerator}{environment['cores']} cores of {environment['processor']}; "
        f"{', '.join(versions)}; {environment['date']}"
    )


def text(rows: Sequence[Row]) -> str:
    """The table with aligned columns; the first column's cells stand left."""
    cells = [list(rows[0]), *([_cell(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def markdown(record: Mapping[str, Any]) -> str:
    """A page: title, what ran where, the table, notes."""
    rows = record["rows"]
    align = ["---", *["---:"] * (len(rows[0]) - 1)]
    lines = [list(rows[0]), align, *([_cell(v) for v in row.values()] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n- {note}" for note in record["notes"])
    where = f"`{record['command']}` on {in_words(record['environment'])}"
    return f"# {record['title']}\n\n{where}\n\n{table}\n{notes}\n"


def write(
    name: str,
    rows: Sequence[Row],
    *,
    title: str,
    command: str,
    notes: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    json_file: str | Path | None = None,
    markdown_file: str | Path | None = None,
) -> list[Path]:
    """Writes a table as JSON and as Markdown, with its environment.

    Args:
      name: name of the files in RESULTS, if no other are given.
      rows: dicts of the same keys, the columns; numbers or strings.
      title: one line.
      command: that measured it.
      notes: a line each.
      versions: of more packages.
      json_file, markdown_file: where to write instead. If one of them is given, only
        that one is written.

    Returns:
      What was written.
    """
    if not json_file and not markdown_file:
        json_file, markdown_file = RESULTS / f"{name}.json", RESULTS / f"{name}.md"
    record = {
        "title": title,
        "command": command,
        "environment": {**environment(), **(versions or {})},
        "rows": [dict(row) for row in rows],
        "notes": list(notes),
    }
    pages = [(json_file, json.dumps(record, indent=1) + "\n")]
    pages.append((markdown_file, markdown(record)))
    written = []
    for file, page in pages:
        if file:
            written.append(Path(file))
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_text(page, encoding="utf-8")
    return written


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
