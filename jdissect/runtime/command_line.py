"""What the entry points share: flags, config overrides, and errors in one line."""

import contextlib
import errno
import io
import os
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
    """The flags of an entry point: --config, --help and its own.

    Args:
      argv: the command line that will be parsed; it says which keys are overridden.
      strings: flags with a value, '' by default: {name: description}.
      switches: flags that are on or off, off by default.
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

    `--config=mixup` is the config of that name that the package has, unless there is
    such a file.

    Raises:
      UserError: a bad flag, key, value or config file.
    """
    argv = [_packaged(argument) for argument in argv]
    # Once without the overrides, so that an unknown key can be answered with those
    # that exist.
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
    with _one_line("--config", values):
        rest = values(list(argv))[1:]
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; see --help")
    if values.config is None:
        raise UserError("--config=FILE is needed, such as --config=configs/mixup.py")
    config_values.check(values.config, probe.config)
    return values.config


def _configs() -> Path:
    """The folder of the configs that come with the package."""
    from jdissect import configs

    return Path(configs.__path__[0])


def _named(folder: Path, name: Callable[[Path], str]) -> list[str]:
    shared = ("__init__", "common")
    return sorted(name(p) for p in folder.glob("*.py") if p.stem not in shared)


def _packaged(argument: str) -> str:
    """--config=NAME[:VARIANT] with the file of the package, if no such file is here."""
    flag, equals, text = argument.partition("=")
    if flag not in ("--config", "-config") or not equals:
        return argument
    name, colon, variant = text.partition(":")
    path = Path(name)
    if path.is_file() or path.parent not in (Path(), Path("configs")):
        return argument
    ours = _configs() / f"{path.stem}.py"
    return f"{flag}={ours}{colon}{variant}" if ours.is_file() else argument


_PIPE = 141  # 128 + SIGPIPE
_EXHAUSTED = "RESOURCE_EXHAUSTED"  # how an error of XLA begins
_MOST = 10**6  # processes, or seconds to wait for them

PROCESSES = {
    "coordinator_address": "HOST:PORT of process 0, for a run of many processes.",
    "num_processes": "Their number. All three, or none where the platform knows.",
    "process_id": "Of this process, from 0.",
    "start_timeout": "Seconds to wait for the other processes; default 60.",
    "heartbeat_timeout": "Seconds of silence after which one is lost; default 100.",
}


def join(values: flags.FlagValues) -> "Processes":
    """Joins this process to its run, as the flags `PROCESSES` say.

    Raises:
      UserError: flags that do not fit together, or are no numbers.
    """
    from jdissect.runtime import (
        initialize,  # JAX is loaded only once the flags are good
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
    """NAME or NAME-VARIANT of --config=.../NAME.py[:VARIANT]."""
    path, variant = _config_file(values)
    name = Path(path).stem
    return f"{name}-{variant}" if variant else name


def entry(
    main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None
) -> int:
    """Runs an entry point; returns the exit code: 2 and a line for a user's error.

    Ctrl-C ends it with 130 and SIGTERM with 143, wherever it is, in a line.
    One of many processes that ends in a way the others cannot know of does not come
    back from here: it would wait for them, and they for it.
    """
    native_output.to_log()
    replace_unprintable()
    log.show()
    malloc.keep_freed()
    try:
        with preemption.on_sigterm(preemption.end):
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
        if (endings := _endings()) and endings.means_loss(error):
            endings.lost(str(error))
        if isinstance(error, MemoryError) or _EXHAUSTED in str(error):
            print(f"error: {_out_of_memory(error)}", file=sys.stderr)
            _leave_others(2)
            return 2
        _leave_others(1)
        raise
    if endings := _endings():
        endings.part(code)
    return code


def _nobody_reads() -> bool:
    """Whether standard output has no reader any more, as behind `| head`."""
    try:
        output, poll = sys.stdout.fileno(), select.poll()
    except (OSError, AttributeError):  # it is no file, or this system has no poll
        return False
    poll.register(output, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    # Python flushes once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _out_of_memory(error: Exception) -> str:
    """What it is that this machine, or its accelerator, cannot hold."""
    text = " ".join(str(error).split()).removeprefix(_EXHAUSTED).lstrip(": ")
    return (
        f"out of memory{text and f' ({text[:200]})'}; smaller batches "
        "(config.data.batch_size, config.segmenter.batch_size) or masks "
        "(config.mask_size) take less"
    )


def replace_unprintable() -> None:
    """Shows letters that a terminal does not have as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def interrupted(error: BaseException) -> int:
    """The exit code of Ctrl-C or SIGTERM."""
    if text := preemption.words(error, "interrupted"):
        print(text, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        _leave_others(130)
        return 130
    # All were told, and met where they saved; others take leave in a while, or not.
    if endings := _endings():
        endings.part(preemption.EXIT_CODE)
    return preemption.EXIT_CODE


def _endings() -> ModuleType | None:
    """The module, where this process is one of many; loads nothing."""
    endings = sys.modules.get("jdissect.runtime.shutdown")
    return endings if endings and endings.joined() else None


def _leave_others(code: int) -> None:
    """Ends at once where there are others, with the traceback of an error (1)."""
    if endings := _endings():
        if code == 1:
            traceback.print_exc()
        endings.leave(code)


def _config_file(values: flags.FlagValues) -> tuple[str, str]:
    """(path, variant) of --config."""
    text = str(config_flags.get_config_filename(values["config"]))
    path, _, variant = text.partition(":")
    return path, variant


def _is_override(argument: str) -> bool:
    return argument.startswith(("--config.", "-config."))


@contextlib.contextmanager
def _one_line(what: str, known: Iterable[str] = ()) -> Iterator[None]:
    """Whatever goes wrong in a config file or a flag, as one line."""
    try:
        yield
    except UserError:
        raise
    except flags.Error as error:
        raise plain_flags.refusal(error, known) from error
    except Exception as error:  # a config file is a program and may fail in any way
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
