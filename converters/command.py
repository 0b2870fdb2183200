"""What the converters' command lines share: flags, order of work, last words."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from converters import convert, torch_files, verify
from jdissect import checkpoints, cli, models, termination
from jdissect.errors import UserError
from jdissect.models.preprocess import Preprocessing


class Plan(NamedTuple):
    """What a converter made out of a classifier's tensors.

    Attributes:
      architecture: {'name': ..., **options}, for `models.build` and `model.json`.
      mapping: tensor's name -> where it goes.
      twin: makes the same network in PyTorch.
    """

    architecture: dict[str, Any]
    mapping: dict[str, convert.Target]
    twin: Callable[[], Any]


class Job(NamedTuple):
    """What is to be converted, and what is said of it.

    Attributes:
      sources: the files' tensors and where each goes.
      twin: makes the same network in PyTorch.
      description: for `checkpoints.save`; its 'architecture' is that of the network.
      origin: the files that were read, a line each.
      advice: what to do next.
      verify: keyword arguments of `verify.compare`.
    """

    sources: Sequence[convert.Source]
    twin: Callable[[], Any]
    description: dict[str, Any]
    origin: Sequence[str]
    advice: str
    verify: Mapping[str, Any] = {}


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

    def prepare(options) -> Job:
        file = torch_files.read(options.checkpoint)
        architecture, mapping, twin = plan(file.tensors, options.checkpoint)
        return Job(
            sources=[convert.Source(options.checkpoint, file.tensors, mapping)],
            twin=twin,
            description=checkpoints.describe_classifier(
                architecture,
                preprocessing,
                source={"file": file.name, "sha256": file.sha256},
            ),
            origin=[describe_file(file)],
            advice=f"python -m jdissect.main --config={config} "
            f"--config.model.name={architecture['name']} "
            f"--config.model.weights={shlex.quote(options.output)}",
        )

    return execute(argv, about, prepare)


def execute(
    argv: Sequence[str],
    about: str,
    prepare: Callable[[flags.FlagValues], Job],
    checkpoint: str = "FILE",
    define: Callable[[flags.FlagValues, dict], None] = lambda values, where: None,
) -> int:
    """Runs a converter; returns the exit code, 2 for a user's error.

    Args:
      argv: the command line, program first.
      about: the converter's documentation, for --help.
      prepare: from the flags to a Job; raises UserError if there is none.
      checkpoint: what --checkpoint takes.
      define: defines further flags.
    """
    options = _define_flags(checkpoint, define)
    cli.replace_unprintable()
    try:
        with termination.on_sigterm(termination.end):
            _parse(options, argv)
            if options.help:
                print(about.strip(), "\n", options.main_module_help())
                return 0
            if not options.checkpoint or not options.output:
                raise UserError(
                    f"--checkpoint={checkpoint} and --output=DIR are needed; see --help"
                )
            checkpoints.check_output(options.output, options.overwrite)
            _convert(prepare(options), options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, termination.Terminated) as error:
        return cli.interrupted(error)
    return 0


def describe_file(file: torch_files.TorchFile) -> str:
    """A line that says what was read."""
    name = f"{file.name}[{file.key!r}]" if file.key else file.name
    return f"{name}, sha256 {file.sha256}"


def _define_flags(checkpoint: str, more) -> flags.FlagValues:
    options = flags.FlagValues()
    define = {"flag_values": options, "module_name": sys.argv[0]}
    flags.DEFINE_string("checkpoint", "", f"PyTorch {checkpoint} to read.", **define)
    flags.DEFINE_string("output", "", "Checkpoint folder to make.", **define)
    more(options, define)
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


def _convert(job: Job, options: flags.FlagValues) -> None:
    architecture = job.description["architecture"]
    shapes = models.shapes(models.build_abstract(**architecture))
    parameters, ignored = convert.convert(job.sources, shapes, options.ignore)
    if ignored:
        print(f"ignored {len(ignored)} tensors: {', '.join(ignored)}")
    if options.verify:
        verify.compare(job.twin(), job.sources, architecture, parameters, **job.verify)
    digest = checkpoints.save(
        options.output, parameters, job.description, overwrite=options.overwrite
    )
    count = sum(array.size for array in parameters.values())
    text = ", ".join(f"{k} {v}" for k, v in architecture.items() if k != "name")
    print(f"{architecture['name']}: {text}")
    print(f"{count:,} numbers in {len(parameters)} arrays, sha256 {digest}")
    for line in job.origin:
        print(f"read from {line}")
    print(f"written to {options.output}")
    print(f"next: {job.advice}")
