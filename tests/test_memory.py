"""A run larger than memory: what is resident stays flat."""

import pytest

from benchmarks.memory import measure


def grown(found):
    """From a pass's second tenth to its last, at most; MB."""
    return max(line[-1] - line[1] for line in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("features", ["disk", "none"])
def test_resident_memory_is_flat(features):
    """132 MB of features and label maps go through."""
    assert grown(measure(8_000, features, every=1000)) < 15


@pytest.mark.slow
def test_features_in_memory_show():
    """What the test above looks for: 66 MB, of which eight tenths are seen to grow."""
    assert grown(measure(4_000, "memory", every=1000)) > 35
