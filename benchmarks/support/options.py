"""Command lines of the benchmarks that take flags only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdissect.base.errors import UserError
from jdissect.runtime import plain_flags


def parse(
    argv: Sequence[str],
    name: str,
    options: Mapping[str, tuple[Any, str]],
    paths: Sequence[str] = (),
):
    """The flags, as `plain_flags.parse` has them; --help prints them and ends.

    Args:
      argv: with the program's name first.
      name: name of the module in `benchmarks`.
      options: {flag: (default, description)}. Where the default is a whole number above
        0, the flag's value must be one, too; where it is a list, the flag takes some of
        its entries.
      paths: flags that must be given and name a file or folder of this machine.

    Raises:
      UserError: an unknown flag, a value that does not fit, an argument, or a path that
        is not given or does not exist.
    """
    flags, rest, _ = plain_flags.parse(argv, f"benchmarks.{name} [FLAG ...]", options)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    for flag, (default, _) in options.items():
        value = flags[flag].value
        if type(default) is int and value < 1 <= default:
            raise UserError(f"--{flag} is {value}; it must be at least 1")
        if type(default) is list and not (value and set(value) <= set(default)):
            raise UserError(
                f"--{flag} is '{','.join(value)}'; it takes some of "
                f"{', '.join(default)}, with commas between"
            )
    for flag in paths:
        path = flags[flag].value
        if not path:
            raise UserError(f"--{flag}=PATH is needed; see --help")
        if not Path(path).exists():
            raise UserError(f"--{flag}: {path} does not exist")
    return flags
