"""Layouts: offices and classrooms."""

from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.clutter import inside
from jdissect.scenes.layouts.room import Room, put_window
from jdissect.scenes.stage import Stage
from jdissect.scenes.things.beings import person
from jdissect.scenes.things.cupboards import bookcase, cabinet
from jdissect.scenes.things.furniture import chair, table
from jdissect.scenes.things.household import bottle, computer, cup, lamp, plant
from jdissect.scenes.things.walls import blackboard, clock, door, painting
from jdissect.scenes.world import SIDE


def office(draws: Draws) -> Stage:
    """Lays out desks with computers, office chairs, shelves."""
    room = Room(
        draws,
        floors=(
            ("fabric", "gray", "blue", "brown", "green"),
            ("wood", "brown", "yellow"),
            ("tile", "gray", "white"),
        ),
    )
    stage, wall = room.stage, room.wall
    places = room.slots(3)
    if draws.chance(0.55):
        put_window(room, places[0], 0.2)
    if draws.chance(0.45):
        stage.put(clock, places[1], wall, over=-0.4)
    elif draws.chance(0.4):
        stage.put(painting, places[1], wall, over=-0.4)
    if draws.chance(0.55):
        stage.put(bookcase, places[2], wall + 3)
    elif draws.chance(0.4):
        stage.put(door, places[2], wall, over=-0.2)
    spots = [
        (draws.uniform(16, 44), room.near(7, 16)),
        (draws.uniform(66, 100), room.near(12, 28)),
    ]
    for x, y in (
        spots if draws.chance(0.6) else [(draws.uniform(34, 78), room.near(12, 26))]
    ):
        size = stage.scale(y)
        stage.put(table, x, y, wide=1.4, drawers=draws.chance(0.7))
        if draws.chance(0.9):
            stage.put(
                computer,
                x + draws.uniform(-0.25, 0.25) * size,
                y - 2,
                over=2.1,
                lift=0.7,
            )
        if draws.chance(0.35):
            stage.put(
                lamp,
                x + draws.sign() * 0.58 * size,
                y - 2,
                over=2.1,
                kind="table",
                lift=0.7,
            )
        if draws.chance(0.3):
            stage.put(cup, x + draws.uniform(-0.55, 0.55) * size, y, over=0.15)
        chair_y = min(y + draws.uniform(3, 8), 110)
        stage.put(chair, x + draws.uniform(-0.5, 0.5) * size, chair_y, kind="office")
    if draws.chance(0.4):
        stage.put(plant, draws.uniform(2, 110), room.near(4, 24), size=1.2)
    if draws.chance(0.3):
        stage.put(cabinet, draws.uniform(4, 108), wall + 4, wide=0.5, high=1.1)
    if draws.chance(0.4):
        stage.put(person, draws.uniform(8, 104), room.near(6, 30))
    if draws.chance(0.2):
        stage.put(
            lamp, draws.uniform(30, 82), wall + 14, over=20, kind="hanging", lift=1.75
        )
    inside(stage, wall)
    return stage


def classroom(draws: Draws) -> Stage:
    """Lays out a blackboard and rows of tables with chairs."""
    room = Room(
        draws,
        floors=(
            ("wood", "brown", "yellow", "gray"),
            ("tile", "gray", "white", "brown"),
        ),
    )
    stage, wall = room.stage, room.wall
    middle = (max(room.left, 0) + min(room.right, SIDE)) / 2
    if draws.chance(0.82):
        stage.put(blackboard, middle + draws.uniform(-8, 8), wall, over=-0.5)
    if draws.chance(0.45):
        stage.put(clock, middle + draws.sign() * 1.75 * room.scale, wall, over=-0.4)
    if draws.chance(0.3):
        stage.put(door, middle + draws.sign() * 2.2 * room.scale, wall, over=-0.3)
    kind = draws.pick(("wood", "plastic"))
    if draws.chance(0.45):
        stage.put(person, middle + draws.uniform(-26, 26), wall + draws.uniform(4, 8))
    for row in (draws.uniform(10, 14), draws.uniform(26, 32)):
        y = wall + row
        size = stage.scale(y)
        step = 1.7 * size
        x = 56 - step * draws.uniform(1.2, 1.8)
        while x < SIDE + 0.5 * step:
            if draws.chance(0.88):
                stage.put(table, x, y, wide=1.1)
                if draws.chance(0.25):
                    stage.put(
                        draws.pick((cup, bottle)),
                        x + draws.uniform(-0.3, 0.3) * size,
                        y,
                        over=0.1,
                    )
                if draws.chance(0.85):
                    stage.put(
                        chair,
                        x + draws.uniform(-0.15, 0.15) * size,
                        y + 3,
                        kind=kind,
                        view="back",
                    )
                    if draws.chance(0.3):
                        stage.put(person, x, y + 2.5, pose="sit", size=0.85)
            x += step
    if draws.chance(0.3):
        stage.put(bookcase, room.slots(3)[0], wall + 3)
    if draws.chance(0.2):
        stage.put(plant, draws.uniform(4, 108), wall + 5)
    inside(stage, wall)
    return stage
