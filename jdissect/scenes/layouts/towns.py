"""Layouts: streets and playgrounds."""

from collections.abc import Sequence

from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.clutter import outside
from jdissect.scenes.layouts.weather import outdoors
from jdissect.scenes.stage import FLAT, Stage, Thing
from jdissect.scenes.things.beings import dog, person
from jdissect.scenes.things.buildings import building, house
from jdissect.scenes.things.nature import bush, flower, tree
from jdissect.scenes.things.outdoors import (
    ball,
    bench,
    fence,
    sign,
    slide,
    streetlight,
    swing,
    traffic_light,
)
from jdissect.scenes.things.vehicles import bus, car, car_ahead
from jdissect.scenes.world import SIDE


def row_of_houses(
    stage: Stage, y: float, kinds: Sequence[Thing], gap: float = 0.5
) -> None:
    """Draws houses side by side along row `y`."""
    draws = stage.draws
    scale = stage.scale(y)
    x = draws.uniform(-4, 1) * scale
    while x < SIDE + 3 * scale:
        if draws.chance(0.12):
            stage.put(tree, x + 2 * scale, y)
            x += 4 * scale
            continue
        kind = draws.pick(kinds)
        half = 4.2 if kind is house else 4.6
        stage.put(kind, x + half * scale, y - draws.uniform(0, 0.5))
        x += (2 * half + draws.uniform(0, gap)) * scale


def street(draws: Draws) -> Stage:
    """Lays out a street across the picture, or one that leads away."""
    return _street_along(draws) if draws.chance(0.5) else _street_across(draws)


def _street_across(draws: Draws) -> Stage:
    stage, _ = outdoors(draws, (42, 64), (2.2, 3.4))
    h = stage.horizon
    asphalt = stage.stuff("asphalt", "gray", "gray", "black")
    slab = stage.stuff("stone", "gray", "gray", "brown")
    far, near = h + draws.uniform(15, 19), h + draws.uniform(36, 44)
    stage.ground("pavement", slab, h)
    stage.ground("road", asphalt, far, near)
    kerb = stage.stuff("stone", "white", "gray")
    stage.ground("pavement", kerb, far - 1.2, far, part="kerb", ground=0)
    stage.ground("pavement", kerb, near, near + 1.6, part="kerb", ground=0)
    paint = stage.stuff("plaster", "white", "yellow")
    pen, middle = stage.flat("road"), (far * 0.56 + near * 0.44)
    x = draws.uniform(-16, 0)
    while x < SIDE:
        corners = (
            (x, -middle + 1.1),
            (x + 9, -middle + 1.1),
            (x + 9, -middle - 1.1),
            (x, -middle - 1.1),
        )
        pen.poly("lane marking", paint, *corners, **FLAT)
        x += 18
    row_of_houses(stage, far - 5, (house, building, building))
    lanes = (far + 4 + (near - far) * 0.2, near - 2)
    traffic = draws.integer(1, 3)
    for place in range(traffic):
        kind = bus if draws.chance(0.3) else car
        stage.put(kind, draws.uniform(0, 44) + place * 42, lanes[place % 2])
    for _ in range(draws.integer(0, 2)):
        stage.put(tree, stage.anywhere(), far - 1.5, size=0.8)
    stage.put(streetlight, stage.anywhere(), draws.pick((far - 1, near + 3)))
    if draws.chance(0.6):
        stage.put(traffic_light, stage.anywhere(), near + 3)
    if draws.chance(0.4):
        stage.put(sign, stage.anywhere(), near + 4)
    for _ in range(draws.integer(1, 3)):
        stage.put(person, stage.anywhere(), draws.pick((far - 2, near + 5, near + 10)))
    if draws.chance(0.3):
        stage.put(dog, stage.anywhere(), near + draws.uniform(4, 12))
    if draws.chance(0.2):
        stage.put(bench, stage.anywhere(), near + draws.uniform(5, 10))
    outside(stage, near + 4)
    return stage


