"""Whole networks against PyTorch: small ones, and the published ones at full size."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="torch absent: nothing can be translated")

from benchmarks.pytorch import networks  # noqa: E402
from benchmarks.support import torch_parity  # noqa: E402

# Of convolutions only: they compute the same on images of any size, and these cost a
# fourth. `python -m benchmarks.any_network` compares at the published size.
ANY_SIZE = {
    *("timm resnet50", "timm convnext_tiny", "timm efficientnet_b0"),
    *("timm mobilenetv3_large_100", "timm densenet121", "timm vgg16_bn"),
    "timm regnety_008",
}
FULL = {
    name: pytest.param(
        dataclasses.replace(network, side=112) if name in ANY_SIZE else network,
        id=name.replace(" ", "_"),
        marks=pytest.mark.slow,
    )
    for name, network in networks.NETWORKS.items()
}
SMALL = {
    "unet": networks.Network(
        lambda: networks.UNet(4, 3), ("down1", "bottom", "raise2", "up1", "head"), 12
    ),
    "generator": networks.Network(
        lambda: networks.Generator(4), ("first", "blocks.0", "blocks.1", "image"), 0
    ),
    "clip": networks.Network(
        networks.tiny_clip, ("encoder.layers.0", "encoder.layers.1.mlp.fc1"), 24
    ),
    "dinov2": networks.Network(
        networks.tiny_dinov2, ("embeddings", "encoder.layer.0.mlp.fc1", "layernorm"), 24
    ),
}


def needs(network, name: str):
    """Builds a network, or skips with the package that is absent."""
    try:
        torch.manual_seed(0)
        return torch_parity.randomize(network.build())
    except ImportError as error:
        return pytest.skip(f"{name} cannot be built here: {error}")


FAST = ("unet", "clip")


@pytest.mark.parametrize(
    "network",
    [
        *(
            pytest.param(
                network, id=name, marks=[pytest.mark.slow] * (name not in FAST)
            )
            for name, network in SMALL.items()
        ),
        *FULL.values(),
    ],
)
def test_layers_are_those_of_pytorch(network, request):
    module = needs(network, request.node.callspec.id)
    images = networks.example(network)
    _, found = torch_parity.compare(module, images, network.layers)
    for layer in network.layers:
        exact, ours, theirs = found[layer]
        assert exact <= 1e-5, layer
        assert ours <= 1.1 * theirs + 1e-4, layer
