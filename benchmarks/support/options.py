"""Command lines of the benchmarks that take flags only."""

from collections.abc import Mapping, Sequence
from typing import Any

from jdissect.base.errors import UserError
from jdissect.runtime import plain_flags


def parse(argv: Sequence[str], name: str, options: Mapping[str, tuple[Any, str]]):
    """The flags, as `plain_flags.parse` has them; --help prints them and ends.

    Raises:
      UserError: an unknown flag, a value that does not fit, or an argument.
    """
    flags, rest, _ = plain_flags.parse(argv, f"benchmarks.{name} [FLAG ...]", options)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    return flags
