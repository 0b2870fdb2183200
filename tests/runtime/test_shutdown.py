"""How one of many processes ends, and how it does not begin."""

import socket

import pytest

from jdissect.base.errors import UserError
from jdissect.runtime import initialize
from tests.hosts import LOST, WORK, hosts, one_line

pytestmark = pytest.mark.usefixtures("own_temporary_files")


PEER = """
import os, sys
from jdissect.runtime import command_line
from jdissect.base.errors import UserError

def main(argv):
    from jdissect.runtime import initialize as joining
    address, _, index = (argument.partition("=")[2] for argument in argv[1:4])
    here = joining.start(address, 2, int(index), start_timeout=300)
    here.gather("begin")
    if here.index:
        {act}
    here.gather("end")
    return 0

sys.exit(command_line.entry(main))
"""


@pytest.mark.parametrize(
    ("act", "code", "text"),
    [
        ("raise KeyError('a bug')", 1, "KeyError: 'a bug'"),
        pytest.param(
            "raise ValueError('UNKNOWN: Gloo AllReduce failed: reset')",
            3,
            LOST,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise OSError(28, 'No space left')",
            2,
            "error: No space left\n",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise UserError('not agreed on')",
            2,
            "error: not agreed on\n",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "raise KeyboardInterrupt", 130, "interrupted\n", marks=pytest.mark.slow
        ),
        pytest.param("pass", 0, "", marks=pytest.mark.slow),
    ],
)
def test_nobody_waits_for_an_error_of_one(act, code, text):
    with hosts(["-c", PEER.format(act=act)]) as both:
        first, second = (host.end() for host in both)
    assert second[0] == code and text in second[2]
    assert ("Traceback" in second[2]) == (code == 1)
    if code == 0:
        assert first == second == (0, "", "")
    else:
        assert first[0] == 3 and one_line(first[2], LOST)


def test_started_alone(own_temporary_files, tmp_path):
    """Both the first without others, and another without the first."""
    command = [*WORK, f"--workdir={tmp_path / 'run'}"]
    flags = ("--start_timeout=3",)
    with (
        hosts(command, *flags, indices=[0]) as first,
        hosts(command, *flags, indices=[1]) as second,
    ):
        for host in (*first, *second):
            code, output, error = host.end()
            assert code == 2 and output == ""
            assert one_line(error, "error: no connection to 2 processes", "within 3 s")
    assert not (tmp_path / "run").exists()
    assert not list(own_temporary_files.iterdir())


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* cannot be used"):
            initialize.start(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("127.0.0.1:1", 2, -1), "go together"),
        (("127.0.0.1:1", 0, 0), "go together"),
        (("", 2, 0), "go together"),
        (("127.0.0.1:1", 2, 2), "--process_id is 2; .* from 0 to 1"),
        (("127.0.0.1", 2, 0), "it must be HOST:PORT"),
        (("127.0.0.1:", 2, 0), "it must be HOST:PORT"),
        ((":8000", 2, 0), "it must be HOST:PORT"),
        (("127.0.0.1:70000", 2, 0), "it must be HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit(arguments, text):
    with pytest.raises(UserError, match=text):
        initialize.start(*arguments)