def _street_along(draws: Draws) -> Stage:
    stage, _ = outdoors(draws, (40, 64), (1.9, 2.8))
    h = stage.horizon
    slab = stage.stuff("stone", "gray", "gray", "brown")
    stage.ground("pavement", slab, h)
    road = stage.flat("road")
    asphalt = stage.stuff("asphalt", "gray", "gray", "black")
    kerb = stage.stuff("stone", "white", "gray")
    center = 56 + draws.uniform(-14, 14)
    half = draws.uniform(42, 58)

    def strip(part, stuff, left, right, top=0.03, bottom=1.0):
        """Draws ground between two lines through the vanishing point; 1: bottom row."""
        a, b = h + (SIDE - h) * top, h + (SIDE - h) * bottom
        road.poly(
            part,
            stuff,
            (56 + (center - 56 + left * half) * top, -a),
            (56 + (center - 56 + right * half) * top, -a),
            (56 + (center - 56 + right * half) * bottom, -b),
            (56 + (center - 56 + left * half) * bottom, -b),
            **FLAT,
        )

    strip("kerb", kerb, -1.06, 1.06)
    strip("", asphalt, -1, 1)
    paint = stage.stuff("plaster", "white", "yellow")
    depth = draws.uniform(1.0, 1.3)
    while depth > 0.05:
        strip("lane marking", paint, -0.04, 0.04, depth * 0.78, min(depth, 1.0))
        depth *= 0.6
    for side in (-1, 1):
        kinds: tuple[Thing, ...] = draws.pick(
            ((house,), (building,), (house, building))
        )
        share = draws.uniform(0.14, 0.17)
        for _ in range(4):
            y = h + (SIDE - h) * share
            scale = stage.scale(y)
            edge = 56 + (center - 56 + side * half * 1.3) * share
            stage.put(draws.pick(kinds), edge + side * 4.6 * scale, y)
            share *= draws.uniform(1.32, 1.5)
        for share in (0.2, 0.42):
            thing = draws.pick((tree, streetlight, streetlight, None))
            if thing:
                stage.put(
                    thing,
                    56 + (center - 56 + side * half * 1.14) * share,
                    h + (SIDE - h) * share,
                )
    for place in range(draws.integer(1, 3)):
        share = draws.uniform(0.25, 0.85)
        x = 56 + (center - 56 + draws.uniform(-0.8, 0.8) * half) * share
        stage.put(
            draws.pick((bus, car_ahead, car_ahead, car))
            if place == 0
            else draws.pick((car, car_ahead)),
            x,
            h + (SIDE - h) * share,
        )
    for _ in range(draws.integer(1, 3)):
        share = draws.uniform(0.3, 0.9)
        x = 56 + (center - 56 + draws.sign() * half * draws.uniform(1.1, 1.5)) * share
        stage.put(person, x, h + (SIDE - h) * share)
    if draws.chance(0.4):
        share = draws.uniform(0.5, 0.8)
        stage.put(
            traffic_light,
            56 + (center - 56 + draws.sign() * half * 1.15) * share,
            h + (SIDE - h) * share,
        )
    if draws.chance(0.25):
        stage.put(dog, stage.anywhere(), h + (SIDE - h) * draws.uniform(0.7, 0.95))
    outside(stage, h + 24)
    return stage


def playground(draws: Draws) -> Stage:
    """Lays out slides and swings, on grass or sand."""
    stage, _ = outdoors(draws, (36, 64), (1.7, 2.6))
    h = stage.horizon
    stage.ground("grass", stage.stuff("grass", "green", "green", "yellow"), h)
    pit = draws.chance(0.5)
    if pit:
        sand = stage.stuff("sand", "yellow", "brown", "orange")
        pen = stage.flat("sand")
        pen.disc(
            "", sand, draws.uniform(30, 80), -draws.uniform(84, 96), 52, 18, **FLAT
        )
    behind = draws.integer(0, 3)
    if behind == 0:
        row_of_houses(stage, h + 9, (house, building))
    elif behind == 1:
        stage.scatter(tree, 3, 6, h + 6, h + 12)
    elif behind == 2:
        stage.scatter(bush, 4, 8, h + 7, h + 12, size=1.4)
    if draws.chance(0.5):
        stage.put(fence, -4, h + 14)
    things = [slide, swing]
    if draws.chance(0.4):
        things = [draws.pick(things)] if draws.chance(0.8) else []
    sides = draws.permutation(2)
    for place, thing in enumerate(things):
        x = draws.uniform(20, 46) if sides[place] else draws.uniform(66, 92)
        stage.put(thing, x, h + draws.uniform(22, 42))
    if draws.chance(0.5):
        stage.put(
            tree,
            draws.pick((draws.uniform(-6, 18), draws.uniform(94, 118))),
            h + draws.uniform(14, 30),
        )
    if draws.chance(0.5):
        stage.put(bench, stage.anywhere(), h + draws.uniform(18, 40))
    for _ in range(draws.integer(1, 4)):
        size = draws.pick((0.65, 0.75, 1.0))
        stage.put(person, stage.anywhere(), stage.between(h + 22, 109), size=size)
    if draws.chance(0.6):
        stage.put(ball, stage.anywhere(), stage.between(h + 34, 109))
    if draws.chance(0.2):
        stage.put(dog, stage.anywhere(), stage.between(h + 26, 108))
    if draws.chance(0.25):
        stage.scatter(flower, 1, 4, h + 20, 110)
    outside(stage, h + 20)
    return stage
