import errno
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest

from jdissect import models
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks, orbax_io
from jdissect.models.preprocess import IMAGENET
from tests.compiling import QUICKLY

ARCHITECTURE = {"name": "resnet18", "width": 4, "classes": 3}
DESCRIPTION = networks.describe_classifier(
    ARCHITECTURE, IMAGENET, source={"file": "a.pth", "sha256": "0"}
)


def draw_parameters():
    rng = np.random.default_rng(0)
    shapes = models.shapes(models.build_abstract(**ARCHITECTURE))
    return {k: rng.uniform(0.5, 1, s).astype(np.float32) for k, s in shapes.items()}


@pytest.fixture
def folder(tmp_path):
    """A sound checkpoint."""
    networks.save(tmp_path / "sound", draw_parameters(), DESCRIPTION)
    return tmp_path / "sound"


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_saved_is_loaded(folder):
    parameters, description = networks.load(folder, "classifier")
    expected = draw_parameters()
    assert sorted(parameters) == sorted(expected)
    for name, array in expected.items():
        assert parameters[name].dtype == np.float32
        np.testing.assert_array_equal(parameters[name], array)
    for key, value in DESCRIPTION.items():
        assert description[key] == value
    assert description["format_version"] == 1


def test_the_hash_is_of_names_types_shapes_and_bytes(folder):
    digest = hashlib.sha256()
    for name, array in sorted(draw_parameters().items()):
        digest.update(f"{name} <f4 {array.shape}\n".encode() + array.tobytes())
    assert networks.read_description(folder)["weights_sha256"] == digest.hexdigest()
    hashes = {
        networks.weights_sha256(parameters)
        for parameters in (
            {"a": np.zeros(4, np.float32)},
            {"b": np.zeros(4, np.float32)},
            {"a": np.zeros((2, 2), np.float32)},
            {"a": np.zeros(4, np.int32)},
            {"a": np.ones(4, np.float32)},
        )
    }
    assert len(hashes) == 5


def test_a_description_is_the_same_every_time(folder, tmp_path):
    networks.save(tmp_path / "again", draw_parameters(), DESCRIPTION)
    texts = {(f / "model.json").read_text() for f in (folder, tmp_path / "again")}
    assert len(texts) == 1


