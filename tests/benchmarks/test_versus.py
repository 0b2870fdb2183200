"""What the comparison with PyTorch makes of times; the times are nobody's."""

import json
import types

import pytest

from benchmarks import versus_torch, versus_training
from benchmarks.support import record
from benchmarks.support.options import parse

EACH = {"jdissect": 0.5, "forwards": 0.4, "best": 1.0, "faithful": 2.0}
ONCE = {"jdissect": 6.0, "best": 3.0}


class Invented:
    """A pipeline whose times are known; the first tasks take longer."""

    def __init__(self, name, options):
        self.name, self.memory, self.tasks = name, 1500.0, []

    def seconds(self, task):
        self.tasks.append(task)
        # The first round compiles; the second is disturbed, which a median forgives.
        late = {1: 100.0, 2: 100.0, 3: 50.0}.get(len(self.tasks), 0.0)
        return late + ONCE.get(self.name, 0.0) + EACH[self.name] * task["images"]

    def close(self):
        pass


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(versus_torch, "Pipeline", Invented)
    argv = ["versus", "--published=p", "--weights=w", "--images=i", "--rounds=5"]
    options = parse(argv, "versus_torch", versus_torch.OPTIONS)
    options.save = "some"
    names = list(versus_torch.SCENARIOS)
    quiet = [
        versus_torch.measure(name, options, tell=lambda *_, **__: None)
        for name in names
    ]
    return options, quiet


def test_an_image_takes_what_more_images_take_longer(rows):
    for row in rows[1]:
        assert row["jdissect, ms an image"].startswith("500 (")
        assert row["best, ms an image"].startswith("1000 (")
        assert row["forwards, ms an image"].startswith("400 (")
        assert row["faithful, ms an image"].startswith("2000 (")
        assert row["jdissect, once, s"] == 6 and row["faithful, GB"] == 1.5
    one = rows[1][0]
    assert one["faithful / jdissect"] == "4.00 (aim 3.5)"
    assert one["best / jdissect"] == "2.00 (aim 1.4)"
    assert one["jdissect / forwards"] == "1.25 (aim 1.05)"


def test_results_of_scenarios_come_together(rows, monkeypatch, tmp_path):
    """In one file, unless another machine or day made what is there."""
    options, found = rows
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    file, names = tmp_path / "some.json", list(versus_torch.SCENARIOS)

    def kept():
        return [row["scenario"] for row in json.loads(file.read_text())["rows"]]

    versus_torch.save(options, found[2:])
    versus_torch.save(options, found[:1])
    assert kept() == [names[0], *names[2:]]
    versus_torch.save(options, [{**found[0], "best, GB": 7.5}])
    assert kept() == [names[0], *names[2:]] and "7.5" in file.read_text()
    assert "torch" in json.loads(file.read_text())["environment"]
    page = file.with_suffix(".md").read_text()
    assert "none was at hand" in page and "aims, one ResNet-50: 50 times" in page
    titles = ("faithful / jdissect", "best / jdissect", "jdissect / forwards")
    for row in json.loads(file.read_text())["rows"]:
        assert [row[f"on a GPU: {title}"] for title in titles] == ["", "", ""]
    file.write_text(file.read_text().replace('"date": "2', '"date": "1'))
    versus_torch.save(options, found[1:2])
    assert kept() == names[1:2]


def test_photographs_are_taken_again(tmp_path):
    for name in ("photographs", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "photographs" / "a.jpg").write_text("a")
    (tmp_path / "photographs" / "b.png").write_text("b")
    under = str(tmp_path / "links")
    assert versus_torch.photographs(str(tmp_path / "photographs"), 5, under) == under
    links = sorted((tmp_path / "links").iterdir())
    assert [link.read_text() for link in links] == list("ababa")
    assert links[3].name == "00003.png"
    (tmp_path / "new").mkdir()
    versus_torch.photographs(str(tmp_path / "photographs"), 5, tmp_path / "new", True)
    found = [file.read_bytes() for file in sorted((tmp_path / "new").iterdir())]
    assert [each[:1] for each in found] == [b"a", b"b", b"a", b"b", b"a"]
    assert len(set(found)) == 5


def test_a_gpus_figures_stand_beside_a_cpus(rows, monkeypatch, tmp_path):
    options, quiet = rows
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    options.device, options.dtype, options.times = "cuda", "bfloat16", 2
    options.save = "versus_torch_gpu"
    tell = {"tell": lambda *_, **__: None}
    names = list(versus_torch.SCENARIOS)[:2]
    found = [versus_torch.measure(name, options, **tell) for name in names]
    assert found[0]["faithful / jdissect"] == "4.00 (aim 50)"
    assert found[0]["jdissect / forwards"] == "1.25"
    assert found[1]["faithful / jdissect"] == "4.00"  # no aim
    versus_torch.save(options, found)
    assert "--times=2" in (tmp_path / "versus_torch_gpu.md").read_text()
    options.device, options.dtype, options.save = "cpu", "float32", "some"
    versus_torch.save(options, quiet)
    one, *_, last = json.loads((tmp_path / "some.json").read_text())["rows"]
    assert one["on a GPU: faithful / jdissect"] == "4.00 (aim 50)"
    assert last["on a GPU: faithful / jdissect"] == ""
    assert "none was at hand" not in (tmp_path / "some.md").read_text()


def test_training_results_have_a_line_a_recipe(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    times = {"step_ms_least": 90.0, "step_ms_most": 150.0, "augment_ms": 2.0}
    rows = [
        {"recipe": recipe, "run": run, "step_ms": 100.0 * n, "ratio": 1.0 * n, **times}
        for recipe in ("none", "mixup")
        for n, run in enumerate(versus_training.RUNS, 1)
    ]
    options = types.SimpleNamespace(save="steps", rounds=5, batch_size=8)
    versus_training.save(options, rows, "a setting")
    kept = json.loads((tmp_path / "steps.json").read_text())
    assert [row["recipe"] for row in kept["rows"]] == ["none", "mixup"]
    assert kept["rows"][1]["best / jdissect"] == "2.00"
    assert kept["notes"][0] == "a setting" and "factor of 1.7" in kept["notes"][-1]
