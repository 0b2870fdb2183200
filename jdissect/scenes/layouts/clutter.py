"""Adds things that may be anywhere, so that one object does not reveal the class."""

from jdissect.scenes.stage import Stage
from jdissect.scenes.things.beings import dog, person
from jdissect.scenes.things.furniture import chair, table
from jdissect.scenes.things.household import plant
from jdissect.scenes.things.nature import bush, flower, rock, tree
from jdissect.scenes.things.outdoors import ball, bench, fence, sign, umbrella
from jdissect.scenes.things.vehicles import car, car_ahead

_OUTSIDE = (person, dog, ball, bench, bush, sign, plant, chair, rock, umbrella, flower)
_INSIDE = (person, person, dog, plant, plant, chair, chair, ball, table)


def outside(stage: Stage, top: float) -> None:
    """Adds up to three things on firm ground, nearer than row `top`; rarely a car."""
    draws = stage.draws
    if top > 104:
        return
    if draws.chance(0.45):
        for _ in range(draws.integer(1, 3)):
            stage.put(draws.pick(_OUTSIDE), stage.anywhere(), stage.between(top, 109))
    if draws.chance(0.06):
        thing = draws.pick((car, car_ahead))
        stage.put(thing, stage.anywhere(), stage.between(top, 100))
    if draws.chance(0.08):
        stage.put(fence, -4, stage.between(top, 108))
    if draws.chance(0.08):
        stage.put(tree, stage.anywhere(), stage.between(top, 98), size=0.8)


def inside(stage: Stage, wall: float) -> None:
    """Adds up to two things on the floor before a wall at row `wall`."""
    draws = stage.draws
    if draws.chance(0.4):
        for _ in range(draws.integer(1, 2)):
            y = min(wall + draws.uniform(5, 34), 110)
            stage.put(draws.pick(_INSIDE), draws.uniform(2, 110), y)