def test_load_classifier(folder):
    classifier = networks.load_classifier(folder, "resnet18")
    assert classifier.architecture == ARCHITECTURE
    assert classifier.preprocessing == IMAGENET
    assert classifier.classes == 3
    assert classifier.input_size == 224
    assert classifier.endpoint_names[:5] == (
        *("conv1", "relu", "stem", "layer1.0", "layer1.1"),
    )
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    model = models.build_abstract(**ARCHITECTURE)
    apply, params = models.as_function(model)
    params = models.with_parameters(params, draw_parameters())
    expected = jax.jit(apply, compiler_options=QUICKLY)(params, images)[0]
    for fold in (True, False):
        classifier = networks.load_classifier(folder, fold=fold)
        run = jax.jit(classifier.apply, compiler_options=QUICKLY)
        actual = run(classifier.params, images)[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert len(jax.tree.leaves(classifier.params)) == len(draw_parameters())


def test_loading_is_silent_and_needs_no_torch(folder):
    program = (
        "import sys\n"
        "from jdissect.checkpoints import networks\n"
        f"networks.load_classifier({str(folder)!r})\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("fc.bias"), "lacks parameters: fc.bias"),
        (lambda p: p.update(odd=np.ones(1)), "has unknown parameters: odd"),
        (
            lambda p: p.update({"fc.bias": np.ones(4, np.float32)}),
            r"has misshapen parameters: fc.bias \[4\], needed \[3\]",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_named(change, words, tmp_path):
    parameters = draw_parameters()
    change(parameters)
    networks.save(tmp_path / "odd", parameters, DESCRIPTION)
    with pytest.raises(UserError, match=words) as error:
        networks.load_classifier(tmp_path / "odd")
    assert str(tmp_path / "odd") in str(error.value)


def test_another_network_is_refused(folder):
    words = "holds a resnet18, not a resnet50; give --config.model.name=resnet18"
    with pytest.raises(UserError, match=words):
        networks.load_classifier(folder, "resnet50")
    edit(folder, kind="segmenter")
    with pytest.raises(UserError, match="holds a segmenter, not a classifier"):
        networks.load_classifier(folder)
    networks.load(folder, "segmenter")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": {"name": "vgg16"}}, "unknown architecture 'vgg16'"),
        ({"architecture": {"width": 4}}, "damaged"),
        ({"architecture": {**ARCHITECTURE, "heads": 2}}, "heads"),
        ({"architecture": {**ARCHITECTURE, "classes": 10**12}}, "classes is 10{12}"),
        ({"architecture": {**ARCHITECTURE, "width": -1}}, "width is -1"),
        ({"architecture": {**ARCHITECTURE, "width": "wide"}}, "damaged"),
        ({"architecture": {**ARCHITECTURE, "width": 0.5}}, "damaged"),
        ({"architecture": {**ARCHITECTURE, "width": None}}, "damaged"),
        ({"architecture": {**ARCHITECTURE, "groups": 2}}, "no bottlenecks"),
        ({"architecture": {**ARCHITECTURE, "stem_stride": 0}}, "sizes and strides"),
        (
            {"architecture": {**ARCHITECTURE, "dtype": "float32"}},
            "dtype is not an",
        ),
        ({"architecture": {**ARCHITECTURE, "a\x1b\n": 1}}, r"a\\x1b\\"),
        ({"input_size": 1e999}, "damaged"),
        ({"preprocessing": {"scale": 1, "mean": [0.4], "std": [1]}}, "in_channels"),
        ({"preprocessing": {}}, "preprocessing"),
        (
            {"preprocessing": {"scale": 1, "mean": [1e999], "std": [1]}},
            "preprocessing",
        ),
        ({"format_version": 2}, "format 2"),
    ],
)
def test_descriptions_that_do_not_fit(changes, words, folder):
    edit(folder, **changes)
    with pytest.raises(UserError, match=words) as error:
        networks.load_classifier(folder)
    assert str(folder) in str(error.value)


def test_shapes_are_checked_before_arrays_are_read(folder, monkeypatch):
    monkeypatch.setattr(orbax_io, "read", lambda path: pytest.fail("it was read"))
    edit(folder, architecture={**ARCHITECTURE, "classes": 50})
    with pytest.raises(UserError, match=r"misshapen parameters: .*needed \[50\]"):
        networks.load_classifier(folder)
    classes = 10**7
    edit(folder, architecture={**ARCHITECTURE, "classes": classes})
    stored = orbax_io.shapes(folder / "params")
    stored["fc"] = {"kernel": (32, classes), "bias": (classes,)}
    monkeypatch.setattr(orbax_io, "shapes", lambda path: stored)
    with pytest.raises(UserError, match=r"claims 1,320,\d+,\d+ bytes of weights"):
        networks.load_classifier(folder)


def test_shapes_of_a_tree(folder):
    stored = orbax_io.shapes(folder / "params")
    assert stored["fc"] == {"kernel": (32, 3), "bias": (3,)}
    assert stored["layer4"]["1"]["conv2"]["conv"] == {"kernel": (3, 3, 32, 32)}


def test_a_full_disk_is_noticed_before_orbax_writes(tmp_path, monkeypatch):
    asked = []

    def fallocate(descriptor, start, size):
        asked.append(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    monkeypatch.setattr(orbax_io, "_checkpointer", lambda: pytest.fail("it wrote"))
    with pytest.raises(UserError, match="cannot write .*: No space left on device"):
        networks.save(tmp_path / "new", draw_parameters(), DESCRIPTION)
    assert asked[0] > sum(array.nbytes for array in draw_parameters().values())
    assert not list(tmp_path.iterdir())


def config_of(folder, name):
    model = {"weights": str(folder), "name": name}
    return ml_collections.ConfigDict({"model": model, "dtype": "float32"})


def test_the_name_of_a_config(folder):
    config = config_of(folder, "")
    assert networks.load_configured(config).architecture == ARCHITECTURE
    assert config.model.name == "resnet18"
    words = r"config.model.name is 'vit'; it must be one of resnet18, .*, or ''"
    with pytest.raises(UserError, match=words):
        networks.load_configured(config_of(folder, "vit"))
    with pytest.raises(UserError, match="give --config.model.name=resnet18"):
        networks.load_configured(config_of(folder, "resnet50"))
    with pytest.raises(UserError, match="config.model.weights is not set"):
        networks.load_configured(config_of("", "resnet50"))


def test_folders_that_are_no_checkpoints(tmp_path):
    with pytest.raises(UserError, match="absent is missing"):
        networks.load_classifier(tmp_path / "absent")
    with pytest.raises(UserError, match="is not a checkpoint"):
        networks.load_classifier(tmp_path)
    with pytest.raises(UserError, match="is not a checkpoint"):
        (tmp_path / "file").write_text("")
        networks.load_classifier(tmp_path / "file")


def large_files(folder):
    files = [p for p in (folder / "params").rglob("*") if p.is_file()]
    return [p for p in files if p.stat().st_size > 10_000]


def flip(path: pathlib.Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "json": lambda f: (f / "model.json").write_text('{"kind": "class'),
    "json list": lambda f: (f / "model.json").write_text("[]"),
    "json bytes": lambda f: (f / "model.json").write_bytes(b"\xff\xfe"),
    "no weights": lambda f: (f / "params").rename(f / "other"),
    "flipped": lambda f: [flip(p) for p in large_files(f)],
    "truncated": lambda f: [
        p.write_bytes(p.read_bytes()[:-50]) for p in large_files(f)
    ],
    "lost files": lambda f: [p.unlink() for p in large_files(f)],
    "another's": lambda f: edit(f, weights_sha256="0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_the_users_error(damage, folder):
    assert large_files(folder)
    DAMAGES[damage](folder)
    with pytest.raises(UserError, match="convert .* again") as error:
        networks.load_classifier(folder)
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_existing_folders_are_kept(folder, tmp_path):
    others = draw_parameters()
    others["fc.bias"] += 1
    with pytest.raises(UserError, match="exists.*--overwrite"):
        networks.save(folder, others, DESCRIPTION)
    networks.load(folder)
    digest = networks.save(folder, others, DESCRIPTION, overwrite=True)
    assert networks.load(folder)[1]["weights_sha256"] == digest
    assert [p.name for p in tmp_path.iterdir()] == ["sound"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_what_was_there(
    failure, folder, tmp_path, monkeypatch
):
    def write(path, tree):
        path.mkdir()
        (path / "half").write_text("half")
        raise failure

    monkeypatch.setattr(orbax_io, "write", write)
    for target in (folder, tmp_path / "new"):
        with pytest.raises((UserError, KeyboardInterrupt)) as error:
            networks.save(target, draw_parameters(), DESCRIPTION, overwrite=True)
        if isinstance(failure, OSError):
            assert "No space left" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["sound"]
    networks.load(folder)
