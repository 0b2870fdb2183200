"""Names the kind of device that a kernel is compiled for."""

from typing import Literal, NamedTuple

from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pallas_tpu
from jax.experimental.pallas import triton as pallas_triton

LANES = 128  # units of a block


class Target(NamedTuple):
    """What a Pallas kernel is compiled for.

    Attributes:
      platform: 'gpu' (by Triton) or 'tpu' (by Mosaic).
      interpret: whether the kernel runs on other devices instead, slowly.
    """

    platform: Literal["gpu", "tpu"]
    interpret: bool = False

    @property
    def images(self) -> int:
        """Images of a block: a TPU's vector registers have 8 rows of 128 lanes."""
        return 8 if self.platform == "tpu" else 1

    @property
    def scalars(self) -> pl.BlockSpec:
        """Where a kernel's tables of scalars are: whole, and in scalar memory."""
        if self.platform == "tpu":
            return pl.BlockSpec(memory_space=pallas_tpu.SMEM)
        return pl.BlockSpec()

    @property
    def options(self) -> dict:
        """More arguments of `pallas_call`."""
        if self.interpret or self.platform == "tpu":
            return {"interpret": self.interpret}
        return {"compiler_params": pallas_triton.CompilerParams(num_warps=4)}
