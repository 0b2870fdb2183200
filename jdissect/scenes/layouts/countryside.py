"""Layouts: farms, forests and gardens."""

from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.clutter import outside
from jdissect.scenes.layouts.weather import outdoors
from jdissect.scenes.palette import as_rgb
from jdissect.scenes.stage import FLAT, Stage
from jdissect.scenes.things.beings import cow, dog, person
from jdissect.scenes.things.buildings import barn, house
from jdissect.scenes.things.furniture import chair, table
from jdissect.scenes.things.household import bottle, plant
from jdissect.scenes.things.nature import (
    bush,
    fir,
    flower,
    leaves,
    mountains,
    rock,
    tree,
)
from jdissect.scenes.things.outdoors import ball, bench, fence, swing, umbrella
from jdissect.scenes.things.vehicles import car, tractor
from jdissect.scenes.world import SIDE


def farm(draws: Draws) -> Stage:
    """Lays out fields and meadows, a barn, cows, a tractor."""
    stage, _ = outdoors(draws, (34, 64), (1.9, 2.9))
    h = stage.horizon
    if draws.chance(0.3):
        mountains(stage, h + 2, draws.uniform(6, 14), snow=0.1)
    stage.ground("grass", stage.stuff("grass", "green", "green", "yellow", "brown"), h)
    if draws.chance(0.6):
        _ploughed(stage, draws.uniform(h + 10, h + 26))
    stage.scatter(tree, 0, 4, h + 5, h + 12, size=0.9)
    if draws.chance(0.75):
        stage.put(barn, draws.uniform(14, 98), h + draws.uniform(11, 17))
    if draws.chance(0.3):
        stage.put(house, draws.uniform(6, 106), h + draws.uniform(10, 14))
    if draws.chance(0.6):
        stage.put(fence, -4, h + draws.uniform(16, 34))
    stage.scatter(cow, 0, 3, h + 16, 104)
    if draws.chance(0.55):
        stage.put(tractor, draws.uniform(16, 96), h + draws.uniform(20, 40))
    if draws.chance(0.2):
        stage.put(car, stage.anywhere(), h + draws.uniform(14, 30))
    if draws.chance(0.45):
        stage.put(person, stage.anywhere(), stage.between(h + 16, 106))
    if draws.chance(0.25):
        stage.put(dog, stage.anywhere(), stage.between(h + 20, 106))
    outside(stage, h + 16)
    return stage


def _ploughed(stage: Stage, top: float) -> None:
    """Draws a field from row `top` down, with furrows leading into the distance."""
    soil = stage.stuff("soil", "brown")
    dark = soil._replace(rgb=as_rgb(c * 0.78 for c in soil.rgb))
    if stage.draws.chance(0.35):  # something grows in the rows
        dark = stage.stuff("foliage", "green", "green", "yellow")
    stage.ground("field", soil, top)
    pen, h = stage.flat("field"), stage.horizon
    reach = (top - h) / (SIDE - h)
    start = stage.draws.uniform(-8, 8)
    for place in range(-14, 16):
        low = (start + place * 24, start + place * 24 + 10)
        high = tuple(56 + (x - 56) * reach for x in low)
        pen.poly(
            "furrow",
            dark,
            (high[0], -top),
            (high[1], -top),
            (low[1], -SIDE),
            (low[0], -SIDE),
            **FLAT,
        )


