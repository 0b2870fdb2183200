"""Dissects the study's five networks: python -m jdissect.study

The five configs run in turn, each into its own run directory (finished runs are read
again), and are compared as by `jdissect.compare`: Figure 3 of the study, with
intervals, in the folder `comparison`. With --more, their formulas, other scores, chance
level and verified labels are found first, as by `compose`, `scores`, `chance` and
`verify`, and are beside the counts.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

NAMES = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")
_OPTIONS = {
    "variant": ("", "Variant of the five configs."),
    "workdir": ("runs/study", "Folder for the run directories and the comparison."),
    "weights": ("", "Folder of the checkpoints NAME; '' uses the configs'."),
    "overwrite": (
        False,
        "Replace runs, each once the new one is complete.",
    ),
    "report": (True, "Write report.html of the runs and the comparison."),
    "more": (
        False,
        "Also find formulas, other scores, the chance level and verified labels.",
    ),
}


def main(argv: Sequence[str]) -> int:
    """Parses the command line and runs; returns the exit code."""
    # Imported here so that a bad flag is reported before JAX loads.
    from jdissect.base.errors import UserError
    from jdissect.runtime import command_line, plain_flags

    usage = "jdissect.study [FLAG ...] [--config.KEY=VALUE ...]"
    passed_on = ("--config.", "-config.")
    flags, unknown, rest = plain_flags.parse(argv, usage, _OPTIONS, passed_on)
    if unknown:
        raise UserError(f"unexpected argument '{unknown[0]}'; see --help")
    configs = {name: _config(command_line, flags, rest, name) for name in NAMES}
    if configs[NAMES[0]].model.python:
        raise UserError("config.model.python is one network; use jdissect.main")
    from jdissect import compare
    from jdissect.analysis.comparison import compare as put_together
    from jdissect.base import paths
    from jdissect.report import run_summary
    from jdissect.results.finished_run import open_run
    from jdissect.runtime import preemption

    replaced = _Replaced(paths.from_user(flags.workdir), configs, flags.overwrite)
    for name, config in configs.items():
        start = time.perf_counter()
        folder = f"{flags.workdir}/{name}"
        overwrite = flags.overwrite and name not in replaced.names
        try:
            run_summary.dissect(config, folder, overwrite, tell=lambda _: None)
        except BaseException as error:
            # The note holds for the whole study: finished runs are read again.
            preemption.add_hint(error)
            raise
        replaced.add(name)
        print(f"{name}: {folder}, {time.perf_counter() - start:.1f} s", flush=True)
    for name in NAMES if flags.more else ():
        _find_more(f"{flags.workdir}/{name}", config.cache.dir, flags.report)
    compared = put_together([open_run(f"{flags.workdir}/{name}") for name in NAMES])
    first = compared.models[0]
    print(
        f"\nUnique concepts of {len(first.result.thresholds)} units of {first.layer}, "
        f"{first.result.images} images, labels by {config.segmenter.name}\n"
    )
    output = f"{flags.workdir}/comparison"
    compare.show(compared, output, flags.report, config.data.path)
    replaced.forget()
    print(f"\nfigures and tables in {output}")
    return 0


def _find_more(folder: str, cache_dir: str, report: bool) -> None:
    """Finds what a finished run lacks beside its counts, and rewrites its page."""
    import importlib

    from jdissect.base.errors import UserError
    from jdissect.report import findings
    from jdissect.results.finished_run import open_run

    run = open_run(folder)
    known = {layer: findings.read(run, layer) for layer in run.layers}
    wanted = [
        command
        for kind, (_, command) in findings.KINDS.items()
        if not all(kind in found.kinds for found in known.values())
    ]
    for command in wanted:
        start = time.perf_counter()
        main_of = importlib.import_module(f"jdissect.{command}").main
        argv = [command, folder, *([f"--cache_dir={cache_dir}"] if cache_dir else [])]
        try:
            # Its tables are in the files, and in the comparison.
            main_of(argv, tell=lambda text: None)
        except UserError as error:
            print(f"{folder}, {command}: {error}", flush=True)
            continue
        print(f"{folder}, {command}: {time.perf_counter() - start:.1f} s", flush=True)
    if wanted and report:
        from jdissect import page

        page.main(["page", folder])


class _Replaced:
    """Records which networks an unfinished study with --overwrite has replaced.

    The same command then resumes with the others.

    Attributes:
      names: names of the replaced networks.
    """

    def __init__(self, folder: Path, configs: Mapping, overwrite: bool):
        from jdissect.base import paths
        from jdissect.base.identity import digest

        self.names: list[str] = []
        self._path = folder / "replaced.json" if overwrite else None
        self._of = digest({name: config.to_dict() for name, config in configs.items()})
        if self._path and self._path.is_file():
            try:
                stored = json.loads(paths.read_bytes(self._path))
                self.names = [*stored["names"]] if stored["of"] == self._of else []
            except (ValueError, KeyError, TypeError):
                self.names = []

    def add(self, name: str) -> None:
        """Records that a network has been replaced."""
        from jdissect.base.atomic_files import write_whole

        self.names.append(name)
        if self._path:
            content = {"of": self._of, "names": self.names}
            write_whole(self._path, json.dumps(content).encode())

    def forget(self) -> None:
        """Deletes the record at the end of the study."""
        if self._path:
            self._path.unlink(missing_ok=True)


def _config(cli, flags, rest, name):
    variant = f":{flags.variant}" if flags.variant else ""
    report = f"--config.report={flags.report}"
    argv = ["study", f"--config=configs/{name}.py{variant}", report, *rest]
    if flags.weights:
        argv.append(f"--config.model.weights={flags.weights}/{name}")
    return cli.parse(cli.define(argv, {}, {}), argv)


if __name__ == "__main__":
    from jdissect.runtime.command_line import entry

    sys.exit(entry(main))
