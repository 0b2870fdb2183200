"""Which units are meant: 'detectors:0.04', 'top:20' or '3,14,15'."""

import dataclasses

import numpy as np
from jaxtyping import Int

from jdissect.base.errors import UserError
from jdissect.results.layer_result import Result

FORMS = "detectors:IOU, top:COUNT (of highest IoU), or numbers such as 3,14,15"


@dataclasses.dataclass(frozen=True)
class UnitChoice:
    """What a text asks for.

    Attributes:
      text: as it was given.
      threshold: all units whose best IoU exceeds it; None: not asked for so.
      count: so many units of highest best IoU, all with a concept; None likewise.
      numbers: the units by number; () likewise.
    """

    text: str
    threshold: float | None = None
    count: int | None = None
    numbers: tuple[int, ...] = ()

    @property
    def needs_result(self) -> bool:
        """Whether the units' IoU decides."""
        return not self.numbers

    def units(
        self, count: int, layer: str, result: Result | None
    ) -> Int[np.ndarray, " unit"]:
        """The units' numbers, ascending.

        Args:
          count: units of the layer.
          layer: its name, for messages.
          result: of its dissection; may be None if `needs_result` is not so.

        Raises:
          UserError: none is meant, or one that the layer does not have.
        """
        has = f"layer {layer} has units 0 .. {count - 1}"
        if self.numbers:
            if outside := [unit for unit in self.numbers if unit >= count]:
                raise UserError(f"--units has {outside[0]}; {has}")
            return np.array(sorted(self.numbers))
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
        found = np.flatnonzero(result.detectors(self.threshold))
        if not len(found):
            raise UserError(
                f"--units is {self.text}, but no unit of {layer} has an IoU above "
                f"{self.threshold:g}; the highest is {result.best_iou.max():.4f}"
            )
        return found


def parse(text: str) -> UnitChoice:
    """Reads --units.

    Raises:
      UserError: it is of none of the FORMS, empty, or names a unit twice.
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
        numbers = tuple(_number(int, part.strip()) for part in text.split(","))
        if all(number is not None and number >= 0 for number in numbers):
            twice = [n for n in numbers if numbers.count(n) > 1]
            if twice:
                raise UserError(f"--units names unit {twice[0]} twice")
            return UnitChoice(text, numbers=numbers)
    raise UserError(f"--units is '{text}'; it can be {FORMS}")


def _number(kind, text):
    """None where it is no plain number."""
    try:
        return kind(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
