"""Dissects the study's five networks: python -m jdissect.study

The five configs run one after the other, each into its run directory (finished ones are
read again), and are compared as by `jdissect.compare`: Figure 3 of the study, with
intervals, in the folder `comparison`.
"""

import contextlib
import io
import sys
import time
from collections.abc import Sequence

NAMES = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")
_OPTIONS = {
    "variant": ("", "Of the five configs."),
    "workdir": ("runs/study", "Holds the run directories, and the comparison."),
    "weights": ("", "Folder of the checkpoints NAME; '' as configs say."),
    "overwrite": (False, "Replace runs that are there."),
    "report": (True, "Write report.html of the runs and the comparison."),
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit code."""
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import cli, commands
    from jdissect.errors import UserError

    usage = "jdissect.study [FLAG ...] [--config.KEY=VALUE ...]"
    passed_on = ("--config.", "-config.")
    flags, unknown, rest = commands.parse(argv, usage, _OPTIONS, passed_on)
    if unknown:
        raise UserError(f"unexpected argument '{unknown[0]}'; see --help")
    configs = {name: _config(cli, flags, rest, name) for name in NAMES}
    from jdissect import compare, runner
    from jdissect.comparison import compare as put_together
    from jdissect.runs import open_run

    for name, config in configs.items():
        start = time.perf_counter()
        folder = f"{flags.workdir}/{name}"
        with contextlib.redirect_stdout(io.StringIO()):
            runner.dissect(config, folder, flags.overwrite)
        print(f"{name}: {folder}, {time.perf_counter() - start:.1f} s", flush=True)
    compared = put_together([open_run(f"{flags.workdir}/{name}") for name in NAMES])
    first = compared.models[0]
    print(
        f"\nUnique concepts of {len(first.result.thresholds)} units of {first.layer}, "
        f"{first.result.images} images, labels by {config.segmenter.name}\n"
    )
    output = f"{flags.workdir}/comparison"
    compare.show(compared, output, flags.report, config.data.path)
    print(f"\nfigures and tables in {output}")
    return 0


def _config(cli, flags, rest, name):
    variant = f":{flags.variant}" if flags.variant else ""
    report = f"--config.report={flags.report}"
    argv = ["study", f"--config=configs/{name}.py{variant}", report, *rest]
    if flags.weights:
        argv.append(f"--config.model.weights={flags.weights}/{name}")
    return cli.parse(cli.define(argv, {}, {}), argv)


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
