"""What the converters' command lines share: flags, order of work, last words."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from converters import convert, torch_files, verify
from jdissect import checkpoints, models
from jdissect.errors import UserError
from jdissect.models.preprocess import Preprocessing


class Plan(NamedTuple):
    """What a converter made out of a file's tensors.

    Attributes:
      architecture: {'name': ..., **options}, for `models.build` and `model.json`.
      mapping: tensor's name -> where it goes.
      twin: makes the same network in PyTorch.
    """

    architecture: dict[str, Any]
    mapping: dict[str, convert.Target]
    twin: Callable[[], Any]


def run(
    argv: Sequence[str],
    about: str,
    plan: Callable[[Mapping[str, np.ndarray], str], Plan],
    preprocessing: Preprocessing,
    config: str,
) -> int:
    """Runs a classifier's converter; returns the exit code, 2 for a user's error.

    Args:
      argv: the command line, program first.
      about: the converter's documentation, for --help.
      plan: from tensors and the file's name to a Plan; raises UserError if the
        tensors are not its network's.
      preprocessing: of the network's images.
      config: a file that dissects such a network, for the last words.
    """
    options = _define_flags()
    try:
        _parse(options, argv)
        if options.help:
            print(about.strip(), "\n", options.main_module_help())
            return 0
        if not options.checkpoint or not options.output:
            raise UserError("--checkpoint=FILE and --output=DIR are needed; see --help")
        _convert(options, plan, preprocessing, config)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _define_flags() -> flags.FlagValues:
    options = flags.FlagValues()
    define = {"flag_values": options, "module_name": sys.argv[0]}
    flags.DEFINE_string("checkpoint", "", "PyTorch file to read.", **define)
    flags.DEFINE_string("output", "", "Checkpoint folder to make.", **define)
    flags.DEFINE_string(
        "ignore", "", "Leave out unknown tensors that match this REGEX.", **define
    )
    flags.DEFINE_bool(
        "verify", False, "Compare with PyTorch on a random batch first.", **define
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace a checkpoint that is in --output.", **define
    )
    flags.DEFINE_bool("help", False, "Show this.", short_name="h", **define)
    return options


def _parse(options: flags.FlagValues, argv: Sequence[str]) -> None:
    try:
        rest = options(list(argv))[1:]
    except flags.Error as error:
        raise UserError(f"{' '.join(str(error).split())}; see --help") from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; see --help")


def _convert(options, plan, preprocessing: Preprocessing, config: str) -> None:
    checkpoints.check_output(options.output, options.overwrite)
    source = torch_files.read(options.checkpoint)
    architecture, mapping, make_twin = plan(source.tensors, options.checkpoint)
    parameters, ignored = convert.convert(
        source.tensors,
        mapping,
        models.shapes(models.build_abstract(**architecture)),
        where=options.checkpoint,
        ignore=options.ignore,
    )
    if ignored:
        print(f"ignored {len(ignored)} tensors: {', '.join(ignored)}")
    if options.verify:
        verify.compare(
            make_twin(),
            {name: source.tensors[name] for name in mapping},
            architecture,
            parameters,
        )
    digest = checkpoints.save(
        options.output,
        parameters,
        checkpoints.describe_classifier(
            architecture,
            preprocessing,
            source={"file": source.name, "sha256": source.sha256},
        ),
        overwrite=options.overwrite,
    )
    count = sum(array.size for array in parameters.values())
    options_text = ", ".join(f"{k} {v}" for k, v in architecture.items() if k != "name")
    origin = f"{source.name}[{source.key!r}]" if source.key else source.name
    folder = shlex.quote(str(options.output))
    print(f"{architecture['name']}: {options_text}")
    print(f"{count:,} numbers in {len(parameters)} arrays, sha256 {digest}")
    print(f"read from {origin}, sha256 {source.sha256}")
    print(f"written to {options.output}")
    print(
        f"next: python -m jdissect.main --config={config} "
        f"--config.model.name={architecture['name']} --config.model.weights={folder}"
    )
