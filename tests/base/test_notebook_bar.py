"""Progress in a notebook: a line of HTML that is replaced, and goes away."""

import re
import sys
import types

import pytest

from jdissect.base import notebook_bar
from jdissect.base.progress import ImageBars, Progress, is_watched


class Handle:
    """An output of a cell."""

    def __init__(self, content):
        self.shown = [content["text/html"]]

    def update(self, content, raw):
        assert raw
        self.shown.append(content["text/html"])


@pytest.fixture
def outputs(monkeypatch):
    """What a kernel's cells show; the process is a kernel for the test."""
    found: list[Handle] = []

    def display(content, raw, display_id):
        assert raw and display_id
        found.append(Handle(content))
        return found[-1]

    module = types.ModuleType("IPython")
    module.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module.display = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", module)
    return found


def test_a_bar_moves_and_goes_away(outputs, capsys):
    assert is_watched()
    now = 0.0
    with Progress(clock=lambda: now, ticking=False) as progress:
        with progress.counted("network <b>", 40, before="compiling") as task:
            for _ in range(4):
                now += 1.0
                task.advance(10)
        with progress.stage("writing"):
            pass
    (handle,) = outputs
    shares = re.findall(r"value='([0-9.]+)'", "".join(handle.shown))
    assert list(map(float, shares)) == [0, 0.25, 0.5, 0.75, 1]
    assert "network &lt;b&gt;, compiling: 0 of 40 images" in handle.shown[0]
    assert "writing" in "".join(handle.shown) and handle.shown[-1] == ""
    assert capsys.readouterr().err == ""


def test_a_bar_is_not_drawn_more_often_than_it_is_seen(outputs):
    with (
        Progress(clock=lambda: 0.0, ticking=False) as progress,
        progress.counted("network", 1000) as task,
    ):
        for _ in range(1000):
            task.advance(1)
    assert len(outputs[0].shown) == 2  # the first, and none


def test_silent_and_elsewhere(outputs, monkeypatch):
    with Progress(silent=True) as progress, progress.stage("network"):
        pass
    assert outputs == []
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not notebook_bar.in_notebook()  # IPython on a terminal has no kernel
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook_bar.in_notebook()


def test_a_stream_of_unknown_length(outputs):
    """Its number of images is known in the second pass."""
    import numpy as np

    records = [types.SimpleNamespace(index=np.array([0, 1, -1])) for _ in range(3)]
    now = 0.0
    with Progress(clock=lambda: now, ticking=False) as progress:
        bars = ImageBars(progress, None)
        for name in ("network", "sweep 1"):
            for _ in bars(records, name):
                now += 1.0
    text = "".join(outputs[0].shown)
    assert "network: 2 images" in text and "sweep 1: 2 of 6 images" in text
