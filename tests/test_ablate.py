"""Units zeroed from the command line: python -m jdissect.ablate"""

import contextlib
import csv
import functools
import io
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdissect import ablate, evaluate, models
from jdissect.ablation import run as ablation
from jdissect.ablation import unit_selection
from jdissect.ablation.forward_passes import ForwardPasses
from jdissect.ablation.interventions import outcomes, zeroing
from jdissect.base.identity import digest
from jdissect.checkpoints import graphs, networks
from jdissect.checkpoints.networks import model_identity
from jdissect.datasets.labelled import open_labelled
from jdissect.models.preprocess import IMAGENET, normalize
from jdissect.runtime import command_line
from jdissect.scenes import open_scenes
from tests import small_runs
from tests.compiling import QUICKLY
from tests.small_segmenters import draw

IMAGES = 64
ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND = [
    f"--config={ROOT / 'configs' / 'mixup.py'}",
    f"--config.data.num_images={IMAGES}",
    "--config.data.batch_size=16",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Where no default run lies."""
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def model():
    return networks.load_classifier("shipped:mixup")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A run that says of the shipped network what is drawn at random."""
    hostile = (("=1+1", "object"), *small_runs.CONCEPTS[1:])
    result = small_runs.result(5, units=384, concepts=hostile)
    identity = {"model": digest(model_identity(model))}
    root = tmp_path_factory.mktemp("runs") / "mixup"
    return small_runs.write(root, result, identity=identity), result


@pytest.fixture(scope="module")
def logits_of(model):
    """Logits of the probe scenes with units of a layer zeroed, one image at a time."""
    source = open_scenes("probe", IMAGES)
    pixels = np.stack([source.read(i).pixels for i in range(IMAGES)])

    @jax.jit
    def run(pixels, masks):
        images = normalize(pixels, model.preprocessing)
        return model.apply(model.params, images, (), masks)[0]

    def logits(layer, units, zeroed):
        mask = np.ones(units, np.float32)
        mask[zeroed] = 0
        return np.asarray(run(pixels, {layer: mask}))

    return logits, source.labels


def run(capsys, *arguments, entry=ablate):
    code = command_line.entry(entry.main, ["ablate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """The tables of one ablation; (output folder, standard output)."""
    output, printed = tmp_path_factory.mktemp("ablation") / "out", io.StringIO()
    arguments = [f"--run={folder[0]}", "--units=top:40", f"--output={output}"]
    with contextlib.redirect_stdout(printed):
        code = command_line.entry(ablate.main, ["ablate", *COMMAND, *arguments])
    assert code == 0
    return output, printed.getvalue()


def test_accuracy_as_the_masked_network_has_it(written, folder, logits_of):
    found = json.loads((written[0] / "ablation.json").read_text())
    best = np.argsort(-folder[1].best_iou, kind="stable")[:40]
    assert found["units"] == sorted(best.tolist()) and found["images"] == IMAGES
    logits, labels = logits_of
    before = logits("layer4", 384, []).argmax(axis=1) == labels
    after = logits("layer4", 384, best).argmax(axis=1) == labels
    assert found["top1_before"] == pytest.approx(100 * before.mean(), abs=1e-4)
    assert found["top1_after"] == pytest.approx(100 * after.mean(), abs=1e-4)
    assert found["images_lost"] == (before & ~after).sum() > 0
    assert found["forward_passes"] == 1
    assert found["run"] == "mixup"  # not where it lies on this machine
    low, high = found["change_interval"]
    assert low <= found["change"] <= high and low < high
    for row in table(written[0] / "by_class.csv"):
        images = np.array([name == row["class"] for name in names()])[labels]
        assert int(row["images"]) == images.sum()
        for key, right in (("top1_before", before), ("top1_after", after)):
            share = 100 * right[images].mean()
            assert float(row[key]) == pytest.approx(share, abs=1e-4)
        assert float(row["low"]) <= float(row["change"]) <= float(row["high"])
    assert f"{found['top1_after']:.2f} %" in written[1] and "Classes hurt" in written[1]


def names():
    return open_scenes("probe", 1).classes


def test_top1_is_that_of_evaluate(written, tmp_path, capsys):
    output = tmp_path / "errors.json"
    assert run(capsys, *COMMAND, f"--output={output}", entry=evaluate)[0] == 0
    found = json.loads((written[0] / "ablation.json").read_text())
    error = json.loads(output.read_text())["top1_error"]
    assert found["top1_before"] == pytest.approx(100 - error, abs=1e-3)


def test_single_units(written, folder, logits_of):
    rows = table(written[0] / "single_units.csv")
    assert [int(row["unit"]) for row in rows] == list(range(384))
    logits, labels = logits_of
    scores = [np.asarray(jax.nn.log_softmax(logits("layer4", 384, []), axis=1))]
    before = (scores[0].argmax(axis=1) == labels).mean()
    for unit in (0, 95, 383):
        after = np.asarray(jax.nn.log_softmax(logits("layer4", 384, [unit]), axis=1))
        right = (after.argmax(axis=1) == labels).mean()
        assert float(rows[unit]["change"]) == pytest.approx(
            100 * (right - before), abs=1e-3
        )
        own = np.arange(IMAGES), labels
        added = scores[0][own].mean() - after[own].mean()
        assert float(rows[unit]["loss_change"]) == pytest.approx(added, abs=1e-5)
    result = folder[1]
    for row in rows:
        name = result.concepts[result.best_concept[int(row["unit"])]]
        assert row["concept"].removeprefix("'") == name
        assert not row["concept"].startswith("=")
    assert any(row["concept"] == "'=1+1" for row in rows)


def test_units_by_class(written, logits_of):
    rows = table(written[0] / "units_by_class.csv")
    assert len(rows) == 10 * 16
    first = next(row for row in rows if row["class"] == "garden")
    logits, labels = logits_of
    images = labels == list(names()).index("garden")

    def right(unit):
        after = logits("layer4", 384, [unit])[images]
        return (after.argmax(axis=1) == labels[images]).mean()

    before = (logits("layer4", 384, [])[images].argmax(1) == labels[images]).mean()
    strongest = right(int(first["unit"]))
    assert float(first["change"]) == pytest.approx(100 * (strongest - before), abs=1e-3)
    assert all(strongest <= right(unit) for unit in (1, 50, 100, 200, 300))


def test_interpretable_against_others(written, folder):
    found = json.loads((written[0] / "ablation.json").read_text())["interpretable"]
    detectors = int(folder[1].detectors(0.04).sum())
    assert 0 < detectors < 384 and found["iou_threshold"] == 0.04
    assert [one["units"] for one in found["whole"]] == [detectors, 384 - detectors]
    size = min(detectors, 384 - detectors)
    assert {one["units"] for one in found["equal"]} == {size}
    assert sorted(one["draws"] for one in found["equal"]) == [1, 200, 200]
    low, high = found["difference_interval"]
    detector, other, _ = (one["top1"] for one in found["equal"])
    assert found["difference"] == pytest.approx(detector - other, abs=1e-3)
    assert low <= found["difference"] <= high
    assert "Interpretable (IoU > 0.04)" in written[1]


@pytest.mark.slow
def test_a_seed_is_a_result(folder, tmp_path, capsys):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        output = tmp_path / str(number)
        arguments = [*COMMAND, f"--run={folder[0]}", "--units=1,2", f"--seed={seed}"]
        code, _, error = run(
            capsys, *arguments, "--config.data.num_images=32", f"--output={output}"
        )
        assert code == 0, error
        found.append(json.loads((output / "ablation.json").read_text()))
    assert found[0] == found[1]
    same = {"seed": 1, "interpretable": None, "change_interval": None}
    assert found[0] != found[2] and {**found[0], **same} == {**found[2], **same}


@pytest.mark.slow
def test_a_layer_that_others_follow(tmp_path, capsys, logits_of):
    """Without a dissection, too; every set of units is a pass of its own."""
    output = tmp_path / "out"
    code, text, error = run(
        capsys,
        *COMMAND,
        "--config.data.num_images=40",  # not a multiple of a batch
        "--layer=layer3",
        "--units=14,3",
        f"--output={output}",
    )
    assert code == 0, error
    found = json.loads((output / "ablation.json").read_text())
    assert found["units"] == [3, 14] and found["forward_passes"] == 4
    assert found["interpretable"] is None and "without a dissection" in text
    logits, labels = logits_of

    def right(zeroed):
        return (logits("layer3", 192, zeroed).argmax(1) == labels)[:40].mean()

    assert found["top1_before"] == pytest.approx(100 * right([]), abs=1e-3)
    assert found["top1_after"] == pytest.approx(100 * right([3, 14]), abs=1e-3)
    rows = table(output / "single_units.csv")
    assert [row["unit"] for row in rows] == ["3", "14"]
    for row in rows:
        change = 100 * (right([int(row["unit"])]) - right([]))
        assert float(row["change"]) == pytest.approx(change, abs=1e-3)


@pytest.mark.slow
def test_interpretable_units_of_a_layer_that_others_follow(model, tmp_path, capsys):
    result = small_runs.result(5, units=192, layer="layer3")
    identity = {"model": digest(model_identity(model))}
    folder = small_runs.write(tmp_path / "run", result, identity=identity)
    code, text, error = run(
        capsys,
        *COMMAND,
        "--config.data.num_images=16",
        f"--run={folder}",
        "--units=top:1",
        "--draws=3",
    )
    assert code == 0, error
    # All units, those of the choice, two groups, 1 + 3 + 3 draws, and a single unit.
    assert "12 forward passes" in text and "any units" in text
    assert "mean loss" not in text


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", {"layer4.1", "layer4"}),
        ("resnet50", {"layer4.2", "layer4"}),
        ("efficientnet_lite0", {"head"}),
    ],
)
def test_layers_that_only_the_mean_and_the_classifier_follow(name, last):
    names = models.build_abstract(name).endpoint_names
    assert {layer for layer in names if ablation.is_last(layer, names)} == last


@pytest.mark.parametrize(
    "architecture, side",
    [
        ({"name": "resnet18", "width": 8, "classes": 5}, 64),
        pytest.param(
            *({"name": "resnet50", "width": 4, "classes": 5, "last_stride": 1}, 64),
            marks=pytest.mark.slow,
        ),
        ({"name": "efficientnet_lite0", "classes": 5}, 32),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_one_pass_says_what_masked_passes_say(architecture, side):
    """For every classifier, of its last layer: logits to float rounding."""
    values = draw(architecture, 0)
    apply, params = models.for_inference(architecture, values)
    last = models.build_abstract(**architecture).endpoint_names[-1]
    pixels = jnp.asarray(np.random.default_rng(0).normal(size=(4, side, side, 3)), "f4")

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def plain(params):
        logits, maps = apply(params, pixels)
        return logits, maps[last].mean(axis=(1, 2))

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def masked(params, mask):
        return apply(params, pixels, (), {last: mask})[0]

    logits, pooled = map(np.asarray, plain(params))
    kernel, bias = values["fc.kernel"], values["fc.bias"]
    order = np.argsort(-np.abs(pooled).sum(axis=0))  # some units never fire
    for zeroed in (order[:1], order[5:8], order[::2]):
        mask = zeroing(len(kernel), zeroed)
        honest = np.asarray(masked(params, mask))
        scale = np.abs(pooled) @ np.abs(kernel)
        for found in (
            (pooled * mask) @ kernel + bias,
            logits - pooled[:, zeroed] @ kernel[zeroed],
        ):
            assert (np.abs(found - honest) / scale).max() < 1e-5
        assert np.abs(honest - logits).max() > 1e-3


@pytest.mark.slow
def test_both_ways_of_the_same_ablation(model):
    """`ForwardPasses.masked` of the last layer against `interventions.outcomes`."""
    config = command_line.parse(
        command_line.define(["x", *COMMAND], {}, {}), ["x", *COMMAND]
    )
    config.data.num_images = 24
    passes = ForwardPasses(model, open_labelled(config.data, "probe", 24), config)
    assert passes.units("layer4") == 384 and passes.units("stem") == 12
    rng = np.random.default_rng(0)
    sets = [[], [3], rng.permutation(384)[:60], rng.permutation(384)[:200]]
    masks = np.stack([zeroing(384, zeroed) for zeroed in sets])
    honest, labels = passes.masked("layer4", masks)
    readout = passes.readout()
    np.testing.assert_array_equal(readout.labels, labels)
    found = outcomes(readout, masks)
    np.testing.assert_allclose(
        found.log_probability, honest.log_probability, rtol=1e-4, atol=1e-5
    )
    assert (found.right == honest.right).mean() > 0.98  # ties of logits may differ


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--units is not set"),
        (["--units="], "--units is not set"),
        (["--units=most"], "--units is 'most'; use"),
        (["--units=3,,4"], "--units is '3,,4'"),
        (["--units=-1"], "--units is '-1'"),
        (["--units=top:0"], "--units is 'top:0'"),
        (["--units=detectors:nan"], "--units is 'detectors:nan'"),
        (["--units=4,4"], "names unit 4 twice"),
        (["--units=3,384"], "has 384; layer layer4 has units 0 .. 383"),
        (["--units=top:385"], "layer layer4 has units 0 .. 383"),
        (["--units=detectors:0.99"], "no unit of layer4 has an IoU above 0.99"),
        (["--units=1", "--layer=layer9"], "has no layer 'layer9'; it has layer4"),
        (["--units=1", "--seed=x"], "--seed is 'x'"),
        (["--units=1", "--draws=0"], "--draws is '0'"),
        (["--units=1", "--run=/nowhere"], "/nowhere does not hold a run"),
        (["--units=top:3", "--run="], "needs a dissection"),
        (["--units=1", "--output={file}"], "is a file"),
        (["--units=1", "--config.data.source=broden"], "has no classes"),
        (
            ["--units=1", "--config.model.weights=shipped:cutmix"],
            "is the dissection of another network than shipped:cutmix",
        ),
    ],
)
def test_bad_input(folder, capsys, arguments, message):
    file = folder[0] / "summary.json"
    given = [text.format(file=file) for text in arguments]
    run_flag = [] if any("--run" in text for text in given) else [f"--run={folder[0]}"]
    code, text, error = run(capsys, *COMMAND, *run_flag, *given)
    assert (code, text) == (2, "")
    assert message in error and len(error.splitlines()) == 1


def test_a_default_run_without_the_layer_is_no_help(folder, capsys, monkeypatch):
    """runs/mixup knows layer4 alone; numbers need no dissection, `top:3` does."""
    monkeypatch.chdir(folder[0].parents[1])
    default = f"{folder[0].parent.name}/{folder[0].name}"
    opened = functools.partial(ablation.open_dissection, "", default)
    assert opened(unit_selection.parse("14,3"), "layer3") is None
    assert opened(unit_selection.parse("14,3"), "layer4").name == folder[0].name
    assert opened(unit_selection.parse("top:3"), "layer3") is not None


def test_a_run_of_other_units(model, tmp_path, capsys):
    identity = {"model": digest(model_identity(model))}
    folder = small_runs.write(
        tmp_path / "run", small_runs.result(0, units=30), identity=identity
    )
    code, _, error = run(capsys, *COMMAND, f"--run={folder}", "--units=1")
    assert code == 2 and "has 30 units, but the network's layer4 has 384" in error


def test_planted_unit_of_a_saved_network(class_folders, tmp_path, capsys):
    """A unit of which alone the right class is read: nothing else hurts that class."""
    architecture = {"name": "resnet18", "width": 4, "classes": 3}
    values = draw(architecture, 0)
    values["fc.kernel"] = np.zeros_like(values["fc.kernel"])
    values["fc.kernel"][3, 1] = 1e4
    values["fc.bias"] = np.array([-1, 0, -2], np.float32)
    description = networks.describe_classifier(architecture, IMAGENET)
    networks.save(tmp_path / "weights", values, description)
    output = tmp_path / "out"
    command = [
        f"--config={ROOT / 'configs' / 'mixup.py'}:imagenet",
        "--config.model.name=resnet18",
        f"--config.model.weights={tmp_path / 'weights'}",
        "--config.data.source=folder",
        f"--config.data.path={class_folders / 'validation'}",
        "--config.data.split=",
        "--config.data.batch_size=8",
        "--config.train.image_size=64",
        "--units=3",
    ]
    code, _, error = run(capsys, *command, f"--output={output}")
    assert code == 0, error
    needed = {
        row["class"]: row
        for row in table(output / "units_by_class.csv")
        if row["rank"] == "1"
    }
    assert needed["green"]["unit"] == "3"
    others = [
        float(row["loss_change"])
        for row in table(output / "single_units.csv")
        if row["unit"] != "3"
    ]
    assert max(map(abs, others)) < 1e-6


def test_units_of_a_graph_cannot_be_zeroed(tmp_path, capsys):
    """A network that `converters.torch_module` wrote."""
    signature = graphs.Signature(
        (112, 112, 3), (graphs.Endpoint("1.act", (112, 112, 3), "nhwc"),), 16
    )
    params = {"head": np.ones((3, 16), np.float32)}
    text = graphs.write(
        lambda params, x: ({"1.act": x}, x.mean((1, 2)) @ params["head"]),
        *(params, signature, "float32"),
    )
    architecture, graph = graphs.describe("mine", {"float32": text}, signature)
    description = networks.describe_classifier(architecture, IMAGENET)
    networks.save(
        tmp_path / "net",
        params,
        {**description, "graph": graph},
        tensors=True,
        files=graphs.files({"float32": text}),
    )
    flags = ["--config.model.name=", f"--config.model.weights={tmp_path / 'net'}"]
    code, _, err = run(
        capsys, *COMMAND, *flags, "--config.model.layers=1.act", "--units=0"
    )
    assert code == 2 and "holds a graph, whose units cannot be zeroed" in err
