"""Stands in for torchvision where timm is imported and torchvision cannot be.

torchvision's wheel needs the build of PyTorch that it was made for. timm imports names
of it, and uses none of them to build a network.
"""

import contextlib
import enum
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator

_MODULES = ("ops", "ops.misc", "transforms", "transforms.functional", "datasets")


class InterpolationMode(enum.Enum):
    """The names that timm translates to Pillow's."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Absent(types.ModuleType):
    """A module that has every class, each of them empty."""

    __path__: list[str] = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def present() -> Iterator[None]:
    """Within it `import torchvision` works even if it is not installed.

    Afterwards it is absent again: transformers looks for it and would use it.
    """
    names = ("torchvision", *(f"torchvision.{name}" for name in _MODULES))
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        yield
        return
    for name in names:
        module = _Absent(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    transforms = sys.modules["torchvision.transforms"]
    for module in (transforms, transforms.functional):
        module.InterpolationMode = InterpolationMode
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
