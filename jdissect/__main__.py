"""Runs any command of the package: jdissect COMMAND [ARGUMENT ...]

`jdissect dissect --config=mixup` is `python -m jdissect.main --config=mixup`, and
`jdissect convert resnet ...` is `python -m converters.resnet ...`.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from jdissect import converters

_PACKAGE = "jdissect"
# Commands whose module has another name, and the package of the converters.
_MODULES = {"dissect": "main", "scenes": "scenes.__main__"}
_CONVERT = "convert"
_CONVERTERS = (
    *("resnet", "efficientnet_lite", "torch_module"),
    *("upernet", "color", "ade20k"),
)


def commands() -> dict[str, str]:
    """Returns {words of a command: its module}."""
    folder = Path(__file__).parent
    names = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    names -= set(_MODULES.values())
    found = {name: f"{_PACKAGE}.{name}" for name in sorted(names)}
    found |= {name: f"{_PACKAGE}.{module}" for name, module in _MODULES.items()}
    for name in _CONVERTERS:
        found[f"{_CONVERT} {name}"] = f"{_PACKAGE}.converters.{name}"
    return dict(sorted(found.items()))


def summary(module: str) -> str:
    """Returns what a command does, from its module's docstring; does not import it."""
    folder, name = Path(__file__).parent, module.removeprefix(f"{_PACKAGE}.")
    if name.startswith("converters."):
        folder, name = Path(converters.__path__[0]), name.removeprefix("converters.")
    text = (folder / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
    line = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return line.split(": python -m")[0].rstrip(":.")


def main(argv: Sequence[str]) -> int:
    """Runs a command; returns its exit code.

    Raises:
      UserError: the command does not exist.
    """
    known = commands()
    words = list(argv[1:])
    if not words or words[0] in ("--help", "-help", "-h", "help"):
        width = max(map(len, known))
        print("usage: jdissect COMMAND [ARGUMENT ...]\n")
        for name, module in known.items():
            print(f"  {name:{width}}  {summary(module)}")
        print("\njdissect COMMAND --help shows a command's flags.")
        return 0
    if words[0] == "--version":
        import jdissect

        print(jdissect.__version__)
        return 0
    name = " ".join(words[:2]) if words[0] == _CONVERT else words[0]
    if name not in known:
        from jdissect.base.errors import UserError

        raise UserError(f"unknown command '{name:.60}'; there are: {', '.join(known)}")
    rest = words[len(name.split()) :]
    return importlib.import_module(known[name]).main([f"jdissect {name}", *rest])


def run() -> int:
    """Entry point of the program `jdissect`; returns the exit code."""
    from jdissect.runtime.command_line import entry

    return entry(main)


if __name__ == "__main__":
    sys.exit(run())
