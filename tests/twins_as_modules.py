"""The converters' twins as any user's modules: endpoints are submodules."""

import torch
from torch import nn


class Named(nn.Module):
    """A twin whose endpoints are the outputs of submodules of their names.

    Args:
      twin: returns logits and {endpoint: map}.
      names: the endpoints.
    """

    def __init__(self, twin: nn.Module, names):
        super().__init__()
        self.twin, self._names = twin, tuple(names)
        for name in names:
            self.add_module(name, nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits, endpoints = self.twin(images)
        for name in self._names:
            self.get_submodule(name)(endpoints[name])
        return logits


def efficientnet_lite0(file) -> nn.Module:
    """EfficientNet-Lite0 with the weights of a file."""
    from jdissect.converters.twins.efficientnet_lite import EfficientNetLite0

    from jdissect.models.efficientnet_lite import EfficientNetLite0 as Ours

    twin = EfficientNetLite0()
    twin.load_state_dict(torch.load(file, weights_only=True))
    return Named(twin.eval(), Ours.stage_names)


def resnet50(state) -> nn.Module:
    """ResNet-50 with a state dict."""
    from jdissect.converters.twins.resnet import ResNet

    twin = ResNet(50)
    twin.load_state_dict(state)
    return Named(twin.eval(), ("stem", "layer1", "layer2", "layer3", "layer4"))
