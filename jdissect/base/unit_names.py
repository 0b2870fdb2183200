"""Names the units of a result, by the tail of the activations that was counted.

A unit fires in its upper tail (above its 99th percentile, by default) or in its lower
one (below the 1st). With both tails, every unit of the network gives two units of the
result, side by side: `12+` fires where unit 12 is high, `12-` where it is low. Arrays
[unit] of a result have this order; only names and signs are derived here.
"""

import re

import numpy as np
from jaxtyping import Int, Int8, Shaped

# Suffixes of the names of a network unit's units, by tail, in the order of the arrays.
TAILS: dict[str, tuple[str, ...]] = {
    "upper": ("",),
    "lower": ("-",),
    "both": ("+", "-"),
}
_NAME = re.compile(r"([0-9]{1,18})([+-]?)", re.ASCII)


def names(units: int, tail: str) -> Shaped[np.ndarray, " unit"]:
    """Returns the names of a result's units.

    Args:
      units: number of units of the result.
      tail: a key of TAILS.

    Returns:
      int64[unit], their numbers, for the upper tail; else text such as `12-`.
    """
    if tail == "upper":
        return np.arange(units)
    ends = TAILS[tail]
    return np.array([f"{i // len(ends)}{ends[i % len(ends)]}" for i in range(units)])


def signs(units: int, tail: str) -> Int8[np.ndarray, " unit"]:
    """Returns -1 for each unit that fires in the lower tail, else 1."""
    ends = [-1 if end == "-" else 1 for end in TAILS[tail]]
    return np.resize(np.array(ends, np.int8), units)


def of_network(units: int, tail: str) -> Int[np.ndarray, " unit"]:
    """Returns the network unit of each unit of a result."""
    return np.arange(units) // len(TAILS[tail])


def parse(name: str) -> tuple[int, str] | None:
    """Returns (network unit, '' or '+' or '-') from a unit's name; None for no name."""
    found = _NAME.fullmatch(name)
    return None if found is None else (int(found[1]), found[2])
