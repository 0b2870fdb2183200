"""Sums over processes are exact, whichever way numbers travel."""

import threading

import numpy as np
import pytest

from jdissect.runtime.processes import Processes


class Threads(Processes):
    """Processes that are threads of one, so that exchanges are quick."""

    def __init__(self, index, count, meeting, table):
        super().__init__(index=index, count=count)
        self._meeting, self._table = meeting, table

    def _exchange(self, array, function):
        self.sent += array.nbytes
        self._table[self.index] = array
        self._meeting.wait()
        result = np.asarray(function(np.stack(self._table)))
        self._meeting.wait()
        return result


def together(trees):
    count = len(trees)
    meeting, table = threading.Barrier(count, timeout=600), [None] * count
    processes = [Threads(i, count, meeting, table) for i in range(count)]
    found = [None] * count

    def work(index):
        found[index] = processes[index].total(trees[index])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, processes[0].sent


@pytest.mark.parametrize(
    "low, high, bytes_a_number",
    [
        (0, 1000, 4),
        (0, 2**32 // 3, 4),
        (0, 2**32 // 3 + 2, 16),
        (0, 2**60, 16),
        (-5, 5, 16),
        (-(2**60), 2**60, 16),
    ],
)
def test_sums_are_exact(low, high, bytes_a_number):
    rng = np.random.default_rng(0)
    trees = [
        {"a": rng.integers(low, high, (70, 30)), "b": [rng.integers(low, high, 5)]}
        for _ in range(3)
    ]
    trees[0]["b"][0][:2] = low, high - 1
    trees[1]["b"][0][:2] = low, high - 1
    trees[2]["b"][0][:2] = low, high - 1
    found, sent = together(trees)
    for tree in found:
        np.testing.assert_array_equal(tree["a"], sum(t["a"] for t in trees))
        np.testing.assert_array_equal(tree["b"][0], sum(t["b"][0] for t in trees))
    numbers = 4096  # 2,105 rounded up to a power of two
    assert numbers * bytes_a_number <= sent < numbers * bytes_a_number + 1000
