"""Flags of the entry points that take no config: run directories and options."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from jdissect.errors import UserError

# For all that draw a run's images later, see `report.probe_images`.
DATA_PATH = (
    "",
    "Where the runs' images are, in place of their config.data.path. An object store "
    "is only asked where it is named here.",
)


def _one_of(name: str, default: tuple[str, ...], text: str, **more) -> None:
    flags.DEFINE_enum(name, default[0], list(default), text, **more)


_DEFINE: Mapping[type, Callable] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    list: flags.DEFINE_list,
    tuple: _one_of,
}


def parse(
    argv: Sequence[str],
    usage: str,
    options: Mapping[str, tuple[Any, str]],
    passed_on: tuple[str, ...] = (),
) -> tuple[flags.FlagValues, list[str], list[str]]:
    """Parses a command line; --help prints the flags and ends.

    Args:
      argv: with the program's name first.
      usage: what follows "usage: python -m ".
      options: {flag: (default, description)}; the default's type is the flag's, a list
        is split at commas, and a tuple is the choice there is, the default first.
      passed_on: beginnings of arguments that are left as they are.

    Returns:
      the flags, the arguments that are none, and those that are passed on.

    Raises:
      UserError: an unknown flag, or a value that is not of its type.
    """
    values = flags.FlagValues()
    for name, (default, text) in options.items():
        _DEFINE[type(default)](name, default, text, flag_values=values)
    flags.DEFINE_bool("help", False, "Show this.", flag_values=values)
    kept = [argument for argument in argv[1:] if argument.startswith(passed_on)]
    if not passed_on:
        kept = []
    try:
        rest = values([a for a in argv if a not in kept])[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    if values.help:
        print(f"usage: python -m {usage}\n")
        for name in values:
            default = (values[name].default_as_str or "").strip("'")
            print(f"  --{name}{default and '=' + default}: {values[name].help}")
        sys.exit(0)
    return values, rest, kept
