"""Layouts: railway stations and harbours."""

from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.clutter import outside
from jdissect.scenes.layouts.towns import row_of_houses
from jdissect.scenes.layouts.weather import outdoors
from jdissect.scenes.palette import Stuff
from jdissect.scenes.stage import FLAT, Stage, Thing
from jdissect.scenes.things.beings import dog, person
from jdissect.scenes.things.buildings import (
    building,
    container,
    crane,
    house,
    lighthouse,
)
from jdissect.scenes.things.nature import fir, mountains, tree
from jdissect.scenes.things.outdoors import bench, fence, sign, streetlight
from jdissect.scenes.things.vehicles import boat, car, train
from jdissect.scenes.things.walls import clock
from jdissect.scenes.world import SIDE


def station(draws: Draws) -> Stage:
    """Lays out a train, or empty tracks, beside a platform."""
    stage, _ = outdoors(draws, (38, 62), (2.3, 3.2))
    h = stage.horizon
    if draws.chance(0.5):
        stage.ground("grass", stage.stuff("grass", "green", "yellow", "brown"), h)
    else:
        stage.ground("pavement", stage.stuff("stone", "gray", "brown"), h)
    far, near = h + draws.uniform(16, 21), h + draws.uniform(30, 36)
    behind = draws.integer(0, 2)
    if behind == 0:
        row_of_houses(stage, far - 7, (house, building))
    elif behind == 1:
        stage.scatter(tree, 3, 6, h + 6, far - 4, size=0.9)
    else:
        stage.put(fence, -4, far - 3)
        stage.scatter(fir, 1, 4, h + 5, far - 4)
    stage.play()
    stage.ground("track", stage.stuff("stone", "gray", "brown", "gray"), far, near)
    pen = stage.flat("track")
    wood = stage.stuff("wood", "brown", "gray", "black")
    rail = stage.stuff("metal", "gray", "brown")
    high, low = far + (near - far) * 0.3, far + (near - far) * 0.82
    x = draws.uniform(-12, -4)
    while x < SIDE:
        lean = (x - 56) * 0.12
        pen.poly(
            "sleeper",
            wood,
            (x - lean, -high + 1),
            (x - lean + 4, -high + 1),
            (x + 4, -low - 1.5),
            (x, -low - 1.5),
        )
        x += 9
    for y in (high, low):
        pen.box("rail", rail, -1, -y - 0.9, SIDE + 1, -y + 0.9, bright=0.15)
    platform = stage.stuff(
        *draws.pick(
            (
                ("stone", "gray", "brown"),
                ("tile", "gray", "red", "brown"),
                ("asphalt", "gray"),
            )
        )
    )
    if draws.chance(0.78):
        stage.put(train, draws.uniform(30, 150), (high + low) / 2, over=-2, cars=3)
    stage.play()
    deck = stage.flat("platform")
    deck.poly(
        "",
        platform,
        (0, -near + 3),
        (SIDE, -near + 3),
        (SIDE, -SIDE),
        (0, -SIDE),
        **FLAT,
    )
    edge = stage.stuff("stone", "white", "yellow")
    deck.poly(
        "coping",
        edge,
        (0, -near + 3),
        (SIDE, -near + 3),
        (SIDE, -near - 0.5),
        (0, -near - 0.5),
        **FLAT,
    )
    top = near + 4
    for _ in range(draws.integer(1, 2)):
        stage.put(bench, stage.anywhere(), draws.uniform(top + 2, 104))
    x, y = draws.uniform(6, 106), draws.uniform(top, top + 12)
    stage.put(streetlight, x, y)
    if draws.chance(0.4):  # a clock on the same pole
        stage.put(clock, x, y, over=0.1, lift=2.8)
    if draws.chance(0.6):
        stage.put(sign, stage.anywhere(), draws.uniform(top, top + 8), wide=1.8)
    stage.scatter(person, 1, 4, top, 110)
    outside(stage, top + 2)
    return stage


