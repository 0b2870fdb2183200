"""Converts any PyTorch module: python -m converters.torch_module --model=timm:NAME ...

    python -m converters.torch_module --model=timm:vit_small_patch16_224 \\
        --checkpoint=FILE --layers=blocks.3,blocks.11 --output=weights/vit

--model is timm:NAME, torchvision:NAME, hf:FOLDER_OR_CONFIG, or
python:package.module:function, whose function returns a torch module of your own.
--layers names submodules as PyTorch does; --layers=? lists them. The folder that is
written needs no PyTorch. --verify compares it with PyTorch before writing it.
"""

import shlex
import sys
from collections.abc import Sequence

from absl import flags
from jdissect.converters.torch_files import import_torch, read
from jdissect.converters.torch_folder import convert_torch

from jdissect.base.errors import UserError
from jdissect.base.printable import printable
from jdissect.checkpoints import graphs, networks
from jdissect.converters import choice, command, layouts, torch_sources, torch_weights
from jdissect.models.preprocess import Preprocessing

_SIDE = 224
_LARGEST_SIDE = 4096
_LIST = "?"


def define(values: flags.FlagValues, where: dict) -> None:
    """Defines this converter's flags."""
    flags.DEFINE_string(
        "model",
        "",
        "timm:NAME, torchvision:NAME, hf:FOLDER_OR_CONFIG, or "
        "python:package.module:function.",
        **where,
    )
    flags.DEFINE_list("layers", [], "Layers to convert, or ? for a list.", **where)
    flags.DEFINE_list(
        "layout",
        [layouts.AUTO],
        f"{'|'.join((layouts.AUTO, *layouts.LAYOUTS))} of all layers, or LAYER=LAYOUT.",
        **where,
    )
    flags.DEFINE_integer(
        "prefix_tokens",
        None,
        "Class and register tokens; default: as the grid of tokens says.",
        lower_bound=0,
        **where,
    )
    flags.DEFINE_bool(
        "pooled", False, "Count outputs without place as maps of 1x1.", **where
    )
    flags.DEFINE_string(
        "size",
        "",
        "Side of the images, or HEIGHTxWIDTH; default: the model's.",
        **where,
    )
    flags.DEFINE_string(
        "latent",
        "",
        "Of a generator: the numbers of its input, N, or Nx1x1 for maps of 1x1.",
        **where,
    )
    command.define_choice(values, where)
    command.define_preprocessing(values, where)


def convert(options: flags.FlagValues) -> None:
    """Converts as the flags say.

    Raises:
      UserError: as `convert_torch`, `torch_sources.open_module`, `torch_weights.load`.
    """
    listing = options.layers == [_LIST]
    if not options.model or not (listing or (options.layers and options.output)):
        raise UserError(
            "--model=SOURCE:NAME, --layers=NAME,NAME and --output=DIR are required "
            "(--help)"
        )
    torch = import_torch()
    if not listing:
        networks.check_output(options.output, options.overwrite)
    opened = torch_sources.open_module(options.model, _size(options.size))
    height, width = _size(options.size) or opened.size or (_SIDE, _SIDE)
    latent = _latent(options)
    example = torch.zeros(2, *(latent or (opened.channels, height, width)))
    if listing:
        _list(opened, example, options)
        return
    module, source, origin = _with_weights(opened, options)
    channels = _made(module, example)[0] if latent else opened.channels
    preprocessing = command.preprocessing(options, channels)
    if not latent:
        preprocessing = preprocessing or opened.preprocessing
    mean, std = _of_unit_range(preprocessing)
    digest = convert_torch(
        module,
        example,
        options.layers,
        options.output,
        mean=mean,
        std=std,
        layout=layouts.parse(options.layout, options.layers),
        prefix_tokens=options.prefix_tokens,
        pooled=options.pooled,
        verify=options.verify,
        overwrite=options.overwrite,
        name=opened.name,
        source={"model": options.model, **source, **opened.resizing},
    )
    if opened.resizing:
        text = ", ".join(f"{key} {value}" for key, value in opened.resizing.items())
        print(f"its images were resized otherwise ({text}); the data source decides")
    kind = "a generator" if latent else f"images of {height}x{width}"
    print(f"{opened.name}: {kind}, {origin}")
    print(f"sha256 {digest}\nwritten to {options.output}")
    made = "--config.data.source=generator --config.data.num_images=1000 "
    print(
        "next: python -m jdissect.main --config=configs/baseline.py:imagenet "
        f"--config.model.name= --config.model.weights={shlex.quote(options.output)} "
        f"{made if latent else ''}"
        f"--config.model.layers={shlex.quote(','.join(options.layers))}"
    )


