"""Scores from counts, against scikit-learn and formulas on dense masks."""

import warnings

import numpy as np
import pytest
import scipy.stats

from jdissect.base.errors import UserError
from jdissect.results import load_layer
from jdissect.scoring import from_counts
from jdissect.scoring.from_counts import NAMES, Counts
from tests.detecting import make_result
from tests.scoring import case

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is absent")


@pytest.fixture(scope="module")
def small():
    return case.make()


def over_pairs(small, score):
    """score(fires, mask) of every pair, flat bools on the images that count."""
    found = np.zeros((small.fires.shape[-1], small.masks.shape[-1]))
    for concept in range(found.shape[1]):
        fires, masks = (
            small.flat(small.fires, concept),
            small.flat(small.masks, concept),
        )
        for unit in range(found.shape[0]):
            found[unit, concept] = score(fires[:, unit], masks[:, concept])
    return found


def pmi(fires, mask):
    both, chance = (fires & mask).mean(), fires.mean() * mask.mean()
    return -np.inf if chance and not both else np.log(both / chance) if chance else 0


def ceiling(fires, mask):
    low, high = sorted([fires.sum(), mask.sum()])
    return low / high if high else 0


def iqr(fires, mask):
    """As netdissect's tally.py, with the joint entropy of the four cells."""
    table = np.array(
        [[np.mean((fires == a) & (mask == b)) for a in (1, 0)] for b in (1, 0)]
    )
    entropy = scipy.stats.entropy(table.ravel())
    return metrics.mutual_info_score(fires, mask) / entropy if entropy else 0


INDEPENDENT = {
    "iou": lambda f, m: metrics.jaccard_score(m, f, zero_division=0),
    "f1": lambda f, m: metrics.f1_score(m, f, zero_division=0),
    "precision": lambda f, m: metrics.precision_score(m, f, zero_division=0),
    "recall": lambda f, m: metrics.recall_score(m, f, zero_division=0),
    "mcc": metrics.matthews_corrcoef,
    "auprc": lambda f, m: metrics.average_precision_score(f, m),
    "mutual_information": metrics.mutual_info_score,
    "iqr": iqr,
    "pmi": pmi,
    "ceiling": ceiling,
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_every_pair(small, name):
    scores = small.result.scores([name], pairs="all")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units that never fire
        want = over_pairs(small, INDEPENDENT[name])
    assert scores[name].dtype == np.float64
    np.testing.assert_allclose(scores[name], want, rtol=1e-9, atol=1e-12)
    best = small.result.best_concept
    named = best >= 0
    assert (~named).any()
    mine = small.result.scores([name])[name]
    np.testing.assert_array_equal(mine[named], scores[name][named, best[named]])
    assert np.isnan(mine[~named]).all()


def test_coverages(small):
    scores = small.result.scores(pairs="all")
    both = np.einsum("nhwu,nhwc->nuc", small.fires * 1, small.masks * 1) > 0
    counts = small.counts[:, None]
    both = (both & counts).sum(axis=0)
    concept = (small.masks.any(axis=(1, 2)) & small.counts).sum(axis=0)
    unit = (small.fires.any(axis=(1, 2))[..., None] & counts).sum(axis=0)
    want = both / np.maximum(concept, 1)
    np.testing.assert_array_equal(scores["sample_coverage"], want)
    want = both / np.maximum(unit, 1)
    np.testing.assert_array_equal(scores["explanation_coverage"], want)
    assert set(scores.values) == set(NAMES) and not scores.missing


def test_no_iou_exceeds_its_ceiling(small):
    scores = small.result.scores(pairs="all")
    assert (scores["iou"] <= scores["ceiling"]).all()
    assert (scores["iou"] > 0.9 * scores["ceiling"]).any()


def test_pixels_of_a_large_run():
    """N I exceeds 64 bits; the exact value from Python's integers."""
    n, fires, concept, both = 10**12, 10**10, 3 * 10**9, 2 * 10**9 + 1
    counts = Counts(*(np.array([x]) for x in (both, fires + concept - both)))
    counts = Counts(
        counts.both,
        counts.union,
        fires=np.array([fires]),
        concept=np.array([concept]),
        pixels=np.array([n]),
    )
    exact = (both * n - fires * concept) / (
        fires * (n - fires) * concept * (n - concept)
    ) ** 0.5
    assert from_counts.score("mcc", counts)[0] == pytest.approx(exact, rel=1e-12)


def test_what_was_not_kept_is_said(small, types_unchecked):
    result = small.result
    older = result.replace(category_images=None)
    assert set(older.scores().missing) == {
        *("mcc", "auprc", "mutual_information", "iqr", "pmi")
    }
    with pytest.raises(UserError, match="no mcc: the result is of an older version"):
        older.scores(["mcc"])
    large = result.replace(by_image=None).scores()
    assert set(large.missing) == {"sample_coverage", "explanation_coverage"}
    with pytest.raises(UserError, match="counts by image were not kept"):
        large["sample_coverage"]
    assert list(make_result().scores().values) == ["iou"]
    with pytest.raises(UserError, match="there is no score 'f2'; there are: iou, f1"):
        result.scores(["f2"])
    with pytest.raises(UserError, match="pairs is 'worst'"):
        result.scores(pairs="worst")


def test_images_by_category_are_kept(small, tmp_path):
    result = small.result
    per_concept = [result.category_images[c] for c in result.categories]
    assert per_concept == small.counts.sum(axis=0).tolist()
    assert len(set(per_concept)) > 2
    result.save(tmp_path)
    again = load_layer.load(tmp_path)
    for name, values in result.scores().values.items():
        np.testing.assert_array_equal(again.scores()[name], values)
    path = tmp_path / "summary.json"
    path.write_text(path.read_text().replace('"object": ', '"object": 9999', 1))
    with pytest.raises(UserError, match="category_images is .* not numbers of images"):
        load_layer.load(tmp_path)


def test_as_a_table(small):
    table = small.result.scores(["iou", "mcc"]).to_pandas()
    assert list(table) == ["unit", "concept", "category", "iou", "mcc"]
    nameless = small.result.best_concept < 0
    assert table.concept.isna().tolist() == nameless.tolist() and nameless[3]
    everything = small.result.scores(["f1"], pairs="all").to_pandas()
    assert len(everything) == 8 * 5 and set(everything.concept) == set(case.NAMES)
