"""Dissects the study's five networks: python -m jdissect.study

The five configs run one after the other, each into its run directory (finished ones are
read again), and one table compares them, as Figure 3 of the study does: unique concepts
by category at each IoU threshold, beside the top-1 error of the network.
"""

import contextlib
import io
import sys
import time
from collections.abc import Sequence

NAMES = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit code."""
    # Imported here so that a bad flag is answered before JAX is loaded.
    from jdissect import cli

    flags, rest = _parse(argv)
    configs = {name: _config(cli, flags, rest, name) for name in NAMES}
    from jdissect import runner
    from jdissect.report.study import study_table
    from jdissect.stored_layer import load

    found, errors = {}, {}
    for name, config in configs.items():
        start = time.perf_counter()
        folder = f"{flags.workdir}/{name}"
        with contextlib.redirect_stdout(io.StringIO()):
            runner.dissect(config, folder, flags.overwrite)
        found[name] = load(f"{folder}/{config.model.layers[0]}")
        errors[name] = runner.top1_error(config.model.weights)
        print(f"{name}: {folder}, {time.perf_counter() - start:.1f} s", flush=True)
    first = next(iter(found.values()))
    print(
        f"\nUnique concepts of {len(first.thresholds)} units of {first.layer}, "
        f"{first.images} images, labels by {config.segmenter.name}\n"
    )
    print(study_table(found, errors))
    return 0


def _parse(argv):
    """The study's own flags, and the rest: what goes to every config."""
    from absl import flags

    from jdissect.errors import UserError

    values = flags.FlagValues()
    options = {"flag_values": values}
    flags.DEFINE_string("variant", "", "Of the five configs.", **options)
    flags.DEFINE_string(
        "workdir", "runs/study", "Holds the run directories.", **options
    )
    flags.DEFINE_string(
        "weights", "", "Folder of the checkpoints NAME; '' as configs say.", **options
    )
    flags.DEFINE_bool("overwrite", False, "Replace runs that are there.", **options)
    flags.DEFINE_bool("help", False, "Show this.", **options)
    rest = [a for a in argv[1:] if a.startswith(("--config.", "-config."))]
    try:
        unknown = values([a for a in argv if a not in rest])[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    if unknown:
        raise UserError(f"unexpected argument '{unknown[0]}'; see --help")
    if values.help:
        print("usage: python -m jdissect.study [FLAG ...] [--config.KEY=VALUE ...]\n")
        for name in values:
            print(f"  --{name}: {values[name].help}")
        sys.exit(0)
    return values, rest


def _config(cli, flags, rest, name):
    variant = f":{flags.variant}" if flags.variant else ""
    argv = ["study", f"--config=configs/{name}.py{variant}", *rest]
    if flags.weights:
        argv.append(f"--config.model.weights={flags.weights}/{name}")
    return cli.parse(cli.define(argv, {}, {}), argv)


if __name__ == "__main__":
    from jdissect.cli import entry

    sys.exit(entry(main))
