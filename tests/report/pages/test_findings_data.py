"""What a page gets of formulas, chance, labels and scores."""

import base64

import numpy as np
import pytest

from jdissect.report.findings import NOTHING
from jdissect.report.pages import findings_data, layer_data
from tests import small_runs
from tests.report import known, synthetic


def numbers(packed) -> np.ndarray:
    kind, text = packed
    return np.frombuffer(base64.b64decode(text), f"<{kind}")


@pytest.fixture(scope="module")
def result():
    return small_runs.result(2, units=50)


@pytest.fixture(scope="module")
def found(result):
    return known.make(result)


def test_counts_by_chance_are_those_of_each_threshold(result, found):
    arrays = findings_data.unit_arrays(result, found)
    detectors = numbers(arrays["chanceDetectors"])
    concepts = numbers(arrays["chanceConcepts"])
    high = numbers(arrays["chanceConceptsHigh"])
    assert len(detectors) == len(concepts) == 61 and detectors[-1] == concepts[-1] == 0
    for step in (0, 1, 17, 40, 59):
        own = found.chance.detectors(step / 1000)
        assert detectors[step] == np.float32(own.mean)
        assert numbers(arrays["chanceDetectorsHigh"])[step] == own.high
        categories = result.categories
        own = found.chance.unique_concepts(step / 1000, categories)["total"]
        assert concepts[step] == np.float32(own.mean) and high[step] == own.high


def test_sets_are_cut(result, found):
    arrays = findings_data.unit_arrays(result, found)
    start, sizes = numbers(arrays["setStart"]), numbers(arrays["setSize"])
    columns = numbers(arrays["setConcept"])
    for unit in (0, 7, 30):
        own = found.chance.sets.of(unit)
        assert sizes[unit] == len(own)
        shown = columns[start[unit] : start[unit + 1]]
        assert shown.tolist() == own[: findings_data.MOST_IN_SET].tolist()


def test_labels_are_at_their_units(result, found):
    arrays = findings_data.unit_arrays(result, found)
    state, auc = numbers(arrays["verified"]), numbers(arrays["auc"])
    labels = found.verified
    assert set(np.flatnonzero(state)) == set(labels.unit)
    assert set(np.flatnonzero(state == 3)) == set(labels.unit[labels.verified])
    assert set(np.flatnonzero(state == 1)) == set(labels.unit[~labels.judged])
    np.testing.assert_array_equal(auc[labels.unit], labels.auc.astype(np.float32))
    note = numbers(arrays["note"])[labels.unit[~labels.judged][0]]
    assert arrays["notes"]["texts"][note] == "<b>too few pictures</b>"


def test_scores_are_those_of_the_result(result, found):
    columns, _ = layer_data.best_concepts(result)
    table = findings_data.score_arrays(result, found, 10**6)
    names = table["names"]["texts"]
    assert {"f1", "mcc", "pmi", "sample_coverage", "pearson", "auroc"} <= set(names)
    values = numbers(table["values"]).reshape(50, 5, len(names))
    every = result.scores(pairs="all")
    for name in ("f1", "mcc", "pmi"):
        want = np.take_along_axis(every[name], columns, axis=1)
        np.testing.assert_allclose(values[..., names.index(name)], want, rtol=1e-6)
    want = np.take_along_axis(found.measured.pearson, columns, axis=1)
    np.testing.assert_array_equal(values[..., names.index("pearson")], want)
    auroc = values[..., names.index("auroc")]
    own = np.flatnonzero(result.best_concept >= 0)
    np.testing.assert_allclose(auroc[own, 0], found.measured.auroc[:, 0], rtol=1e-6)
    assert np.isnan(auroc[:, 1:]).all()  # not ranked


def test_scores_keep_to_their_room(result):
    whole = findings_data.score_arrays(result, NOTHING, 10**6)
    assert whole["shown"] == 5
    some = findings_data.score_arrays(
        result, NOTHING, 50 * len(whole["names"]["texts"]) * 11
    )
    assert some["shown"] == 2
    assert findings_data.score_arrays(result, NOTHING, 1)["shown"] == 1
    # A result of an older version, without counts by block.
    assert findings_data.score_arrays(synthetic.make_result(), NOTHING, 1000) is None
    assert findings_data.unit_arrays(result, NOTHING) == {}
