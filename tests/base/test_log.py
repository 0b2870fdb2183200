"""What the library says, in a command and in somebody's program."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from jdissect.base import log
log.LOG.info("a line")
log.LOG.warning("passing over %s", "it")
"""


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("", ["passing over it"]),  # as Python does where nobody has decided
        (
            "import logging; logging.basicConfig(format='%(name)s: %(message)s');",
            ["jdissect: passing over it"],
        ),
        (
            "from jdissect.base import log; log.show(); log.show();",
            ["a line", "warning: passing over it"],
        ),
    ],
)
def test_lines(before, lines):
    command = [sys.executable, "-c", before + PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == lines and not done.stdout
