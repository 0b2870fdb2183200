"""A dissection that is cut off goes on to the same bits, wherever it was."""

import numpy as np
import pytest

from jdissect.base.errors import UserError
from jdissect.checkpoints.run_state import Checkpoints
from jdissect.dissection import engine
from jdissect.dissection.engine import Dissection, Settings
from jdissect.dissection.resume import Journal
from jdissect.runtime.devices import Devices
from tests.dissection.test_engine import (
    CONCEPTS,
    assert_same,
    make,
    reader,
    run,
    two_layers,
)

SLOW = pytest.mark.slow


class CutOff(BaseException):
    """What no code of ours handles: as if the process had been killed."""


def go_on(data, folder, *, batch=8, every=1, keep="memory", cut=None):
    """Runs from what is in `folder`; is cut off after `cut` batches."""
    read, left = reader(data, batch), [cut]

    def interrupted(indices=None, start=0, stop=None):
        assert start <= count and (stop is None or stop <= count)
        for images in read(indices, start, stop):
            if left[0] == 0:
                raise CutOff
            if left[0] is not None:
                left[0] -= 1
            yield images

    count = len(data[0])
    journal = Journal(folder, every=every, images_a_step=batch, images=count)
    journal.restore()
    settings = Settings(
        layers=("fine", "coarse"), quantile=0.05, keep=keep, folder=folder
    )
    engine = Dissection(
        two_layers, np.float32(2), CONCEPTS, settings, Devices(), journal=journal
    )
    return engine.run(interrupted, len(data[0]))


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.fixture(scope="module")
def expected(data):
    return run(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keep",
    ["none", "memory", "disk"],
)
def test_cut_off_again_and_again(data, expected, tmp_path, keep):
    """With batches of another size each time, as on other devices."""
    # Features that are kept are read once: 4 batches, then 2 and the pilots, then all.
    cuts = [10, 9, 12, None] if keep == "none" else [4, 7, 7, None]
    for number, cut in enumerate(cuts):
        batch = (8, 11)[number % 2]
        if cut is None:
            found = go_on(data, tmp_path, batch=batch, keep=keep)
            break
        with pytest.raises(CutOff):
            go_on(data, tmp_path, batch=batch, keep=keep, cut=cut)
    assert_same(found, expected)


def test_every_stage_can_be_cut_off(data, expected, tmp_path):
    """Without features kept every pass reads: cut at every batch there is."""
    stages = set()
    for cut in (4, 21, 27, 39):
        folder = tmp_path / str(cut)
        try:
            go_on(data, folder, batch=8, keep="none", cut=cut)
        except CutOff:
            stages.add(Checkpoints(folder).restore()[1]["open"])
        assert_same(go_on(data, folder, batch=11, every=50), expected)
    assert stages == {"network", "sketch", "sweep 1", "intersections"}


def test_intersections_of_some_units_can_be_cut_off(
    data, expected, tmp_path, monkeypatch
):
    """Between two parts, the first is kept in its short form."""
    monkeypatch.setattr(engine, "MOST_COUNTERS", 7 * len(data[0]) * 4)
    with pytest.raises(CutOff):
        go_on(data, tmp_path, keep="none", cut=45)
    arrays, notes = Checkpoints(tmp_path).restore()
    assert notes["open"] == "intersections 2 of 2"
    names = [name for name, _ in notes["stages"]]
    assert "intersections 1 of 2, condensed" in names
    assert "intersections 1 of 2" not in names
    assert_same(go_on(data, tmp_path), expected)


def test_damaged_save_is_passed_over(data, expected, tmp_path, capsys):
    with pytest.raises(CutOff):
        go_on(data, tmp_path, keep="none", cut=9)
    steps = Checkpoints(tmp_path).steps()
    assert len(steps) == 2
    last = Checkpoints(tmp_path).path(steps[-1])
    (last / "checkpoint.json").write_text("{")
    (tmp_path / f".{steps[-1] + 1:08d}.77.tmp").mkdir()  # cut off while it was written
    assert_same(go_on(data, tmp_path), expected)
    assert "skipping" in capsys.readouterr().err


def test_save_of_other_shapes_is_refused(data, tmp_path):
    with pytest.raises(CutOff):
        go_on(data, tmp_path, keep="none", cut=9)
    with pytest.raises(UserError, match="other shapes"):
        go_on(make(units=9), tmp_path)


@pytest.mark.parametrize("keep", [pytest.param("none", marks=SLOW), "memory"])
def test_cut_off_after_the_last_step_of_a_pass(
    data, expected, tmp_path, keep, monkeypatch
):
    """Which has room for more images than there are; none of them is read."""
    batch = next(n for n in range(8, 20) if len(data[0]) % n)
    last, save = -(-len(data[0]) // batch), Checkpoints.save

    def saving(self, number, *state):
        save(self, number, *state)
        if number == last:
            raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", saving)
        with pytest.raises(CutOff):
            go_on(data, tmp_path, batch=batch, keep=keep)
    restored = Journal(tmp_path).restore()
    assert f"pass 'network', after {len(data[0])} images" in restored
    assert_same(go_on(data, tmp_path, batch=batch, keep=keep), expected)


def test_errors_of_reading_pass_through(data, tmp_path):
    def broken(indices=None, start=0, stop=None):
        yield from list(reader(data, 8)())[:2]
        raise UserError("the disk is gone")

    engine = Dissection(
        two_layers,
        np.float32(2),
        CONCEPTS,
        Settings(layers=("fine",), quantile=0.05),
        Devices(),
        journal=Journal(tmp_path, every=1, images_a_step=8),
    )
    with pytest.raises(UserError, match="the disk is gone"):
        engine.run(broken, len(data[0]))


def test_saves_about_every_minute(monkeypatch, tmp_path, data):
    """Steps of 25 seconds: saved after 3 of them, not after each."""
    from jdissect.runtime import save_timer

    clock = [0.0]
    saves = []
    save = Checkpoints.save

    def saving(self, number, state, notes):
        saves.append(clock[0])
        return save(self, number, state, notes)

    monkeypatch.setattr(save_timer.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Checkpoints, "save", saving)
    read = reader(data, 8)

    def slow(indices=None, start=0, stop=None):
        for images in read(indices, start, stop):
            clock[0] += 25
            yield images

    settings = Settings(layers=("fine", "coarse"), quantile=0.05, keep="none")
    Dissection(
        two_layers,
        np.float32(2),
        CONCEPTS,
        settings,
        Devices(),
        journal=Journal(tmp_path, images_a_step=8),
    ).run(slow, len(data[0]))
    gaps = np.diff([0, *saves])
    gaps = np.delete(gaps, gaps.argmax())  # that with the pilot images
    assert len(saves) > 5 and (gaps >= 60).all() and (gaps < 200).all()
    assert np.median(gaps) <= 75
