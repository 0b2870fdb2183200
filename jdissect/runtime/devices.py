"""Runs a per-device step on all devices.

A step is a pure function `step(state, batch, constants) -> state` that never
communicates. Every device has its own state (a leading axis of the arrays) and its
shard of the batch; constants are replicated. `spmd` wraps a step in `jit` + `shard_map`
or in `pmap`; both run the same program on the same shapes and so give the same bits.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdissect.base.errors import UserError
from jdissect.runtime import machine

AXIS = "data"
MODES = ("shard_map", "pmap")
# At most this many CPU devices run networks: each holds a copy of the weights and its
# activations, 0.7 GB for UPerNet and its colors.
MOST_NETWORKS = 4

# 512-bit vectors halve the time of bit counting where the processor has them; elsewhere
# the option has no effect.
_OPTIONS = {"cpu": {"xla_cpu_prefer_vector_width": 512}}


def in_32_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function to run with JAX's 64-bit mode off in its thread.

    Networks run in 32 bits or fewer and counts fit by design, so the mode never changes
    a bit of the results.
    """

    @functools.wraps(function)
    def run(*arguments, **options):
        with jax.enable_x64(False):
            return function(*arguments, **options)

    return run


class Step:
    """A step that caches what `Devices.spmd` compiles of it.

    Args:
      function: the step, `function(state, batch, constants) -> result`.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self.compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, state: Any, batch: Any, constants: Any) -> Any:
        return self._function(state, batch, constants)


class Devices:
    """The devices of a run; puts arrays and steps on them.

    Attributes:
      devices: the devices in order; by default those of this process.
      mode: one of MODES.

    With devices of several processes, every process calls every method and passes its
    own shard of sharded arrays; `len(devices)` counts the devices of all processes.
    """

    def __init__(self, mode: str = "shard_map", devices: Sequence | None = None):
        if mode not in MODES:
            raise UserError(f"parallel must be one of {', '.join(MODES)}, got '{mode}'")
        self.mode = mode
        self.devices = list(jax.local_devices() if devices is None else devices)
        self.mesh = Mesh(np.asarray(self.devices), (AXIS,))
        here = jax.process_index()
        self._here = sum(device.process_index == here for device in self.devices)
        self._split = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self._copied = NamedSharding(self.mesh, PartitionSpec())

    def __len__(self) -> int:
        return len(self.devices)

    @property
    def platform(self) -> str:
        """Name of the devices' platform: 'cpu', 'gpu', 'tpu' or another."""
        return self.devices[0].platform

    def spmd(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `step(state, batch, constants) -> result` compiled for all devices.

        Args:
          step: works on one device's state and shard. All arguments are pytrees. A
            `Step` is compiled once for equal devices and shapes.

        Returns:
          A compiled function of (state, batch, constants): state and result have a
          leading axis of devices, the batch is sharded along its leading axis, and
          constants are whole. The state is donated.
        """
        if not isinstance(step, Step):
            return self._spmd(step)
        where = (self.mode, *self.devices)
        if where not in step.compiled:
            step.compiled[where] = self._spmd(step)
        return step.compiled[where]

    def _spmd(self, step):
        if self.mode == "pmap":
            pmapped = jax.pmap(
                step, axis_name=AXIS, in_axes=(0, 0, None), devices=self.devices
            )

            def share(array):
                return array.reshape(len(self), -1, *array.shape[1:])

            # `pmap` takes no compiler options, and other options give other bits, so
            # its function is jitted once more.
            def mapped(state, batch, constants):
                return pmapped(state, jax.tree.map(share, batch), constants)

            return self._compiled(mapped)

        def local(state, batch, constants):
            state = jax.tree.map(lambda array: array[0], state)
            result = step(state, batch, constants)
            return jax.tree.map(lambda array: array[None], result)

        split, copied = PartitionSpec(AXIS), PartitionSpec()
        mapped = jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=(split, split, copied),
            out_specs=split,
            check_vma=False,
        )
        return self._compiled(mapped)

    def _compiled(self, mapped):
        options = _OPTIONS.get(self.platform)
        return jax.jit(mapped, donate_argnums=(0,), compiler_options=options)

    def replicate(self, tree: Any) -> Any:
        """Returns a copy of every array on every device."""
        return self._put(tree, self._copied, np.shape)

    def scatter(self, tree: Any) -> Any:
        """Shards the arrays along their leading axis.

        Args:
          tree: this process's shard; the shards of all processes have equal length.
        """
        return self._put(tree, self._split, lambda array: None)

    def states(self, state: Any) -> Any:
        """Returns a step's initial state, one copy per device, stacked."""

        def stacked(array):
            return np.broadcast_to(np.asarray(array), (self._here, *array.shape))

        return self.scatter(jax.tree.map(stacked, state))

    def fresh(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """Like `states` of `make()`, but the devices create the arrays themselves.

        Args:
          make: hashable; an equal one reuses the compiled program.
        """
        return _fresh(make, self._here, self._split)

    def _put(self, tree, sharding, whole_shape):
        if self._here == len(self):
            return jax.device_put(tree, sharding)

        def put(array):
            return jax.make_array_from_process_local_data(
                sharding, np.asarray(array), whole_shape(array)
            )

        return jax.tree.map(put, tree)


@functools.lru_cache(maxsize=128)
def _fresh(make, copies: int, sharding: NamedSharding) -> Callable[[], Any]:
    def stack(array):
        return jnp.broadcast_to(array, (copies, *array.shape))

    return jax.jit(lambda: jax.tree.map(stack, make()), out_shardings=sharding)


def on_accelerator(array: Any) -> bool:
    """Returns whether an array is in the memory of a GPU or TPU."""
    return isinstance(array, jax.Array) and any(
        device.platform != "cpu" for device in array.devices()
    )


def all_devices(mode: str) -> Devices:
    """Returns the devices of all processes, grouped by process.

    Raises:
      UserError: `mode` is 'pmap', and there is more than one process.
    """
    if mode == "pmap" and jax.process_count() > 1:
        raise UserError(
            "config.parallel is 'pmap', which trains in one process only; use "
            "shard_map for several"
        )
    return Devices(mode, sorted(jax.devices(), key=lambda one: one.process_index))


def network_devices(mode: str) -> tuple[Devices, Devices]:
    """Returns this machine's devices for running networks, and those for counting.

    They are the same unless CPU cores are the devices: then at most MOST_NETWORKS run
    networks, whose matrix products use all cores.
    """
    on_cores = machine.offer_cores()
    counters = Devices(mode)
    if not on_cores:
        return counters, counters
    return Devices(mode, counters.devices[:MOST_NETWORKS]), counters
