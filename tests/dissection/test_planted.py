"""Units that are known to detect something are found to, with the IoU by hand.

A ResNet-18 whose residual branches are zero and whose shortcuts hand their channels on
carries what its stem sees to layer4: unit k is there what the stem makes of the pixels
at every 32nd row and column. So its detectors can be planted.
"""

import numpy as np
import pytest
from PIL import Image

from jdissect import main, models
from jdissect.checkpoints import networks
from jdissect.models.preprocess import IMAGENET
from jdissect.results.load_layer import load
from jdissect.runtime import command_line

IMAGES, SIDE, GRID = 200, 64, 8
# unit: (weights of red, green, blue in 0..1, bias); it is relu(weights @ rgb + bias)
PLANTED = {
    3: ((1, -0.5, -0.5), -0.25),  # red
    17: ((-0.5, -0.5, 1), -0.25),  # blue
    29: ((-0.5, 1, -0.5), -0.25),  # green
}
LABELS = [  # (name, category), numbered from 1
    ("ball", "object"),
    ("sky", "object"),
    ("grass", "object"),
    ("cloth", "material"),
    ("red", "color"),
]
BALL, SKY, GRASS, CLOTH, RED = range(1, 6)


def planted_parameters(architecture):
    """All that is not planted is zero, or 1 where something is divided by it."""
    shapes = models.shapes(models.build_abstract(**architecture))
    values = {
        name: np.full(shape, name.endswith((".var", ".scale")), np.float32)
        for name, shape in shapes.items()
    }
    for name, array in values.items():
        if name.endswith("shortcut.conv.kernel"):
            np.fill_diagonal(array[0, 0], 1)
    mean, std = (np.array(v, np.float32) for v in (IMAGENET.mean, IMAGENET.std))
    for unit, (weights, bias) in PLANTED.items():
        values["stem.conv.kernel"][3, 3, :, unit] = weights * std
        values["stem.norm.bias"][unit] = bias + np.dot(weights, mean)
    return values


def pictures():
    """Pixels and masks {category: numbers} of the images that are not plain grey."""
    pixels, masks = {}, {}

    def flat(index, color, width=SIDE):
        pixels[index] = np.full((SIDE, SIDE, 3), 128, np.uint8)
        pixels[index][:, :width] = color

    def mark(index, category, number, rows=GRID, columns=GRID):
        mask = masks.setdefault(index, {})
        mask = mask.setdefault(category, np.zeros((GRID, GRID), int))
        mask[:rows, :columns] = number

    # Red: images 10 and 20 as a whole, 128 pixels, just the quantile's 1 %.
    flat(10, (255, 0, 0))
    flat(20, (255, 0, 0))
    mark(10, "object", BALL, columns=4)
    mark(20, "object", BALL)
    mark(30, "object", BALL)
    mark(10, "color", RED)
    mark(20, "color", RED, rows=6)
    # Blue: likewise 40 and 50.
    flat(40, (0, 0, 255))
    flat(50, (0, 0, 255))
    mark(40, "object", SKY)
    mark(50, "object", SKY, rows=4)
    mark(60, "object", SKY)
    mark(61, "object", SKY)
    # No other image is annotated for materials, and none counts: not the unit's
    # pixels of image 50.
    mark(40, "material", CLOTH, columns=2)
    # Green on the left: of layer4's two columns the first is v and the second 0. Mask
    # column j is at (j + 1/2) / 4 - 1/2 there, above 0 and below 1 for j = 0 .. 5.
    flat(70, (0, 255, 0), width=28)
    flat(80, (0, 255, 0), width=28)
    mark(70, "object", GRASS, columns=4)
    mark(80, "object", GRASS, columns=4)
    return pixels, masks


# unit: its concept, IoU, and the IoUs of others
EXPECTED = {
    3: (("red", "color"), (64 + 48) / 128, {("ball", "object"): (32 + 64) / 192}),
    17: (("sky", "object"), (64 + 32) / 256, {("cloth", "material"): 16 / 64}),
    29: (("grass", "object"), 64 / 96, {}),
}


@pytest.fixture
def broden(tmp_path):
    """The pictures as a Broden folder."""
    root = tmp_path / "broden"
    (root / "images").mkdir(parents=True)
    pixels, masks = pictures()
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    categories = ("object", "material", "color")
    rows = [f"image,split,ih,iw,sh,sw,{','.join(categories)}"]
    for index in range(IMAGES):
        Image.fromarray(pixels.get(index, grey)).save(root / f"images/{index}.png")
        row = [f"{index}.png", "train", SIDE, SIDE, GRID, GRID]
        for category in categories:
            mask = masks.get(index, {}).get(category)
            if mask is None:
                row.append("")
                continue
            coded = np.stack([mask, 0 * mask, 0 * mask], -1).astype(np.uint8)
            Image.fromarray(coded).save(root / f"images/{index}_{category}.png")
            row.append(f"{index}_{category}.png")
        rows.append(",".join(map(str, row)))
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    lines = ["number,name,category,frequency,coverage,syns"]
    lines += [
        f"{number},{name},{category}(1),1,1.0,"
        for number, (name, category) in enumerate(LABELS, 1)
    ]
    (root / "label.csv").write_text("\n".join(lines) + "\n")
    table = ["name,first,last,count,frequency"]
    for category in categories:
        numbers = [n for n, (_, c) in enumerate(LABELS, 1) if c == category]
        table.append(f"{category},{numbers[0]},{numbers[-1]},{len(numbers)},1")
        codes = ["code,number,name,frequency,coverage"]
        codes += [
            f"{code},{number},{LABELS[number - 1][0]},1,1.0"
            for code, number in enumerate(numbers, 1)
        ]
        (root / f"c_{category}.csv").write_text("\n".join(codes) + "\n")
    (root / "category.csv").write_text("\n".join(table) + "\n")
    return root


@pytest.mark.slow
def test_planted_units_are_named(broden, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    architecture = {"name": "resnet18", "width": 32, "classes": 2}
    description = networks.describe_classifier(architecture, IMAGENET)
    folder = tmp_path / "planted"
    networks.save(folder, planted_parameters(architecture), description)
    code = command_line.entry(
        main.main,
        [
            "main",
            "--config=configs/baseline.py:imagenet",
            "--config.model.name=resnet18",
            f"--config.model.weights={folder}",
            "--config.data.source=broden",
            f"--config.data.path={broden}",
            "--config.data.split=",
            "--config.segmenter.name=annotations",
            f"--workdir={tmp_path / 'run'}",
        ],
    )
    assert code == 0
    result = load(tmp_path / "run" / "layer4")
    identities = list(zip(result.concepts, result.categories, strict=True))
    for unit, (concept, iou, others) in EXPECTED.items():
        assert identities[result.best_concept[unit]] == concept
        assert result.best_iou[unit] == pytest.approx(iou, abs=1e-12)
        assert result.thresholds[unit] == 0
        for other, value in others.items():
            found = result.iou[unit, identities.index(other)]
            assert found == pytest.approx(value, abs=1e-7)
    # No other unit ever fires.
    silent = np.delete(result.best_concept, list(EXPECTED))
    assert (silent == -1).all()
    assert result.unique_concepts(0.3)["total"] == 3
