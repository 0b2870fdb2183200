"""Runs the parts that the training of any network shares."""

import contextlib
import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import ml_collections
import optax

from jdissect.base.identity import computing, digest, source_hash
from jdissect.base.progress import waiting
from jdissect.checkpoints import networks
from jdissect.runtime import consistency, machine, preemption
from jdissect.runtime.devices import Devices, in_32_bits
from jdissect.runtime.preemption import Terminated
from jdissect.runtime.processes import Processes
from jdissect.training import metric_writers, recipe, step
from jdissect.training.initialization import initial_parameters
from jdissect.training.loop import Batch, Evaluation, Loop, Plan
from jdissect.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Job:
    """The opened training job of a config.

    Attributes:
      identity: JSON, everything that determines what is trained, by name.
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      devices: devices of all processes, which share the batches.
      rate: maps a step, from 0, to its learning rate.
      steps_per_epoch, batches, evaluate: see `loop.Plan`.
      make_step: maps an optimizer to the `step` of `loop.Plan`.
      result: maps steps and the last evaluation to the JSON for `training.json`.
      describe: maps that result to the trained network's description.
      report: formats that result as lines for the user.
    """

    identity: Mapping[str, Any]
    architecture: Mapping[str, Any]
    devices: Devices
    rate: optax.Schedule
    steps_per_epoch: int
    batches: Callable[[int, int], Generator[Batch, None, None]]
    make_step: Callable[[optax.GradientTransformation], Callable]
    evaluate: Callable[[Any, str], Evaluation] | None
    result: Callable[[int, Any], dict[str, Any]]
    describe: Callable[[dict[str, Any]], dict[str, Any]]
    report: Callable[[dict[str, Any]], str]


@in_32_bits
def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    overwrite: bool,
    processes: Processes,
    prepare: Callable[[ml_collections.ConfigDict, Processes], Job],
    tell: Callable[[str], None] = print,
) -> int:
    """Runs the config's job in `workdir`.

    An interrupted training run resumes; a finished one is reported again.

    Args:
      config: the whole config.
      workdir: the run directory, the same for all processes.
      overwrite: whether to replace existing content; a finished training run is
        replaced once the new one is finished.
      processes: the processes of the run; all of them call this.
      prepare: opens the job; raises UserError for invalid inputs.
      tell: prints a line; on the first process only.

    Returns:
      0.

    Raises:
      Terminated: SIGTERM arrived, and the state is saved.
      UserError: `prepare` raises it; the loss or a weight is not finite; or reading
        images fails. On all processes, whichever has the error.
    """
    with processes.agreeing(), waiting("opening images", not processes.first):
        machine.use_compilation_cache(machine.cache_dir(config.cache.dir))
        if processes.first:
            metric_writers.check(config.train.metrics, workdir)
        job = prepare(config, processes)
        directory = RunDirectory(workdir, job.identity)
        result = directory.result(overwrite)
    _check_alike(processes, config, directory, overwrite, result)
    if result is not None:
        if processes.first:
            with contextlib.suppress(OSError):  # it may be read-only; reading suffices
                directory.settle()
            tell(f"{workdir} is finished (--overwrite trains again)")
    else:
        result = _train(config, job, directory, overwrite, processes, tell)
    if processes.first:
        tell(job.report(result))
        tell(f"network in {directory.folder / 'model'}")
    return 0


def _check_alike(processes, config, directory, overwrite, result):
    if processes.count == 1:  # hashing all code takes a second
        return
    layout = {
        "code": source_hash((".",)),
        **computing(),
        "number of devices": jax.local_device_count(),
        "train.checkpoint_every": config.train.checkpoint_every,
        "data.batch_size": config.data.batch_size,
        "workdir": os.fspath(directory.folder),
        "what the workdir holds": digest([result, directory.place.name]),
        "--overwrite": overwrite,
    }
    consistency.check_alike(processes, directory.identity, layout)


def _train(config, job, directory, overwrite, processes, tell) -> dict[str, Any]:
    """Trains to the end; returns the result.

    Raises:
      Terminated: SIGTERM arrived, and the state is saved.
    """
    train = config.train
    optimizer = recipe.optimizer(job.rate, train.momentum, train.weight_decay)
    start = initial_parameters(job.architecture, train.seed)
    plan = Plan(
        epochs=train.epochs,
        steps_per_epoch=job.steps_per_epoch,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        batches=job.batches,
        step=job.make_step(optimizer),
        evaluate=job.evaluate,
        rate=job.rate,
        writers=lambda done, kept: metric_writers.open_writers(
            config.train.metrics,
            directory.place,
            directory.folder.name,
            config.to_dict(),
            done,
            kept,
        ),
    )
    loop = None
    try:
        with processes.agreeing():
            if processes.first:
                directory.begin(config.to_dict(), overwrite)
        consistency.check_shared(processes, directory.folder)
        state = step.initial_state(job.architecture, optimizer, start)
        loop = Loop(plan, state, job.devices.states, directory, processes, tell)
        found = loop.run()
        result = job.result(loop.done, found)
        with processes.agreeing():
            if processes.first:
                parameters = step.parameters(step.first_copy(loop.state))
                description = job.describe(result)
                networks.save(directory.model, parameters, description, overwrite=True)
                directory.finish(result)
    except BaseException as error:
        stopped = isinstance(error, Terminated) and not error.args
        if stopped and processes.first and loop and loop.done:
            tell(f"stopped after step {loop.done}; the same command resumes there")
        if processes.first:
            directory.abandon()
        if directory.checkpoints.steps():
            preemption.add_hint(error)
        raise
    return result


def origin(config: ml_collections.ConfigDict, steps: int) -> dict[str, Any]:
    """Returns where trained weights come from, for a checkpoint's `source`."""
    return {
        "config": json.loads(json.dumps(config.to_dict())),
        "seed": config.train.seed,
        "steps": steps,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
