"""Images that a generator makes of latents, as a source of probe images."""

import json
import subprocess
import sys

import numpy as np
import pytest

import jdissect
from jdissect import main, probe
from jdissect.base.errors import UserError
from jdissect.converters import torch_module
from jdissect.data import loader
from jdissect.datasets.generator import open_generator
from jdissect.report.probe_images import open_counted
from jdissect.results.finished_run import open_run
from jdissect.runtime import command_line
from jdissect.segmenters.colornames import open_colornames
from tests import devices, small_modules

torch = pytest.importorskip("torch")
HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3, "tell": lambda line: None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of `small_modules.generator`."""
    place = tmp_path_factory.mktemp("generators") / "gan"
    jdissect.convert_torch(
        *(small_modules.generator(), torch.zeros(1, 6), ["up", "last"], place), **HALVES
    )
    return place


@pytest.fixture(scope="module")
def gray(tmp_path_factory):
    """A generator of gray images, whose latents are maps of 1x1; and its module."""
    torch.manual_seed(1)
    module = small_modules.Generator(True, 1)
    place = tmp_path_factory.mktemp("generators") / "gray"
    options = {**HALVES, "mean": [0.5], "std": [0.5], "verify": True}
    jdissect.convert_torch(module, torch.zeros(1, 6, 1, 1), "up", place, **options)
    return module, place


def of_torch(module, latents):
    """What PyTorch makes of latents: the map of 'up', and pixels."""
    kept = []
    module.eval().up.register_forward_hook(lambda *call: kept.append(call[2]))
    with torch.inference_mode():
        images = module(torch.tensor(latents)).numpy()
    pixels = np.rint((images.transpose(0, 2, 3, 1) + 1) * 127.5)
    return kept[0].numpy().transpose(0, 2, 3, 1), pixels


def test_images_are_those_of_pytorch(folder):
    source = open_generator(folder, 5)
    assert source.names == tuple(f"z/00000{n}" for n in range(5))
    assert source.image_shape == (16, 16) and source.annotations is None
    latents = source.latents(range(5))
    assert latents.shape == (5, 6) and latents.dtype == np.float32
    _, expected = of_torch(small_modules.generator(), latents)
    batches = list(loader.batches(source, 3))
    found = np.concatenate([batch.pixels for batch in batches])[:5]
    assert found.dtype == np.uint8 and found.std() > 20
    assert (
        np.abs(found - expected).max() <= 1
    )  # a value between two may round either way
    assert np.mean(found != expected) < 0.01
    np.testing.assert_array_equal(source.read(3).pixels, found[3])


def test_latents_of_maps_and_gray_images(gray):
    module, place = gray
    source = open_generator(place, 2)
    _, expected = of_torch(module, source.latents([1]).reshape(1, 6, 1, 1))
    pixels = source.read(1).pixels
    assert pixels.shape == (16, 16, 3) and np.abs(pixels - expected[0]).max() <= 1


def test_latents_are_drawn_from_seed_and_index(folder):
    source = open_generator(folder, 4000)
    several = source.latents([2, -1, 3999])
    np.testing.assert_array_equal(several[2], source.latents([3999])[0])
    assert not several[1].any()
    drawn = source.latents(range(4000))
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.03
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 0.08
    assert len(np.unique(drawn[:, 0])) > 3990
    other = open_generator(folder, 3, seed=1)
    assert (other.latents([2]) != several[:1]).all()


def test_hashes_name_latent_and_network(folder, gray):
    hashes = open_generator(folder, 3).content_hashes()
    assert len(set(hashes)) == 3
    assert open_generator(folder, 9).content_hashes(None, slice(1, 3)) == hashes[1:]
    assert not set(open_generator(folder, 3, seed=1).content_hashes()) & set(hashes)
    assert not set(open_generator(gray[1], 3).content_hashes()) & set(hashes)


class Half(small_modules.Generator):
    """Gives no numbers (NaN) for latents that begin below 0."""

    def forward(self, z):
        return super().forward(z) + 0 * torch.log(z[:, :1, None, None])


@pytest.mark.slow
def test_images_that_are_not_finite_are_skipped(tmp_path):
    jdissect.convert_torch(Half(), torch.zeros(1, 6), "up", tmp_path / "x", **HALVES)
    source = open_generator(tmp_path / "x", 8)
    (batch,) = loader.batches(source, 8)
    first = source.latents(range(8))[:, 0]
    np.testing.assert_array_equal(batch.valid, first > 0)
    assert 0 < batch.valid.sum() < 8
    reason = "the generator gives numbers that are not finite"
    assert {text for _, text in batch.skipped} == {reason}


def arguments(folder, workdir, **changes):
    keys = {
        **{"model.name": "", "model.weights": folder, "model.layers": "up,last"},
        **{"data.source": "generator", "data.num_images": 40, "data.batch_size": 8},
        **{"segmenter.name": "colornames", "mask_size": 16, **changes},
    }
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    return ["main", "--config=baseline", f"--workdir={workdir}", *flags]


def test_a_dissection_of_a_generator(folder, tmp_path, capsys):
    """Against PyTorch's maps and images, counted by the library."""
    changes = {"model.layers": "up", "report": "false"}
    argv = arguments(folder, tmp_path / "run", **changes)
    assert command_line.entry(main.main, argv) == 0, capsys.readouterr().err
    found = jdissect.load(tmp_path / "run" / "up")
    latents = open_generator(folder, 40).latents(range(40))
    maps, pixels = of_torch(small_modules.generator(), latents)
    expected = jdissect.dissect(
        lambda params, x: {"up": x},
        None,
        maps,
        segmenter_labels(pixels.astype(np.uint8)),
        concepts=open_colornames(16).concepts,
        layers="up",
    )
    np.testing.assert_allclose(found.thresholds, expected.thresholds, rtol=1e-4)
    assert found.iou.shape == expected.iou.shape and expected.iou.max() > 0.03
    assert np.abs(found.iou - expected.iou).max() < 0.01
    # Pages make the images again.
    counted = open_counted(open_run(tmp_path / "run"))
    assert np.abs(counted.read(7).pixels - pixels[7]).max() <= 1
    # The same run again is read; another seed is another run.
    assert command_line.entry(main.main, argv) == 0
    capsys.readouterr()
    assert command_line.entry(main.main, [*argv, "--config.data.seed=1"]) == 2
    assert "holds another run (different: images)" in capsys.readouterr().err


