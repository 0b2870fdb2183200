"""Segmenters of ADE20K's 150 objects: parity with PyTorch, labels, refusals."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from jdissect.converters.twins import objects, ppm
from jdissect.converters.twins.objects import ObjectPPM, ObjectUPerNet
from jdissect.converters.twins.upernet import UPerNet

from jdissect.checkpoints import networks
from jdissect.converters import ade20k, upernet
from jdissect.models import segmenter_labels
from jdissect.models.preprocess import IMAGENET
from jdissect.segmenters.parsing import Parser
from tests.compiling import QUICKLY
from tests.golden import make_ade20k

SMALL = {"width": 4, "ppm_dim": 6}
NARROW = {**SMALL, "fpn_dim": 8}


def run_twin(twin, images, size):
    with torch.inference_mode():
        outputs = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)), size)
    return outputs["object"].numpy().transpose(0, 2, 3, 1)


def test_the_twins_have_the_published_tensors():
    """Of ade20k-resnet50-upernet and ade20k-resnet50dilated-ppm_deepsup."""
    with torch.device("meta"):
        twins = ObjectUPerNet(), ObjectPPM()
    found = [
        {
            name: tuple(tensor.shape)
            for name, tensor in twin.decoder.state_dict().items()
            if len(tensor.shape) == 4 or name.startswith("conv_last.1.")
        }
        for twin in twins
    ]
    pyramid = {f"ppm_conv.{k}.0.weight": (512, 2048, 1, 1) for k in range(4)}
    pyramid |= {f"fpn_in.{k}.0.weight": (512, 256 * 2**k, 1, 1) for k in range(3)} | {
        f"fpn_out.{k}.0.0.weight": (512, 512, 3, 3) for k in range(3)
    }
    assert found[0] == pyramid | {
        "ppm_last_conv.0.weight": (512, 4096, 3, 3),
        "conv_last.0.0.weight": (512, 2048, 3, 3),
        "conv_last.1.weight": (150, 512, 1, 1),
        "conv_last.1.bias": (150,),
    }
    norm = {
        f"conv_last.1.{part}": (512,)
        for part in ("weight", "bias", "running_mean", "running_var")
    } | {"conv_last.1.num_batches_tracked": ()}
    assert found[1] == norm | {
        **{f"ppm.{k}.1.weight": (512, 2048, 1, 1) for k in range(4)},
        "conv_last.0.weight": (512, 4096, 3, 3),
        "conv_last.4.weight": (150, 512, 1, 1),
        "cbr_deepsup.0.weight": (512, 1024, 3, 3),
        "conv_last_deepsup.weight": (150, 512, 1, 1),
    }


def test_the_twins_give_the_originals_probabilities():
    """Of two decoders whose weights and maps are drawn by the rule."""
    channels = list(make_ade20k.CHANNELS)
    twins = {
        "upernet": objects.Decoder(
            channels, make_ade20k.FPN_DIM, 512, make_ade20k.OBJECTS
        ),
        "ppm": ppm.Decoder(channels, 512, make_ade20k.OBJECTS),
    }
    expected = np.load(Path(make_ade20k.__file__).with_name("ade20k.npz"))
    assert set(twins) == set(expected.files)
    for place, (kind, decoder) in enumerate(twins.items()):
        with torch.inference_mode():
            decoder = make_ade20k.fill(decoder, place)
            (scores,) = decoder(make_ade20k.maps(kind), make_ade20k.SIZE).values()
        found = scores[0].softmax(0).permute(1, 2, 0).numpy()
        assert expected[kind].max() > 3 / make_ade20k.OBJECTS  # not all alike
        np.testing.assert_allclose(found, expected[kind], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "depth", "size", "out", "fold"),
    [
        ("upernet", 18, (33, 98), (20, 9), True),
        ("ppm", 18, (64, 40), (12, 12), True),
        pytest.param("upernet", 50, (64, 70), (56, 56), False, marks=pytest.mark.slow),
        pytest.param("ppm", 50, (64, 70), (56, 56), False, marks=pytest.mark.slow),
    ],
)
def test_scores_and_label_maps_are_the_twins(
    kind, depth, size, out, fold, publish, convert
):
    options = {"depth": depth, **(NARROW if kind == "upernet" else SMALL)}
    twin = {"upernet": ObjectUPerNet, "ppm": ObjectPPM}[kind](**options)
    done = convert(ade20k, publish(twin), "--sides=64,48")
    assert done.code == 0, done.err
    assert "next: give jdissect.main --config.segmenter.upernet=" in done.out
    segmenter = networks.load_segmenter(done.folder, fold=fold)
    assert segmenter.architecture == {
        "name": f"{kind}_objects",
        "objects": 150,
        **options,
    }
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    run = jax.jit(
        lambda params, images: segmenter.apply(params, images, size=out)["object"],
        compiler_options=QUICKLY,
    )
    expected = run_twin(twin, images, out)
    found = run(segmenter.params, images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    if kind == "upernet":  # the maps of a network that is given
        check_label_maps(segmenter, twin)


def check_label_maps(segmenter, twin):
    """Labels of pixels against PyTorch: sizes, normalization, sums, numbers."""
    parser = Parser(segmenter.apply, segmenter.labels, quarters="none", grid=14)
    assert parser.map_names == ("objects",)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 3), np.uint8)
    pixels = pixels.repeat(7, axis=1).repeat(9, axis=2)  # of 56x54
    parse = jax.jit(parser, compiler_options=QUICKLY)
    maps = np.asarray(parse((segmenter.params, None), pixels))
    total = 0
    for side in (64, 48):
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()
        if side == 64:  # it is larger
            images = torch.nn.functional.interpolate(
                images, (side, side), mode="bilinear", align_corners=False
            )
        else:
            images = torch.nn.functional.adaptive_avg_pool2d(images, side)
        mean, std = (
            torch.tensor(x).view(3, 1, 1) for x in (IMAGENET.mean, IMAGENET.std)
        )
        images = ((images / 255 - mean) / std).numpy().transpose(0, 2, 3, 1)
        scores = run_twin(twin, np.ascontiguousarray(images), (14, 14))
        total += torch.from_numpy(scores).softmax(-1).numpy()
    expected = 1 + total.argmax(-1)
    assert maps.shape == (1, 1, 14, 14) and len(np.unique(expected)) > 3
    assert (maps[:, 0] == expected).mean() > 0.99  # but for ties


def test_the_vocabulary():
    content = {
        "object": ["-", *ade20k.NAMES],
        "imageformat": {"byteorder": "RGB", "mean": [0.5] * 3, "stdev": [0.2] * 3},
    }
    labels = segmenter_labels.read_objects(content)
    assert len(set(ade20k.NAMES)) == 150
    assert labels.segsizes == (256,)
    parser = Parser(lambda *_: {}, labels, quarters="none")
    assert parser.concepts[0] == ("-", "object") and len(parser.concepts) == 151
    for number, name in (
        *((1, "wall"), (13, "person"), (65, "coffee table"), (99, "bottle")),
        *((110, "swimming pool"), (137, "traffic light"), (150, "flag")),
    ):
        assert parser.concepts[number] == (name, "object")
    with_quarters = Parser(lambda *_: {}, labels)
    assert with_quarters.map_names == ("objects", "top and bottom", "left and right")
    assert with_quarters.concepts[151] == ("wall-t", "part")


def test_published_epochs():
    address = "http://sceneparsing.csail.mit.edu/model/pytorch/"
    assert ade20k.epoch(f"{address}ade20k-resnet101-upernet/") == 50
    assert ade20k.epoch(f"{address}ade20k-resnet50dilated-ppm_deepsup") == 20
    assert ade20k.epoch("elsewhere") == 30


def rename(old, new):
    def change(tensors):
        for name in [name for name in tensors if name.startswith(old)]:
            tensors[new + name.removeprefix(old)] = tensors.pop(name)

    return change


def test_sums_of_synchronized_batch_norm(publish, convert):
    """The original's batch normalization stores what its statistics are made of."""

    def add(tensors):
        for name in [name for name in tensors if name.endswith(".running_mean")]:
            for part in ("_tmp_running_mean", "_tmp_running_var", "_running_iter"):
                tensors[name.replace("running_mean", part)] = torch.ones(1)

    source = publish(ObjectPPM(18, **SMALL), encoder=add, decoder=add)
    done = convert(ade20k, source)
    assert done.code == 0, done.err
    assert "ignored" not in done.out


