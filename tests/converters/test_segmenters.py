"""Converted segmenters compute what PyTorch computes; others are refused."""

import functools
import hashlib
import http.server
import json
import re
import threading
import types

import jax
import numpy as np
import pytest
import torch
from jdissect.converters.twins.ppm import PPM
from jdissect.converters.twins.resnet import ResNet
from jdissect.converters.twins.upernet import UPerNet, roi_pool

from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.converters import color, resnet, upernet, verify
from jdissect.ops.resample import adaptive_average, resample
from tests.compiling import QUICKLY

UPERNET = {"fpn_dim": 8, "objects": 3, "parts": 7, "materials": 2, "scenes": 4}
UPERNET_LABELS = {
    "object": ["-", "wall", "cat"],
    "part": ["-", "door", "tail", "paw", "ear"],
    "material": ["-", "wood"],
    "scene": ["attic", "bar", "cave", "dam"],
    "object_part": {"wall": ["-", "door", "tail"], "cat": ["-", "tail", "paw", "ear"]},
}
COLOR_LABELS = {
    "labels": [{"name": name, "category": "color"} for name in ("-", "red", "blue")],
    "categories": [{"name": "color"}],
    "imageformat": {"byteorder": "RGB", "mean": [0.5] * 3, "stdev": [0.2] * 3},
}
BGR_MEANS = (102.9801, 115.9465, 122.7717)


def relative(actual, expected):
    """The largest difference over the largest value."""
    assert actual.shape == expected.shape
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def run_ours(segmenter, images, optimized=True, **options):
    """Small networks take longer to optimize than to run."""
    flags = {} if optimized else QUICKLY
    apply = functools.partial(segmenter.apply, **options)
    apply = jax.jit(apply, compiler_options=flags)
    return jax.device_get(apply(segmenter.params, images))


def run_twin(twin, images, size):
    with torch.inference_mode():
        outputs = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)), size)
    arrays = {name: output.numpy() for name, output in outputs.items()}
    return {
        name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for name, array in arrays.items()
    }


@pytest.fixture
def publish_upernet(publish):
    """A tiny UPerNet."""

    def run(**changes):
        return publish(UPerNet(18, width=2, **UPERNET), UPERNET_LABELS, **changes)

    return run


@pytest.fixture
def publish_color(publish):
    """A tiny colour network."""

    def run(**changes):
        twin = PPM(18, width=4, ppm_dim=4, classes=3)
        return publish(twin, COLOR_LABELS, **changes)

    return run


def test_the_twins_have_the_published_tensors(golden):
    expected = json.loads((golden / "state_dicts.json").read_text())
    labels = json.loads((golden / "upp_labels.json").read_text())
    sizes = {f"{kind}s": len(labels[kind]) for kind in ("object", "material", "scene")}
    sizes["parts"] = sum(map(len, labels["object_part"].values()))
    with torch.device("meta"):
        twins = {"upp": UPerNet(**sizes), "color": PPM()}
    for name, twin in twins.items():
        for part in ("encoder", "decoder"):
            tensors = getattr(twin, part).state_dict()
            found = {k: [list(v.shape), str(v.dtype)] for k, v in tensors.items()}
            assert found == expected[f"{name}_{part}"]


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_the_twins_precise_roi_pooling(bins, golden):
    arrays = np.load(golden / "prroi.npz")
    maps = torch.from_numpy(arrays["x"].transpose(0, 3, 1, 2).copy())
    found = roi_pool(maps, bins).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, arrays[f"pool{bins}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "width", "fpn_dim", "size", "out", "fold", "legacy"),
    [
        pytest.param(
            *(18, 6, 8, (33, 98), (9, 20), True, True), marks=pytest.mark.slow
        ),
        pytest.param(
            *(34, 4, 12, (64, 70), (56, 56), False, False), marks=pytest.mark.slow
        ),
    ],
)
def test_upernets_are_their_twins(
    depth, width, fpn_dim, size, out, fold, legacy, publish, convert
):
    options = {**UPERNET, "depth": depth, "width": width, "fpn_dim": fpn_dim}
    twin = UPerNet(**options)
    done = convert(upernet, publish(twin, UPERNET_LABELS, legacy=legacy))
    assert done.code == 0, done.err
    segmenter = networks.load_segmenter(done.folder, "upernet", fold=fold)
    assert segmenter.architecture == {"name": "upernet", **options}
    assert segmenter.labels.to_json() == UPERNET_LABELS
    images = np.random.default_rng(0).normal(0, 50, (2, *size, 3)).astype(np.float32)
    expected = run_twin(twin, images, out)
    found = run_ours(segmenter, images, False, size=out, outputs=tuple(expected))
    assert set(found) == {"object", "part", "material", "scene"}
    for name, scores in expected.items():
        assert relative(found[name], scores) < 1e-4, name


