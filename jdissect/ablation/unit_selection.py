"""Parses --units: 'detectors:0.04', 'top:20', or names such as '3,14,15-'."""

import dataclasses

import numpy as np
from jaxtyping import Int

from jdissect.base import unit_names
from jdissect.base.errors import UserError
from jdissect.results.layer_result import Result

FORMS = "detectors:IOU, top:COUNT (of highest IoU), or names such as 3,14,15"


@dataclasses.dataclass(frozen=True)
class UnitChoice:
    """A choice of units.

    Attributes:
      text: text of the choice.
      threshold: selects all units whose best IoU exceeds it, or None.
      count: selects this many units of highest best IoU with a concept, or None.
      numbers: selects units of the network by number, or ().
      ends: what follows each number in its name: '', '+' or '-'.
    """

    text: str
    threshold: float | None = None
    count: int | None = None
    numbers: tuple[int, ...] = ()
    ends: tuple[str, ...] = ()

    @property
    def needs_result(self) -> bool:
        """Whether the choice depends on the units' IoU."""
        return not self.numbers

    def check_names(self, result: Result | None) -> None:
        """Raises UserError if the choice names an end that the result does not have."""
        there = unit_names.TAILS["upper" if result is None else result.tail]
        for number, end in zip(self.numbers, self.ends, strict=True):
            if end and end not in there:
                raise UserError(
                    f"--units has {number}{end}, but the dissection has "
                    f"{', '.join(f'{number}{known}' for known in there)}"
                )

    def units(
        self, count: int, layer: str, result: Result | None
    ) -> Int[np.ndarray, " unit"]:
        """Returns the units' numbers, ascending.

        Args:
          count: number of units of the layer.
          layer: name of the layer, for messages.
          result: result of its dissection; may be None unless `needs_result`.

        Raises:
          UserError: no unit is selected, or one that the layer does not have.
        """
        has = f"layer {layer} has units 0 .. {count - 1}"
        if self.numbers:
            if outside := [unit for unit in self.numbers if unit >= count]:
                raise UserError(f"--units has {outside[0]}; {has}")
            return np.array(sorted(self.numbers))
        assert result is not None  # as `needs_result` is so
        if self.count is not None:
            if self.count > count:
                raise UserError(f"--units is {self.text}; {has}")
            if self.count > (named := int((result.best_concept >= 0).sum())):
                raise UserError(
                    f"--units is {self.text}, but only {named} units of {layer} "
                    "overlap a concept"
                )
            best = np.argsort(-result.best_iou, kind="stable")
            return np.sort(best[: self.count])
        assert self.threshold is not None  # one of the three is given
        found = np.flatnonzero(result.detectors(self.threshold))
        if not len(found):
            raise UserError(
                f"--units is {self.text}, but no unit of {layer} has an IoU above "
                f"{self.threshold:g}; the highest is {result.best_iou.max():.4f}"
            )
        return found


def parse(text: str) -> UnitChoice:
    """Parses --units.

    Raises:
      UserError: the text has none of the FORMS, is empty, or names a unit twice.
    """
    kind, colon, value = (part.strip() for part in text.partition(":"))
    if colon and kind == "detectors":
        threshold = _number(float, value)
        if threshold is not None and 0 <= threshold < 1:
            return UnitChoice(text, threshold=threshold)
    elif colon and kind == "top":
        count = _number(int, value)
        if count is not None and count >= 1:
            return UnitChoice(text, count=count)
    elif not colon:
        names = [unit_names.parse(part.strip()) for part in text.split(",")]
        if all(name is not None for name in names):
            numbers, ends = zip(*filter(None, names), strict=True)
            twice = [n for n in numbers if numbers.count(n) > 1]
            if twice:
                raise UserError(f"--units names unit {twice[0]} twice")
            return UnitChoice(text, numbers=numbers, ends=ends)
    raise UserError(f"--units is '{text}'; use {FORMS}")


def _number(kind, text):
    """Returns the number in a text; None unless it is a plain number."""
    try:
        return kind(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
