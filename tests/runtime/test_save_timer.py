"""A minute that many processes share, by a clock that the test turns."""

import pytest

from jdissect.runtime import save_timer


class Clock:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Two:
    """Of two processes, whose clocks are far apart, the first; counts exchanges."""

    def __init__(self):
        self.exchanges = 0

    def __call__(self, seconds):
        self.exchanges += 1
        return seconds


def lengths(clock, seconds, agreed, count):
    """Steps of each of the first minutes, if steps take `seconds`."""
    timer, found, begun = save_timer.SaveTimer(agreed), [], 0
    for step in range(1, count + 1):
        clock.now += seconds(step)
        if timer.is_due(step):
            found.append(step - begun)
            timer.restart(step)
            begun = step
    return found


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(save_timer, "time", found)
    return found


@pytest.mark.parametrize("seconds, steps", [(0.25, 240), (7.0, 9), (200.0, 1)])
@pytest.mark.parametrize("agreed", [None, Two()])
def test_minutes_are_about_a_minute(clock, agreed, seconds, steps):
    found = lengths(clock, lambda step: seconds, agreed, 20 * steps)
    assert len(found) >= 15
    most = steps if agreed is None else steps + 2
    assert all(steps <= length <= most for length in found), found


def test_steps_that_become_slow(clock):
    """Alone, every step looks; else a minute has half of the last one's at least."""
    found = lengths(clock, lambda step: 0.25 if step < 300 else 5, None, 900)
    assert found[0] == 240 and set(found[2:]) == {12}
    found = lengths(clock, lambda step: 0.25 if step < 300 else 5, Two(), 900)
    assert found[1:4] == [120, 60, 30] and set(found[5:]) <= {12, 13, 14}


def test_others_are_seldom_asked(clock):
    agreed = Two()
    assert len(lengths(clock, lambda step: 0.125, agreed, 5000)) == 10
    assert agreed.exchanges < 60
