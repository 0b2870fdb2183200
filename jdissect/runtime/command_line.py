"""Provides what all commands share: flags, config overrides, one-line errors."""

import ast
import contextlib
import errno
import io
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import ml_collections
from absl import flags
from ml_collections import config_flags

from jdissect.base import log
from jdissect.base.errors import UserError
from jdissect.runtime import (
    config_values,
    malloc,
    native_output,
    plain_flags,
    preemption,
)

if TYPE_CHECKING:
    from jdissect.runtime.processes import Processes


def define(
    argv: Sequence[str],
    strings: Mapping[str, str],
    switches: Mapping[str, str],
) -> flags.FlagValues:
    """Returns the flags of a command: --config, --help and its own.

    Args:
      argv: the command line to be parsed; it decides which config keys get a flag.
      strings: flags with a value, default '': {name: description}.
      switches: boolean flags, default off: {name: description}.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        help_string="Configuration FILE[:VARIANT].",
        flag_values=values,
        sys_argv=list(argv),
    )
    for name, text in strings.items():
        flags.DEFINE_string(name, "", text, flag_values=values)
    for name, text in switches.items():
        flags.DEFINE_bool(name, False, text, flag_values=values)
    flags.DEFINE_bool(
        "help", False, "Show this, and the keys of --config.", flag_values=values
    )
    return values


def parse(values: flags.FlagValues, argv: Sequence[str]) -> ml_collections.ConfigDict:
    """Parses the command line; returns the config with its overrides.

    `--config=mixup` selects the config of that name in the package, unless a file of
    that name exists.

    Raises:
      UserError: a bad flag, key, value or config file.
    """
    argv = [_dotted_names(_packaged(argument)) for argument in argv]
    # First parse without the overrides, so that the error for an unknown key can list
    # the known ones.
    probe = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=probe, sys_argv=[])
    with _one_line("--config"):
        probe([a for a in argv if not _is_override(a)], known_only=True)
    if probe["config"].present:
        path = Path(_config_file(probe)[0])
        if not path.is_file():
            there = _named(Path("configs"), str) or _named(_configs(), lambda p: p.stem)
            raise UserError(
                f"config file {path} does not exist; there are: {', '.join(there)}"
            )
    if "--help" in argv or "-help" in argv:
        print(_usage(values, probe.config))
        sys.exit(0)
    if probe.config is not None:
        for argument in filter(_is_override, argv):
            _check_key(probe.config, argument)
        argv = _quoted(argv, probe.config)
    with _one_line("--config", values):
        rest = values(list(argv))[1:]
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    if values.config is None:
        raise UserError("--config=FILE is needed, such as --config=configs/mixup.py")
    config_values.check(values.config, probe.config)
    return values.config


def _configs() -> Path:
    """Returns the folder of the configs that come with the package."""
    from jdissect import configs

    return Path(configs.__path__[0])


def _named(folder: Path, name: Callable[[Path], str]) -> list[str]:
    shared = ("__init__", "common")
    return sorted(name(p) for p in folder.glob("*.py") if p.stem not in shared)


def _packaged(argument: str) -> str:
    """Resolves --config=NAME[:VARIANT] to the packaged file, unless NAME exists."""
    flag, equals, text = argument.partition("=")
    if flag not in ("--config", "-config") or not equals:
        return argument
    name, colon, variant = text.partition(":")
    path = Path(name)
    if path.is_file() or path.parent not in (Path(), Path("configs")):
        return argument
    ours = _configs() / f"{path.stem}.py"
    return f"{flag}={ours}{colon}{variant}" if ours.is_file() else argument


def _dotted_names(argument: str) -> str:
    """Quotes layers such as blocks.3,blocks.11, which absl takes for broken numbers."""
    found = re.fullmatch(r"(--?config\.model\.layers=)([\w.,-]*\.[\w.,-]*)", argument)
    return f"{found[1]}{found[2]!r}" if found else argument


_PIPE = 141  # 128 + SIGPIPE
_EXHAUSTED = "RESOURCE_EXHAUSTED"  # prefix of XLA's out-of-memory errors
_MOST = 10**6  # upper bound for process counts and timeouts in seconds

PROCESSES = {
    "coordinator_address": "HOST:PORT of process 0, for a multi-process run.",
    "num_processes": "Number of processes. Give all three flags, or none if the "
    "platform knows them.",
    "process_id": "Index of this process, from 0.",
    "start_timeout": "Seconds to wait for the other processes; default 60.",
    "heartbeat_timeout": "Seconds of silence until a process is lost; default 100.",
}


def join(values: flags.FlagValues) -> "Processes":
    """Joins this process to its run, as the flags in `PROCESSES` say.

    Raises:
      UserError: flags that contradict each other or are not numbers.
    """
    from jdissect.runtime import (
        initialize,  # JAX loads only once the flags are valid
    )

    numbers = {}
    for name, default, least in (
        ("num_processes", 0, 1),
        ("process_id", -1, 0),
        ("start_timeout", 60, 1),
        ("heartbeat_timeout", 100, 1),
    ):
        text = values[name].value
        if text and (not text.isdecimal() or not least <= float(text) <= _MOST):
            raise UserError(
                f"--{name} is '{text:.40}'; it must be a number from {least} to {_MOST}"
            )
        numbers[name] = int(text) if text else default
    return initialize.start(
        values.coordinator_address,
        numbers["num_processes"],
        numbers["process_id"],
        start_timeout=numbers["start_timeout"],
        heartbeat_timeout=numbers["heartbeat_timeout"],
    )


def run_name(values: flags.FlagValues) -> str:
    """Returns NAME or NAME-VARIANT of --config=.../NAME.py[:VARIANT]."""
    path, variant = _config_file(values)
    name = Path(path).stem
    return f"{name}-{variant}" if variant else name


def entry(
    main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None
) -> int:
    """Runs a command; returns the exit code: 2 and one line for a user error.

    Ctrl-C ends it with 130 and SIGTERM with 143, at any point, with one line. In a
    multi-process run, a failure that the other processes cannot know of exits here
    instead of returning: a normal exit would wait for them, and they for it.
    """
    native_output.to_log()
    replace_unprintable()
    log.show()
    malloc.keep_freed()
    try:
        with preemption.on_sigterm(preemption.terminate):
            code = main(sys.argv if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            _leave_others(_PIPE)
            return _PIPE
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            _leave_others(1)
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror}{where}", file=sys.stderr)
        _leave_others(2)
        return 2
    except (KeyboardInterrupt, preemption.Terminated) as error:
        return interrupted(error)
    except Exception as error:
        if (shutdown := _shutdown()) and shutdown.means_loss(error):
            shutdown.lost(str(error))
        if isinstance(error, MemoryError) or _EXHAUSTED in str(error):
            print(f"error: {_out_of_memory(error)}", file=sys.stderr)
            _leave_others(2)
            return 2
        _leave_others(1)
        raise
    if shutdown := _shutdown():
        shutdown.end_with_others(code)
    return code


def _nobody_reads() -> bool:
    """Returns whether standard output has lost its reader, as behind `| head`."""
    try:
        output, poll = sys.stdout.fileno(), select.poll()
    except (OSError, AttributeError):  # not a file, or the system has no poll
        return False
    poll.register(output, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    # Python flushes again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _out_of_memory(error: Exception) -> str:
    """Returns a message on what does not fit into this machine or accelerator."""
    text = " ".join(str(error).split()).removeprefix(_EXHAUSTED).lstrip(": ")
    return (
        f"out of memory{text and f' ({text[:200]})'}; use smaller batches "
        "(config.data.batch_size, config.segmenter.batch_size) or masks "
        "(config.mask_size)"
    )


def replace_unprintable() -> None:
    """Prints characters that the terminal lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def interrupted(error: BaseException) -> int:
    """Returns the exit code for Ctrl-C or SIGTERM."""
    if text := preemption.message(error, "interrupted"):
        print(text, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        _leave_others(130)
        return 130
    # After a signal all processes met where they saved; otherwise part soon.
    if shutdown := _shutdown():
        shutdown.end_with_others(preemption.EXIT_CODE)
    return preemption.EXIT_CODE


def _shutdown() -> ModuleType | None:
    """Returns the shutdown module in a multi-process run; never loads anything."""
    shutdown = sys.modules.get("jdissect.runtime.shutdown")
    return shutdown if shutdown and shutdown.joined() else None


def _leave_others(code: int) -> None:
    """Exits at once in a multi-process run; prints an error's traceback (code 1)."""
    if shutdown := _shutdown():
        if code == 1:
            traceback.print_exc()
        shutdown.leave(code)


def _config_file(values: flags.FlagValues) -> tuple[str, str]:
    """Returns (path, variant) of --config."""
    text = str(config_flags.get_config_filename(values["config"]))
    path, _, variant = text.partition(":")
    return path, variant


def _is_override(argument: str) -> bool:
    return argument.startswith(("--config.", "-config."))


def _quoted(argv: Sequence[str], config: ml_collections.ConfigDict) -> Sequence[str]:
    """Quotes lists of names that Python cannot parse, such as layer4.0,layer4.1.

    `config_values.check` splits them.
    """
    tuples = {key for key, value in config_values.leaves(config) if _is_list(value)}
    found = list(argv)
    for place, argument in enumerate(argv):
        name, equals, text = argument.partition("=")
        if not _is_override(argument) or name.split("config.", 1)[1] not in tuples:
            continue
        if equals and not _is_python(text):
            found[place] = f"{name}={text!r}"
        elif not equals and place + 1 < len(argv) and not _is_python(argv[place + 1]):
            found[place + 1] = repr(argv[place + 1])
    return found


def _is_list(value: object) -> bool:
    return isinstance(value, tuple | list)


def _is_python(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


@contextlib.contextmanager
def _one_line(what: str, known: Iterable[str] = ()) -> Iterator[None]:
    """Turns any error of a config file or flag into one line."""
    try:
        yield
    except UserError:
        raise
    except flags.Error as error:
        raise plain_flags.refusal(error, known) from error
    except Exception as error:  # a config file can raise anything
        text = " ".join(str(error).split())
        raise UserError(f"{what}: {type(error).__name__}: {text}") from error


def _usage(values: flags.FlagValues, config: ml_collections.ConfigDict | None) -> str:
    lines = ["usage: --config=FILE[:VARIANT] [--config.KEY=VALUE ...] [FLAG ...]", ""]
    for name in values:
        lines.append(f"  --{name}: {values[name].help}")
    if config is not None:
        lines += ["", "keys:"]
        lines += [
            f"  --config.{key}={value!r}" for key, value in config_values.leaves(config)
        ]
    return "\n".join(lines)


def _check_key(config: ml_collections.ConfigDict, argument: str) -> None:
    name = argument.lstrip("-").partition("=")[0]
    place, path = config, "config"
    for part in name.split(".")[1:]:
        there = list(place) if isinstance(place, ml_collections.ConfigDict) else []
        if part not in there:
            has = f"{path} has: {', '.join(sorted(there))}" if there else "a value"
            raise UserError(f"unknown key {name}; {has}")
        place, path = place[part], f"{path}.{part}"
    if isinstance(place, ml_collections.ConfigDict):
        raise UserError(f"{name} holds keys, not a value: {', '.join(sorted(place))}")
