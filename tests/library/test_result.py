"""A result in a notebook: what it prints, shows, draws, and gives as tables."""

import base64
import csv
import io
import json
import re
import sys
from html import unescape

import numpy as np
import pytest
from PIL import Image

import jdissect
from jdissect.data.source import UnreadableImage
from jdissect.library.pictures import Keeper, as_picture
from jdissect.library.result import with_pictures
from jdissect.report.figures.detector_pictures import masked
from jdissect.report.top_masks import top_masks
from tests import small_runs
from tests.report import known
from tests.report.synthetic import HOSTILE, NoiseSource

SOURCE = NoiseSource(64)


@pytest.fixture(scope="module")
def result():
    return with_pictures(small_runs.result(), SOURCE)


def pictures_of(html: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([^']+)'", html)
    files = [io.BytesIO(base64.b64decode(text)) for text in found]
    return [np.asarray(Image.open(file)) for file in files]


def test_what_is_printed_is_short(result):
    lines = repr(result).splitlines()
    assert lines[0] == "<Result: layer4 of resnet50, 30 units, 64 images"
    detectors = int((result.best_iou > 0.04).sum())
    total = result.unique_concepts(0.04)["total"]
    expected = f"  {total} unique concepts, {detectors} detectors at IoU > 0.04"
    assert lines[2] == expected and len(lines) == 4
    plain = repr(small_runs.result())
    assert plain == repr(result)


def test_html_shows_counts_and_the_best_units(result):
    html = result._repr_html_()
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", html)
    counts = list(map(str, result.unique_concepts(0.04).values()))
    start = cells.index("0.04")
    assert cells[start + 1 : start + 2 + len(counts)] == ["unique concepts", *counts]
    best = int(result.best_iou.argmax())
    start = cells.index("fires in") + 1
    concept = result.concepts[result.best_concept[best]]
    assert cells[start : start + 2] == [str(best), concept]
    assert cells[start + 3] == f"{result.best_iou[best]:.3f}"
    # Six units of five images, as small as a notebook needs them.
    found = pictures_of(html)
    assert len(found) == 30 and len(html) < 200_000
    # The first is the best unit's first image, dark where the unit does not fire.
    pixels = SOURCE.read(int(result.top_image[best, 0])).pixels
    small = np.asarray(Image.fromarray(pixels).resize((96, 96)))
    expected = masked(small, top_masks(result, [best])[0, 0])
    assert np.abs(found[0].astype(int) - expected).mean() < 12
    assert np.abs(found[0].astype(int) - small).mean() > 30


def test_names_do_no_harm():
    concepts = tuple((name, "object") for name in HOSTILE)
    hostile = small_runs.result(concepts=concepts, layer=HOSTILE[0])
    html = with_pictures(hostile, SOURCE)._repr_html_()
    assert "<script" not in html and "<img src=x" not in html
    assert "&lt;/script&gt;" in html
    assert len(repr(hostile.replace(layer="a\nb\x1b[31m")).splitlines()) == 4


def test_what_other_commands_found(tmp_path):
    """Formulas, chance, labels and scores of a run are in its tables and figures."""
    concepts = tuple((name, "object") for name in HOSTILE)
    plain = small_runs.result(concepts=concepts)
    folder = small_runs.write(tmp_path / "run", plain)
    found = known.write(folder / "layer4", plain)
    both = jdissect.load(folder)["layer4"], jdissect.load(folder / "layer4")
    best = int(plain.best_iou.argmax())
    formula = found.formulas.formulas[best]
    for loaded in both:
        html = loaded._repr_html_()
        assert "<script" not in html and "<img src=x" not in html
        cells = [
            unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", html)
        ]
        start = cells.index(str(best), cells.index("verified"))
        assert cells[start + 4] == f"{formula}, {found.formulas.iou[best]:.3f}"
        assert ("not above chance" in cells[start + 5]) == (best % 2 == 1)
        count = found.chance.detectors(0.04)
        assert f"by chance alone {count.mean:.1f} (95 %: at most {count.high})" in html
    table = both[0].to_pandas(more=True)
    assert table["formula"][best] == formula and len(table) == 30
    np.testing.assert_array_equal(table["mcc"], plain.scores()["mcc"])
    own = found.measured.pearson[best, plain.best_concept[best]]
    assert table["pearson"][best] == pytest.approx(own)
    assert list(both[0].to_pandas()) == list(table)[:5]
    figure = with_pictures(plain, SOURCE, found).show(best)
    shown = " ".join(text.get_text() for text in figure.texts)
    assert " · p 0." in shown


def test_without_pictures(result):
    alone = result.replace(pictures=None)
    assert pictures_of(alone._repr_html_()) == []
    assert "fires in" not in alone._repr_html_()
    with pytest.raises(jdissect.UserError, match="there are no pictures to show"):
        alone.show(3)


def test_images_that_were_not_kept_are_left_out(result):
    some = with_pictures(result, NoiseSource(64, unreadable=tuple(range(60))))
    shown = len(pictures_of(some._repr_html_()))
    assert 0 <= shown < 30


def test_pandas(result, tmp_path):
    pytest.importorskip("pandas")
    table = result.to_pandas()
    result.save(tmp_path / "saved")
    with (tmp_path / "saved" / "units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(table.columns) == ["unit", "concept", "category", "iou", "threshold"]
    assert table["unit"].tolist() == [int(row["unit"]) for row in rows]
    assert table["concept"].tolist() == [row["concept"] for row in rows]
    assert table["iou"].tolist() == [float(row["iou"]) for row in rows]
    thresholds = [float(row["threshold"]) for row in rows]
    assert table["threshold"].tolist() == thresholds
    detecting = table[table.iou > 0.04].groupby("category").concept.nunique()
    counts = result.unique_concepts(0.04)
    assert detecting.to_dict() == {k: counts[k] for k in detecting.index}
    silent = result.replace(fires=np.zeros_like(result.fires)).to_pandas()
    assert silent["concept"].isna().all() and (silent["iou"] == 0).all()


def test_xarray(result):
    pytest.importorskip("xarray")
    data = result.to_xarray()
    assert data.attrs == {
        "model": "resnet50",
        "layer": "layer4",
        "images": 64,
        "quantile": 0.01,
    }
    chosen = data["intersection"].sel(unit=7, concept="thing 3")
    assert int(chosen) == result.intersection[7, result.concepts.index("thing 3")]
    by_category = data["iou"].groupby("category").max()
    expected = result.iou[:, np.array(result.categories) == "color"].max(axis=1)
    found = by_category.sel(category="color").values
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["pandas", "xarray"])
def test_what_is_not_installed_is_named(result, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(jdissect.UserError, match=f"^{name} is not installed: pip"):
        getattr(result, f"to_{name}")()


def test_figures(result):
    figure = result.plot()
    heights = [text.get_text() for axes in figure.axes for text in axes.texts]
    for threshold in result.iou_thresholds:
        assert str(result.unique_concepts(threshold)["total"]) in heights
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure = result.show([3, 5])
    assert len(figure.axes) == 10
    drawn = figure.axes[0].images[0].get_array()
    pixels = SOURCE.read(int(result.top_image[3, 0])).pixels
    np.testing.assert_array_equal(drawn, masked(pixels, top_masks(result, [3])[0, 0]))
    assert len(result.show(np.int64(3)).axes) == 5


def test_both_tails(result):
    both = result.replace(tail="both")
    assert len(both.show("3-").axes) == 5
    drawn = both.show("3-").axes[0].images[0].get_array()
    np.testing.assert_array_equal(drawn, result.show(7).axes[0].images[0].get_array())
    assert both.to_xarray()["unit"].values.tolist()[:2] == ["0+", "0-"]
    np.testing.assert_array_equal(
        both.to_xarray()["top_value"][:2], result.top_value[:2] * [[1], [-1]]
    )
    best = int(both.best_iou.argmax())
    assert f">{both.unit_names[best]}</td>" in both._repr_html_()
    with pytest.raises(jdissect.UserError, match="unit 3; units are 0[+] to 14-"):
        both.show(3)


@pytest.mark.usefixtures("types_unchecked")
def test_units_that_are_not_there(result):
    for unit in (30, -1, [2, 30], "x", 2.5):
        with pytest.raises(jdissect.UserError, match="there is no unit .*0 to 29"):
            result.show(unit)
    with pytest.raises(jdissect.UserError, match="unit is empty"):
        result.show([])


def test_a_page(result, tmp_path):
    path = result.report(tmp_path / "page.html")
    text = path.read_text()
    assert "layer4" in text and "photographs/" in text and "image/webp" in text
    with pytest.raises(OSError):
        result.report(tmp_path / "missing" / "page.html")


def test_pictures_are_kept_while_images_are_read():
    keeper = Keeper()
    images = np.stack([SOURCE.read(index).pixels for index in range(4)])
    keeper.add([0, 1], images[:2])
    keeper.add([2, 3, -1], np.pad(images[2:], [(0, 1)] + [(0, 0)] * 3))
    kept = keeper.kept([np.array([[3, 1]])], ["a", "b", "c", "d"])
    assert kept is not None and kept.image_shape == (112, 112)
    found = kept.read(3).pixels.astype(int)
    assert np.abs(found - images[3]).mean() < 12
    with pytest.raises(UnreadableImage, match="c: not kept"):
        kept.read(2)
    assert Keeper().kept([np.array([[0]])], []) is None


def test_what_networks_take_as_pictures():
    pixels = SOURCE.read(0).pixels
    first = np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(as_picture(first), pixels)
    unit = as_picture(first / np.float32(255), (0.0, 1.0))
    np.testing.assert_array_equal(unit, pixels)
    gray = as_picture(pixels[..., 0])
    np.testing.assert_array_equal(gray[..., 2], pixels[..., 0])
    normalized = as_picture((pixels / 255 - 0.45) / 0.22)
    assert normalized.min() == 0 and normalized.max() == 255
    assert as_picture(np.zeros((4, 4, 24))) is None
    assert as_picture(np.full((4, 4), np.nan)).shape == (4, 4, 3)


@pytest.fixture
def run(tmp_path):
    """A finished run on two drawn photographs."""
    import hashlib

    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(2):
        Image.fromarray(SOURCE.read(index).pixels).save(photos / f"{index}.png")
    folder = tmp_path / "run"
    plain = small_runs.result(images=2)
    for layer in ("layer3", "layer4"):
        plain.replace(layer=layer).save(folder / layer)
    data = {"source": "folder", "path": str(photos)}
    config = {"data": data, "segmenter": {"name": "colornames"}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = ["index,name,block,skipped,sha256"]
    for index in range(2):
        digest = hashlib.sha256((photos / f"{index}.png").read_bytes()).hexdigest()
        lines.append(f"{index},{index}.png,0,0,{digest}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    summary = {
        "format_version": 1,
        "status": "finished",
        "layers": ["layer3", "layer4"],
        "images": 2,
        "identity": {},
        "seconds": {},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_stored_run_shows_its_images(run):
    found = jdissect.load(run)
    assert list(found) == ["layer3", "layer4"]
    assert len(pictures_of(found["layer4"]._repr_html_())) == 12
    alone = jdissect.load(run / "layer4")
    assert isinstance(alone, jdissect.Result)
    assert len(alone.show(0).axes) == 2
    assert alone.pictures.names == ("0.png", "1.png")


def test_a_stored_run_does_not_show_other_images(run, tmp_path):
    photos = tmp_path / "photos"
    Image.new("RGB", (112, 112)).save(photos / "1.png")
    result = jdissect.load(run)["layer4"]
    assert len(pictures_of(result._repr_html_())) == 6
    photos.rename(tmp_path / "moved")
    moved = jdissect.load(run / "layer4")
    with pytest.raises(jdissect.UserError, match="no pictures to show: folder .* does"):
        moved.show(0)
    assert pictures_of(moved._repr_html_()) == []
    there = jdissect.load(run, data_path=tmp_path / "moved")["layer3"]
    assert len(pictures_of(there._repr_html_())) == 6
