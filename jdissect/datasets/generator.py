"""Opens the source 'generator': images that a network makes of drawn latents.

The network under dissection takes the latents; its own output, rounded to 8 bits, is
what segmenters and pages see. Latent `index` depends on the seed and the index alone.
Images are made one at a time, in float32, so that none depends on its companions.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from jdissect.base.errors import UserError
from jdissect.base.identity import digest
from jdissect.base.printable import printable
from jdissect.checkpoints import networks
from jdissect.data.content_hashes import hash_texts
from jdissect.data.source import Example, UnreadableImage
from jdissect.models.preprocess import Preprocessing
from jdissect.runtime.devices import in_32_bits

GENERATOR_VERSION = 1  # of how latents are drawn and images rounded
_LARGEST_SEED = 2**32 - 1
_MOST_IMAGES = 10**7


@dataclasses.dataclass(frozen=True)
class GeneratorSource:
    """The images of the first `num_images` latents.

    Attributes:
        network: the generator, in float32.
        num_images: number of latents.
        seed: seed of the latents.
    """

    network: networks.Classifier
    num_images: int
    seed: int = 0
    annotations: None = dataclasses.field(default=None, init=False)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """'z/INDEX', the index of six digits or more."""
        return tuple(f"z/{index:06d}" for index in range(self.num_images))

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of the network's images."""
        shape = self.network.image_shape
        assert shape is not None  # of a generator
        return shape

    def latents(
        self, indices: Sequence[int] | Int[np.ndarray, " image"]
    ) -> Float32[np.ndarray, "image number"]:
        """Returns what the network gets, from a standard normal distribution.

        Zeros for the index -1, which pads a batch.
        """
        found = np.zeros((len(indices), self.network.latent), np.float32)
        for place, index in enumerate(indices):
            if index >= 0:
                key = np.random.SeedSequence((GENERATOR_VERSION, self.seed, int(index)))
                draw = np.random.Generator(np.random.PCG64(key))
                found[place] = draw.standard_normal(found.shape[1], np.float32)
        return found

    def read(self, index: int) -> Example:
        """Makes image `index`.

        Raises:
            UnreadableImage: the network gives numbers that are not finite.
        """
        pixels, finite = self._make(self.latents([index]))
        if not finite:
            reason = "the generator gives numbers that are not finite"
            raise UnreadableImage(self.names[index], reason)
        return Example(pixels, None, None)

    def content_hashes(
        self, cache_dir: Path | None = None, only: slice = slice(None)
    ) -> tuple[str, ...]:
        """Returns for each image the sha256 of the network and the latent's bits."""
        del cache_dir
        key = ["generator", str(GENERATOR_VERSION), self._identity]
        return tuple(
            hash_texts([*key, self.latents([index])[0].astype("<f4").tobytes().hex()])
            for index in range(self.num_images)[only]
        )

    @functools.cached_property
    def _identity(self) -> str:
        return digest(networks.model_identity(self.network))

    @in_32_bits
    def _make(self, latents) -> tuple[UInt8[np.ndarray, "height width 3"], bool]:
        pixels, finite = jax.device_get(self._run(self.network.params, latents))
        return pixels[0], bool(finite)

    @functools.cached_property
    def _run(self) -> Any:
        def run(params, latents):
            images, _ = self.network.apply(params, latents, ())
            finite = jnp.isfinite(images).all()
            return as_pixels(images, self.network.preprocessing), finite

        return jax.jit(run)


def as_pixels(
    images: Float[Array, "batch height width channel"], preprocessing: Preprocessing
) -> UInt8[Array, "batch height width 3"]:
    """Returns normalized images as RGB, 0 .. 255: the reverse of `normalize`.

    Rounded, and cut to the range; a gray channel becomes three.
    """
    mean, std = (
        jnp.asarray(numbers, jnp.float32)
        for numbers in (preprocessing.mean, preprocessing.std)
    )
    values = (images.astype(jnp.float32) * std + mean) / preprocessing.scale
    values = jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
    return jnp.broadcast_to(values, (*values.shape[:3], 3))


def open_generator(
    folder: str | os.PathLike, num_images: int, seed: int = 0
) -> GeneratorSource:
    """Opens the images of a generator.

    Args:
        folder: checkpoint folder of the generator.
        num_images: number of latents, at least 1.
        seed: seed of the latents, >= 0.

    Raises:
        UserError: the folder is not a generator's, or a number is out of range.
    """
    if not 1 <= num_images <= _MOST_IMAGES:
        raise UserError(
            f"config.data.num_images is {num_images}; source 'generator' needs the "
            f"number of latents, 1 to {_MOST_IMAGES:,}"
        )
    if not 0 <= seed <= _LARGEST_SEED:
        raise UserError(f"config.data.seed is {seed}; it must be 0 to {_LARGEST_SEED}")
    if not os.fspath(folder):
        raise UserError(
            "source 'generator' needs config.model.weights, the folder of a converted "
            "generator (docs/generators.md)"
        )
    network = networks.load_classifier(folder)
    if not network.latent:
        raise UserError(
            f"config.data.source is 'generator', but the network of "
            f"{printable(os.fspath(folder))} takes images; it dissects a network that "
            "makes images of latents (docs/generators.md)"
        )
    return GeneratorSource(network, num_images, seed)