@pytest.mark.parametrize(
    ("depth", "width", "ppm_dim", "size", "out", "fold"),
    [
        (18, 8, 6, (33, 98), (20, 9), False),
        pytest.param(50, 4, 4, (64, 70), (56, 56), True, marks=pytest.mark.slow),
    ],
)
def test_colour_networks_are_their_twins(
    depth, width, ppm_dim, size, out, fold, publish, convert
):
    options = {"depth": depth, "width": width, "ppm_dim": ppm_dim, "classes": 3}
    twin = PPM(**options)
    done = convert(color, publish(twin, COLOR_LABELS))
    assert done.code == 0, done.err
    segmenter = networks.load_segmenter(done.folder, "ppm", fold=fold)
    assert segmenter.architecture == {"name": "ppm", **options}
    assert segmenter.labels.to_json() == {**COLOR_LABELS, "segsizes": [256]}
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    found = run_ours(segmenter, images, False, size=out)
    assert relative(found["color"], run_twin(twin, images, out)["color"]) < 1e-4


def pooled(images):
    """The golden images as the networks see them, 256x256 in 0..255."""
    matrix = adaptive_average(224, 256)
    return np.asarray(resample(images.astype(np.float32), matrix, matrix))


def softmax(scores, axis=-1):
    scores = np.exp(scores - scores.max(axis, keepdims=True))
    return scores / scores.sum(axis, keepdims=True)


def test_upernet_gives_the_golden_arrays(upernet_folder, golden):
    expected = np.load(golden / "upernet.npz")
    segmenter = networks.load_segmenter(upernet_folder, "upernet")
    images = pooled(expected["images"])[..., ::-1] - np.asarray(BGR_MEANS, np.float32)
    corner = images[:, ::16, ::16]
    np.testing.assert_allclose(corner, expected["network_input"], atol=1e-4)
    outputs = ("object", "part", "material", "scene")
    scores = run_ours(segmenter, images, outputs=outputs)
    assert np.abs(softmax(scores["scene"]) - expected["scene"]).max() < 3e-4
    for name in ("object", "material"):
        row = softmax(scores[name][:, 28])
        assert np.abs(row - expected[f"{name}_prob_row28"]).max() < 3e-4
        same = scores[name].argmax(-1) == expected[f"{name}_argmax"]
        assert same.mean() >= 0.999
    start, same = 0, []
    for place, (_, names) in enumerate(segmenter.labels.object_parts):
        group = scores["part"][..., start : start + len(names)]
        start += len(names)
        same.append(group.argmax(-1) == expected["part_argmax"][:, place])
        if place < 2:
            row = softmax(group[:, 28])
            assert np.abs(row - expected[f"part{place}_prob_row28"]).max() < 3e-4
    assert np.mean(same) >= 0.999


def test_the_colour_network_gives_the_golden_arrays(color_folder, golden):
    expected = np.load(golden / "color.npz")
    segmenter = networks.load_segmenter(color_folder, "ppm")
    labels = segmenter.labels
    images = pooled(expected["images"]) / np.float32(255) - np.float32(labels.mean)
    scores = run_ours(segmenter, images / np.float32(labels.stdev))["color"]
    probabilities = softmax(softmax(scores))  # of the one category there is
    assert np.abs(probabilities - expected["prob"]).max() < 3e-4
    assert (scores.argmax(-1) == expected["seg"][:, 0]).mean() >= 0.999


def test_what_is_said_and_stored(publish_upernet, publish_color, convert):
    for converter, publish, key in (
        (upernet, publish_upernet, "upernet"),
        (color, publish_color, "color"),
    ):
        source = publish()
        done = convert(converter, source, "--overwrite")
        assert done.code == 0, done.err
        names = ("encoder_epoch_3.pth", "decoder_epoch_3.pth")
        hashes = {
            name: hashlib.sha256((source / name).read_bytes()).hexdigest()
            for name in names
        }
        for name, sha256 in hashes.items():
            assert f"read from {name}, sha256 {sha256}\n" in done.out
        assert f"next: give jdissect.main --config.segmenter.{key}=" in done.out
        description = networks.read_description(done.folder, "segmenter")
        assert description["source"] == {"files": hashes}
        read = networks.load_segmenter(done.folder).labels
        assert description["labels"] == read.to_json()


