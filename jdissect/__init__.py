"""Finds out which human concepts the units of a vision network detect.

    result = jdissect.dissect(apply, params, images, label_maps,
                              concepts=concepts, layers="layer4")
    result.unique_concepts(0.04)

The command line is `python -m jdissect.main --config=FILE`.
"""

import importlib
import importlib.metadata

# Modules under their public names.
_MODULES = {
    "grouped": "jdissect.results.group_counts",
    "scenes": "jdissect.scenes",
    "segmenters": "jdissect.segmenters",
    "tables": "jdissect.base.csv_cells",
    "uncertainty": "jdissect.analysis.uncertainty",
}
_HOMES = {
    "Result": "jdissect.library.result",
    "UserError": "jdissect.base.errors",
    "convert_torch": "jdissect.converters.torch_folder",
    "dissect": "jdissect.library.dissect",
    "find_formulas": "jdissect.library.formulas",
    "load": "jdissect.library.result",
    "load_model": "jdissect.library.networks",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    # Loaded on demand: processes that only decode images need no JAX.
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name == "__version__":
        return importlib.metadata.version("jdissect")
    if name not in _HOMES:
        raise AttributeError(f"module 'jdissect' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return [*__all__, *_MODULES]
