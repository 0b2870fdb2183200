"""What every training does, whatever network it trains."""

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
import optax

from jdissect.parallel import Devices
from jdissect.termination import Terminated
from jdissect.training import recipe, step
from jdissect.training.initialization import initial_parameters
from jdissect.training.loop import Evaluation, Loop, Plan
from jdissect.training.run_directory import RunDirectory


def run(
    config: ml_collections.ConfigDict,
    architecture: Mapping[str, Any],
    devices: Devices,
    directory: RunDirectory,
    *,
    overwrite: bool,
    rate: optax.Schedule,
    steps_per_epoch: int,
    batches: Callable,
    make_step: Callable[[optax.GradientTransformation], Callable],
    evaluate: Callable | None,
) -> tuple[dict[str, np.ndarray], int, Evaluation | None] | None:
    """Trains in `directory`, from its last checkpoint if there is one.

    Args:
      config: the whole of it.
      architecture: {'name': a key of models.ARCHITECTURES, **options of `build`}.
      devices: which share the batches.
      directory: of the run.
      overwrite: whether to begin anew.
      rate: learning rate of a step, from 0.
      steps_per_epoch, batches, evaluate: as `loop.Plan` has them.
      make_step: the `step` of `loop.Plan` for an optimizer.

    Returns:
      parameters by name, steps, and the last evaluation; None where SIGTERM ended it,
      with the state saved.

    Raises:
      UserError: the loss or a weight is not finite; or what reading images raises.
    """
    train = config.train
    optimizer = recipe.optimizer(rate, train.momentum, train.weight_decay)
    start = initial_parameters(architecture, train.seed)
    plan = Plan(
        epochs=train.epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        batches=batches,
        step=make_step(optimizer),
        evaluate=evaluate,
        rate=rate,
    )
    directory.begin(config.to_dict(), overwrite)
    state = step.initial_state(architecture, optimizer, start)
    loop = Loop(plan, state, devices.states, directory)
    try:
        found = loop.run()
    except Terminated:
        print(f"stopped after step {loop.done}; the same command goes on from there")
        return None
    return step.parameters(step.first_copy(loop.state)), loop.done, found


def origin(config: ml_collections.ConfigDict, steps: int) -> dict[str, Any]:
    """Where trained weights come from, for a checkpoint's `source`."""
    return {
        "config": json.loads(json.dumps(config.to_dict())),
        "seed": config.train.seed,
        "steps": steps,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
