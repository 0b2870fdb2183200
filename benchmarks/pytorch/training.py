"""The training step of a ResNet in PyTorch, to compare jdissect's with.

Two forms. `faithful` does what the published repositories do: every image augmented by
itself on the CPU, in as many processes as there are cores, the batch mixed in place,
NCHW, float32, and PyTorch's SGD as it comes. `best` is what one would write today: the
batch augmented on the device, channels last, bfloat16 by autocast if asked for, the
fused SGD, and the network compiled if asked for.

Both start from decoded pixels on a canvas, as jdissect's step does. The loader of the
published form runs beside the network there; here a step waits for it, and
`augment` can be timed alone: a perfect overlap hides the smaller of the two.
"""

import concurrent.futures
import functools
import multiprocessing

import numpy as np
import torch
from jaxtyping import Int, UInt8
from jdissect.converters.twins.resnet import ResNet
from torch.nn import functional

from benchmarks.pytorch import mixing, originals, standard
from benchmarks.pytorch.mixing import Mixture
from jdissect.runtime import resources

FORMS = ("faithful", "best")
MOMENTUM, DECAY = 0.9, 1e-4


class TorchTraining:
    """A network, its optimizer, and what makes a batch for them.

    Args:
      form: one of FORMS.
      device: 'cpu', 'cuda' or 'cuda:N'.
      dtype: 'float32', or of `best` 'bfloat16': autocast, parameters stay float32.
      compile: of `best`, whether the network with its loss, and saliency, go through
        torch.compile. Of the augmentation the rest gains nothing, nor does the network
        on a CPU, where most of a step is in oneDNN either way.
      classes: number of classes.
      depth: a ResNet's.
      width: of its stem.
      side: of its images, in pixels.
      rate: of learning.
      seed: of everything random.
      workers: of `faithful`: processes that augment; 0 is none beside this one, None
        as many as there are cores.
      one_box: of `faithful`: SaliencyMix with one box a batch, as published.

    Attributes:
      network: `converters.twins.resnet.ResNet`.
      optimizer: its SGD.

    Raises:
      ValueError: a form that is not known, or an option that it does not have.
    """

    def __init__(
        self,
        form: str,
        device: str = "cpu",
        dtype: str = "float32",
        compile: bool = False,
        classes: int = 1000,
        *,
        depth: int = 50,
        width: int = 64,
        side: int = 224,
        rate: float = 0.1,
        seed: int = 0,
        workers: int | None = None,
        one_box: bool = False,
    ):
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; it must be one of {', '.join(FORMS)}")
        best = form == "best"
        if not best and (dtype != "float32" or compile):
            raise ValueError("the faithful form is float32 and not compiled")
        if best and one_box:
            raise ValueError("the best form has a box an image")
        torch.manual_seed(seed)
        self.form, self.side, self.one_box = form, side, one_box
        self.device = torch.device(device)
        self._rng = np.random.default_rng(seed)
        self._seeds = np.random.SeedSequence(seed)
        self._autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=dtype == "bfloat16"
        )
        torch.backends.cudnn.benchmark = True  # as the repositories have it
        layout = torch.channels_last if best else torch.contiguous_format
        network = ResNet(depth, width=width, classes=classes)
        self.network = network.to(self.device, memory_format=layout).train()
        initialize(self.network)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            rate,
            momentum=MOMENTUM,
            weight_decay=DECAY,
            nesterov=True,
            fused=best or None,
        )
        self._loss, self._salient = self._eager_loss, mixing.saliency
        if compile:
            self._loss, self._salient = map(torch.compile, (self._loss, self._salient))
        self._pool = None
        if not best and workers != 0:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers or resources.cores(),
                multiprocessing.get_context("forkserver"),
                functools.partial(torch.set_num_threads, 1),
            )

    def augment(
        self,
        recipe: str,
        pixels: UInt8[np.ndarray, "batch height width 3"],
        sizes: Int[np.ndarray, "batch 2"],
        labels: Int[np.ndarray, " batch"],
    ) -> Mixture:
        """The batch to train on, on the device.

        Args:
          recipe: one of `jdissect.augment.RECIPES`.
          pixels: RGB on a canvas.
          sizes: height and width of each image, in the canvas's top left.
          labels: class numbers.
        """
        classes = torch.from_numpy(labels).long().to(self.device)
        if self.form == "best":
            canvas, tall = (
                torch.from_numpy(array).to(self.device) for array in (pixels, sizes)
            )
            with torch.no_grad():
                images = standard.standard(canvas, tall, self.side)
                return mixing.mix(recipe, images, classes, self._salient)
        images = [
            canvas[:height, :width]
            for canvas, (height, width) in zip(pixels, sizes, strict=True)
        ]
        rngs = [np.random.default_rng(s) for s in self._seeds.spawn(len(images))]
        call = map if self._pool is None else self._pool.map
        loaded = list(call(_load, images, [self.side] * len(images), rngs))
        batch = torch.from_numpy(np.stack(loaded)).to(self.device)
        mixture = originals.mix(recipe, batch, classes, self._rng, self.one_box)
        return mixture._replace(weight=mixture.weight.to(self.device))

    def train(self, batch: Mixture) -> torch.Tensor:
        """A step of SGD; the loss before it, on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def step(self, recipe: str, pixels, sizes, labels) -> torch.Tensor:
        """Both: arguments as `augment`, result as `train`."""
        return self.train(self.augment(recipe, pixels, sizes, labels))

    def close(self) -> None:
        """Ends the processes that augment."""
        if self._pool is not None:
            self._pool.shutdown()

    def _eager_loss(self, batch):
        with self._autocast:
            logits, _ = self.network(batch.images)
        first, second = (
            functional.cross_entropy(logits.float(), labels, reduction="none")
            for labels in (batch.first, batch.second)
        )
        return (batch.weight * first + (1 - batch.weight) * second).mean()


def _load(pixels, side, rng):
    """An array travels between processes more simply than a tensor."""
    return originals.load(pixels, side, rng).numpy()


def initialize(network: torch.nn.Module) -> None:
    """The repositories' start: convolutions from N(0, 2 / (k * k * out))."""
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            count = part.kernel_size[0] * part.kernel_size[1] * part.out_channels
            torch.nn.init.normal_(part.weight, 0, (2 / count) ** 0.5)
