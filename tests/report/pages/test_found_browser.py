"""Formulas, chance, labels and scores of a run's page in a real browser."""

import numpy as np
import pytest

from jdissect.report import compared_findings
from jdissect.report.pages import comparison_page
from jdissect.report.pages import page as run_page
from jdissect.report.pages.comparison_page import ComparedModel
from tests import small_runs
from tests.report import known, synthetic
from tests.report.browser import overflow
from tests.report.pages.test_browser import shown, slide, units

CONCEPTS = (
    *((name, "object") for name in synthetic.HOSTILE),
    *small_runs.CONCEPTS[:20],
)


@pytest.fixture(scope="module")
def result():
    return small_runs.result(4, units=60, concepts=CONCEPTS)


@pytest.fixture(scope="module")
def found(result):
    return known.make(result)


@pytest.fixture(scope="module")
def path(result, found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    content = run_page.render(
        {"layer4": result},
        {},
        None,
        heading="run",
        facts=(),
        names=(),
        findings={"layer4": found},
        hint="RUN",
    )
    path.write_bytes(content)
    return path


def test_the_lines_below_the_counts(watched, path, result, found):
    page = watched.open(path)
    for threshold in (0.04, 0.021, 0.1):
        slide(page, threshold)
        text = page.inner_text("#findings")
        by_chance = found.chance.detectors(threshold)
        mean = by_chance.mean
        number = f"{mean:.1f}" if mean < 10 else f"{mean:.0f}"
        assert f"{number} detectors (95 %: at most {by_chance.high})" in text
        there = result.detectors(threshold)
        above = int((there & found.chance.found()).sum())
        assert f"{above} of the {there.sum()} detectors are above chance" in text
        held = int((found.formulas.iou > threshold).sum())
        different = len(found.formulas.unique(threshold))
        assert f"{held} detectors of {different} formulas" in text
        if threshold > 0.03:  # labels of lower IoU were not examined
            share = found.verified.share(threshold)
            assert f"{100 * share.share:.0f} % of the {share.judged} det" in text
    assert page.inner_text("#missing") == ""


def test_filters(watched, path, result, found):
    page = watched.open(path)
    there = result.detectors(0.04)
    page.check("#above-chance")
    assert shown(page) == (there & found.chance.found()).sum()
    page.check("#only-verified")
    verified = np.zeros(60, bool)
    verified[found.verified.unit] = found.verified.verified
    assert shown(page) == (there & found.chance.found() & verified).sum() > 0
    page.click("#clear")
    assert shown(page) == there.sum() and not page.is_checked("#above-chance")


def test_sort_orders(watched, path, result, found):
    page = watched.open(path)
    detectors = np.flatnonzero(result.detectors(0.04))
    scores = result.scores()
    auc = np.full(60, np.nan)
    auc[found.verified.unit] = found.verified.auc
    wanted = {
        "f1": scores["f1"],
        "precision": scores["precision"],
        "recall": scores["recall"],
        "mcc": scores["mcc"],
        "auroc": [
            found.measured.of_pair(unit, column).get("auroc", np.nan)
            for unit, column in enumerate(result.best_concept.tolist())
        ],
        "formula": found.formulas.iou,
        "p": -found.chance.values.pooled,
        "auc": auc,
    }
    for name, values in wanted.items():
        page.select_option("#sort", name)
        # As the page has them, so that ties are its own.
        kind = np.float64 if name == "formula" else np.float32
        values = np.nan_to_num(np.asarray(values, kind), nan=-np.inf)
        order = sorted(detectors, key=lambda u: (-values[u], -result.best_iou[u], u))
        assert units(page) == order[:48], name
    page.select_option("#sort", "mcc")
    best = units(page)[0]
    card = page.inner_text(".card >> nth=0")
    assert f"MCC {scores['mcc'][best]:.3f}" in card


def test_a_unit(watched, path, result, found):
    page = watched.open(path)
    labels = found.verified
    unit = int(labels.unit[labels.verified][1])
    page.goto(f"{path.as_uri()}#unit-{unit}")
    page.wait_for_selector("#unit[open]")
    body = page.inner_text("#unit-body .found")
    formulas, chance = found.formulas, found.chance
    assert formulas.formulas[unit] in body
    assert f"IoU {formulas.iou[unit]:.4f}" in body
    assert ("not above chance" in body) == (chance.values.q[unit] > 0.05)
    assert "verified: AUC 0.90 (0.80 to 0.95), control 0.55" in body
    others = page.locator("#unit-body .found button").all_text_contents()
    columns = chance.sets.of(unit)[1:12]
    assert others == [result.concepts[column] for column in columns]
    heads = page.locator(".best thead .score").all_text_contents()
    assert {"F1", "precision", "recall", "MCC", "Pearson", "AUROC"} <= set(heads)
    first = page.locator(".best tbody tr >> nth=0").locator(".score")
    mcc = first.nth(heads.index("MCC")).inner_text()
    assert mcc == f"{result.scores()['mcc'][unit]:.3f}"
    second = page.locator(".best tbody tr >> nth=1").locator(".score")
    assert second.nth(heads.index("AUROC")).inner_text() == "–"  # not ranked
    skipped = int(labels.unit[~labels.judged][0])
    page.goto(f"{path.as_uri()}#unit-{skipped}")
    page.wait_for_selector(f"#unit-body:has-text('unit {skipped}')")
    text = page.inner_text("#unit-body .found")
    assert "not judged: <b>too few pictures</b>" in text


def test_names_are_text_and_small_screens_hold_them(watched, path, found):
    page = watched.open(path, width=400)
    page.select_option("#sort", "formula")
    assert overflow(page) <= 0
    hostile = [
        unit
        for unit, text in enumerate(found.formulas.formulas)
        if "script" in text or "onerror" in text
    ]
    for unit in hostile[:4]:
        page.goto(f"{path.as_uri()}#unit-{unit}")
        page.wait_for_selector("#unit[open]")
        wider = "dialog => dialog.scrollWidth - dialog.clientWidth"
        assert page.eval_on_selector("#unit", wider) <= 0
    assert page.evaluate("window.flag") is None
    assert page.locator("img[src='x']").count() == 0


def test_what_is_not_there_is_not_shown(watched, tmp_path):
    result = synthetic.make_result(30, 20)
    path = tmp_path / "report.html"
    content = run_page.render(
        {"layer4": result}, {}, None, heading="run", facts=(), names=(), hint="RUN"
    )
    path.write_bytes(content)
    page = watched.open(path, "#unit-3")
    page.wait_for_selector("#unit[open]")
    assert page.locator(".found").count() == page.locator(".score").count() == 0
    page.click("#unit-close")
    assert page.inner_text("#findings") == ""
    assert not page.is_visible("#above-chance")
    assert "python -m jdissect.compose RUN" in page.inner_text("#missing")
    assert page.locator("#sort .more").count() == 0


def test_formulas_of_two_networks(watched, result, found, tmp_path):
    other = known.make(result, seed=9)
    best = [compared_findings.formula_levels(one) for one in (found, other)]
    models = [
        ComparedModel(name, result, formulas=formulas)
        for name, formulas in zip(("one", "two"), best, strict=True)
    ]
    rows = [["IoU >", "network", "detectors"], ["0.04", "<b>one</b>", "12"]]
    path = comparison_page.write_comparison(tmp_path, models, found=rows, hint="more")
    page = watched.open(path, width=400)
    assert page.inner_text(".more-counts tbody th") == "<b>one</b>"
    assert page.inner_text("#missing") == "more"
    for threshold in (0.04, 0.1):
        slide(page, threshold)
        sets = [{name for name, iou in one.items() if iou > threshold} for one in best]
        gained, lost, both = sets[1] - sets[0], sets[0] - sets[1], sets[0] & sets[1]
        assert f"+{len(gained)} −{len(lost)} " in page.inner_text("#formulas-at")
        lists = page.locator("#formula-sides section").all()
        for section, want in zip(lists, (gained, lost, both), strict=True):
            assert set(section.locator("li").all_text_contents()) == want
    assert gained and overflow(page) <= 0
    assert page.evaluate("window.flag") is None
