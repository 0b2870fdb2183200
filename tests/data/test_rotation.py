"""Whether photographs are turned is part of what a run is."""

import types

from jdissect.configs.common import get_common

from jdissect.analysis import comparison
from jdissect.jobs import inputs
from jdissect.training import settings


def test_of_a_dissection():
    source = types.SimpleNamespace(names=("a.jpg",))
    preprocessing = types.SimpleNamespace(to_json=dict)
    model = types.SimpleNamespace(
        architecture={}, preprocessing=preprocessing, weights_sha256="w"
    )
    segmenter = types.SimpleNamespace(identity=lambda cache: {})

    def identity(config):
        return inputs.identity_of(
            inputs.Inputs(config, source, ("0",), model, segmenter, None, None, None)
        )

    config = get_common()
    unrotated = identity(config)
    config.data.exif_rotation = True
    assert identity(config) == {**unrotated, "data.exif_rotation": True}
    del config.data.exif_rotation  # one of before there was the key
    assert identity(config) == unrotated
    # Runs that differ in it are not compared.
    runs = [
        types.SimpleNamespace(by_itself=False, identity={**unrotated, **more})
        for more in ({}, {"data.exif_rotation": True})
    ]
    assert comparison._differences(runs) == ["rotations of photographs"]


def test_of_a_training():
    config = get_common()
    unrotated = settings.identity(config)
    config.data.exif_rotation = True
    assert settings.identity(config) == {**unrotated, "data.exif_rotation": True}