def _with_weights(opened, options) -> tuple:
    """Returns the module with its weights, what to record, and what was read."""
    path = options.checkpoint or opened.weights
    if not path:
        if not opened.loaded:
            print("random weights, for a try: no --checkpoint was given")
        kind = "its own weights" if opened.loaded else "random weights"
        return opened.module, {"weights": kind}, kind
    taken = choice.take(
        read(path),
        torch_weights.roots_of(opened.module),
        options.weights,
        options.prefix,
    )
    module, ignored = torch_weights.load(
        opened.module, taken, options.ignore, opened.again
    )
    for note in taken.notes:
        print(note)
    if ignored:
        print(f"ignored {len(ignored)} tensors: {', '.join(map(printable, ignored))}")
    return module, taken.source, f"read from {taken.origin}"


def _list(opened, example, options) -> None:
    """Prints the layers with their shapes, and what they are as feature maps."""
    from jdissect.converters import torch_graph

    shapes = torch_graph.layer_shapes(opened.module, example)
    image = tuple(example.shape[2:])
    if torch_graph.is_latent(example.shape):
        image = _made(opened.module, example)[1:]
    width = max((len(name) for name in shapes), default=0)
    for name, shape in shapes.items():
        try:
            found: object = layouts.infer(
                name,
                shape[1:],
                image,
                prefix=options.prefix_tokens,
                pooled=options.pooled,
                hint=opened.prefix_tokens,
            )
        except UserError:
            found = "-"
        sizes = ", ".join(["batch", *map(str, shape[1:])])
        print(f"{printable(name):{width}}  {f'[{sizes}]':28}  {found}")


def _size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    parts = text.split("x")
    sides = [int(part) for part in parts if part.isdecimal() and len(part) < 6]
    good = len(sides) == len(parts) and len(sides) in (1, 2)
    if not good or not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise UserError(
            f"--size={printable(text)} is not a side or HEIGHTxWIDTH, in pixels, up to "
            f"{_LARGEST_SIDE}"
        )
    return sides[0], sides[-1]


def _latent(options) -> tuple[int, ...]:
    """Returns the shape of a generator's input, or () for a network of images."""
    if not options.latent:
        return ()
    number, *rest = options.latent.split("x", 1)
    good = number.isdecimal() and 1 <= int(number) <= graphs.LARGEST_LATENT
    if not good or rest not in ([], ["1x1"]):
        raise UserError(
            f"--latent={printable(options.latent)} is not a number of numbers, N, or "
            f"Nx1x1, up to {graphs.LARGEST_LATENT}"
        )
    if options.size:
        raise UserError(
            "--size is of images that a network takes; leave it or --latent"
        )
    return (int(number), 1, 1) if rest else (int(number),)


def _made(module, example) -> tuple[int, int, int]:
    """Returns (channels, height, width) of the images that a generator makes.

    Raises:
      UserError: it fails on the example, or makes none.
    """
    torch = import_torch()
    try:
        with torch.inference_mode():
            shape = tuple(module(example).shape)
    except (RuntimeError, AttributeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{type(module).__name__} fails on latents of shape {list(example.shape)}: "
            f"{printable(first)}"
        ) from error
    if len(shape) != 4:
        raise UserError(
            f"{type(module).__name__} makes no images of latents: its output has shape "
            f"{list(shape)}, not [batch, channel, height, width]"
        )
    return shape[1], shape[2], shape[3]


def _of_unit_range(preprocessing: Preprocessing | None) -> tuple:
    if preprocessing is None:
        return None, None
    return preprocessing.mean, preprocessing.std


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return command.guarded(argv, __doc__, convert, "FILE", define)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