def test_labels_are_part_of_the_description(publish_upernet, convert):
    """Two vocabularies of one size are two segmenters."""
    source = publish_upernet()
    first = convert(upernet, source)
    path = source / "labels.json"
    path.write_text(path.read_text().replace("wood", "wool"))
    second = convert(upernet, source, output=first.folder.with_name("second"))
    found = [networks.read_description(done.folder) for done in (first, second)]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    assert found[0]["labels"] != found[1]["labels"]


def test_an_address(publish_upernet, convert, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = publish_upernet(epoch=40)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=source.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/published/"
    try:
        first = convert(upernet, address)
        assert first.code == 0, first.err
        again = convert(upernet, address, "--overwrite")
        assert again.out.count(", unchanged\n") == 3
        done = convert(upernet, address, "--overwrite", "--epoch=39")
        assert "encoder_epoch_39.pth was refused: 404" in done.err
    finally:
        server.shutdown()
        server.server_close()
    description = networks.read_description(first.folder)
    assert description["source"]["address"] == address
    assert "encoder_epoch_40.pth" in description["source"]["files"]
    assert "unchanged" not in first.out


def test_verify_prints_every_output(publish_upernet, convert, monkeypatch):
    monkeypatch.setattr(verify, "SIDE", 32)
    done = convert(upernet, publish_upernet(), "--verify")
    assert done.code == 0, done.err
    table = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    for name in ("object", "part", "material", "scene"):
        largest, difference, fraction = map(float, table[name])
        assert difference / largest == pytest.approx(fraction, rel=0.02)
        assert fraction < 1e-4


@pytest.mark.slow
def test_verify_fails_where_the_networks_differ(publish_color, convert, monkeypatch):
    monkeypatch.setattr(verify, "SIDE", 32)
    monkeypatch.setattr("jdissect.models.ppm.PPM.epsilon", 0.05)
    done = convert(color, publish_color(), "--verify")
    assert done.code == 2
    assert re.search("differs from PyTorch's by more than 0.001: color 0", done.err)
    assert re.search(r"^color +\d", done.out, re.MULTILINE)


def test_known_and_unused_tensors(publish_upernet, publish_color, convert):
    classifier = {"fc.weight": torch.ones(5, 4), "fc.bias": torch.ones(5)}
    for converter, publish in (upernet, publish_upernet), (color, publish_color):
        source = publish(encoder=lambda tensors: tensors.update(classifier))
        done = convert(converter, source, "--overwrite")
        assert done.code == 0, done.err
        assert "ignored" not in done.out
    tensors = torch.load(source / "decoder_epoch_3.pth", weights_only=True)
    assert "cbr_deepsup.0.weight" in tensors
    parameters, _ = networks.load(done.folder)
    assert not any("deepsup" in name or "fc" in name for name in parameters)


def remove(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def add(**tensors):
    return lambda state: state.update(
        {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    )


TENSOR_FAULTS = {
    "encoder_epoch_3.pth lacks 1 tensor: layer2.0.downsample.0.weight.": {
        "encoder": remove("layer2.0.downsample.0.weight")
    },
    "decoder_epoch_3.pth lacks 2 tensors: ppm_conv.3.1.bias, scene_head.2.bias.": {
        "decoder": remove("ppm_conv.3.1.bias", "scene_head.2.bias")
    },
    "encoder_epoch_3.pth lacks tensors: conv1.weight, bn1.weight, bn1.bias": {
        "encoder": remove("conv1.weight", "bn1.weight", "bn1.bias")
    },
    "object_head.1.weight [3, 8, 3, 3], needed [3, 8, 1, 1].": {
        "decoder": add(object_head__1__weight=torch.ones(3, 8, 3, 3))
    },
    "object_head.1.weight [3, 8], needed [3, 8, 1, 1].": {
        "decoder": add(object_head__1__weight=torch.ones(3, 8))
    },
    "conv2.weight [2, 3, 3, 3], needed [2, 2, 3, 3].": {
        "encoder": add(conv2__weight=torch.ones(2, 3, 3, 3))
    },
    "encoder_epoch_3.pth has unknown 1 tensor: conv4.weight.\nTo leave them out": {
        "encoder": add(conv4__weight=torch.ones(1))
    },
    "decoder_epoch_3.pth has unknown 1 tensor: fc.weight.\nTo leave them out": {
        "decoder": add(fc__weight=torch.ones(1))
    },
    "1 tensor: fpn_out.1.0.1.bias with infinite or undefined values.": {
        "decoder": add(fpn_out__1__0__1__bias=torch.full((8,), torch.nan))
    },
    "encoder_epoch_3.pth is not a plain ResNet: ": {
        "encoder": add(layer1__0__conv2__weight=torch.ones(2, 1, 3, 3))
    },
    "encoder_epoch_3.pth has 2-2-2-3 basic blocks; of ResNets, 18, ": {
        "encoder": add(layer4__2__conv1__weight=torch.ones(1))
    },
    "decoder_epoch_3.pth lacks tensors: conv_fusion.0.weight, conv_fusion.1.weight": {
        "decoder": remove("conv_fusion.0.weight", "conv_fusion.1.weight")
    },
}


@pytest.mark.parametrize("words", TENSOR_FAULTS)
def test_tensors_that_do_not_fit_are_named(words, publish_upernet, convert):
    done = convert(upernet, publish_upernet(**TENSOR_FAULTS[words]))
    assert done.code == 2
    assert words in done.err


def test_ignore(publish_upernet, convert):
    source = publish_upernet(
        encoder=add(aux__weight=torch.ones(1)), decoder=add(aux__bias=torch.ones(1))
    )
    assert "--ignore=REGEX" in convert(upernet, source).err
    done = convert(upernet, source, "--ignore=^aux")
    assert done.code == 0, done.err
    assert "ignored 2 tensors: aux.weight, aux.bias" in done.out


LABEL_FAULTS = {
    "labels.json is not valid JSON": b"{",
    "labels.json is not valid JSON: 'utf-8'": b'{"object": "\xff"}',
    "the key 'wall' appears twice": b'{"object_part": {"wall": [], "wall": []}}',
    "labels.json is not valid JSON: maximum": b"[" * 100_000,
    "bytes, too many for labels": b" " * (1 << 21),
    "labels.json is [], not an object": b"[]",
    "labels.json names 4 objects, the network has 3": {
        "object": ["-", "wall", "cat", "dog"]
    },
    "labels.json names 3 parts, the network has 7": {
        "object_part": {"wall": ["-", "door", "tail"]}
    },
    "labels.json names 3 scenes, the network has 4": {"scene": ["a", "b", "c"]},
    "labels.json: object_part has 'dog', not an object": {
        "object_part": {"dog": ["-"]}
    },
}


@pytest.mark.parametrize("words", LABEL_FAULTS)
def test_labels_that_do_not_fit(words, publish_upernet, convert):
    source, change = publish_upernet(), LABEL_FAULTS[words]
    if isinstance(change, dict):
        change = json.dumps({**UPERNET_LABELS, **change}).encode()
    (source / "labels.json").write_bytes(change)
    done = convert(upernet, source)
    assert done.code == 2
    assert words in done.err


def test_an_unknown_category(publish_color, convert):
    source = publish_color()
    path = source / "labels.json"
    path.write_text(path.read_text().replace('"category": "color"', '"category": "x"'))
    done = convert(color, source)
    assert done.code == 2
    assert "labels.json: label 0 '-' has unknown category 'x'" in done.err


def test_other_networks_are_refused(
    publish_upernet, publish_color, draw_state, convert, tmp_path
):
    source = publish_upernet()
    done = convert(color, source)
    assert (done.code, "Use converters.upernet for it." in done.err) == (2, True)
    encoder, decoder = (source / f"{p}coder_epoch_3.pth" for p in ("en", "de"))
    encoder.rename(source / "other")
    decoder.rename(encoder)
    (source / "other").rename(decoder)
    done = convert(upernet, source)
    assert "is not an encoder but a decoder; were the two files swapped?" in done.err
    torch.save(torch.load(decoder, weights_only=True), encoder)
    done = convert(upernet, source)
    assert "is an encoder, not a decoder; were the two files swapped?" in done.err
    torch.save({"weight": torch.ones(2)}, decoder)
    done = convert(color, source)
    assert "is not the decoder that converters.color reads" in done.err
    torch.save(draw_state(ResNet(18, width=4, classes=5)), encoder)
    done = convert(upernet, source)
    assert "it lacks conv3, the third convolution of a deep stem" in done.err
    assert "converters.resnet" in done.err
    torch.save({"weight": torch.ones(2)}, encoder)
    done = convert(upernet, source)
    assert "is not an encoder: it lacks blocks of layer1" in done.err
    source = publish_color()
    done = convert(upernet, source)
    assert (done.code, "Use converters.color for it." in done.err) == (2, True)
    done = convert(resnet, source / "encoder_epoch_3.pth")
    assert done.code == 2
    assert "deep stem" in done.err
    assert "use converters.upernet or converters.color" in done.err


def test_files_that_are_no_checkpoints(publish_upernet, convert):
    source = publish_upernet()
    path = source / "decoder_epoch_3.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = convert(upernet, source)
    assert (done.code, f"checkpoint {path} " in done.err) == (2, True)
    path.unlink()
    done = convert(upernet, source, "--epoch=3")
    assert "lacks decoder_epoch_3.pth\n(it holds encoder_epoch_3.pth, " in done.err
    done = convert(upernet, source / "labels.json")
    assert "labels.json is a file; give a folder with encoder_epoch_N" in done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--checkpoint=FOLDER_OR_ADDRESS and --output=DIR are required"),
        (["--epoch=-1"], "epoch"),
        (["--epoch=last"], "epoch"),
        (["--checkpoint=ftp://x/y", "--output=b"], "must begin with http"),
    ],
)
@pytest.mark.parametrize("converter", [upernet, color])
def test_bad_flags_are_one_line(converter, flags, words, capsys):
    assert converter.main(["convert", *flags]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_help(capsys):
    assert color.main(["convert", "--help"]) == 0
    text = capsys.readouterr().out
    for words in (
        "dissect.csail.mit.edu",
        "--epoch",
        "default: the folder's last, or 20",
    ):
        assert words in " ".join(text.split())


@pytest.fixture
def folders(publish_upernet, publish_color, small_resnet, convert, tmp_path):
    """A converted checkpoint of each kind."""
    made = types.SimpleNamespace()
    for name, converter, source in (
        ("upernet", upernet, publish_upernet),
        ("color", color, publish_color),
        ("classifier", resnet, lambda: small_resnet),
    ):
        done = convert(converter, source(), output=tmp_path / "made" / name)
        assert done.code == 0, done.err
        setattr(made, name, done.folder)
    return made


def test_one_kind_given_as_another(folders):
    load, load_classifier = networks.load_segmenter, networks.load_classifier
    for call, words in (
        (lambda: load(folders.classifier), "holds a classifier, not a segmenter"),
        (lambda: load_classifier(folders.upernet), "holds a segmenter, not a class"),
        (lambda: load(folders.upernet, "ppm"), "holds a upernet, not a ppm"),
        (lambda: load(folders.color, "upernet"), "holds a ppm, not a upernet"),
    ):
        with pytest.raises(UserError, match=words) as error:
            call()
        assert len(str(error.value).splitlines()) == 1


def test_descriptions_that_do_not_fit(folders):
    path = folders.upernet / "model.json"
    sound = json.loads(path.read_text())
    labels, architecture = sound["labels"], sound["architecture"]
    for changes, words in (
        ({"labels": {}}, "lacks 'object'"),
        ({"labels": 3}, "not an object"),
        ({"labels": {**labels, "scene": ["a"]}}, "names 1 scenes, the network has 4"),
        ({"architecture": {**architecture, "depth": 51}}, "51"),
        ({"architecture": {**architecture, "pools": 3}}, "pools"),
        ({"architecture": {"name": "resnet18"}}, "a resnet18 is no segmenter"),
        ({"kind": "classifier"}, "a upernet is no classifier"),
    ):
        path.write_text(json.dumps({**sound, **changes}))
        load = networks.load_segmenter
        if "kind" in changes:
            load = networks.load_classifier
        with pytest.raises(UserError, match=words) as error:
            assert load(folders.upernet).params  # what makes a segmenter read weights
        first, second = str(error.value).splitlines()
        assert first == f"{path} is damaged; convert the checkpoint again"
