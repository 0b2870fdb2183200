"""A run's page in a real browser, driven by clicks and keys."""

import re

import numpy as np
import pytest

from jdissect.report.pages import page as run_page
from tests.ops import reference
from tests.report import browser as browsers
from tests.report import synthetic
from tests.report.browser import FOCUSED_MASK, overflow, settle, until


@pytest.fixture(scope="module")
def result():
    return synthetic.make_result(120, 40, names=synthetic.HOSTILE)


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    run, source = synthetic.make_run(tmp_path_factory.mktemp("page") / "run", result)
    known = {"layer4": synthetic.make_estimates(result)}
    return run_page.write_report(run, known, source=source)


def units(page) -> list[int]:
    """The units of the list, in order."""
    found = page.eval_on_selector_all(
        "#cards > li", "items => items.map(item => Number(item.dataset.unit))"
    )
    return [int(unit) for unit in found]


def shown(page) -> int:
    """How many units the list says it has."""
    return int(re.match(r"[\d,]+", page.inner_text("#result"))[0].replace(",", ""))


def slide(page, threshold: float) -> None:
    page.fill("#threshold-number", str(threshold))
    settle(page)


def focus_by_tab(page, selector: str) -> None:
    """Presses Tab until something is reached."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def opacity(page, selector: str) -> float:
    script = "item => Number(getComputedStyle(item).opacity)"
    return page.eval_on_selector(selector, script)


def test_search_by_typing(watched, path, result):
    page = watched.open(path)
    slide(page, 0)
    page.click("#search")
    page.keyboard.type("THING 2")
    wanted = [n for n, c in enumerate(result.concepts) if "thing 2" in c]
    mine = np.flatnonzero(np.isin(result.best_concept, wanted))
    assert len(mine) and shown(page) == len(mine)
    assert sorted(units(page)) == mine.tolist()
    page.fill("#search", "#17")
    assert units(page) == [17]
    # No unit's own concept: the unit that comes closest is named.
    lost = next(c for c in range(8, 40) if c not in result.best_concept)
    page.fill("#search", result.concepts[lost])
    closest = int((result.intersection / result.union)[:, lost].argmax())
    if not units(page):
        assert f"unit {closest}," in page.inner_text("#closest")
    page.click("#clear")
    assert page.input_value("#search") == "" and shown(page) == 119


def test_units_without_a_concept(watched, result, tmp_path):
    """One fires where no concept is, one never fires; a threshold has its digits."""
    common = result.intersection.copy()
    common[7] = 0
    other = result.replace(intersection=common)
    run, source = synthetic.make_run(tmp_path / "run", other)
    page = watched.open(run_page.write_report(run, source=source))
    page.check("#below")
    for unit, title in ((7, "no concept"), (119, "never fires")):
        page.fill("#search", f"#{unit}")
        assert page.text_content("#cards .name") == title
        page.click("#cards a")
        page.wait_for_selector("#unit[open]")
        assert page.text_content("#unit-title") == title
        page.click("#unit-close")
    for value, shown_as in ((0.04, "0.040"), (0.0405, "0.0405")):
        slide(page, value)
        assert page.inner_text("#at") == shown_as


def test_category_filter(watched, path, result):
    page = watched.open(path)
    for name in ("object", "material", "color", "scene"):
        page.locator("#categories label", has_text=name).click()
    assert shown(page) == result.detector_units(0.04)["part"]
    kinds = page.eval_on_selector_all(
        ".card .label", "labels => labels.map(label => label.textContent)"
    )
    assert set(kinds) == {"part"}
    page.locator("#categories label", has_text="part").click()
    assert shown(page) == 0


def test_the_slider_recounts(watched, path, result):
    page = watched.open(path)

    def counts():
        bars = page.locator("#bars li")
        found = {
            bar.get_attribute("data-category"): int(bar.locator(".number").inner_text())
            for bar in bars.all()
        }
        return {**found, "total": int(page.inner_text("#unique"))}

    assert counts() == result.unique_concepts(0.04)
    focus_by_tab(page, "#threshold")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    value = float(page.input_value("#threshold"))
    assert value == 0.043 == float(page.input_value("#threshold-number"))
    assert counts() == result.unique_concepts(value)
    for value in (0.0, 0.031, 0.05, 0.1, 0.123, 0.4, 0.999, float(result.best_iou[5])):
        slide(page, value)
        assert counts() == result.unique_concepts(value)
        assert shown(page) == result.detectors(value).sum()
    slide(page, 0.1)
    page.fill("#threshold-number", "")  # half typed
    assert counts() == result.unique_concepts(0.1)


def test_sorting_and_pages(watched, path, result):
    page = watched.open(path)
    detectors = np.flatnonzero(result.detectors(0.04))
    iou = result.best_iou
    by_iou = sorted(detectors, key=lambda unit: (-iou[unit], unit))
    assert units(page) == by_iou[:48]
    page.click("#next-page")
    assert units(page) == by_iou[48:96]
    assert page.inner_text("#page-number") == f"Page 2 of {-(-len(by_iou) // 48)}"
    page.select_option("#sort", "iou-up")
    assert units(page) == sorted(detectors, key=lambda unit: (iou[unit], unit))[:48]
    page.select_option("#sort", "unit")
    assert units(page) == detectors[:48].tolist()
    page.check("#below")
    assert shown(page) == 120  # and the one that never fires
    page.select_option("#sort", "concept")
    names = page.eval_on_selector_all(
        ".card .name", "names => names.map(name => name.textContent)"
    )
    things = [int(name.split()[1]) for name in names if name.startswith("thing")]
    assert things == sorted(things)


def test_a_unit_by_keyboard(watched, path, result):
    page = watched.open(path)
    page.focus("#search")
    focus_by_tab(page, ".card")
    unit = units(page)[0]
    # The focus shows where the unit fires in all its images.
    until(page, FOCUSED_MASK)
    page.keyboard.press("Enter")
    page.wait_for_selector("#unit[open]")
    assert page.url.endswith(f"#unit-{unit}")
    column = result.best_concept[unit]
    assert page.text_content("#unit-title") == result.concepts[column]
    body = page.inner_text("#unit-body")
    assert f"{result.best_iou[unit]:.4f}" in body and "resamples" in body
    iou = (result.intersection / result.union)[unit]
    best = sorted(range(40), key=lambda c: (-iou[c], c))[:5]
    names = page.locator(".best tbody th").all_text_contents()
    assert names == [result.concepts[c] for c in best]
    assert page.locator(".best tbody .number").all_text_contents() == [
        f"{iou[c]:.4f}" for c in best
    ]
    label = page.get_attribute(".histogram", "aria-label")
    assert f"T_k is {float(f'{result.thresholds[unit]:.4g}'):g}" in label
    assert page.locator(".histogram rect").count() == 41
    alts = page.eval_on_selector_all(".tops img", "all => all.map(one => one.alt)")
    assert len(alts) == 5 and all(
        f"Top image {rank + 1} of unit {unit}" in alt
        and f"photographs/{result.top_image[unit, rank]:05d}.jpg" in alt
        for rank, alt in enumerate(alts)
    )
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**#unit-{units(page)[1]}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**#unit-{unit}")
    page.keyboard.press("Escape")
    page.wait_for_selector("#unit", state="hidden")
    until(page, "!location.hash.includes('unit')")
    assert page.evaluate("document.activeElement.getAttribute('href')") == (
        f"#unit-{unit}"
    )


def test_masks_on_hover_and_focus(watched, path, result):
    page = watched.open(path, "#unit-7")
    first = ".tops figure:nth-child(2) .picture"
    until(page, "document.querySelector('.tops img').naturalWidth > 0")
    assert opacity(page, f"{first} canvas") == 0
    page.hover(first)
    canvas = f"document.querySelector('{first} canvas')"
    until(page, f"getComputedStyle({canvas}).opacity == 1")
    # The canvas is clear exactly where the unit fires.
    fires = page.eval_on_selector(
        f"{first} canvas",
        """canvas => {
          const [width, height] = [canvas.width, canvas.height];
          const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
          const alpha = (x, y) => data[4 * ((4 * y + 2) * width + 4 * x + 2) + 3];
          return Array.from({length: height / 4}, (_, y) =>
            Array.from({length: width / 4}, (_, x) => alpha(x, y) === 0));
        }""",
    )
    grid = result.top_map[7, 1, :, :, None]
    expected = reference.upsample(grid, (56, 56))[..., 0] > result.thresholds[7]
    np.testing.assert_array_equal(fires, expected)
    page.mouse.move(1, 1)
    focus_by_tab(page, ".tops .picture")
    until(page, FOCUSED_MASK)
    page.keyboard.press("Enter")  # stays
    assert page.get_attribute(".tops .picture >> nth=0", "aria-pressed") == "true"
    page.check("#all-masks")
    assert page.locator(".tops .picture.shown").count() == 5


def test_deep_links_and_the_back_button(watched, path):
    page = watched.open(path, "#unit-31")
    page.wait_for_selector("#unit[open]")
    assert "unit 31" in page.inner_text("#unit-body").lower()
    page.click("#unit-close")
    page.wait_for_selector("#unit", state="hidden")
    page.click(".card >> nth=3")
    page.wait_for_selector("#unit[open]")
    page.go_back()
    page.wait_for_selector("#unit", state="hidden")
    page.evaluate("location.hash = 'unit-999'")  # there is no such unit
    settle(page)
    assert page.locator("#unit[open]").count() == 0
    page.goto(path.as_uri() + "#unit-2")
    page.wait_for_selector("#unit[open]")
    page.click(".best tbody button >> nth=0")  # to the concept's units
    page.wait_for_selector("#unit", state="hidden")
    assert 2 in units(page)


def test_the_list_stays_where_it_was(watched, path):
    page = watched.open(path, reduced_motion="reduce")
    card = page.locator(".card").nth(40)
    card.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    assert before > 500
    card.click()
    page.wait_for_selector("#unit[open]")
    page.keyboard.press("Escape")
    until(page, "!location.hash.includes('unit')")
    settle(page)
    assert page.evaluate("scrollY") == before
    # A concept of the unit's page leads to the top of its units.
    card.click()
    page.wait_for_selector("#unit[open]")
    page.click(".best tbody button >> nth=0")
    until(page, "!location.hash.includes('unit')")
    settle(page)
    first = page.locator(".card").first.bounding_box()
    assert 0 < first["y"] < 900


def test_hostile_names_are_text(watched, path, result):
    page = watched.open(path)
    slide(page, 0)
    for name in synthetic.HOSTILE:
        page.fill("#search", name)
        column = result.concepts.index(name)
        assert shown(page) == (result.best_concept == column).sum()
        for text in page.locator(".card .name").all_text_contents():
            assert text == name
    page.fill("#search", "")
    page.click("details.concepts summary")
    for unit in (int(u) for u in np.flatnonzero(result.best_concept < 6)[:6]):
        page.goto(f"{path.as_uri()}#unit-{unit}")
        page.wait_for_selector("#unit[open]")
    assert page.evaluate("window.flag") is None
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("document.scripts.length") == page.evaluate(
        "document.querySelectorAll('script').length"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_screens_and_dark_ones(watched, path, scheme):
    page = watched.open(path, width=360, height=740, color_scheme=scheme)
    assert overflow(page) <= 0
    page.click("details.concepts summary")
    assert overflow(page) <= 0
    page.click(".card >> nth=0")
    page.wait_for_selector("#unit[open]")
    wider = "dialog => dialog.scrollWidth - dialog.clientWidth"
    assert overflow(page) <= 0 and page.eval_on_selector("#unit", wider) <= 0
    page.keyboard.press("Escape")
    luminance = """() => {
      const parts = getComputedStyle(document.body).backgroundColor.match(/\\d+/g);
      return Math.max(...parts.slice(0, 3).map(Number));
    }"""
    assert (page.evaluate(luminance) < 60) == (scheme == "dark")
    for _ in range(2 if scheme == "light" else 1):  # auto, light, dark
        page.click("#theme")
    assert (page.evaluate(luminance) < 60) == (scheme == "light")


def test_layers_take_turns(watched, result, tmp_path):
    deep = synthetic.make_result(30, 40, seed=5, layer="head/7 <b>")
    layers = {"layer4": result, deep.layer: deep}
    run, source = synthetic.make_run(tmp_path / "run", layers)
    path = run_page.write_report(run, source=source)
    page = watched.open(path)
    page.locator("#layers label", has_text="head").click()
    until(page, "document.getElementById('layer-name').textContent != 'layer4'")
    assert shown(page) == deep.detectors(0.04).sum()
    assert int(page.inner_text("#unique")) == deep.unique_concepts(0.04)["total"]
    assert page.locator("table.counts:visible caption").inner_text().endswith("<b>")
    page.click(".card >> nth=0")
    page.wait_for_selector("#unit[open]")
    address = page.url
    assert "head%2F7%20%3Cb%3E/unit-" in address
    # From outside: the address alone leads to layer and unit.
    page = watched.open(path, address[address.index("#") :])
    page.wait_for_selector("#unit[open]")
    assert page.inner_text("#layer-name") == deep.layer


def test_without_pictures_it_still_works(watched, result, tmp_path, capsys):
    run, _ = synthetic.make_run(tmp_path / "run", result.replace(top_map=None))
    page = watched.open(run_page.write_report(run))
    assert page.is_visible("#no-pictures") and page.is_visible("#no-masks")
    page.click(".card >> nth=0")
    page.wait_for_selector("#unit[open]")
    page.hover(".tops .picture >> nth=0")
    assert "There are no masks" in page.inner_text("#unit-body")


def test_without_a_browser_tests_say_so(monkeypatch):
    monkeypatch.setattr(browsers.shutil, "which", lambda name: None)
    with (
        pytest.raises(pytest.skip.Exception, match="no browser on this machine"),
        browsers.launched(),
    ):
        pass
