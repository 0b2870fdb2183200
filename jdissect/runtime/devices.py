"""One per-device step, written once, on all devices.

A step is a pure function `step(state, batch, constants) -> state` that never
communicates. Every device has its own state (a leading axis of the arrays) and its
share of the batch; what is constant is on all of them. `spmd` wraps a step either in
`jit` + `shard_map` or in `pmap`; both run the same program on the same shapes, so they
give the same bits.
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
# Of the cores that became devices: each holds a copy of the weights, and what lies
# between layers; 0.7 GB for UPerNet and its colours.
MOST_NETWORKS = 4

# Vectors of 512 bits halve the time of bit counting where the processor has them;
# elsewhere the option does nothing.
_OPTIONS = {"cpu": {"xla_cpu_prefer_vector_width": 512}}


def in_32_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with JAX's 64-bit mode off while it runs, in its thread.

    Networks run in 32 bits or fewer and counts fit by design, so that results are the
    same bits whatever the mode.
    """

    @functools.wraps(function)
    def run(*arguments, **options):
        with jax.enable_x64(False):
            return function(*arguments, **options)

    return run


class Step:
    """A step that keeps what `Devices.spmd` compiles of it, for as long as it lives.

    Args:
      function: the step, `function(state, batch, constants) -> result`.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self.compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, state: Any, batch: Any, constants: Any) -> Any:
        return self._function(state, batch, constants)


class Devices:
    """The devices of a run and how a step is put on them.

    Attributes:
      devices: in order; by default those of this process.
      mode: one of MODES.

    With devices of several processes, each process calls every method, and gives its
    own share of what is shared out: `len(devices)` counts all of them.
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

    def spmd(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step(state, batch, constants) -> result` on all devices.

        Args:
          step: works on one device's state and share. All arguments are pytrees. A
            `Step` is compiled once for equal devices and shapes.

        Returns:
          A compiled function of (state, batch, constants): state and result have a
          leading axis of devices, the batch's leading axis is shared out among them,
          constants are whole. The state's buffers are given up.
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

            # `jit` once more: `pmap` takes no compiler options, and other options are
            # other bits.
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
        options = _OPTIONS.get(self.devices[0].platform)
        return jax.jit(mapped, donate_argnums=(0,), compiler_options=options)

    def replicate(self, tree: Any) -> Any:
        """A copy of every array on every device."""
        return self._put(tree, self._copied, np.shape)

    def scatter(self, tree: Any) -> Any:
        """The arrays with their leading axis shared out among the devices.

        Args:
          tree: of this process's share: of many, equally long ones are put together.
        """
        return self._put(tree, self._split, lambda array: None)

    def states(self, state: Any) -> Any:
        """One copy of a step's starting state a device, stacked."""

        def stacked(array):
            return np.broadcast_to(np.asarray(array), (self._here, *array.shape))

        return self.scatter(jax.tree.map(stacked, state))

    def fresh(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """Like `states` of what `make` gives, but written by the devices themselves.

        Args:
          make: hashable; what is compiled is kept for an equal one.
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


def all_devices(mode: str) -> Devices:
    """The devices of all processes, those of a process side by side.

    Raises:
      UserError: `mode` is 'pmap', and there is more than one process.
    """
    if mode == "pmap" and jax.process_count() > 1:
        raise UserError(
            "config.parallel is 'pmap', which trains in one process only; shard_map "
            "trains in many"
        )
    return Devices(mode, sorted(jax.devices(), key=lambda one: one.process_index))


def network_devices(mode: str) -> tuple[Devices, Devices]:
    """This machine's devices: those that run networks, and those that count.

    They are the same, but on a processor whose cores became devices: no more than
    MOST_NETWORKS run networks then, whose products share all cores.
    """
    on_cores = machine.offer_cores()
    counters = Devices(mode)
    if not on_cores:
        return counters, counters
    return Devices(mode, counters.devices[:MOST_NETWORKS]), counters