def segmenter_labels(pixels):
    index = np.arange(len(pixels), dtype=np.int32)
    batch = loader.Batch(index, index >= 0, pixels, None, None, ())
    return open_colornames(16).label_maps(batch)


@pytest.mark.slow
def test_the_same_bits_on_two_devices(folder, tmp_path):
    for count in (1, 2):
        argv = arguments(folder, tmp_path / str(count), **{"data.num_images": 20})
        done = subprocess.run(
            [sys.executable, "-m", "jdissect.main", *argv[1:]],
            env=devices.environment(count),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    hashes = [
        json.loads((tmp_path / name / "summary.json").read_text())["result_hash"]
        for name in "12"
    ]
    assert hashes[0] == hashes[1]
    for layer in ("up", "last"):
        one, two = (
            np.load(tmp_path / name / layer / "dissection.npz") for name in "12"
        )
        assert one.files == two.files
        for key in one.files:
            np.testing.assert_array_equal(one[key], two[key])


REFUSED = [
    ({"data.num_images": 0}, "needs the number of latents, 1 to 10,000,000"),
    ({"data.seed": -1}, "config.data.seed is -1; it must be 0 to"),
    ({"data.workers": 2}, "are made in this process: leave it 0"),
    ({"data.path": "elsewhere"}, "leave the path empty"),
    ({"data.source": "scenes"}, "is a generator: it makes images of latents of 6"),
    ({"model.weights": ""}, "needs config.model.weights"),
    ({"model.weights": "shipped:mixup"}, "the network of shipped:mixup takes images"),
    ({"model.layers": "image"}, "has no layer 'image'; it has up, last"),
    ({"segmenter.name": "annotations"}, ""),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED, ids=lambda v: str(v)[:30])
def test_bad_input_is_one_line(folder, tmp_path, capsys, changes, reason):
    argv = arguments(folder, tmp_path / "run", **changes)
    assert command_line.entry(main.main, argv) == 2
    error = capsys.readouterr().err.splitlines()
    assert reason in error[-1] and error[-1].startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_other_programs_refuse_a_generator(folder, tmp_path, capsys):
    argv = arguments(folder, tmp_path / "run")
    flags = [flag for flag in argv if not flag.startswith("--workdir")]
    assert command_line.entry(probe.main, flags) == 2
    assert "for networks that take images only" in capsys.readouterr().err
    with pytest.raises(UserError, match="generator, which takes no images"):
        jdissect.dissect(
            str(folder),
            np.zeros((2, 16, 16, 3), np.uint8),
            layers="up",
            segmenter="colornames",
        )


LATENT = "--latent=6"
WRONG = [
    ("cnn", ["--layers=0", LATENT], "Sequential fails on latents of shape [2, 6]"),
    ("vector", ["--layers=0", LATENT], "makes no images of latents: its output"),
    ("generator", ["--layers=up", LATENT], "range of the generator's images is not"),
    ("generator", ["--layers=up", "--latent=7"], "fails on latents of shape [2, 7]"),
    ("generator", ["--layers=up", "--latent=6x2"], "--latent=6x2 is not"),
    ("generator", ["--layers=up", LATENT, "--size=16"], "leave it or --latent"),
]


@pytest.mark.parametrize(("name", "flags", "reason"), WRONG, ids=lambda v: str(v)[:40])
def test_what_the_converter_refuses(tmp_path, capsys, name, flags, reason):
    model = f"--model=python:tests.small_modules:{name}"
    argv = ["convert", model, f"--output={tmp_path / 'x'}", *flags]
    assert torch_module.main(argv) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and not (tmp_path / "x").exists()


def test_the_converter_lists_and_converts(tmp_path, capsys):
    model = "--model=python:tests.small_modules:generator"
    assert torch_module.main(["convert", model, LATENT, "--layers=?"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["first", "[batch,", "160]", "-"]
    assert "nchw: 9 units on 8x8" in lines[1]
    place, halves = f"--output={tmp_path / 'x'}", "0.5,0.5,0.5"
    given = [LATENT, "--layers=up", f"--mean={halves}", f"--std={halves}"]
    assert torch_module.main(["convert", model, place, *given]) == 0
    out = capsys.readouterr().out
    assert "images: 16 x 16 x 3, of latents of 6" in out
    assert " --config.data.source=generator --config.data.num_images=" in out
    assert open_generator(tmp_path / "x", 1).read(0).pixels.shape == (16, 16, 3)
