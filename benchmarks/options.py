"""Command lines of the benchmarks that take flags only."""

from collections.abc import Mapping, Sequence
from typing import Any

from jdissect import commands
from jdissect.base.errors import UserError


def parse(argv: Sequence[str], name: str, options: Mapping[str, tuple[Any, str]]):
    """The flags, as `commands.parse` has them; --help prints them and ends.

    Raises:
      UserError: an unknown flag, a value that does not fit, or an argument.
    """
    flags, rest, _ = commands.parse(argv, f"benchmarks.{name} [FLAG ...]", options)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    return flags
