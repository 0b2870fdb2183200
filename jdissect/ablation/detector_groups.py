"""Tests whether interpretable units matter more than others.

A unit is *interpretable* at an IoU threshold if it detects a concept there. The two
groups rarely have the same size, so zeroing each as a whole says little about the value
of a unit. So equally many units of each group, and of any units, are compared, over
random choices and on the same images.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from jdissect.ablation.interventions import random_zeroing, zeroing
from jdissect.analysis import paired_bootstrap
from jdissect.analysis.paired_bootstrap import Change
from jdissect.results.layer_result import Result


@dataclasses.dataclass(frozen=True, eq=False)
class Zeroed:
    """Top-1 accuracy with a group of units zeroed.

    Attributes:
      group: 'detectors', 'others' or 'any'.
      units: number of zeroed units.
      draws: number of random choices; 1 if the whole group is zeroed.
      top1: share of right images, mean over draws.
      change: change from all units, with the interval over images and draws.
      spread: 2.5 % and 97.5 % quantiles of the draws' top1.
    """

    group: str
    units: int
    draws: int
    top1: float
    change: Change
    spread: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Interpretable:
    """Detectors of concepts against the other units.

    Attributes:
      threshold: IoU above which a unit is a detector.
      whole: both groups, each zeroed as a whole.
      equal: as many units of each group, and of any units, as the smaller group has;
        for that group the same as in `whole`.
      difference: top-1 with detectors zeroed minus with others zeroed, from `equal`;
        below 0 if detectors matter more.
      loss: what zeroing a unit adds to the mean loss, detectors minus others; None if
        not every unit was zeroed by itself.
      correlation: Spearman's correlation of a unit's IoU with that; None likewise.
    """

    threshold: float
    whole: tuple[Zeroed, ...]
    equal: tuple[Zeroed, ...]
    difference: Change
    loss: Change | None
    correlation: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Groups:
    """The units that detect a concept, and the others; neither is empty.

    Attributes:
      threshold: IoU above which a unit is a detector.
      detectors: bool[unit].
    """

    threshold: float
    detectors: Bool[np.ndarray, " unit"]

    @property
    def _named(self) -> dict[str, Bool[np.ndarray, " unit"]]:
        every = np.ones_like(self.detectors)
        return {"detectors": self.detectors, "others": ~self.detectors, "any": every}

    def masks(
        self, draws: int, rng: np.random.Generator
    ) -> list[Float[np.ndarray, "mask unit"]]:
        """Returns masks: both groups whole, then equally many of each and of any units.

        Args:
          draws: number of random choices of units.
          rng: generator of the choices.
        """
        units, groups = len(self.detectors), self._named
        size = min(self.detectors.sum(), units - self.detectors.sum())
        whole = [zeroing(units, groups[name])[None] for name in ("detectors", "others")]
        equal = [random_zeroing(one, size, draws, rng) for one in groups.values()]
        return [*whole, *equal]

    def compared(
        self,
        before: Bool[np.ndarray, " image"],
        right: list[Bool[np.ndarray, "mask image"]],
        loss_added: Float[np.ndarray, " unit"] | None,
        result: Result,
        rng: np.random.Generator,
    ) -> Interpretable:
        """Summarizes the outcomes under the masks.

        Args:
          before: images that are right with all units.
          right: images that are right under the masks, in the order of `masks`.
          loss_added: what zeroing each unit by itself adds to the mean loss.
          result: result of the dissection.
          rng: generator of the resamples.
        """
        detectors, others = int(self.detectors.sum()), int((~self.detectors).sum())
        names, size = tuple(self._named), min(detectors, others)

        def zeroed(group, units, outcome):
            top1 = outcome.mean(axis=1)
            low, high = np.quantile(top1, (0.025, 0.975))
            return Zeroed(
                group=group,
                units=units,
                draws=len(outcome),
                top1=float(top1.mean()),
                change=paired_bootstrap.difference(outcome, before[None], rng),
                spread=(float(low), float(high)),
            )

        whole = (
            zeroed("detectors", detectors, right[0]),
            zeroed("others", others, right[1]),
        )
        there = {one.group: one for one in whole if one.units == size}
        loss = correlation = None
        if loss_added is not None:
            groups = (loss_added[self.detectors], loss_added[~self.detectors])
            loss = paired_bootstrap.difference_of_means(*groups, rng)
            correlation = paired_bootstrap.rank_correlation(result.best_iou, loss_added)
        return Interpretable(
            threshold=self.threshold,
            whole=whole,
            equal=tuple(
                there.get(name) or zeroed(name, size, outcome)
                for name, outcome in zip(names, right[2:], strict=True)
            ),
            difference=paired_bootstrap.difference(right[2], right[3], rng),
            loss=loss,
            correlation=correlation,
        )
