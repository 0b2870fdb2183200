"""Command line shared by the converters: flags, order of work, final output."""

import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.checkpoints import networks
from jdissect.converters import choice, convert, torch_files, verify
from jdissect.models.preprocess import Preprocessing
from jdissect.runtime import command_line, plain_flags, preemption


class Plan(NamedTuple):
    """Conversion plan for a classifier's tensors.

    Attributes:
      architecture: {'name': ..., **options}, for `models.build` and `model.json`.
      tensors: name -> array, under the names of the mapping.
      mapping: tensor name -> target.
      twin: builds the same network in PyTorch.
      preprocessing: preprocessing of the images, unless flags override it.
      notes: assumptions, one line each.
      unused: see `convert.Source`.
      side: side of the network's square input images in pixels.
    """

    architecture: dict[str, Any]
    tensors: Mapping[str, np.ndarray]
    mapping: dict[str, convert.Target]
    twin: Callable[[], Any]
    preprocessing: Preprocessing
    notes: Sequence[str] = ()
    unused: str = convert.UNUSED
    side: int = 224


class Job(NamedTuple):
    """A conversion job and its messages.

    Attributes:
      sources: the files' tensors and where each goes.
      twin: builds the same network in PyTorch.
      description: for `networks.save`; its 'architecture' is that of the network.
      origin: the files that were read, one line each.
      advice: next command for the user.
      notes: choices and assumptions, one line each.
      verify: keyword arguments of `verify.compare`.
    """

    sources: Sequence[convert.Source]
    twin: Callable[[], Any]
    description: dict[str, Any]
    origin: Sequence[str]
    advice: str
    notes: Sequence[str] = ()
    verify: Mapping[str, Any] = {}


def run(
    argv: Sequence[str],
    about: str,
    roots: Callable[[Collection[str]], list[str]],
    plan: Callable[[Mapping[str, np.ndarray], str, flags.FlagValues], Plan],
    config: str,
    define: Callable[[flags.FlagValues, dict], None],
) -> int:
    """Runs a classifier's converter; returns the exit code, 2 for a user error.

    Args:
      argv: the command line, program first.
      about: the converter's documentation, for --help.
      roots: see `choice.take`: finds such networks in a file.
      plan: maps tensors, the file's name and flags to a Plan; raises UserError if the
        tensors are those of another network.
      config: config that dissects such a network, for the final message.
      define: defines the flags of `plan`.
    """

    def define_all(options: flags.FlagValues, where: dict) -> None:
        define_choice(options, where)
        define_preprocessing(options, where)
        define(options, where)

    def prepare(options) -> Job:
        taken = choice.take(
            torch_files.read(options.checkpoint), roots, options.weights, options.prefix
        )
        made = plan(taken.tensors, taken.where, options)
        return Job(
            sources=[
                convert.Source(
                    taken.where, made.tensors, made.mapping, unused=made.unused
                )
            ],
            twin=made.twin,
            description=networks.describe_classifier(
                made.architecture,
                preprocessing(options, len(made.preprocessing.mean))
                or made.preprocessing,
                input_size=made.side,
                source=taken.source,
            ),
            origin=[taken.origin],
            notes=[*taken.notes, *made.notes],
            advice=f"python -m jdissect.main --config={config} "
            f"--config.model.name={made.architecture['name']} "
            f"--config.model.weights={shlex.quote(options.output)}",
            verify={} if made.side == 224 else {"side": made.side},
        )

    return execute(argv, about, prepare, define=define_all)


def define_choice(options: flags.FlagValues, where: dict) -> None:
    """Defines the flag of `choice.take` that all converters have."""
    flags.DEFINE_enum(
        "weights",
        None,
        choice.WEIGHTS,
        "Raw or averaged (EMA) weights, if a file has both; default: raw.",
        **where,
    )


def define_preprocessing(options: flags.FlagValues, where: dict) -> None:
    """Defines the flags of classifiers: --prefix, --mean and --std."""
    flags.DEFINE_string("prefix", "", "Prefix of the network's tensor names.", **where)
    for name, what in (("mean", "Mean"), ("std", "Standard deviation")):
        text = f"{what} of the image channels, 0 to 1, such as 0.49,0.48,0.45."
        flags.DEFINE_list(name, None, text, **where)


