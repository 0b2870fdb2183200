"""Defines the splits of the world: disjoint, endless sequences of pictures."""

from jdissect.base.errors import UserError
from jdissect.scenes.world import GENERATOR_VERSION

# Default numbers of pictures. A split's position is part of its pictures' key: append
# only.
SPLITS = {"train": 20_000, "validation": 2_000, "probe": 1_000}


def split_number(split: str) -> int:
    """Returns a split's position in the key of its pictures."""
    return list(SPLITS).index(split)


def resolve(split: str, num_images: int, seed: int) -> int:
    """Returns the number of images, after checking the arguments.

    Raises:
        UserError: the split does not exist, or a number is negative.
    """
    if split not in SPLITS:
        raise UserError(
            f"config.data.split: scenes (version {GENERATOR_VERSION}) has no split "
            f"{split!r}; it has {', '.join(SPLITS)}."
        )
    for name, value in (("number of images", num_images), ("seed", seed)):
        if value < 0:
            raise UserError(f"scenes: the {name} is {value}; it cannot be negative.")
    return num_images or SPLITS[split]