def harbour(draws: Draws) -> Stage:
    """Lays out boats at a quay with cranes, containers and sheds."""
    stage, _ = outdoors(draws, (34, 58), (2.6, 4.2))
    h = stage.horizon
    sea = stage.stuff("water", "blue", "blue", "green", "gray")
    if draws.chance(0.35):
        mountains(stage, h + 1, draws.uniform(8, 18), snow=0.1)
    stage.ground("water", sea, h)
    quay = stage.stuff(
        *draws.pick(
            (("stone", "gray", "brown"), ("asphalt", "gray"), ("wood", "brown", "gray"))
        )
    )
    coping = stage.stuff("stone", "gray", "white", "brown")
    opposite = draws.chance(0.5)
    shore = h + draws.uniform(34, 44)
    if opposite:
        bank = stage.flat("quay", haze=stage.haze(h + 8))
        bank.box("", quay, 0, -h - 9, SIDE, -h - 2)
        for _ in range(draws.integer(2, 4)):
            things: tuple[Thing, ...] = (
                crane,
                crane,
                house,
                building,
                container,
                lighthouse,
            )
            thing = draws.pick(things)
            stage.put(thing, stage.anywhere(), h + draws.uniform(5, 7), over=-5)
    elif draws.chance(0.4):
        stage.put(lighthouse, stage.anywhere(), h + 7)
    if draws.chance(0.6):
        _pier(stage, quay, h + draws.uniform(13, 17))
    for place in range(draws.integer(2, 4)):
        stage.put(boat, draws.uniform(0, 34) + place * 32, h + draws.uniform(11, 30))
    stage.play()
    deck = stage.flat("quay")
    deck.poly("", quay, (0, -shore), (SIDE, -shore), (SIDE, -SIDE), (0, -SIDE), **FLAT)
    deck.box("coping", coping, 0, -shore - 3, SIDE, -shore, bright=0.08)
    iron = stage.stuff("metal", "black", "brown", "yellow")
    for _ in range(draws.integer(1, 3)):
        x = stage.anywhere()
        deck.box("bollard", iron, x - 1.6, -shore - 2, x + 1.6, -shore + 3.5, round=0.2)
        deck.disc("bollard", iron, x, -shore + 3.8, 2.6, 1.3)
    top = shore + 6
    if draws.chance(0.35):
        x = draws.pick((draws.uniform(-4, 24), draws.uniform(88, 116)))
        stage.put(container, x, top + draws.uniform(0, 3), stacked=1)
    if draws.chance(0.35):
        stage.put(car, stage.anywhere(), top + draws.uniform(5, 14))
    if draws.chance(0.3):
        stage.put(streetlight, stage.anywhere(), top + 2)
    stage.scatter(person, 0, 3, top, 109)
    if draws.chance(0.15):
        stage.put(dog, stage.anywhere(), top + 14)
    outside(stage, top)
    return stage


def _pier(stage: Stage, stuff: Stuff, y: float) -> None:
    """Draws a pier from one side with its front at row `y`, cranes and containers."""
    draws = stage.draws
    left = draws.chance(0.5)
    end = draws.uniform(40, 72)
    inner, outer = (end, -2.0) if left else (SIDE - end, SIDE + 2.0)
    back = y - 5
    deck = stage.flat("quay", haze=stage.haze(y))
    shift = (inner - 56) * (y - back) / (y - stage.horizon)
    deck.poly(
        "",
        stuff,
        (outer, -back),
        (inner - shift, -back),
        (inner, -y),
        (outer, -y),
        **FLAT,
    )
    deck.poly(
        "",
        stuff,
        (outer, -y),
        (inner, -y),
        (inner, -y - 4),
        (outer, -y - 4),
        bright=-0.25,
    )
    deck.poly(
        "coping",
        stage.stuff("stone", "gray", "white"),
        (outer, -y + 1),
        (inner, -y + 1),
        (inner, -y - 0.6),
        (outer, -y - 0.6),
    )
    x = (
        draws.uniform(0.15, 0.75) * inner
        if left
        else SIDE - draws.uniform(0.15, 0.75) * (SIDE - inner)
    )
    stage.put(crane, x, y - 3, over=-6, size=0.9)
    for _ in range(draws.integer(0, 2)):
        share = draws.uniform(0.05, 0.75)
        x = share * inner if left else SIDE - share * (SIDE - inner)
        stage.put(container, x, y - 1.5, over=-6)
