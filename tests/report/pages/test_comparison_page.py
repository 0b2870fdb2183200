"""The page of a comparison: what it refuses, shares and shows, and in a browser."""

import base64

import numpy as np
import pytest

from jdissect.analysis import comparison
from jdissect.report import probe_images
from jdissect.report.pages import comparison_page
from jdissect.report.pages.comparison_page import ComparedModel
from jdissect.results.finished_run import StoredRun
from tests.report import synthetic
from tests.report.browser import FOCUSED_MASK, overflow, until
from tests.report.pages.test_page import decoded, numbers, read

NAMES = ("baseline", "<img src=x onerror='window.flag = 9'>", "cut\"mix'")
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="90">'
    "<style>* { display: none }</style><script>window.flag = 8</script>"
    "<text y='20'>figure</text></svg>"
)


@pytest.fixture(scope="module")
def models():
    source = synthetic.NoiseSource(50)
    found = []
    for seed, name in enumerate(NAMES):
        result = synthetic.make_result(
            80 - 10 * seed, 40, seed=seed, names=synthetic.HOSTILE
        )
        known = synthetic.make_estimates(result) if seed else None
        error = None if seed == 1 else 20.5 + seed
        found.append(ComparedModel(name, result, known, source, error))
    return found


@pytest.fixture(scope="module")
def path(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison") / "five & more"
    figures = [("Counts <by> category", SVG)]
    return comparison_page.write_comparison(folder, models, figures, ["Mind <this>."])


def levels(result):
    return comparison.levels(result)


def test_numbers_masks_and_thumbnails(models, path):
    blocks = read(path).blocks
    page = blocks["page"]
    assert [model["name"] for model in page["models"]] == list(NAMES)
    assert page["concepts"] == list(models[0].result.concepts)
    shown = set()
    for place, (model, data) in enumerate(zip(models, page["models"], strict=True)):
        result = model.result
        iou = result.intersection / result.union
        iou[result.fires == 0] = 0
        units = numbers(data["conceptUnit"])
        assert units.tolist() == iou.argmax(axis=0).tolist()
        np.testing.assert_allclose(
            numbers(data["conceptIou"]), iou.max(axis=0), rtol=1e-6
        )
        top = numbers(data["topImage"]).reshape(-1, 5)
        places = numbers(data["conceptPlace"])
        for column in (0, 11, 39):
            images = result.top_image[units[column]]
            names = [page["images"][i] for i in top[places[column]]]
            assert names == [f"photographs/{i:05d}.jpg" for i in images]
            shown |= set(result.top_image[units].reshape(-1).tolist())
        masks = comparison_page.masks.encode(result, units[[11]], 5, 10**9)
        expected = decoded(comparison_page.layer_data.mask_arrays(masks), 0, 3)
        block = blocks[f"masks-{place}"]
        np.testing.assert_array_equal(decoded(block, places[11], 3), expected)
    # Networks on the same images share their thumbnails.
    assert len(page["images"]) == len(shown) == len(blocks["pictures-0"])


def test_names_and_figures_run_nothing(path):
    written = read(path)
    assert len(written.scripts) == 1
    assert not [a for a in written.attributes if a[1].startswith("on")]
    images = [a[2] for a in written.attributes if a[0] == "img" and a[1] == "src"]
    head, _, text = images[0].partition(",")
    assert head == "data:image/svg+xml;base64" and len(images) == 1
    assert base64.b64decode(text).decode() == SVG
    assert "Mind <this>." in "".join(written.text)


def test_what_cannot_be_compared(models, tmp_path):
    with pytest.raises(ValueError, match="nothing"):
        comparison_page.write_comparison(tmp_path, [])
    fewer = synthetic.make_result(20, 30)
    with pytest.raises(ValueError, match="and baseline have different concepts"):
        comparison_page.write_comparison(
            tmp_path, [models[0], ComparedModel("b", fewer)]
        )


def test_without_sources(models, tmp_path):
    bare = [ComparedModel(m.name, m.result.replace(top_map=None)) for m in models]
    page = comparison_page.write_comparison(tmp_path, bare, thresholds=(0.2,))
    written = read(page)
    text = "".join(written.text)
    assert "No pictures" in text and "Masks are missing" in text and "IoU > 0.2" in text
    assert written.blocks["page"]["images"][0].startswith("image ")
    alone = comparison_page.write_comparison(tmp_path, bare[:1])
    assert "Gained and lost" not in "".join(read(alone).text)


def test_few_top_images_where_there_is_little_room(models, tmp_path):
    whole = comparison_page.write_comparison(tmp_path, models).stat().st_size
    page = comparison_page.write_comparison(tmp_path, models, limit=whole - 40_000)
    assert page.stat().st_size <= whole - 40_000
    distinct = [
        ComparedModel(
            f"network {n}",
            synthetic.make_result(60, 40, 300, seed=n, distinct=True),
            source=synthetic.NoiseSource(300, side=100 + n),
        )
        for n in range(3)
    ]
    page = comparison_page.write_comparison(tmp_path, distinct, limit=400_000)
    assert page.stat().st_size <= 400_000
    kept = read(page).blocks["page"]["models"]
    assert {model["k"] for model in kept} < {1, 2, 3, 4}


def test_of_a_comparison(models, tmp_path, monkeypatch):
    source = models[0].source
    opened = []

    def open_images(run, data_path):
        opened.append((run.folder, data_path))
        return probe_images.ProbeImages(run, source)

    monkeypatch.setattr(comparison_page, "open_images", open_images)
    runs = [
        StoredRun(
            folder=tmp_path / f"run{n}",
            config={"data": {"source": "folder"}},
            identity={},
            layers=("layer4",),
            images=50,
            names=source.names,
            blocks=np.zeros(50, np.int64),
            skipped=frozenset(),
            seconds={},
            hashes=source.content_hashes(),
        )
        for n in range(3)
    ]
    compared = comparison.Comparison(
        models=tuple(
            comparison.Model(m.name, run, "layer4", m.result, None, m.error)
            for m, run in zip(models, runs, strict=True)
        ),
        thresholds=(0.05,),
        paired=True,
        notes=("A note.",),
    )
    figures = {"One": SVG}
    page = comparison_page.write_of(compared, tmp_path / "out", figures, "there")
    assert opened == [(tmp_path / "run0", "there")]  # once, for all
    text = "".join(read(page).text)
    assert "A note." in text and "IoU > 0.05" in text


def rows(page) -> list[int]:
    return page.eval_on_selector_all(
        "#rows > li", "items => items.map(item => Number(item.dataset.concept))"
    )


def test_the_slider_recounts_every_network(watched, path, models):
    page = watched.open(path)
    for threshold in (0.04, 0.0, 0.075, 0.3):
        page.fill("#threshold-number", str(threshold))
        for place, model in enumerate(models):
            cells = page.locator("#live tr").nth(place).locator("td").all_inner_texts()
            counts = list(model.result.unique_concepts(threshold).values())
            assert list(map(int, cells[: len(counts)])) == counts
            assert int(cells[len(counts)]) == model.result.detectors(threshold).sum()
            assert cells[-1] == ("–" if place == 1 else f"{20.5 + place:.2f} %")


def test_gained_and_lost(watched, path, models):
    page = watched.open(path)
    page.select_option("#pair-first", "2")
    page.select_option("#pair-second", "0")
    had, has = (levels(models[n].result) > 0.04 for n in (2, 0))
    wanted = [has & ~had, had & ~has, had & has]
    sides = page.locator("#sides section")
    for place, columns in enumerate(wanted):
        texts = sides.nth(place).locator("a").all_text_contents()
        expected = [models[0].result.concepts[c] for c in np.flatnonzero(columns)]
        assert sorted(texts) == sorted(expected) and expected
    link = sides.nth(0).locator("a").first
    column = int(link.get_attribute("href").removeprefix("#concept-"))
    link.click()
    until(page, "document.querySelectorAll('#rows > li').length == 1")
    assert rows(page) == [column]
    page.go_back()
    until(page, "document.querySelectorAll('#rows > li').length > 1")


def test_concepts_side_by_side(watched, path, models):
    page = watched.open(path)
    counts = sum((levels(m.result) > 0.04).astype(int) for m in models)
    iou = [m.result.intersection / m.result.union for m in models]
    for one, model in zip(iou, models, strict=True):
        one[model.result.fires == 0] = 0
    highest = np.max([one.max(axis=0) for one in iou], axis=0).astype(np.float32)

    def listed(columns):
        ordered = sorted(columns, key=lambda c: (-highest[c], c))
        assert page.inner_text("#result").startswith(f"{len(ordered)} concept")
        assert rows(page) == ordered[:20]

    listed(np.flatnonzero(counts > 0))
    page.select_option("#show", "some")
    listed(np.flatnonzero((counts > 0) & (counts < 3)))
    page.select_option("#show", "all")
    listed(np.flatnonzero(counts == 3))
    page.select_option("#show", "every")
    listed(range(40))
    page.click("#search")
    page.keyboard.type("thing 1")
    listed([c for c in range(40) if "thing 1" in models[0].result.concepts[c]])
    column = rows(page)[0]
    cells = page.locator("#rows > li").first.locator(".cell")
    assert cells.count() == 3
    unit = (models[2].result.intersection / models[2].result.union)[
        :-1, column
    ].argmax()
    assert f"unit {unit}" in cells.nth(2).inner_text()
    alts = cells.nth(2).locator("img").evaluate_all("all => all.map(one => one.alt)")
    assert len(alts) == 5 and all(f"unit {unit}, top image" in alt for alt in alts)
    # A focused cell shows where the unit fires; so does a picture under the pointer.
    cells.nth(1).focus()
    page.keyboard.press("Shift+Tab")
    until(page, FOCUSED_MASK)
    picture = cells.nth(2).locator(".picture").first
    picture.hover()
    hovered = "[...document.querySelectorAll('.picture:hover canvas')]"
    until(page, f"{hovered}.some(mask => getComputedStyle(mask).opacity == 1)")
    script = "one => [getComputedStyle(one.lastChild).opacity, one.lastChild.width]"
    assert picture.evaluate(script) == ["1", 4 * 56]
    assert page.evaluate("window.flag") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_screens(watched, path, scheme):
    page = watched.open(path, width=360, height=740, color_scheme=scheme)
    assert overflow(page) <= 0
    page.select_option("#show", "every")
    page.select_option("#sort", "concept")
    assert overflow(page) <= 0 and page.locator("#rows > li").count() == 20
