"""Charts: they say what they were given, and the same bytes every time."""

import io
import itertools
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jdissect.report.figures import drawing
from jdissect.report.figures.charts import (
    Bar,
    Difference,
    Line,
    concepts_by_category,
    curve,
    differences,
)

COUNTS = {"object": 27, "part": 9, "material": 18, "color": 11, "total": 65}
STUDY = ("baseline", "cutout", "mixup", "cutmix", "saliencymix")
THRESHOLDS = (0.03, 0.04, 0.05)


def texts(figure):
    """The text of the SVG, element by element."""
    root = ElementTree.fromstring(drawing.svg(figure))
    return [
        "".join(element.itertext())
        for element in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def pixels(figure, mode="RGB"):
    with Image.open(io.BytesIO(drawing.png(figure))) as image:
        assert image.info["dpi"] == pytest.approx((drawing.DPI,) * 2, abs=0.1)
        return np.asarray(image.convert(mode)).astype(int)


def bars(models, **changes):
    return [Bar(model, COUNTS, **changes) for model in models]


def test_bars_say_what_they_were_given():
    rng = np.random.default_rng(3)
    panels = {
        threshold: [
            Bar(
                model,
                dict(zip(COUNTS, rng.integers(35, 90, 4).tolist(), strict=False)),
                error=float(rng.uniform(0, 50)),
            )
            for model in STUDY
        ]
        for threshold in THRESHOLDS
    }
    shown = texts(concepts_by_category(panels, title="A title", note="A note."))
    for threshold, row in panels.items():
        assert len(row) == 5 and f"IoU > {threshold}" in shown
    numbers = [int(text) for text in shown if re.fullmatch(r"\d+", text)]
    given = [n for row in panels.values() for bar in row for n in bar.counts.values()]
    totals = [sum(bar.counts.values()) for row in panels.values() for bar in row]
    for number in given + totals:
        numbers.remove(number)  # raises if it is not there as often as given
    assert all(number % 10 == 0 for number in numbers)  # what is left: the axis
    for bar in panels[0.05]:  # names under the bars, in every panel
        assert shown.count(bar.model) == 3
        assert f"error {bar.error:.2f} %" in shown
    assert {"object", "part", "material", "color", "A title", "A note."} <= {*shown}
    assert "total" not in shown


def test_a_number_without_room_is_left_out():
    counts = {"object": 90, "part": 1}
    shown = texts(concepts_by_category({0.04: [Bar("one", counts)]}))
    assert "90" in shown and "91" in shown and "1" not in shown


def test_bars_are_as_tall_as_their_numbers():
    figure = concepts_by_category({0.04: bars(["one"])})
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == [27, 9, 18, 11]
    floors = [patch.get_y() for patch in figure.axes[0].patches]
    assert floors == [0, 27, 36, 54]


def test_intervals_and_cross_fitted_counts_are_where_they_belong():
    row = bars(["one"], interval=(60, 71), cross_fitted=50.5, cross_interval=(44, 55))
    figure = concepts_by_category({0.04: row}, interval_name="90 % interval")
    lines = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert lines.count([60, 71]) == lines.count([44, 55]) == 2  # in white, then black
    assert [50.5] in lines
    shown = texts(figure)
    assert {"total: 90 % interval", "total, cross-fitted"} <= {*shown}
    assert figure.axes[0].get_ylim()[1] > 71
    without = texts(concepts_by_category({0.04: bars(["one"])}))
    assert not any("total" in text for text in without)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_any_number_of_models(count):
    names = [f"network {n}" for n in range(count)]
    panels = {t: bars(names, interval=(60, 71), error=3.5) for t in THRESHOLDS}
    rows = {t: [Difference(n, -3, (-5, 1)) for n in names] for t in THRESHOLDS}
    lines = [Line(n, [3, 2], [1, 1], [4, 3]) for n in names]
    for figure in (
        concepts_by_category(panels, title="Networks"),
        curve([0.01, 0.3], lines, marked=THRESHOLDS),
        differences(rows, baseline="baseline"),
    ):
        assert set(names) <= set(texts(figure))
        assert inside(figure)


def inside(figure):
    """Whether nothing touches the border: a picture that is cut off does."""
    picture = pixels(figure, "L")
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return all((edge == 255).all() for edge in edges)


def test_nothing_found_is_drawn_too():
    nothing = dict.fromkeys(COUNTS, 0)
    for figure in (
        concepts_by_category({t: [Bar("one", nothing)] for t in THRESHOLDS}),
        curve([0.1, 0.2], [Line("one", [0, 0])]),
        differences({0.04: [Difference("one", 0, (0, 0))]}, baseline="two"),
    ):
        ticks = [text for text in texts(figure) if re.fullmatch(r"[-−]?[\d.]+", text)]
        assert "one" in texts(figure) and "0" in ticks and inside(figure)


@pytest.mark.parametrize("panels", [1, 3, 5])
@pytest.mark.parametrize("models", [2, 8])
def test_long_names_leave_room(panels, models):
    names = [f"resnet50 imagenet number {n}" for n in range(models)]
    thresholds = [n / 100 for n in range(1, panels + 1)]
    note = "Coverage of these intervals was measured below 90 %. " * 3
    figure = concepts_by_category(
        {t: bars(names, interval=(60, 71), error=12.5) for t in thresholds},
        title="A title of more than a line, " * 4,
        note=note,
    )
    assert inside(figure)  # draws, so that what follows is in place
    for axes in figure.axes:
        assert axes.get_window_extent().height / figure.dpi > 1.1  # inches
        assert axes.get_window_extent().width / figure.dpi > 0.35 * models


def test_names_are_taken_as_they_are():
    names = ["$x_1$", "_hidden", "a_b^c", "<b>&amp;", r"\alpha", "$", "line\nbreak\x00"]
    categories = {"$part$": 12, "_material": 13}
    rows = [Bar(name, categories) for name in names]
    shown = texts(concepts_by_category({0.04: rows}, title="$T$", note="_N_"))
    printed = [*names[:-1], "line break", *categories, "$T$", "_N_"]
    assert set(printed) <= set(shown)
    assert set(printed[:7]) <= set(
        texts(curve([0.1, 0.2], [Line(name, [2, 1]) for name in names]))
    )
    differing = [Difference(name, 1) for name in names]
    assert set(printed[:7]) <= set(texts(differences({0.04: differing}, baseline="$")))


def test_long_names_are_shortened_and_stay_apart():
    names = [f"resnet50_imagenet_{n}_trained_for_three_hundred_epochs" for n in "ab"]
    short = drawing.short_names([*names, "mixup"])
    assert len(set(short)) == 3 and short[2] == "mixup"
    assert all(len(name) <= 22 for name in short)
    assert drawing.short_names(["same", "same"]) == ["same (1)", "same (2)"]
    assert set(short) <= set(
        texts(concepts_by_category({0.04: bars([*names, "mixup"])}))
    )


def figures():
    rows = bars(STUDY, interval=(60, 71), cross_fitted=50, error=20)
    counts = {**COUNTS, "scene": 12, "texture": 15}
    lines = [Line(m, [5, 3, 1], [4, 2, 0], [6, 4, 2]) for m in STUDY]
    gaps = [Difference(m, -2.5, (-4, -1)) for m in STUDY]
    return {
        "bars": concepts_by_category({0.03: rows, 0.04: rows}),
        "hatched": concepts_by_category({0.04: [Bar("one", counts)]}),
        "curve": curve([0.1, 0.2, 0.3], lines),
        "differences": differences({0.04: gaps}, baseline="baseline"),
    }


def test_the_same_bytes_every_time():
    first = {name: (drawing.svg(f), drawing.png(f)) for name, f in figures().items()}
    # Whatever the user's own settings are, and with other figures drawn before.
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}):
        again = {
            name: (drawing.svg(f), drawing.png(f)) for name, f in figures().items()
        }
    assert first == again
    for svg, png in first.values():
        assert b"<dc:date>" not in svg and b"Matplotlib v" not in svg
        assert b"Software" not in png and b"tIME" not in png


