"""A training step against the same in PyTorch, and on several devices."""

import jax
import numpy as np
import pytest

from jdissect.ops import winograd_gradient
from jdissect.runtime.devices import Devices
from jdissect.training import recipe, step

torch = pytest.importorskip("torch", reason="torch absent: nothing to compare with")

from jdissect.converters.twins.resnet import ResNet  # noqa: E402
from torch.nn import functional  # noqa: E402

from tests import sgd  # noqa: E402

BATCH, STEPS, SIDE = 8, 4, 48
MOMENTUM, DECAY = 0.9, 1e-2  # more decay than the recipe's, to see where it goes
RATES, CHANGES = (0.05, 0.005), (2,)


def draw_batch(rng):
    """Mixed labels, and a dark and a bright half: groups matter."""
    images = rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    images[: BATCH // 2] = 0.3 * images[: BATCH // 2] - 1
    return {
        "images": images,
        "first": rng.integers(0, 7, BATCH).astype(np.int32),
        "second": rng.integers(0, 7, BATCH).astype(np.int32),
        "weight": rng.uniform(size=BATCH).astype(np.float32),
    }


def parts(batch, groups):
    """PyTorch's images of each of `groups`, which are normalized by themselves."""
    images = torch.from_numpy(batch["images"].transpose(0, 3, 1, 2))
    return images.double().chunk(groups)


def forward(twin, batch, groups):
    """Logits; statistics move by the groups' mean."""
    before = {k: v.clone() for k, v in twin.named_buffers()}
    logits, buffers = [], []
    for part in parts(batch, groups):
        for name, buffer in twin.named_buffers():
            buffer.data.copy_(before[name])
        logits.append(twin(part)[0])
        buffers.append({k: v.clone() for k, v in twin.named_buffers()})
    for name, buffer in twin.named_buffers():
        if buffer.is_floating_point():
            buffer.data.copy_(sum(found[name] for found in buffers) / groups)
    return torch.cat(logits)


def move(twin, optimizer, batch, groups):
    """One step of PyTorch; the loss before it."""
    first, second = (
        torch.from_numpy(batch[key].astype(np.int64)) for key in ("first", "second")
    )
    weight = torch.from_numpy(batch["weight"])
    logits = forward(twin, batch, groups)
    loss = (
        weight * functional.cross_entropy(logits, first, reduction="none")
        + (1 - weight) * functional.cross_entropy(logits, second, reduction="none")
    ).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.fixture(scope="module")
def steps():
    """Steps of a float64 network; of each its batch and what was before and after."""
    torch.manual_seed(0)
    twin = ResNet(18, width=8, classes=7).double().train()
    with torch.no_grad():
        for name, tensor in twin.named_parameters():
            if "bn" in name or "downsample.1" in name:
                tensor.add_(torch.randn(tensor.shape) * 0.2)
    optimizer = torch.optim.SGD(
        twin.parameters(),
        RATES[0],
        momentum=MOMENTUM,
        weight_decay=DECAY,
        nesterov=True,
    )
    rng, groups, found = np.random.default_rng(3), 2, []
    for number in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATES[number >= CHANGES[0]]
        sgd.round_to_float32(twin, optimizer)
        batch = draw_batch(rng)
        while not sgd.decisive(twin, *parts(batch, groups)):
            batch = draw_batch(rng)
        before = sgd.values(twin), sgd.momenta(twin, optimizer)
        loss = move(twin, optimizer, batch, groups)
        after = sgd.values(twin), sgd.momenta(twin, optimizer)
        found.append((batch, before, after, loss))
    return found


@pytest.mark.parametrize(
    "winograd", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_pytorch_parity(winograd, steps, monkeypatch, groups=2):
    calls = []
    if winograd:  # of networks as narrow as this one, too
        monkeypatch.setattr(winograd_gradient, "_FEWEST", 1)
        convolve = winograd_gradient.convolve
        monkeypatch.setattr(
            winograd_gradient,
            "convolve",
            lambda *arguments: calls.append(1) or convolve(*arguments),
        )
    devices = Devices()
    rate = recipe.learning_rate(RATES[0], CHANGES)
    optimizer = recipe.optimizer(rate, MOMENTUM, DECAY)
    run = step.train_step(
        sgd.ARCHITECTURE,
        optimizer,
        devices,
        batch_size=BATCH,
        bn_group=BATCH // groups,
    )
    state = step.initial_state(sgd.ARCHITECTURE, optimizer, steps[0][1][0])
    for batch, before, after, expected in steps:
        state = devices.states(sgd.continued(state, *before))
        state, loss = run(state, devices.scatter(batch))
        assert np.ptp(np.asarray(loss)) == 0
        np.testing.assert_allclose(loss[0], expected, rtol=1e-5)
        state = step.first_copy(state)
        sgd.compare(sgd.read(state), after, before, MOMENTUM)
    assert bool(calls) == (winograd and jax.default_backend() == "cpu")


@pytest.mark.parametrize("name", ["stem.conv.kernel", "layer3.0.conv2.norm.scale"])
@pytest.mark.parametrize("wrong", [lambda g: 1.01 * g, lambda g: g[::-1]])
def test_the_comparison_sees_a_wrong_gradient(name, wrong, steps):
    _, before, after, _ = steps[-1]
    sgd.compare(after, after, before, MOMENTUM)
    planted = dict(after[1])
    kept = MOMENTUM * before[1][name]
    planted[name] = kept + wrong(after[1][name] - kept)
    with pytest.raises(AssertionError, match=f"gradient of {name}"):
        sgd.compare((after[0], planted), after, before, MOMENTUM)
