"""Layouts: beaches, mountain lakes and deserts."""

from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.clutter import outside
from jdissect.scenes.layouts.weather import outdoors
from jdissect.scenes.palette import as_rgb
from jdissect.scenes.stage import FLAT, UPRIGHT, Stage
from jdissect.scenes.things.beings import cow, dog, person
from jdissect.scenes.things.buildings import house, lighthouse
from jdissect.scenes.things.household import beach_towel
from jdissect.scenes.things.nature import (
    bush,
    cactus,
    fir,
    flower,
    mountains,
    palm,
    rock,
    tree,
)
from jdissect.scenes.things.outdoors import ball, bench, sign, umbrella
from jdissect.scenes.things.vehicles import boat, car
from jdissect.scenes.world import SIDE

# Shores of a lake: object, material, colors.
_BANKS = (
    ("grass", "grass", "green", "green", "yellow", "brown"),
    ("grass", "grass", "green", "green", "yellow", "brown"),
    ("rock", "stone", "gray", "brown"),
    ("sand", "sand", "yellow", "brown", "white"),
)


def beach(draws: Draws) -> Stage:
    """Lays out sand by the sea, the waterline slanting."""
    stage, time = outdoors(draws, (30, 60), (1.9, 3.0))
    h = stage.horizon
    if draws.chance(0.25):
        mountains(stage, h + 1, draws.uniform(6, 16), snow=0)
    sea = stage.stuff(
        "water", "blue", "blue", "green", "gray", "purple" if time == "dusk" else "blue"
    )
    stage.ground("water", sea, h)
    left = h + draws.uniform(12, 30)
    right = h + draws.uniform(12, 30)
    foam = stage.stuff("water", "white")
    pen = stage.flat("water")
    for back in (4.5, 0.0):
        pen.poly(
            "foam",
            foam,
            (0, -left + back + 1.6),
            (SIDE, -right + back + 1.6),
            (SIDE, -right + back),
            (0, -left + back),
            **FLAT,
        )
    for _ in range(draws.integer(0, 3)):
        x, y = stage.anywhere(), h + draws.uniform(5, 12)
        pen.disc("foam", foam, x, -y, draws.uniform(5, 12), 0.7, **FLAT)
    sand = stage.stuff("sand", "yellow", "yellow", "brown", "white", "orange")
    beach_pen = stage.flat("sand")
    wet = sand._replace(rgb=as_rgb(c * 0.82 for c in sand.rgb))
    beach_pen.poly(
        "", wet, (0, -left), (SIDE, -right), (SIDE, -SIDE), (0, -SIDE), **FLAT
    )
    beach_pen.poly(
        "", sand, (0, -left - 4), (SIDE, -right - 4), (SIDE, -SIDE), (0, -SIDE), **FLAT
    )
    for _ in range(draws.integer(0, 2)):
        stage.put(boat, stage.anywhere(), h + draws.uniform(4, 9), kind="sail")
    line = max(left, right) + 5
    for _ in range(draws.integer(0, 2)):
        stage.put(umbrella, stage.anywhere(), stage.between(line, 104))
    if draws.chance(0.45):
        stage.put(
            palm,
            draws.pick((draws.uniform(-2, 24), draws.uniform(88, 114))),
            stage.between(line, 100),
        )
    for _ in range(draws.integer(0, 2)):
        stage.put(beach_towel, stage.anywhere(), stage.between(line + 4, 108), over=-6)
    for _ in range(draws.integer(0, 4)):
        stage.put(
            person,
            stage.anywhere(),
            stage.between(line - 4, 108),
            summer=draws.chance(0.75),
            size=draws.pick((0.7, 1.0, 1.0)),
        )
    if draws.chance(0.35):
        stage.put(ball, stage.anywhere(), stage.between(line + 8, 108))
    if draws.chance(0.35):
        stage.scatter(rock, 1, 3, line - 6, 104)
    if draws.chance(0.15):
        stage.put(dog, stage.anywhere(), stage.between(line, 108))
    if draws.chance(0.2):
        stage.put(lighthouse, draws.pick((10, 100)), h + 9)
    outside(stage, line)
    return stage


