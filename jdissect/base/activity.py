"""Activities of a command: how much of each is done, how fast, and what is within it.

An activity is done within another: the label maps of a batch within a pass over all
images. So what is under way is a stack, whose innermost activity that is counted says
how far the command is.
"""

import collections
import dataclasses
from collections.abc import Iterable

import tqdm

_SAMPLE, _SAMPLES = 1.0, 60  # seconds between samples: the rate is of the last minute
_UNITS = {"img": "images", "B": "bytes", "permutation": "permutations"}


@dataclasses.dataclass(eq=False)
class Activity:
    """Something that takes time.

    Attributes:
      name: for people.
      since: when it began, seconds of the caller's clock.
      counted: whether parts of it are counted.
      total: number of parts; None if it is not known.
      unit: unit of the parts, a key of `_UNITS`: 'img' for images, 'B' for bytes.
      done: parts that are done.
      before: what is done until the first part is, such as 'compiling'.
      remark: text for the end of a line.
    """

    name: str
    since: float
    counted: bool = False
    total: int | None = None
    unit: str = "img"
    done: int = 0
    before: str = ""
    remark: str = ""
    _samples: collections.deque[tuple[float, int]] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=_SAMPLES)
    )
    _last: tuple[float, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether a part has been done since the activity began."""
        return self._last is not None

    def advance(self, count: int, now: float) -> None:
        """Adds `count` parts that are done."""
        self.done += count
        self._last = now, self.done
        # The first sample is the end of the first batch, which includes compilation.
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE:
            self._samples.append(self._last)

    def rate(self) -> float | None:
        """Parts per second; None if not yet known."""
        if not self._samples or self._last is None:
            return None
        seconds = self._last[0] - self._samples[0][0]
        done = self._last[1] - self._samples[0][1]
        return done / seconds if seconds > 0 and done > 0 else None

    def seconds_left(self) -> float | None:
        """Until the activity is done; None if not known."""
        rate = self.rate()
        if rate is None or self.total is None:
            return None
        return max(0, self.total - self.done) / rate


class Stack:
    """The activities that are under way, the innermost last. Not thread-safe."""

    def __init__(self) -> None:
        self._activities: list[Activity] = []

    def __bool__(self) -> bool:
        return bool(self._activities)

    def push(self, activity: Activity) -> None:
        """Begins an activity within the innermost."""
        self._activities.append(activity)

    def remove(self, activity: Activity) -> None:
        """Ends an activity; does nothing if it has ended."""
        if activity in self._activities:
            self._activities.remove(activity)

    def clear(self) -> None:
        """Ends all activities."""
        self._activities.clear()

    @property
    def innermost(self) -> Activity:
        """The activity that began last. Only where there is one."""
        return self._activities[-1]

    @property
    def counted(self) -> Activity | None:
        """The innermost activity that is counted; None if there is none."""
        inwards: Iterable[Activity] = reversed(self._activities)
        return next((one for one in inwards if one.counted), None)

    @property
    def shown(self) -> Activity:
        """The activity that says most about how far the command is."""
        return self.counted or self.innermost

    def title(self) -> str:
        """The activity that is shown, and what is done within it."""
        last, counted = self.innermost, self.counted
        if counted is None:
            return last.name
        within = last.name
        if counted is last:
            within = "" if counted.begun else counted.before
        return f"{counted.name}, {within}" if within else counted.name


def line(stack: Stack, now: float) -> str:
    """How far the command is, in words: done, rate, time left.

    Args:
      stack: of one activity at least.
      now: seconds of the clock that the activities were begun by.
    """
    activity = stack.counted
    if activity is None:
        last = stack.innermost
        return f"{last.name}, {interval(now - last.since)} so far"
    rate, left = activity.rate(), activity.seconds_left()
    parts = [_amount(activity)]
    if rate is not None:
        parts.append(f"{_quantity(rate, activity.unit)}/s")
    if left is not None:
        parts.append(f"about {interval(left)} left")
    if rate is None:
        parts.append(f"{interval(now - activity.since)} so far")
    if activity.remark:
        parts.append(activity.remark)
    return f"{stack.title()}: {', '.join(parts)}"


def interval(seconds: float) -> str:
    """A duration as minutes:seconds or hours:minutes:seconds."""
    return tqdm.tqdm.format_interval(seconds)


def _amount(activity: Activity) -> str:
    if activity.total is None:
        return _quantity(activity.done, activity.unit)
    if activity.unit == "B":
        return f"{_bytes(activity.done)} of {_bytes(activity.total)}"
    return f"{activity.done:,} of {activity.total:,} {_UNITS[activity.unit]}"


def _quantity(number: float, unit: str) -> str:
    if unit == "B":
        return _bytes(number)
    if isinstance(number, int):
        return f"{number:,} {_UNITS[unit]}"
    digits = 1 if number >= 10 else 2
    return f"{number:,.{digits}f} {_UNITS[unit]}"


def _bytes(number: float) -> str:
    return tqdm.tqdm.format_sizeof(number) + "B"
