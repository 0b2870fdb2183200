"""Progress on a terminal; silence elsewhere."""

from collections.abc import Iterable, Iterator
from typing import Any

import tqdm


def bars(total: int, silent: bool = False):
    """A `progress` for `Dissection`: one bar a pass, in images.

    Args:
      total: images a pass visits.
      silent: show none.
    """

    def wrap(iterable: Iterable[Any], description: str) -> Iterator[Any]:
        # disable=None: silent unless standard error is a terminal.
        with tqdm.tqdm(
            total=total,
            desc=f"{description:13s}",
            unit="img",
            disable=silent or None,
            leave=False,
        ) as bar:
            for record in iterable:
                yield record
                bar.update(int((record.index >= 0).sum()))

    return wrap
