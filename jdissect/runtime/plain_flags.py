"""Parses flags of the commands that take run directories and options, not a config."""

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from jdissect.base.errors import UserError

_CLOSE = 0.75  # similarity from which a flag is suggested
_LONGEST = 400  # characters of user input that a message repeats
# For every command that draws a run's images later, see `report.probe_images`.
DATA_PATH = (
    "",
    "Folder of the runs' images, in place of their config.data.path. An object store "
    "is only read if it is named here.",
)


def show_hint(run: object) -> str:
    """Returns the line that ends a command which found more about a run."""
    return f"python -m jdissect.page {run} shows it on the run's page"


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


def refusal(error: flags.Error, known: Iterable[str]) -> UserError:
    """Returns absl's error for a command line as one line.

    Args:
      error: absl's error.
      known: the existing flags; one similar to the unknown flag is suggested.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=_CLOSE)
        hint = f"did you mean --{close[0]}?" if close else "see --help"
        return UserError(f"Unknown command line flag '{_cut(name)}'; {hint}")
    text = str(error).strip()
    if "Traceback" in text:  # from a config file
        text = text.splitlines()[-1]
        text = text.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    return UserError(_cut(" ".join(text.split())))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def parse(
    argv: Sequence[str],
    usage: str,
    options: Mapping[str, tuple[Any, str]],
    passed_on: tuple[str, ...] = (),
) -> tuple[flags.FlagValues, list[str], list[str]]:
    """Parses a command line; --help prints the flags and exits.

    Args:
      argv: the command line, program name first.
      usage: text after "usage: python -m ".
      options: {flag: (default, description)}; the default's type is the flag's type, a
        list is split at commas, and a tuple lists the choices, default first.
      passed_on: prefixes of arguments that are not parsed.

    Returns:
      the flags, the positional arguments, and the arguments that are passed on.

    Raises:
      UserError: an unknown flag, or a value that does not have the flag's type.
    """
    values = flags.FlagValues()
    for name, (default, text) in options.items():
        _DEFINE[type(default)](name, default, text, flag_values=values)
    flags.DEFINE_bool("help", False, "Show this help.", flag_values=values)
    kept = [argument for argument in argv[1:] if argument.startswith(passed_on)]
    if not passed_on:
        kept = []
    try:
        rest = values([a for a in argv if a not in kept])[1:]
    except flags.Error as error:
        raise refusal(error, values) from error
    if values.help:
        print(f"usage: python -m {usage}\n")
        for name in values:
            default = (values[name].default_as_str or "").strip("'")
            print(f"  --{name}{default and '=' + default}: {values[name].help}")
        sys.exit(0)
    return values, rest, kept
