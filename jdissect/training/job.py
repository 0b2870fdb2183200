"""What every training does, whatever network it trains."""

import contextlib
import dataclasses
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping
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
from jdissect.training import recipe, step
from jdissect.training.initialization import initial_parameters
from jdissect.training.loop import Batch, Evaluation, Loop, Plan
from jdissect.training.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Job:
    """The training that a config asks for, opened.

    Attributes:
      identity: JSON, everything that decides what is trained, by name.
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      devices: of all processes, which share the batches.
      rate: learning rate of a step, from 0.
      steps_per_epoch, batches, evaluate: as `loop.Plan` has them.
      make_step: the `step` of `loop.Plan` for an optimizer.
      result: of steps and the last evaluation, JSON: what `training.json` keeps.
      describe: of that result, the trained network's description.
      report: the same in lines for a person.
    """

    identity: Mapping[str, Any]
    architecture: Mapping[str, Any]
    devices: Devices
    rate: optax.Schedule
    steps_per_epoch: int
    batches: Callable[[int, int], Iterator[Batch]]
    make_step: Callable[[optax.GradientTransformation], Callable]
    evaluate: Callable[[Any, str], Evaluation] | None
    result: Callable[[int, Evaluation | None], dict[str, Any]]
    describe: Callable[[dict[str, Any]], dict[str, Any]]
    report: Callable[[dict[str, Any]], str]


@in_32_bits
def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    overwrite: bool,
    processes: Processes,
    prepare: Callable[[ml_collections.ConfigDict, Processes], Job],
) -> int:
    """Does the config's job in `workdir`.

    A training that was interrupted goes on; a finished one is reported again.

    Args:
      config: the whole of it.
      workdir: of the run, the same for all processes.
      overwrite: replace what is there: a finished training once this one is.
      processes: that share the work; all of them call this.
      prepare: opens the job; raises UserError where something given is wrong.

    Returns:
      0.

    Raises:
      Terminated: SIGTERM has come, and the state is saved.
      UserError: that of `prepare`; the loss or a weight is not finite; or what reading
        images raises. On all processes, whichever has it.
    """
    with processes.agreeing(), waiting("opening images", not processes.first):
        machine.use_compilation_cache(machine.cache_dir(config.cache.dir))
        job = prepare(config, processes)
        directory = RunDirectory(workdir, job.identity)
        result = directory.result(overwrite)
    _check_alike(processes, config, directory, overwrite, result)
    if result is not None:
        if processes.first:
            with contextlib.suppress(OSError):  # read-only, for one: it can be read
                directory.settle()
            print(f"{workdir} is finished (--overwrite trains anew)")
    else:
        result = _train(config, job, directory, overwrite, processes)
    if processes.first:
        print(job.report(result))
        print(f"network in {directory.folder / 'model'}")
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


def _train(config, job, directory, overwrite, processes) -> dict[str, Any]:
    """The result of a training that is not finished, when it is.

    Raises:
      Terminated: SIGTERM ended it, with the state saved.
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
    )
    loop = None
    try:
        with processes.agreeing():
            if processes.first:
                directory.begin(config.to_dict(), overwrite)
        consistency.check_shared(processes, directory.folder)
        state = step.initial_state(job.architecture, optimizer, start)
        loop = Loop(plan, state, job.devices.states, directory, processes)
        found = loop.run()
        result = job.result(loop.done, found)
        with processes.agreeing():
            if processes.first:
                parameters = step.parameters(step.first_copy(loop.state))
                description = job.describe(result)
                networks.save(directory.model, parameters, description, overwrite=True)
                directory.finish(result)
    except BaseException as error:
        stopped = isinstance(error, Terminated) and loop and loop.done
        if stopped and processes.first and not error.args:
            print(
                f"stopped after step {loop.done}; the same command goes on from there"
            )
        if processes.first:
            directory.abandon()
        if directory.checkpoints.steps():
            preemption.note(error)
        raise
    return result


def origin(config: ml_collections.ConfigDict, steps: int) -> dict[str, Any]:
    """Where trained weights come from, for a checkpoint's `source`."""
    return {
        "config": json.loads(json.dumps(config.to_dict())),
        "seed": config.train.seed,
        "steps": steps,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