def preprocessing(options: flags.FlagValues, count: int) -> Preprocessing | None:
    """Returns the preprocessing of --mean and --std, or None.

    Args:
      options: the flags.
      count: number of the images' channels.
    """
    given: dict[str, Any]
    given = {name: options[name].value for name in ("mean", "std")}
    if given["mean"] is None and given["std"] is None:
        return None
    if None in given.values():
        raise UserError("give both --mean and --std")
    numbers = {}
    for name, parts in given.items():
        try:
            numbers[name] = tuple(float(part) for part in parts)
        except ValueError:
            numbers[name] = ()
        if len(numbers[name]) != count or not all(0 <= n <= 1 for n in numbers[name]):
            many = f"{count} numbers" if count > 1 else "a number"
            raise UserError(f"--{name}={','.join(parts)} is not {many} in 0 .. 1")
    if 0 in numbers["std"]:
        raise UserError(f"--std={','.join(given['std'])} must be above 0")
    return Preprocessing(numbers["mean"], numbers["std"], 1 / 255)


def execute(
    argv: Sequence[str],
    about: str,
    prepare: Callable[[flags.FlagValues], Job],
    checkpoint: str = "FILE",
    define: Callable[[flags.FlagValues, dict], None] = lambda values, where: None,
) -> int:
    """Runs a converter; returns the exit code, 2 for a user error.

    Args:
      argv: the command line, program first.
      about: the converter's documentation, for --help.
      prepare: maps the flags to a Job; raises UserError if there is none.
      checkpoint: what --checkpoint takes.
      define: defines further flags.
    """

    def work(options: flags.FlagValues) -> None:
        if not options.checkpoint or not options.output:
            raise UserError(
                f"--checkpoint={checkpoint} and --output=DIR are required (--help)"
            )
        networks.check_output(options.output, options.overwrite)
        _convert(prepare(options), options)

    return guarded(argv, about, work, checkpoint, define)


def guarded(
    argv: Sequence[str],
    about: str,
    work: Callable[[flags.FlagValues], None],
    checkpoint: str,
    define: Callable[[flags.FlagValues, dict], None],
) -> int:
    """Parses a converter's flags and runs it; returns the exit code.

    Args:
      argv: the command line, program first.
      about: the converter's documentation, for --help.
      work: converts, as the flags say; raises UserError.
      checkpoint: what --checkpoint takes.
      define: defines further flags.
    """
    options = _define_flags(checkpoint, define)
    command_line.replace_unprintable()
    try:
        with preemption.on_sigterm(preemption.terminate):
            _parse(options, argv)
            if options.help:
                print(about.strip(), "\n", options.main_module_help())
                return 0
            work(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, preemption.Terminated) as error:
        return command_line.interrupted(error)
    return 0


def _define_flags(checkpoint: str, more) -> flags.FlagValues:
    options = flags.FlagValues()
    define: dict[str, Any] = {"flag_values": options, "module_name": sys.argv[0]}
    flags.DEFINE_string("checkpoint", "", f"PyTorch {checkpoint} to read.", **define)
    flags.DEFINE_string("output", "", "Checkpoint folder to write.", **define)
    more(options, define)
    flags.DEFINE_string(
        "ignore", "", "Leave out unknown tensors that match this REGEX.", **define
    )
    flags.DEFINE_bool(
        "verify", False, "Compare with PyTorch on random images first.", **define
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace an existing checkpoint in --output.", **define
    )
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", **define)
    return options


def _parse(options: flags.FlagValues, argv: Sequence[str]) -> None:
    try:
        rest = options(list(argv))[1:]
    except flags.Error as error:
        raise plain_flags.refusal(error, options) from error
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; see --help")


def _convert(job: Job, options: flags.FlagValues) -> None:
    architecture = job.description["architecture"]
    for note in job.notes:
        print(note)
    shapes = models.shapes(models.build_abstract(**architecture))
    parameters, ignored = convert.convert(job.sources, shapes, options.ignore)
    if ignored:
        print(f"ignored {len(ignored)} tensors: {', '.join(map(printable, ignored))}")
    if options.verify:
        verify.compare(job.twin(), job.sources, architecture, parameters, **job.verify)
    digest = networks.save(
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
