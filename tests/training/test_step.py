"""A training step against the same in PyTorch, and on several devices."""

import copy

import jax
import numpy as np
import pytest

from jdissect import models
from jdissect.ops import winograd_gradient
from jdissect.parallel import Devices
from jdissect.training import recipe, step

ARCHITECTURE = {"name": "resnet18", "width": 8, "classes": 7}
BATCH, STEPS = 8, 4
MOMENTUM, DECAY = 0.9, 1e-2  # more decay than the recipe's, to see where it goes
RATES, CHANGES = (0.05, 0.005), (2,)


def make_batches(side=48):
    """Batches with mixed labels, and a dark and a bright half: groups matter."""
    rng = np.random.default_rng(3)
    batches = []
    for _ in range(STEPS):
        images = rng.normal(size=(BATCH, side, side, 3)).astype(np.float32)
        images[: BATCH // 2] = 0.3 * images[: BATCH // 2] - 1
        batches.append(
            {
                "images": images,
                "first": rng.integers(0, 7, BATCH).astype(np.int32),
                "second": rng.integers(0, 7, BATCH).astype(np.int32),
                "weight": rng.uniform(size=BATCH).astype(np.float32),
            }
        )
    return batches


def convert(twin):
    """A twin's tensors as our parameters."""
    from converters import resnet
    from converters.convert import Source
    from converters.convert import convert as convert_all

    tensors = {k: v.numpy().copy() for k, v in twin.state_dict().items()}
    tensors = {k: v for k, v in tensors.items() if "num_batches" not in k}
    shapes = models.shapes(models.build_abstract(**ARCHITECTURE))
    source = Source("the twin", tensors, resnet.mapping(18))
    return convert_all([source], shapes)[0]


def train_twin(twin, batches, groups):
    """Losses; `twin` is trained by PyTorch, normalizing each of `groups` by itself."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.SGD(
        twin.parameters(),
        RATES[0],
        momentum=MOMENTUM,
        weight_decay=DECAY,
        nesterov=True,
    )
    twin.train()
    losses = []
    for number, batch in enumerate(batches):
        for settings in optimizer.param_groups:
            settings["lr"] = RATES[number >= CHANGES[0]]
        images = torch.from_numpy(batch["images"].transpose(0, 3, 1, 2).copy())
        first, second = (
            torch.from_numpy(batch[key].astype(np.int64)) for key in ("first", "second")
        )
        weight = torch.from_numpy(batch["weight"])
        before = {k: v.clone() for k, v in twin.named_buffers()}
        logits, buffers = [], []
        for part in images.chunk(groups):
            for name, buffer in twin.named_buffers():
                buffer.data.copy_(before[name])
            logits.append(twin(part)[0])
            buffers.append({k: v.clone() for k, v in twin.named_buffers()})
        for name, buffer in twin.named_buffers():
            if buffer.is_floating_point():
                buffer.data.copy_(sum(found[name] for found in buffers) / groups)
        logits = torch.cat(logits)
        loss = (
            weight * functional.cross_entropy(logits, first, reduction="none")
            + (1 - weight) * functional.cross_entropy(logits, second, reduction="none")
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_here(values, batches, devices, group, dtype="float32"):
    """(losses, parameters) of the same by `jdissect.training`."""
    rate = recipe.learning_rate(RATES[0], CHANGES)
    optimizer = recipe.optimizer(rate, MOMENTUM, DECAY)
    state = step.initial_state(ARCHITECTURE, optimizer, values)
    run = step.train_step(
        ARCHITECTURE,
        optimizer,
        devices,
        batch_size=BATCH,
        bn_group=group,
        dtype=dtype,
    )
    state = devices.states(state)
    losses = []
    for batch in batches:
        state, loss = run(state, devices.scatter(batch))
        assert np.ptp(np.asarray(loss)) == 0
        losses.append(float(loss[0]))
    one = jax.tree.map(lambda array: np.asarray(array)[0], state)
    return losses, step.parameters(one)


@pytest.fixture(scope="module")
def twin():
    torch = pytest.importorskip("torch", reason="torch absent: nothing to compare with")
    from converters.twins.resnet import ResNet

    torch.manual_seed(0)
    twin = ResNet(18, width=8, classes=7)
    with torch.no_grad():
        for name, tensor in twin.named_parameters():
            if "bn" in name or "downsample.1" in name:
                tensor.add_(torch.randn(tensor.shape) * 0.2)
    return twin


@pytest.mark.parametrize(
    "winograd", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_pytorch_parity(winograd, twin, monkeypatch, groups=2):
    calls = []
    if winograd:  # of networks as narrow as this one, too
        monkeypatch.setattr(winograd_gradient, "_FEWEST", 1)
        convolve = winograd_gradient.convolve
        monkeypatch.setattr(
            winograd_gradient,
            "convolve",
            lambda *arguments: calls.append(1) or convolve(*arguments),
        )
    batches = make_batches()
    theirs = copy.deepcopy(twin)
    start = convert(theirs)
    expected = train_twin(theirs, batches, groups)
    losses, found = train_here(start, batches, Devices(), BATCH // groups)
    assert bool(calls) == (winograd and jax.default_backend() == "cpu")
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    trained = convert(theirs)
    for name, array in trained.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[name], array, atol=1e-4 * scale, err_msg=name)
    # So that the comparison means something: training has moved every parameter.
    moved = [np.abs(trained[name] - start[name]).max() for name in trained]
    assert min(moved) > 1e-3
