"""A minute that many processes share, by a clock that the test turns."""

import pytest

from jdissect import minute
from jdissect.processes import ALONE


class Clock:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Two:
    """The first of two, whose clocks are far apart; counts exchanges."""

    count = 2

    def __init__(self):
        self.exchanges = 0

    def gather(self, value):
        self.exchanges += 1
        return [value, 1e6]


def lengths(clock, seconds, processes, count):
    """Steps of each of the first minutes, if steps take `seconds`."""
    timer, found, begun = minute.Minute(processes), [], 0
    for step in range(1, count + 1):
        clock.now += seconds(step)
        if timer.is_over(step):
            found.append(step - begun)
            timer.begin(step)
            begun = step
    return found


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(minute, "time", found)
    return found


@pytest.mark.parametrize("seconds, steps", [(0.25, 240), (7.0, 9), (200.0, 1)])
@pytest.mark.parametrize("processes", [ALONE, Two()])
def test_minutes_are_about_a_minute(clock, processes, seconds, steps):
    found = lengths(clock, lambda step: seconds, processes, 20 * steps)
    assert len(found) >= 15
    most = steps if processes is ALONE else steps + 2
    assert all(steps <= length <= most for length in found), found


def test_steps_that_become_slow(clock):
    """Alone, every step looks; else a minute has half of the last one's at least."""
    found = lengths(clock, lambda step: 0.25 if step < 300 else 5, ALONE, 900)
    assert found[0] == 240 and set(found[2:]) == {12}
    found = lengths(clock, lambda step: 0.25 if step < 300 else 5, Two(), 900)
    assert found[1:4] == [120, 60, 30] and set(found[5:]) <= {12, 13, 14}


def test_the_first_clock_decides_and_is_seldom_asked(clock):
    processes = Two()
    assert len(lengths(clock, lambda step: 0.125, processes, 5000)) == 10
    assert processes.exchanges < 60
