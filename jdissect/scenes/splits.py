"""The splits of the world: disjoint rows of pictures without end."""

from jdissect.base.errors import UserError
from jdissect.scenes.world import GENERATOR_VERSION

# Pictures if no number is given. A split's place is part of the key of its pictures:
# append only.
SPLITS = {"train": 20_000, "validation": 2_000, "probe": 1_000}


def split_number(split: str) -> int:
    """A split's place in the key of its pictures."""
    return list(SPLITS).index(split)


def resolve(split: str, num_images: int, seed: int) -> int:
    """How many images are meant, after a look at what was asked for.

    Raises:
        UserError: no such split, or a negative number.
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
