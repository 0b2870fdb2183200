"""Makes pictures of the drawn world with and without the concepts of units.

The pictures follow those that a run has counted: none of them chose a label. For each
concept the first pictures that show it are drawn again without it
(`scenes.counterfactual`). For each such pair a *control* takes another concept of the
same category out of the same picture: the one nearest in size, at most `SIZES` times as
large or small, that leaves the concept itself as it is. Pictures without a control are
passed over. A unit that responds to anything that appears, or to any change, responds
to the control as well.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from jdissect.data.label_maps import resample_nearest
from jdissect.scenes import CONCEPTS, ScenesSource
from jdissect.scenes.counterfactual import changed, shows
from jdissect.scenes.render import Drawing, draw
from jdissect.scenes.splits import split_number
from jdissect.verification.responses import Reading, Shot

LEAST = 0.005  # share of a picture's pixels that a thing covers
SIZES = 3.0  # largest ratio of a control's size to a concept's, either way
PER_PAIR = 15  # pictures that are looked at, for each pair that is wanted
_UNTOUCHED = 0.1  # share of a concept's pixels that a control may change
_TRIES = 3  # controls that are tried
# If a concept has no pair after this many pictures, no more are drawn for it.
_HOPELESS = 40
_NUMBER = {concept: number for number, concept in enumerate(CONCEPTS) if number}


def number_of(name: str, category: str) -> int | None:
    """Returns the world's number of a concept; None if it has no such concept."""
    return _NUMBER.get((name, category))


class Counterfactuals:
    """The pictures for some concepts, drawn as they are asked for.

    Args:
      source: what the run has counted.
      concepts: numbers of the concepts.
      mask_shape: (height, width) of the mask grid.
      pairs: number of pairs for each concept.

    Attributes:
      found: {concept: number of pairs so far}.
      shares: of each picture so far, the share of its pixels by concept number.
    """

    def __init__(
        self,
        source: ScenesSource,
        concepts: Sequence[int],
        mask_shape: tuple[int, int],
        pairs: int,
    ):
        self._source, self._mask_shape, self._pairs = source, mask_shape, pairs
        self.found = dict.fromkeys(sorted(concepts), 0)
        self._kept = dict.fromkeys(self.found, 0)  # pictures that gave no pair
        self.shares: list[Float[np.ndarray, " number"]] = []

    @property
    def pictures(self) -> int:
        """Largest number of pictures that are looked at."""
        return PER_PAIR * self._pairs

    def __iter__(self) -> Iterator[Shot]:
        """Yields the pictures, and after each its changes."""
        for number in range(self.pictures):
            # Also for concepts that cannot be removed: of these, the pictures with and
            # without them are compared.
            if all(found >= self._pairs for found in self.found.values()):
                return
            yield from self._shots(number, self._picture(number))

    def pair(self, number: int, concept: int) -> tuple[Shot, Shot]:
        """Returns a picture with and without a concept, for one of its pairs."""
        picture = self._picture(number)
        without = picture.without(concept)
        assert without is not None  # of a pair
        return Shot(picture.pixels, picture.maps, ()), Shot(*without, ())

    def _picture(self, number: int) -> "_Picture":
        source = self._source
        key = (source.seed, split_number(source.split), source.num_images + number)
        return _Picture(key, self._mask_shape)

    def _shots(self, number: int, picture: "_Picture") -> Iterator[Shot]:
        self.shares.append(picture.share)
        of_base: list[Reading] = []
        of_changed: dict[int, list[Reading]] = {}

        def read(concept: int, control: bool, thing: int) -> None:
            region = shows(picture.maps, thing)
            one = Reading(concept, number, control, False, region)
            of_base.append(one)
            of_changed.setdefault(thing, []).append(one._replace(after=True))

        for concept in self.found:
            if picture.share[concept] < LEAST or not self._takes(concept):
                continue
            control = picture.control(concept)
            if control is None:
                self._kept[concept] += 1
                continue
            self.found[concept] += 1
            read(concept, False, concept)
            read(concept, True, control)
        yield Shot(picture.pixels, picture.maps, tuple(of_base), number)
        for thing, readings in of_changed.items():
            without = picture.without(thing)
            assert without is not None  # else nothing would be read in it
            yield Shot(*without, tuple(readings))

    def _takes(self, concept: int) -> bool:
        found, kept = self.found[concept], self._kept[concept]
        return found < self._pairs and (found > 0 or kept < _HOPELESS)


class _Picture:
    """A picture and its changes, each drawn once."""

    def __init__(self, key: tuple[int, int, int], mask_shape: tuple[int, int]):
        self._key, self._mask_shape = key, mask_shape
        self._drawing: Drawing = draw(*key)
        self.pixels, self._full = self._drawing.develop()
        self.maps = self._on_grid(self._full)
        counts = np.bincount(self.maps.ravel(), minlength=len(CONCEPTS))
        self.share = counts / self.maps[0].size
        self.share[0] = 0
        self._without: dict[int, tuple[np.ndarray, np.ndarray] | None] = {}

    def _on_grid(self, maps) -> Int[np.ndarray, "map height width"]:
        return resample_nearest(maps.astype(np.int32), self._mask_shape)

    def without(self, thing: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns (pixels, maps) without a thing; None if it cannot be removed."""
        if thing not in self._without:
            after = changed(self._drawing, self._full, thing, self._key)
            self._without[thing] = after and (after[0], self._on_grid(after[1]))
        return self._without[thing]

    def control(self, concept: int) -> int | None:
        """Returns what to change in a concept's place.

        None if the concept cannot be removed, or nothing is alike.
        """
        if self.without(concept) is None:
            return None
        own = shows(self.maps, concept)
        category = CONCEPTS[concept][1]
        ratio = np.abs(np.log(np.maximum(self.share, 1e-9) / self.share[concept]))
        alike = [
            int(other)
            for other in np.argsort(ratio, kind="stable")
            if other != concept
            and CONCEPTS[other][1] == category
            and self.share[other] >= LEAST
            and ratio[other] <= np.log(SIZES)
        ]
        for other in alike[:_TRIES]:
            after = self.without(other)
            if after is None:
                continue
            touched = (shows(after[1], concept) != own).sum()
            if touched <= _UNTOUCHED * own.sum():
                return other
        return None
