"""The page of a run: its data, masks, names and size."""

import base64
import html.parser
import io
import json

import numpy as np
import pytest
from PIL import Image

from jdissect import page as command
from jdissect import scenes
from jdissect.report.pages import embedding, layer_data, masks, page, pictures
from jdissect.runtime import command_line
from tests.ops import reference
from tests.report import synthetic


class Reader(html.parser.HTMLParser):
    """What a browser would see of a page: scripts, blocks and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts, self.blocks, self.attributes, self.text = [], {}, [], []
        self._open = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag == "script":
            self._open = found.get("id", "")
            if found.get("type") != "application/json":
                self.scripts.append("")
                self._open = None

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.blocks[self._open] = json.loads(data)
        else:
            self.text.append(data)


def read(path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def numbers(packed) -> np.ndarray:
    kind, text = packed
    return np.frombuffer(base64.b64decode(text), f"<{kind}")


def decoded(block, unit, rank):
    """A mask of a block, a byte after the other."""
    shape, ranks = block["shape"], block["ranks"]
    ends, data = numbers(block["ends"]), numbers(block["data"]).tolist()
    number = unit * ranks + rank
    start = int(ends[number - 1]) if number else 0
    flags, on, length, shift = [], False, 0, 0
    for byte in data[start : int(ends[number])]:
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            flags += [on] * length
            on, length, shift = not on, 0, 0
    flags += [on] * (shape[0] * shape[1] - len(flags))
    return np.array(flags).reshape(shape)


@pytest.fixture(scope="module")
def result():
    return synthetic.make_result(names=synthetic.HOSTILE)


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "a <b>run & more"
    run, source = synthetic.make_run(folder, result)
    path = page.write_report(
        run, {"layer4": synthetic.make_estimates(result)}, source=source
    )
    return read(path)


def test_masks_are_exact(result, written):
    block = written.blocks["masks-0"]
    assert block["ranks"] == 5 and block["shape"] == [56, 56]
    for unit in (0, 17, 59):
        maps = np.moveaxis(result.top_map[unit], 0, -1)  # height width k
        pixels = np.moveaxis(reference.upsample(maps, (56, 56)), -1, 0)
        expected = pixels > result.thresholds[unit]
        assert 0 < expected.mean() < 1
        for rank in range(5):
            np.testing.assert_array_equal(decoded(block, unit, rank), expected[rank])


def test_run_lengths_of_any_mask():
    rng = np.random.default_rng(0)
    flags = rng.random((6, 40_000)) < 0.02
    flags[0], flags[1] = False, True
    flags[2, :20_000], flags[2, 20_000:] = False, True  # a varint of three bytes
    flags[3, :200] = True  # begins with an empty run
    flags[4, 128:256] = False
    data, size = masks.run_lengths(flags)
    assert size[0] == 0 and size[1] == 1 and size[2] == 3
    block = {
        "shape": [200, 200],
        "ranks": 1,
        "ends": embedding.packed(size.cumsum(), "u4"),
        "data": embedding.packed(data, "u1"),
    }
    for number, mask in enumerate(flags):
        np.testing.assert_array_equal(decoded(block, number, 0).reshape(-1), mask)


def test_fewer_masks_where_there_is_no_room(result):
    units = np.arange(60)
    whole = masks.encode(result, units, 5, 10**9)
    some = masks.encode(result, units, 5, len(whole.data) // 2)
    assert whole.ranks == 5 and 1 <= some.ranks < 3
    block = layer_data.mask_arrays(some)
    for unit, rank in ((0, 0), (59, some.ranks - 1)):
        expected = decoded(layer_data.mask_arrays(whole), unit, rank)
        np.testing.assert_array_equal(decoded(block, unit, rank), expected)
    assert masks.encode(result, units, 5, 10) is None
    assert masks.encode(result.replace(top_map=None), units, 5, 10**9) is None
    assert masks.encode(result.replace(mask_shape=None), units, 5, 10**9) is None


def test_numbers_of_the_units(result, written):
    data = written.blocks["units-0"]
    names = written.blocks["page"]["images"]
    iou = result.intersection / result.union
    five = numbers(data["fiveConcept"]).reshape(60, 5)
    of_five = numbers(data["fiveIou"]).reshape(60, 5)
    for unit in (0, 31, 58):
        expected = sorted(range(40), key=lambda c: (-iou[unit, c], c))[:5]
        assert five[unit].tolist() == expected
        np.testing.assert_allclose(of_five[unit], iou[unit, expected], rtol=1e-6)
        place = numbers(data["topImage"]).reshape(60, 5)[unit, 2]
        assert names[place] == f"photographs/{result.top_image[unit, 2]:05d}.jpg"
    assert not of_five[59].any()  # never fires
    np.testing.assert_array_equal(numbers(data["best"]), result.best_concept)
    assert numbers(data["iou"]).tolist() == result.best_iou.tolist()  # to the bit
    best = [max(range(59), key=lambda u: (iou[u, c], -u)) for c in range(40)]
    assert numbers(data["conceptUnit"]).tolist() == best


def test_histograms_keep_their_sums(result, written):
    data = written.blocks["histograms-0"]
    counts = numbers(data["counts"]).reshape(60, data["bins"])
    np.testing.assert_array_equal(counts, result.histogram_counts)  # 41 bins: as is
    joined, edges = layer_data.histogram(result, bins=12)
    assert joined.shape == (60, 11) and edges.shape == (60, 12)
    np.testing.assert_array_equal(joined[:, 0], result.histogram_counts[:, 0])
    np.testing.assert_array_equal(
        joined[:, 1], result.histogram_counts[:, 1:5].sum(axis=1)
    )
    np.testing.assert_array_equal(joined.sum(axis=1), counts.sum(axis=1))
    np.testing.assert_array_equal(edges[:, [0, -1]], result.histogram_edges[:, [0, -1]])


def test_counts_and_intervals_are_shown(result, written):
    shown = " ".join("".join(written.text).split())
    for threshold in result.iou_thresholds:
        total = result.unique_concepts(threshold)["total"]
        units = result.detector_units(threshold)["total"]
        assert f"{total} ({units})" in shown
        assert f"{total - 2.0:.1f}–{total + 2.0:.1f}" in shown


def test_names_are_text(written):
    assert len(written.scripts) == 1
    assert not [a for a in written.attributes if a[1].startswith("on")]
    assert "".join(written.text).count("a <b>run & more") == 2  # title, heading
    layer = written.blocks["page"]["layers"][0]
    assert layer["concepts"][: len(synthetic.HOSTILE)] == list(synthetic.HOSTILE)
    # Nothing is fetched: no address in any attribute.
    fetched = [a for a in written.attributes if a[1] in ("src", "href", "srcset")]
    assert [value for _, _, value in fetched] == ["#found"]


def test_json_ends_no_block():
    text = str(embedding.json_text({"a": "</script><!--\u2028&", "b": "\ud800"}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&", "b": "\ud800"}
    with pytest.raises(ValueError):
        embedding.json_text(float("nan"))


def test_a_missing_source_is_said(result, tmp_path, capsys):
    run, source = synthetic.make_run(tmp_path / "run", result)
    written = read(page.write_report(run))  # the folder 'photographs' is not there
    error = capsys.readouterr().err
    assert error.startswith("warning: no pictures") and error.count("\n") == 1
    assert "No pictures" in "".join(written.text)
    assert not [id for id in written.blocks if id.startswith("pictures")]
    # Other images under the same names, and no feature maps.
    run, source = synthetic.make_run(tmp_path / "run", result.replace(top_map=None))
    other = synthetic.NoiseSource(50, side=64)
    written = read(page.write_report(run, source=other))
    error = capsys.readouterr().err
    top = len(np.unique(result.top_image))
    assert f"{top} images of" in error and "changed since the run" in error
    text = "".join(written.text)
    assert "No pictures" in text and f"{top} pictures missing" in text
    assert "No masks" in text and written.blocks["masks-0"] is None
    # Only the first seven images are still there.
    written = read(page.write_report(run, source=synthetic.NoiseSource(7)))
    first = (np.unique(result.top_image) < 7).tolist()
    assert f"{first.count(False)} images of" in capsys.readouterr().err
    assert [bool(text) for text in written.blocks["pictures-0"]] == first


def test_unreadable_images_are_left_out(result, tmp_path):
    run, _ = synthetic.make_run(tmp_path / "run", result)
    source = synthetic.NoiseSource(50, unreadable=(3, 8))
    written = read(page.write_report(run, source=source))
    names = written.blocks["page"]["images"]
    encoded = dict(zip(names, written.blocks["pictures-0"], strict=True))
    missing = {name for name, text in encoded.items() if not text}
    assert missing == {"photographs/00003.jpg", "photographs/00008.jpg"}


def test_several_layers_share_thumbnails(result, tmp_path):
    deep = synthetic.make_result(units=20, seed=1, layer="head")
    run, source = synthetic.make_run(tmp_path / "run", {"layer4": result, "head": deep})
    blocks = read(page.write_report(run, source=source)).blocks
    assert [layer["name"] for layer in blocks["page"]["layers"]] == ["layer4", "head"]
    assert len(numbers(blocks["units-1"]["best"])) == 20
    used = np.union1d(result.top_image, deep.top_image)
    assert len(blocks["page"]["images"]) == len(used) == len(blocks["pictures-0"])


def test_thumbnails_fit_their_budget(monkeypatch):
    source = synthetic.NoiseSource(150)
    reads = []

    def pixels(index):
        reads.append(index)
        return source.read(index).pixels

    first, others = range(50), range(40, 150)
    large = pictures.make(pixels, (first, others), 10**7)
    assert (large.side, large.ranks, len(large.encoded)) == (128, 2, 150)
    assert len(reads) <= 150 + 160  # a sample, then each once
    for budget, smallest in ((200_000, 48), (75_000, 64), (5_000, 48)):
        made = pictures.make(pixels, (first, others), budget, smallest)
        texts = [base64.b64encode(content) for content in made.encoded.values()]
        size = sum(len(text) + 3 for text in texts)
        assert 0.3 * budget < size <= budget
        assert made.side >= smallest or made.ranks == 1
    assert made.ranks == 1 and set(made.encoded) <= set(first)
    monkeypatch.setattr(pictures.features, "check", lambda name: False)
    made = pictures.make(pixels, (first,), 10**7)
    assert made.mime == "image/jpeg"
    assert all(content[:2] == b"\xff\xd8" for content in made.encoded.values())
    assert pictures.make(pixels, ((), ()), 100).encoded == {}
    assert pictures.make(lambda index: None, (first,), 100).encoded == {}


def test_a_sample_may_be_wrong():
    source = synthetic.NoiseSource(300)
    flat = np.full((112, 112, 3), 90, np.uint8)
    asked = []

    def pixels(index):
        asked.append(index)
        return flat if index % 3 == 0 else source.read(index).pixels

    made = pictures.make(pixels, (range(300),), 500_000)
    assert asked[:4] == [0, 3, 6, 9]  # the sample is of flat ones only
    size = sum(len(base64.b64encode(c)) + 3 for c in made.encoded.values())
    assert size <= 500_000 and len(made.encoded) == 300 and made.side < 128


def test_long_names_are_cut():
    assert page.image_name(["x" * 300 + ".jpg"], 0).endswith("x.jpg")
    assert len(page.image_name(["x" * 300], 0)) == layer_data.NAME
    assert page.image_name((), 4) == "image 4"
    assert len(layer_data.short("y" * 999)) == layer_data.NAME


def test_the_command_writes_a_finished_run(tmp_path, capsys):
    folder = tmp_path / "run"
    result = synthetic.make_result(12, 20, 6)
    result.save(folder / "layer4")
    config = {
        "data": {
            "source": "scenes",
            "path": "",
            "split": "probe",
            "name": "",
            "num_images": 6,
        },
        "segmenter": {"name": "annotations"},
    }
    summary = {
        "format_version": 1,
        "status": "finished",
        "images": 6,
        "layers": ["layer4"],
        "identity": {},
        "seconds": {},
    }
    names = scenes.open_scenes("probe", 6).names
    rows = [f"{n},{name},0,0" for n, name in enumerate(names)]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "images.csv").write_text("\n".join(["index,name,block,skipped", *rows]))
    assert command_line.entry(command.main, ["page", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{folder / 'report.html'}, ") and not captured.err
    blocks = read(folder / "report.html").blocks
    assert blocks["page"]["images"] == list(names)
    assert blocks["masks-0"]["shape"] == [56, 56]
    for text, index in zip(blocks["pictures-0"], range(6), strict=True):
        thumbnail = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        drawn = scenes.open_scenes("probe", 6).read(index).pixels
        assert thumbnail.size == (112, 112)
        difference = np.abs(np.asarray(thumbnail, float) - drawn)
        assert difference.mean() < 8  # of 255


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    for arguments in ((), (tmp_path / "none",), ("--nothing",)):
        assert command_line.entry(command.main, ["page", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
