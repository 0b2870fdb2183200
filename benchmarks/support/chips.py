"""Accelerators that programs are compiled for without one, and what they can do."""

import contextlib
import dataclasses
import importlib
import os
from typing import Any

import jax
from jax.experimental import topologies

# What XLA asks a GPU's driver about, of an NVIDIA H200 SXM: its data sheet and the
# CUDA programming guide's tables for compute capability 9.0.
_H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 141000000000
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H200"
"""


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip, with its published figures, but for the vector rate of TPUs.

    Attributes:
      name: name of the chip.
      kernels: form of the counting kernels, see `dissection.kernels`.
      topology: name of the smallest topology for `jax.experimental.topologies`.
      bandwidth: memory bandwidth, bytes per second.
      lanes: additions and comparisons of vectors, per second.
      matrix: floating-point operations of products in bfloat16, per second.
      float32: the same in float32, for networks; 0 where none is compiled for.
      memory: bytes.
    """

    name: str
    kernels: str
    topology: str
    bandwidth: float
    lanes: float
    matrix: float
    float32: float
    memory: float


# An H200 has 132 x 128 lanes at 1.98 GHz. The vector rate of TPUs is not published: 4 T
# operations per second are assumed for a v5e, and for the others in proportion to an
# assumed 1.75 instead of 1.5 GHz, and to the number of cores.
CHIPS = {
    "H200": Chip("H200", "gpu", "", 4.8e12, 33e12, 989e12, 67e12, 141e9),
    "v5e": Chip("v5e", "tpu", "v5e:2x2", 0.82e12, 4e12, 197e12, 0, 16e9),
    "v5p": Chip("v5p", "tpu", "v5p:2x2x1", 2.77e12, 9e12, 459e12, 0, 95e9),
    "v6e": Chip("v6e", "tpu", "v6e:2x2", 1.64e12, 4.7e12, 918e12, 0, 32e9),
}


def described(chip: Chip) -> contextlib.AbstractContextManager:
    """Returns a context in which JAX 0.11 asks no device what a GPU kernel is for."""
    if chip.kernels != "gpu":
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(
        device_kind=f"NVIDIA {chip.name}", num_cores=132, platform="gpu"
    )
    mesh = jax.sharding.AbstractMesh((1,), ("device",), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


class NoCompiler(RuntimeError):
    """The package with the chip's compiler is not installed."""


def devices(chip: Chip, topology: str = "") -> list[Any]:
    """Returns described devices to compile for.

    Args:
      chip: the chip.
      topology: another topology of it, such as 'v5e:16x16'.

    Raises:
      NoCompiler: libtpu, or JAX's CUDA plugin, is not installed.
    """
    try:
        if chip.kernels == "gpu":
            importlib.import_module("jax_plugins.xla_cuda12").initialize()
            found = topologies.get_topology_desc(
                platform="cuda",
                topology_name="",
                target_config=_H200,
                topology="1x1x1",
            )
        else:
            importlib.import_module("libtpu")
            os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
            os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
            os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
            found = topologies.get_topology_desc(
                platform="tpu", topology_name=topology or chip.topology
            )
    except (ImportError, jax.errors.JaxRuntimeError) as error:
        raise NoCompiler(f"no compiler for {chip.name}: {error}") from error
    return list(found.devices)