def test_drawing_leaves_the_users_settings_alone():
    before = dict(matplotlib.rcParams)
    drawing.png(concepts_by_category({0.04: bars(["one"])}))
    assert dict(matplotlib.rcParams) == before


def test_categories_are_told_apart_in_black_and_white():
    """On the print itself: the median grey of each part of a bar."""
    counts = dict.fromkeys(("object", "part", "material", "color"), 100)
    figure = concepts_by_category({0.04: [Bar("one", counts)]})
    grey = pixels(figure, "L")
    (axes,) = figure.axes
    levels = []
    for patch in axes.patches:
        box = patch.get_window_extent()
        scale = drawing.DPI / figure.dpi
        rows = [len(grey) - round(scale * y) for y in (box.y1, box.y0)]
        columns = [round(scale * x) for x in (box.x0, box.x1)]
        levels.append(np.median(grey[slice(*rows), slice(*columns)]))
    assert len(levels) == 4 and levels == sorted(levels)
    assert min(b - a for a, b in itertools.pairwise(levels)) > 40  # of 255


def test_the_curve_shows_its_numbers():
    thresholds = np.linspace(0.01, 0.3, 30)
    values = [np.arange(30, 0, -1), np.arange(60, 0, -2)]
    given = [Line("one", values[0]), Line("two", values[1])]
    figure = curve(thresholds, given, marked=(0.04,), note="A note.")
    lines = figure.axes[0].lines
    for line, expected in zip(lines, values, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), thresholds)
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert list(lines[2].get_xdata()) == [0.04, 0.04]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert "A note." in texts(figure)


def test_differences_show_their_numbers():
    row = [
        Difference("clear", -12, (-15, -8)),
        Difference("unclear", 2.25, (-1, 4.5)),
        Difference("none", 0),
    ]
    figure = differences({0.05: row}, baseline="baseline")
    assert {"−12", "+2.2", "0", "minus those of baseline"} <= {*texts(figure)}
    lines = [(list(x.get_xdata()), x.get_mfc()) for x in figure.axes[0].lines]
    assert [x for x, _ in lines[1::2]] == [[-15, -8], [-1, 4.5], [0, 0]]
    dots = lines[2::2]
    assert [x for x, _ in dots] == [[-12], [2.25], [0]]
    assert dots[0][1] != dots[1][1]  # hollow where the interval holds 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda: concepts_by_category({}),
        lambda: concepts_by_category({0.04: []}),
        lambda: concepts_by_category({0.04: [Bar("one", {"total": 3})]}),
        lambda: concepts_by_category({0.03: bars("ab"), 0.04: bars("ba")}),
        lambda: differences({}, baseline="one"),
        lambda: curve([0.1, 0.2], []),
        lambda: curve([0.1, 0.2], [Line("one", [1])]),
    ],
)
def test_what_does_not_fit_is_refused(draw):
    with pytest.raises(ValueError, match="need"):
        draw()


def test_files_are_written_whole(tmp_path):
    figure = concepts_by_category({0.04: bars(["one"])})
    files = drawing.write(figure, tmp_path / "new", "counts")
    assert [file.name for file in files] == ["counts.svg", "counts.png"]
    assert files[0].read_bytes() == drawing.svg(figure)
    assert sorted(p.name for p in files[0].parent.iterdir()) == [
        "counts.png",
        "counts.svg",
    ]
