"""Pages of runs whose units fire in their lower tails, too."""

import json
import re

import numpy as np

from jdissect.report.pages import comparison_page, layer_data
from jdissect.report.pages import page as run_page
from jdissect.report.pages.comparison_page import ComparedModel
from tests.report import synthetic


def signed(units=12, **options):
    """Ends of half as many units of the network."""
    result = synthetic.make_result(units, 6, **options)
    middle = result.histogram_edges[:, 20]  # bars on either side of T_k
    return result.replace(tail="both", thresholds=middle)


def test_numbers_have_the_activations_own_sign():
    result = signed()
    plain = result.replace(tail="upper")
    expected, edges = layer_data.histogram(plain)
    counts, shown = layer_data.histogram(result)
    np.testing.assert_array_equal(counts[::2], expected[::2])
    np.testing.assert_array_equal(counts[1::2], expected[1::2, ::-1])
    np.testing.assert_array_equal(shown[1::2], -edges[1::2, ::-1])
    assert (np.diff(shown, axis=1) >= 0).all() and not np.signbit(shown[1, -1])
    lower = result.shown_thresholds[1::2]
    np.testing.assert_array_equal(lower, -result.thresholds[1::2])
    assert layer_data.ends(result) == "+ -" and layer_data.ends(plain) == ""


def test_a_page_of_many_units_has_histograms_of_few_bins():
    result = signed()
    assert layer_data.histogram_arrays(result)["bins"] == 41
    assert layer_data.histogram_arrays(result, 20)["bins"] <= 20
    few = layer_data.histogram_arrays(result, 1)["bins"]
    assert 4 <= few <= layer_data.FEW_BINS


def test_both_ends_in_a_browser(tmp_path, watched):
    result = signed()
    run, source = synthetic.make_run(tmp_path / "run", result)
    page = watched.open(run_page.write_report(run, source=source), "#unit-2-")
    page.wait_for_selector("#unit[open]")
    body = page.inner_text("#unit-body").lower()
    assert "unit 2-" in body and "images of lowest activation" in body
    assert "are below" in body
    cut = page.get_attribute("#unit-body svg", "aria-label")
    assert f"T_k is {result.shown_thresholds[5]:.4g}" in cut and "is -" in cut
    first = page.inner_text("#unit-body figcaption b")
    assert float(first) == float(f"{-result.top_value[5, 0]:.4g}")
    # Bars where it fires are at the low end.
    bars = page.query_selector_all("#unit-body rect.above")
    others = page.query_selector_all("#unit-body rect.below")
    right = max(float(bar.get_attribute("x")) for bar in bars)
    assert right < min(float(bar.get_attribute("x")) for bar in others)
    page.click("#unit-close")
    page.check("#below")
    page.fill("#search", "3")
    page.wait_for_function("document.querySelectorAll('[data-unit]').length == 2")
    cards = page.locator("[data-unit]").all_inner_texts()
    assert sorted(re.findall(r"unit (\d+[+-])", " ".join(cards))) == ["3+", "3-"]
    page.fill("#search", "3-")
    page.wait_for_function("document.querySelectorAll('[data-unit]').length == 1")
    page.click("[data-unit] a")
    page.wait_for_url("**#unit-3-")
    page.evaluate("location.hash = 'unit-6+'")  # there are six
    page.wait_for_function("!document.getElementById('unit').open")


def test_a_comparison_names_ends(tmp_path, watched):
    result = signed()
    source = synthetic.NoiseSource(50)
    models = [ComparedModel(n, result, None, source, None) for n in ("a", "b")]
    path = comparison_page.write_comparison(tmp_path, models)
    data = re.search(r'id="page"[^>]*>(.*?)</script>', path.read_text())[1]
    assert [model["ends"] for model in json.loads(data)["models"]] == ["+ -"] * 2
    page = watched.open(path)
    cell = page.locator(".cell").first
    cell.scroll_into_view_if_needed()
    named = set(re.findall(r"unit \d+(.)", page.inner_text("body")))
    assert named <= {"+", "-"} and named
