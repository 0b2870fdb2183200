"""Pictures without one of their concepts: everything else stays as it was."""

import numpy as np
import pytest

from jdissect.scenes import CONCEPTS, world
from jdissect.scenes.counterfactual import REMOVED, changed, shows, way
from jdissect.scenes.render import draw, render

SEED, SPLIT = 0, 2
PICTURES = 6


@pytest.fixture(scope="module")
def drawn():
    """Pictures with their label maps, as (index, drawing, pixels, maps)."""
    drawings = [(index, draw(SEED, SPLIT, index)) for index in range(PICTURES)]
    return [(index, one, *one.develop()) for index, one in drawings]


@pytest.fixture(scope="module")
def pairs(drawn):
    """(concept, pixels, maps, pixels without it, maps without it)."""
    found = []
    for index, drawing, pixels, maps in drawn:
        for number in np.unique(maps)[1:]:
            after = changed(drawing, maps, int(number), (SEED, SPLIT, index))
            if after is not None:
                found.append((int(number), pixels, maps, *after))
    return found


def test_the_concept_is_gone(pairs):
    assert len(pairs) > 80
    for number, _, before, _, after in pairs:
        assert shows(before, number).any()
        assert not shows(after, number).any(), CONCEPTS[number]


def test_drawings_stay_as_they_are(drawn, pairs):
    for index, drawing, pixels, maps in drawn:
        again = drawing.develop()
        assert (again[0] == pixels).all() and (again[1] == maps).all()
        assert (render(SEED, SPLIT, index)[0] == pixels).all()


def test_other_labels_change_only_where_the_concept_was(pairs):
    for number, _, before, _, after in pairs:
        there = shows(before, number)
        kept = (before == after)[:, ~there]
        # Where shapes meet, a pixel's majority may change with its neighbor.
        assert kept.all(axis=0).mean() > 0.99, CONCEPTS[number]


def test_paint_keeps_all_other_categories(pairs):
    for number, _, before, _, after in pairs:
        name, category = CONCEPTS[number]
        if way(number) == REMOVED:
            continue
        others = [n for n, one in enumerate(world.MAPS) if one != category]
        assert (before[others] == after[others]).all(), name
        there = shows(before, number)
        own = world.MAPS.index(category)
        assert (before[own] == after[own])[~there].all()
        assert (after[own][there] > 0).all()


def test_pixels_far_from_the_concept_keep_their_bits(pairs):
    """The camera's blur reaches a pixel far, and lamps everywhere."""
    same = []
    for number, pixels, before, without, _ in pairs:
        near = shows(before, number)
        for _ in range(3):
            near = near | np.pad(near, 1)[2:, 1:-1] | np.pad(near, 1)[:-2, 1:-1]
            near = near | np.pad(near, 1)[1:-1, 2:] | np.pad(near, 1)[1:-1, :-2]
        if near.mean() < 0.5:
            same.append((pixels == without).all(axis=-1)[~near].mean())
    # Shadows and lamps of removed things reach farther.
    assert len(same) > 30 and np.median(same) == 1 and np.mean(same) > 0.97


def test_what_has_nothing_behind_it_stays(drawn):
    sky = world.OBJECT_NUMBER["sky"]
    outdoors = [entry for entry in drawn if shows(entry[3], sky).any()]
    assert outdoors
    for index, drawing, _, maps in outdoors:
        assert changed(drawing, maps, sky, (SEED, SPLIT, index)) is None


def test_a_thing_takes_its_shadow_and_its_lamp_along():
    number = world.OBJECT_NUMBER["car"]
    for index in range(200):
        drawing = draw(SEED, SPLIT, index)
        cars = {s.instance for s in drawing.canvas.surfaces if s.object == number}
        if cars & {lamp.instance for lamp in drawing.light.lamps}:
            break
    assert cars & set(drawing.canvas.casters)
    pixels, maps = drawing.develop()
    without, _ = changed(drawing, maps, number, (SEED, SPLIT, index))
    alone = draw(SEED, SPLIT, index)
    canvas = alone.canvas
    for kind in ("polygons", "ellipses"):
        shapes = getattr(canvas, kind)
        shapes[:] = [
            s for s in shapes if canvas.surfaces[s.surface - 1].instance not in cars
        ]
    keep = [n for n, caster in enumerate(canvas.casters) if caster not in cars]
    canvas.shadows, canvas.strengths = (
        [each[n] for n in keep] for each in (canvas.shadows, canvas.strengths)
    )
    lamps = alone.light.lamps
    lamps[:] = [lamp for lamp in lamps if lamp.instance not in cars]
    assert (alone.develop()[0] == without).all()


def test_new_paint_depends_on_the_picture_alone(drawn):
    number = world.COLOR_NUMBER["white"]
    index, drawing, _, maps = drawn[0]
    first, second = (
        changed(drawing, maps, number, (SEED, SPLIT, index))[0] for _ in range(2)
    )
    other = changed(drawing, maps, number, (SEED, SPLIT, index + 1))[0]
    assert (first == second).all() and (first != other).any()
