"""An error of one process reaches the others a few steps later."""

import contextlib

import pytest

from jdissect.base.errors import UserError
from jdissect.training.remote_errors import Alarm


class Two:
    """One of two processes, the other of which has no error."""

    count = 2

    @contextlib.contextmanager
    def agreeing(self):
        yield

    def count_later(self, here):
        return lambda: int(here)

    def agree(self, error):
        raise error or UserError("process 1: that of another")


def reader(error, closed):
    try:
        yield "a"
        yield "b"
        raise error
    finally:
        closed.append(True)


@pytest.mark.parametrize(
    "error, text",
    [
        (UserError("cannot be read"), "cannot be read"),
        (OSError(28, "No space", "path"), "No space: path"),
    ],
)
def test_one_goes_on_until_all_know(error, text):
    alarm, closed, found = Alarm(Two()), [], []
    rung = []
    for batch in alarm.batches(reader(error, closed), 5):
        found.append(batch)
        rung.append(alarm.ring()())
    assert found == ["a", "b", "b", "b", "b"] and rung == [0, 0, 1, 1, 1]
    assert closed
    alarm.hear(0)
    with pytest.raises(UserError, match=text):
        alarm.hear(1)
    with pytest.raises(UserError, match=text):
        next(alarm.batches(reader(error, []), 1))


def test_another_has_an_error():
    alarm = Alarm(Two())
    assert alarm.ring()() == 0
    with pytest.raises(UserError, match="that of another"):
        alarm.hear(1)


@pytest.mark.parametrize("error", [UserError("x"), OSError(28, "y"), KeyError("z")])
def test_alone_an_error_is_raised_where_it_happens(error):
    found = []
    with pytest.raises(type(error)):
        for batch in Alarm().batches(reader(error, []), 5):
            found.append(batch)
    assert found == ["a", "b"]
