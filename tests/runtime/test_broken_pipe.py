"""A reader that exits early, such as head, is not an error; other broken pipes are."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from jdissect.runtime.command_line import entry

def main(argv):
    if argv[1] == "print":
        for number in range(10**5):
            print("a line", number)
    raise BrokenPipeError(32, "of a worker")

sys.exit(entry(main, ["x", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("what", "code"), [("print", 141), ("raise", 1)])
def test_broken_pipe(what, code):
    reading, writing = os.pipe()
    if what == "print":
        os.close(reading)
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code
    assert ("Traceback" in done.stderr) == (code == 1)
