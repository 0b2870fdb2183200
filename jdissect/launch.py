"""Starts and supervises one process of a run: python -m jdissect.launch -- COMMAND

    python -m jdissect.launch --coordinator_address=HOST:PORT --num_processes=2 \
        --process_id=0 -- -m jdissect.main --config=configs/mixup.py

One launcher for each process. When a machine is lost, JAX's coordination client aborts
from C++ in every other process of the run, in the middle of whatever they do. The
launcher can still say so in a line. To start the run again is the work of what started
it: SLURM, Kubernetes, a shell (docs/pods.md).

Exit codes: the worker's own if it ended by itself (0; 1, a traceback; 2, a user error;
130; 143, saved on SIGTERM), else 3: the same command on all hosts resumes the run.
"""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from jdissect.base.errors import LOST, UserError
from jdissect.runtime import command_line, plain_flags
from jdissect.runtime.launcher import Launcher, log_file

_USAGE = (
    "usage: python -m jdissect.launch [FLAG ...] -- -m MODULE [ARGUMENT ...]\n\n"
    "Starts the module as one process of a run, and says in a line if it is lost.\n"
    "All flags but --log_dir are passed on to it.\n"
)


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit code."""
    values, arguments = _parse(argv)
    for name in command_line.PROCESSES:
        if values[name].value:
            arguments.append(f"--{name}={values[name].value}")
    # Hosts may share the --log_dir folder.
    who = values.process_id or f"{platform.node()}-{os.getpid()}"
    with log_file(values.log_dir, f"process-{who}.log") as log:
        command = [sys.executable, *arguments]
        code = Launcher(command, log).run()
        if code not in (1, LOST):
            log.unlink()
    return code


def _parse(argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """Returns the launcher's flags, and the interpreter's arguments."""
    values = flags.FlagValues()
    for name, text in {
        "log_dir": "Folder for what native libraries print; '' for a new one.",
        **command_line.PROCESSES,
    }.items():
        flags.DEFINE_string(name, "", text, flag_values=values)
    flags.DEFINE_bool("help", False, "Show this.", flag_values=values)
    place = list(argv).index("--") if "--" in argv else len(argv)
    try:
        rest = values(list(argv[:place]))[1:]
    except flags.Error as error:
        raise plain_flags.refusal(error, values) from error
    if values.help:
        print(_USAGE)
        for name in values:
            print(f"  --{name}: {values[name].help}")
        sys.exit(0)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}' before '--'; see --help")
    arguments = list(argv[place + 1 :])
    if not arguments:
        raise UserError("no module to start; give '-- -m MODULE ...', see --help")
    if not (arguments[0].startswith("-") or Path(arguments[0]).is_file()):
        arguments.insert(0, "-m")
    return values, arguments


if __name__ == "__main__":
    sys.exit(command_line.entry(main))
