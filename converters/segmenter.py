"""Code shared by the converters of both segmenters: folders, the encoder, labels."""

import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from jdissect.converters.convert import Source, Target, conv_norm

from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.converters import (
    choice,
    command,
    published,
    resnet_names,
    resnet_shapes,
    torch_files,
)
from jdissect.models import segmenter_labels

_LARGEST_LABELS = 1 << 20  # bytes; the published ones have 16 thousand

Tensors = Mapping[str, np.ndarray]
Labels = (
    segmenter_labels.UPerNetLabels
    | segmenter_labels.ColorLabels
    | segmenter_labels.ObjectLabels
)


class Segmenter(NamedTuple):
    """A kind of segmenter.

    Attributes:
      name: name of its architecture, a key of `models.ARCHITECTURES`.
      key: config key that names its checkpoint.
      converter: converter that reads it, for messages.
      default_epoch: maps an address to the epoch of its published files.
      sign: prefix of a tensor that only its decoder has.
      decoder: maps the decoder's tensors and the file's name to options of the
        architecture and the mapping; raises UserError. A name among the options is
        that of the architecture, if it has several.
      twin: maps options of the architecture to the network in PyTorch.
      read_labels: function of `segmenter_labels` that reads its labels.
      verify: keyword arguments of `verify.compare`.
      labels: its labels, given the flags, if they are published without a labels.json.
      define: defines more flags.
    """

    name: str
    key: str
    converter: str
    default_epoch: Callable[[str], int]
    sign: str
    decoder: Callable[[Tensors, str], tuple[dict[str, int], dict[str, Target]]]
    twin: Callable[..., Any]
    read_labels: Callable[..., Labels]
    verify: Mapping[str, Any]
    labels: Callable[[flags.FlagValues], Mapping[str, Any]] | None = None
    define: Callable[[dict], None] = lambda where: None


def run(argv: Sequence[str], about: str, kind: Segmenter) -> int:
    """Runs a segmenter's converter; returns the exit code, 2 for a user error."""

    def define(options: flags.FlagValues, where: dict) -> None:
        default = f"the folder's last, or {kind.default_epoch('')} at an address"
        text = f"N of encoder_epoch_N.pth; default: {default}."
        flags.DEFINE_integer("epoch", None, text, lower_bound=0, **where)
        command.define_choice(options, where)
        kind.define(where)

    return command.execute(
        argv,
        about,
        lambda options: _prepare(options, kind),
        checkpoint="FOLDER_OR_ADDRESS",
        define=define,
    )


def _prepare(options: flags.FlagValues, kind: Segmenter) -> command.Job:
    torch_files.import_torch()  # fails before anything is downloaded
    given = kind.labels(options) if kind.labels else None
    files = published.locate(
        options.checkpoint,
        options.epoch,
        kind.default_epoch(options.checkpoint),
        given is None,
    )
    roots = resnet_names.roots, lambda names: _decoder_roots(names, kind.sign)
    encoder, decoder = (
        choice.take(torch_files.read(path), where_it_is, options.weights)
        for path, where_it_is in zip(files[:2], roots, strict=True)
    )
    where = encoder.where, decoder.where
    encoder_options, encoder_mapping = plan_encoder(encoder.tensors, where[0])
    _check_decoder(decoder.tensors, where[1], kind)
    decoder_options, decoder_mapping = kind.decoder(decoder.tensors, where[1])
    architecture = {"name": kind.name, **encoder_options, **decoder_options}
    if files.labels is None:
        content, named = given, kind.converter
    else:
        content, named = read_json(files.labels), str(files.labels)
    labels = kind.read_labels(content, named)
    segmenter_labels.check_channels(labels, architecture, named)
    hashes = {t.source["file"]: t.source["sha256"] for t in (encoder, decoder)}
    source = {"files": hashes} | ({"address": files.address} if files.address else {})
    if "weights" in encoder.source or "weights" in decoder.source:
        source["weights"] = [t.source.get("weights", "raw") for t in (encoder, decoder)]
    return command.Job(
        sources=[
            Source(where[0], encoder.tensors, encoder_mapping, "encoder.", r"^fc\."),
            Source(
                where[1], decoder.tensors, decoder_mapping, "decoder.", r"_deepsup\."
            ),
        ],
        twin=lambda: kind.twin(**encoder_options, **decoder_options),
        description=networks.describe_segmenter(
            architecture, labels.to_json(), source=source
        ),
        origin=[encoder.origin, decoder.origin],
        notes=[*encoder.notes, *decoder.notes],
        advice="give jdissect.main "
        f"--config.segmenter.{kind.key}={shlex.quote(options.output)}",
        verify=kind.verify,
    )


def _decoder_roots(names: Collection[str], sign: str) -> list[str]:
    """Returns the prefixes of names under which there is a decoder with this sign."""
    found = (re.match(rf"((?:.*\.)?){re.escape(sign)}", name) for name in names)
    return sorted({match[1] for match in found if match})


def plan_encoder(
    tensors: Tensors, where: str
) -> tuple[dict[str, int], dict[str, Target]]:
    """Returns depth and width of a ResNet with a deep stem, and its tensors' targets.

    Raises:
      UserError: the tensors are those of something else.
    """
    if 0 in resnet_shapes.count_blocks(tensors):
        hint = ""
        if any(name.startswith(("ppm", "conv_last.")) for name in tensors):
            hint = " but a decoder; were the two files swapped?"
        raise UserError(
            f"{where} is not an encoder{hint or ': it lacks blocks of layer1 to 4'}"
        )
    if "conv3.weight" not in tensors:
        raise UserError(
            f"{where} is not a segmenter's encoder: it lacks conv3, the third "
            "convolution of a deep stem.\nFor a classifier use converters.resnet."
        )
    depth = resnet_shapes.find_depth(tensors, where)
    width = resnet_shapes.plain_stem_width(tensors, where)
    targets = resnet_names.stages(depth, shortcut=True, prefix="encoder.")
    for number in range(3):
        targets |= conv_norm(
            f"conv{number + 1}", f"bn{number + 1}", f"encoder.stem.{number}"
        )
    return {"depth": depth, "width": width}, targets


def _check_decoder(tensors: Tensors, where: str, kind: Segmenter) -> None:
    if any(name.startswith(kind.sign) for name in tensors):
        return
    if any(name.startswith("layer1.") for name in tensors):
        raise UserError(
            f"{where} is an encoder, not a decoder; were the two files swapped?"
        )
    others = {"fpn_in.": "converters.upernet", "conv_last.": "converters.color"}
    hint = ""
    for sign, converter in others.items():
        if any(name.startswith(sign) for name in tensors):
            hint = f"\nUse {converter} for it."
    raise UserError(
        f"{where} is not the decoder that {kind.converter} reads: "
        f"it has no tensors named {kind.sign}*{hint}"
    )


def read_json(path: Path) -> Any:
    """Returns the content of a `labels.json`.

    Raises:
      UserError: it cannot be read, is too large, is not JSON, or repeats a key.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_LABELS:
            raise UserError(f"{path} has {size:,} bytes, too many for labels")
        return json.loads(
            path.read_bytes().decode("utf-8"), object_pairs_hook=_unique_keys
        )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!a} appears twice")
    return found