def test_other_decoders(publish, convert):
    twin = ObjectPPM(18, **SMALL)
    done = convert(ade20k, publish(twin, decoder=rename("ppm.", "cbr.")))
    assert done.code == 2 and "only UPerNet's and PPM's decoders" in done.err
    done = convert(ade20k, publish(twin, decoder=rename("ppm.3.", "ppm.4.")))
    assert done.code == 2 and "lacks" in done.err and "ppm.3.1.weight" in done.err
    done = convert(ade20k, publish(ObjectPPM(18, **SMALL, objects=19)))
    assert done.code == 2
    assert "converters.ade20k names 150 objects, the network has 19" in done.err
    source = publish(ObjectUPerNet(18, **NARROW))
    for sides in ("31", "x", "64,5000", ""):
        done = convert(ade20k, source, f"--sides={sides}")
        assert done.code == 2 and "must be one or more numbers from 32 to" in done.err
    done = convert(upernet, source)
    assert done.code == 2 and "lacks labels.json" in done.err
    assert (
        "for ADE20K's 150 objects, which have none, use converters.ade20k" in done.err
    )
    (source / "labels.json").write_text("{}")
    done = convert(upernet, source)
    assert done.code == 2 and "Use converters.ade20k for it." in done.err
    parsing = UPerNet(18, width=2, fpn_dim=8, objects=3, parts=7, materials=2, scenes=4)
    done = convert(ade20k, publish(parsing))
    assert done.code == 2 and "Use converters.upernet for it." in done.err