def forest(draws: Draws) -> Stage:
    """Lays out many trees, near and far."""
    stage, _ = outdoors(draws, (34, 64), (1.6, 2.4))
    h = stage.horizon
    floor = draws.integer(0, 2)
    if floor == 0:
        stage.ground("field", stage.stuff("soil", "brown"), h)
    else:
        stage.ground(
            "grass", stage.stuff("grass", "green", "green", "brown", "yellow"), h
        )
    leaf = leaves(stage)
    backdrop = stage.stuff("foliage", "green") if draws.chance(0.6) else leaf
    backdrop = backdrop._replace(rgb=as_rgb(c * 0.72 for c in backdrop.rgb))
    far = stage.flat("tree", haze=stage.haze(h + 4))
    x = -4.0
    while x < SIDE + 4:
        high = draws.uniform(14, 30)
        far.disc(
            "crown",
            backdrop,
            x,
            high * 0.45 - h,
            draws.uniform(6, 10),
            high * 0.62,
            bright=draws.uniform(-0.1, 0.08),
            fall=0.14,
        )
        x += draws.uniform(7, 12)
    conifer = draws.chance(0.4)
    for _ in range(draws.integer(4, 12)):
        kind = fir if draws.chance(0.75 if conifer else 0.2) else tree
        options = {"leaf": leaf} if kind is tree and draws.chance(0.7) else {}
        y = h + 5 + draws.unit() * draws.unit() * 42
        stage.put(kind, stage.anywhere(), y, size=draws.uniform(0.9, 1.25), **options)
    stage.scatter(bush, 0, 4, h + 9, 108, size=0.9)
    stage.scatter(rock, 0, 2, h + 12, 108)
    if draws.chance(0.2):
        stage.scatter(flower, 1, 4, h + 20, 110)
    if draws.chance(0.35):
        stage.put(person, stage.anywhere(), stage.between(h + 14, 106))
    if draws.chance(0.2):
        stage.put(dog, stage.anywhere(), stage.between(h + 18, 106))
    if draws.chance(0.12):
        stage.put(bench, stage.anywhere(), stage.between(h + 18, 104))
    outside(stage, h + 14)
    return stage


def garden(draws: Draws) -> Stage:
    """Lays out lawn and beds behind a house or a fence, with chairs outside."""
    stage, _ = outdoors(draws, (34, 62), (1.7, 2.4))
    h = stage.horizon
    stage.ground("grass", stage.stuff("grass", "green", "green", "green", "yellow"), h)
    if draws.chance(0.45):
        stage.put(house, draws.uniform(14, 98), h + draws.uniform(10, 15))
    else:
        stage.scatter(tree, 1, 4, h + 6, h + 12, size=0.9)
    if draws.chance(0.6):
        stage.put(fence, -4, h + draws.uniform(13, 18))
    stage.scatter(bush, 2, 5, h + 12, h + 26)
    if draws.chance(0.35):
        bed = stage.flat("field")
        bed.disc(
            "",
            stage.stuff("soil", "brown"),
            stage.anywhere(),
            -draws.uniform(h + 26, 100),
            draws.uniform(20, 40),
            6,
            **FLAT,
        )
    stage.scatter(flower, 4, 10, h + 18, 110)
    if draws.chance(0.5):
        stage.put(
            tree,
            draws.pick((draws.uniform(-2, 24), draws.uniform(88, 114))),
            h + draws.uniform(14, 28),
            size=0.85,
        )
    if draws.chance(0.65):
        x, y = draws.uniform(20, 92), stage.between(h + 26, 98)
        scale = stage.scale(y)
        if draws.chance(0.6):
            stage.put(table, x, y)
            if draws.chance(0.5):
                stage.put(bottle, x + draws.uniform(-0.3, 0.3) * scale, y, over=0.1)
            if draws.chance(0.35):
                stage.put(umbrella, x, y - 2)
        for _ in range(draws.integer(1, 2)):
            stage.put(
                chair,
                x + draws.sign() * draws.uniform(0.8, 1.2) * scale,
                y + draws.uniform(-2, 4),
            )
    if draws.chance(0.35):
        stage.put(plant, stage.anywhere(), stage.between(h + 24, 108), size=1.1)
    if draws.chance(0.5):
        stage.put(
            person,
            stage.anywhere(),
            stage.between(h + 18, 106),
            size=draws.pick((0.7, 1.0)),
        )
    if draws.chance(0.3):
        stage.put(dog, stage.anywhere(), stage.between(h + 24, 108))
    if draws.chance(0.2):
        stage.put(bench, stage.anywhere(), h + draws.uniform(16, 30))
    if draws.chance(0.15):
        stage.put(ball, stage.anywhere(), stage.between(h + 34, 108))
    if draws.chance(0.1):
        stage.put(swing, stage.anywhere(), h + draws.uniform(20, 30))
    outside(stage, h + 18)
    return stage
