"""Names of a ResNet's tensors: where others put them, and where they go here."""

import re
from collections.abc import Callable, Collection, Mapping

import numpy as np
from jdissect.converters.convert import Target, conv_norm, linear

from jdissect.models.resnet import DEPTHS

# What others call fc.
_CLASSIFIERS = ("linear", "classifier", "head")
# Children of torchvision's ResNet where `nn.Sequential` has numbered them.
_NUMBERED = {"0": "conv1", "1": "bn1", "9": "fc"} | {
    str(3 + stage): f"layer{stage}" for stage in (1, 2, 3, 4)
}
# A block's first convolution: what its name begins with, and the number of its stage.
_FIRST = r"((?:.*\.)?)(?:layer([1-4])|([4-7]))\.\d+\.conv1\.weight$"


def roots(names: Collection[str]) -> list[str]:
    """The prefixes under which tensors have the names of a ResNet's four stages."""
    stages: dict[str, set[str]] = {}
    for name in names:
        match = re.match(_FIRST, name)
        if match:
            numbered = f"#{match[3]}" if match[3] else match[2]
            stages.setdefault(match[1], set()).add(numbered)
    there = set(names)
    return [
        root
        for root, found in stages.items()
        if found >= set("1234")
        or (found >= {"#4", "#5", "#6", "#7"} and f"{root}1.running_mean" in there)
    ]


def named_as_usual(
    tensors: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Tensors under torchvision's names, and what was renamed, a line each.

    Others call a shortcut `shortcut` and the classifier `linear`; `nn.Sequential`
    numbers the parts; a classifier may follow a dropout, as `fc.1`.
    """
    named, notes = dict(tensors), []

    def rename(pattern: str, name: str | Callable[[re.Match], str], note: str) -> None:
        nonlocal named
        changed = {re.sub(pattern, name, key): value for key, value in named.items()}
        if changed.keys() != named.keys() and len(changed) == len(named):
            named = changed
            notes.append(note)

    if "4.0.conv1.weight" in named:
        rename(
            r"^(\d)\.",
            lambda match: f"{_NUMBERED.get(match[1], match[1])}.",
            "parts are numbered, as by nn.Sequential; 4 to 7 are layer1 to layer4",
        )
    rename(
        r"^(layer\d\.\d+)\.shortcut\.", r"\1.downsample.", "'shortcut' is downsample"
    )
    if not any(key.startswith("fc.") for key in named):
        for name in _CLASSIFIERS:
            if f"{name}.weight" in named and named[f"{name}.weight"].ndim == 2:
                rename(rf"^{name}\.", "fc.", f"{name!r} is the classifier, fc")
                break
    linear = [key for key in named if re.fullmatch(r"fc\.\d+\.weight", key)]
    if len(linear) == 1 and named[linear[0]].ndim == 2:
        part = linear[0].removesuffix(".weight")
        rename(rf"^{re.escape(part)}\.", "fc.", f"{part!r} is the classifier, fc")
    return named, notes


def mapping(depth: int, classifier: bool = True) -> dict[str, Target]:
    """Where each tensor of a ResNet goes in `jdissect.models.resnet`."""
    targets = conv_norm("conv1", "bn1", "stem")
    bottleneck, _ = DEPTHS[depth]
    targets |= stages(depth, bottleneck)
    return targets | linear("fc", "fc") if classifier else targets


def stages(depth: int, shortcut: bool, prefix: str = "") -> dict[str, Target]:
    """Where the tensors of layer1 to layer4 go.

    Args:
      depth: a key of DEPTHS.
      shortcut: whether layer1 changes the number of channels; the others always do.
      prefix: prefix of the parameters' names.
    """
    bottleneck, blocks = DEPTHS[depth]
    targets: dict[str, Target] = {}
    for stage, count in enumerate(blocks, 1):
        for number in range(count):
            block = f"layer{stage}.{number}"
            for part in (1, 2, 3) if bottleneck else (1, 2):
                targets |= conv_norm(
                    f"{block}.conv{part}",
                    f"{block}.bn{part}",
                    f"{prefix}{block}.conv{part}",
                )
            if number == 0 and (stage > 1 or shortcut):
                targets |= conv_norm(
                    f"{block}.downsample.0",
                    f"{block}.downsample.1",
                    f"{prefix}{block}.shortcut",
                )
    return targets