def mountain_lake(draws: Draws) -> Stage:
    """Lays out peaks over a lake with a near shore."""
    stage, time = outdoors(draws, (36, 62), (2.0, 3.4))
    h = stage.horizon
    if draws.chance(0.5):
        mountains(stage, h + 1, draws.uniform(26, 42), snow=0.7)
    mountains(stage, h + 2, draws.uniform(10, 32), snow=0.6)
    sea = stage.stuff(
        "water",
        "blue",
        "blue",
        "green",
        "gray",
        "purple" if time == "dusk" else "green",
    )
    stage.ground("water", sea, h)
    if draws.chance(0.6):
        bank = stage.flat("grass", haze=stage.haze(h + 3))
        green = stage.stuff("grass", "green", "yellow")
        bank.disc(
            "",
            green,
            draws.pick((draws.uniform(-10, 30), draws.uniform(82, 122))),
            -h - 3,
            46,
            3.5,
            **UPRIGHT,
        )
        stage.scatter(fir, 2, 6, h + 3.5, h + 6)
        if draws.chance(0.3):
            stage.put(house, draws.uniform(5, 107), h + 6)
    left, right = h + draws.uniform(22, 40), h + draws.uniform(22, 40)
    kind, material, *colors = draws.pick(_BANKS)
    shore = stage.stuff(material, *colors)
    pen = stage.flat(kind)
    for _ in range(draws.integer(0, 2)):
        stage.put(
            boat,
            stage.anywhere(),
            h + draws.uniform(10, 22),
            kind=draws.pick(("sail", "row", "row")),
        )
    stage.play()
    look = UPRIGHT if kind == "grass" else FLAT
    pen.poly("", shore, (0, -left), (SIDE, -right), (SIDE, -SIDE), (0, -SIDE), **look)
    line = max(left, right) + 3
    stage.scatter(rock, 0, 4, line - 5, 108)
    for _ in range(draws.integer(0, 2)):
        x = draws.pick((draws.uniform(-4, 28), draws.uniform(84, 116)))
        stage.put(draws.pick((fir, fir, tree)), x, stage.between(line, 98), size=0.85)
    if draws.chance(0.35):
        stage.scatter(flower, 1, 4, line + 6, 110)
    if draws.chance(0.3):
        stage.put(person, stage.anywhere(), stage.between(line, 106))
    if draws.chance(0.15):
        stage.put(bench, stage.anywhere(), stage.between(line + 2, 104))
    if draws.chance(0.12):
        stage.put(cow, stage.anywhere(), stage.between(line, 104))
    outside(stage, line)
    return stage


def desert(draws: Draws) -> Stage:
    """Lays out dunes and rocks, cacti, rarely people."""
    stage, _ = outdoors(draws, (34, 66), (1.9, 3.0))
    h = stage.horizon
    if draws.chance(0.5):
        mountains(stage, h + 2, draws.uniform(8, 20), snow=0)
    sand = stage.stuff("sand", "yellow", "yellow", "orange", "brown", "white")
    pen = stage.flat("sand", haze=0.15)
    for _ in range(draws.integer(1, 3)):
        x, wide, high = stage.anywhere(), draws.uniform(26, 50), draws.uniform(4, 12)
        pen.poly(
            "",
            sand,
            (x - wide, -h - 4),
            (x, high - h),
            (x, -h - 4),
            bright=0.06 * -stage.light.side,
            round=0,
        )
        pen.poly(
            "",
            sand,
            (x + wide * 0.8, -h - 4),
            (x, high - h),
            (x, -h - 4),
            bright=0.1 * stage.light.side,
            round=0,
        )
    stage.ground("sand", sand, h + 1)
    near = stage.flat("sand")
    for _ in range(draws.integer(0, 2)):
        x, y = stage.anywhere(), draws.uniform(h + 14, 104)
        shade = sand._replace(
            rgb=as_rgb(c * draws.uniform(0.86, 1.06) for c in sand.rgb)
        )
        near.disc("", shade, x, -y, draws.uniform(24, 56), draws.uniform(4, 9), **FLAT)
    if draws.chance(0.22):  # an oasis
        pool = stage.flat("water")
        sea = stage.stuff("water", "blue", "green", "gray")
        x, y, wide = stage.anywhere(), h + draws.uniform(10, 20), draws.uniform(30, 70)
        pool.disc("", sea, x, -y, wide, draws.uniform(3, 7), **FLAT)
        stage.scatter(palm, 0, 2, y + 4, y + 10)
    stage.scatter(cactus, 0, 4, h + 8, 104)
    stage.scatter(rock, 0, 4, h + 7, 106)
    if draws.chance(0.3):
        stage.scatter(bush, 1, 3, h + 8, 104, size=0.7)
    if draws.chance(0.2):
        stage.put(car, stage.anywhere(), h + draws.uniform(12, 34))
    if draws.chance(0.25):
        stage.put(person, stage.anywhere(), h + draws.uniform(12, 44))
    if draws.chance(0.15):
        stage.put(palm, stage.anywhere(), h + draws.uniform(12, 30))
    if draws.chance(0.15):
        stage.put(sign, stage.anywhere(), h + draws.uniform(16, 36))
    outside(stage, h + 12)
    return stage
