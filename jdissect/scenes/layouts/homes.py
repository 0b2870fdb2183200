"""Layouts: the rooms of a home."""

from jdissect.scenes.draws import Draws
from jdissect.scenes.layouts.clutter import inside
from jdissect.scenes.layouts.room import Room, put_window
from jdissect.scenes.stage import Stage, Thing
from jdissect.scenes.things.beings import dog, person
from jdissect.scenes.things.cupboards import bookcase, cabinet, refrigerator, stove
from jdissect.scenes.things.furniture import bed, chair, sofa, table
from jdissect.scenes.things.household import (
    bathtub,
    bottle,
    carpet,
    cup,
    lamp,
    plant,
    sink,
    television,
    toilet,
)
from jdissect.scenes.things.walls import clock, door, mirror, painting, towel, window
from jdissect.scenes.world import SIDE


def kitchen(draws: Draws) -> Stage:
    """Lays out units along the wall, stove and refrigerator, a table in front."""
    walls = (
        ("tile", "white", "blue", "green", "yellow", "orange"),
        ("plaster", "white", "yellow", "green", "blue", "orange"),
    )
    floors = (
        ("tile", "white", "brown", "gray", "black", "red"),
        ("wood", "brown", "yellow"),
    )
    room = Room(draws, walls, floors)
    stage, scale, wall = room.stage, room.scale, room.wall
    wood = stage.stuff(
        "wood", "white", "brown", "yellow", "gray", "blue", "green", "red"
    )
    top = stage.stuff(
        *draws.pick((("stone", "gray", "black", "white"), ("wood", "brown", "yellow")))
    )
    y = wall + 4
    step = stage.scale(y)
    pieces = ["unit", "unit", "sink", "stove", "refrigerator"]
    if draws.chance(0.5):
        pieces.remove(draws.pick(("stove", "refrigerator", "sink")))
    pieces = [pieces[n] for n in draws.permutation(len(pieces))]
    x = max(room.left, -14) + draws.uniform(0.1, 0.5) * scale
    for piece in pieces:
        half = {"refrigerator": 0.38, "stove": 0.34}.get(piece, 0.5) * step
        x += half
        if piece == "refrigerator":
            stage.put(refrigerator, x, y)
        elif piece == "stove":
            stage.put(stove, x, y)
        else:
            stage.put(cabinet, x, y, wide=1.0, high=0.9, wood=wood, top=top)
            if piece == "sink":
                stage.put(sink, x, y, over=0.05, kind="in")
            elif draws.chance(0.6):
                thing: Thing = draws.pick((bottle, cup, cup))
                stage.put(
                    thing, x + draws.uniform(-0.3, 0.3) * step, y, over=0.05, lift=0.93
                )
        if piece != "refrigerator" and draws.chance(0.5):
            stage.put(
                cabinet,
                x,
                wall,
                wide=half * 1.9 / scale,
                high=0.62,
                wood=wood,
                lift=1.45,
            )
        elif piece == "sink":
            put_window(room, x, 0.2)
        x += half + 0.5
    if draws.chance(0.7):
        tx, ty = draws.uniform(24, 88), room.near(18, 32)
        size = stage.scale(ty)
        stage.put(table, tx, ty)
        for _ in range(draws.integer(0, 2)):
            small: tuple[Thing, ...] = (cup, bottle, plant)
            thing = draws.pick(small)
            options = {"lift": 0.78, "size": 0.6} if thing is plant else {}
            stage.put(
                thing, tx + draws.uniform(-0.5, 0.5) * size, ty, over=0.1, **options
            )
        for side in (-1, 1)[: draws.integer(1, 2)]:
            stage.put(
                chair,
                tx + side * draws.uniform(0.7, 1.1) * size,
                ty + draws.uniform(-3, 5),
            )
    if draws.chance(0.4):
        stage.put(
            lamp, draws.uniform(30, 82), wall + 16, over=20, kind="hanging", lift=1.75
        )
    if draws.chance(0.3):
        stage.put(clock, room.slots(3)[0], wall, over=-0.3)
    if draws.chance(0.35):
        stage.put(person, draws.uniform(8, 104), room.near(10, 28))
    inside(stage, wall)
    return stage


def living_room(draws: Draws) -> Stage:
    """Lays out sofa, television, lamp, carpet and pictures."""
    room = Room(draws)
    stage, wall = room.stage, room.wall
    places = room.slots(3)
    if draws.chance(0.6):
        put_window(room, places[0], 0.7)
    for x in places[1:]:
        if draws.chance(0.6):
            stage.put(painting, x, wall, over=-0.4)
    if draws.chance(0.6):
        stage.put(carpet, draws.uniform(36, 76), room.near(24, 40), over=-30)
    if draws.chance(0.9):
        stage.put(sofa, draws.uniform(24, 88), room.near(8, 16))
    if draws.chance(0.5):
        x = draws.pick((draws.uniform(0, 24), draws.uniform(88, 112)))
        y = wall + draws.uniform(3, 8)
        stage.put(cabinet, x, y, high=0.55)
        stage.put(television, x, y - 1, over=1.1, lift=0.55)
    if draws.chance(0.55):
        stage.put(
            lamp, draws.uniform(4, 108), wall + draws.uniform(4, 12), kind="floor"
        )
    if draws.chance(0.35):
        stage.put(bookcase, places[2], wall + 3)
    if draws.chance(0.5):
        stage.put(plant, draws.uniform(2, 110), room.near(5, 24), size=1.2)
    if draws.chance(0.5):
        x, y = draws.uniform(30, 82), room.near(24, 34)
        stage.put(table, x, y, wide=0.9)
        if draws.chance(0.6):
            stage.put(draws.pick((cup, bottle)), x + draws.uniform(-6, 6), y, over=0.1)
    if draws.chance(0.25):
        stage.put(chair, draws.uniform(6, 106), room.near(14, 30))
    if draws.chance(0.35):
        stage.put(person, draws.uniform(8, 104), room.near(12, 30))
    if draws.chance(0.2):
        stage.put(dog, draws.uniform(8, 104), room.near(24, 36))
    inside(stage, wall)
    return stage


def bedroom(draws: Draws) -> Stage:
    """Lays out a bed with night table and lamp, wardrobe, curtains."""
    room = Room(draws)
    stage, wall = room.stage, room.wall
    places = room.slots(3)
    if draws.chance(0.65):
        put_window(room, places[0], 0.75)
    if draws.chance(0.5):
        stage.put(painting, places[1], wall, over=-0.4)
    if draws.chance(0.45):
        stage.put(cabinet, places[2], wall + 3, wide=1.1, high=1.9)
    elif draws.chance(0.4):
        stage.put(door, places[2], wall, over=-0.2)
    if draws.chance(0.4):
        stage.put(carpet, draws.uniform(26, 86), room.near(26, 40), over=-30)
    x, y = draws.uniform(34, 78), room.near(12, 26)
    stage.put(bed, x, y)
    side = draws.sign()
    tx, ty = x + side * draws.uniform(1.35, 1.6) * stage.scale(wall + 6), wall + 6
    if draws.chance(0.75):
        stage.put(cabinet, tx, ty, wide=0.5, high=0.55)
        if draws.chance(0.75):
            stage.put(lamp, tx, ty, over=0.1, kind="table", lift=0.56)
    if draws.chance(0.25):
        stage.put(lamp, draws.uniform(4, 108), wall + 5, kind="floor")
    if draws.chance(0.25):
        stage.put(chair, draws.uniform(6, 106), room.near(8, 30))
    if draws.chance(0.2):
        stage.put(plant, draws.uniform(4, 108), room.near(4, 20))
    if draws.chance(0.2):
        stage.put(mirror, places[2], wall, over=-0.4)
    if draws.chance(0.15):
        stage.put(television, places[1], wall, over=-0.1, lift=1.2)
    if draws.chance(0.2):
        stage.put(person, draws.uniform(8, 104), room.near(10, 30))
    if draws.chance(0.12):
        stage.put(dog, draws.uniform(8, 104), room.near(26, 36))
    inside(stage, wall)
    return stage


def bathroom(draws: Draws) -> Stage:
    """Lays out bathtub, basin, toilet, mirror and towels."""
    walls = (
        ("tile", "white", "white", "blue", "green", "pink", "gray"),
        ("plaster", "white", "blue", "green"),
    )
    floors = (
        ("tile", "white", "black", "gray", "blue", "brown"),
        ("stone", "gray", "brown"),
    )
    room = Room(draws, walls, floors)
    stage, wall = room.stage, room.wall
    y = wall + 5
    pieces = [bathtub, sink, toilet]
    if draws.chance(0.35):
        pieces.remove(draws.pick(pieces))
    left, right = max(room.left, 0) + 4, min(room.right, SIDE) - 4
    step = (right - left) / len(pieces)
    for place, number in enumerate(draws.permutation(len(pieces))):
        piece = pieces[number]
        x = left + (place + 0.5 + draws.uniform(-0.12, 0.12)) * step
        ahead = draws.uniform(2, 10) if piece is not sink else draws.uniform(0, 3)
        stage.put(piece, x, y + ahead)
        if piece is sink and draws.chance(0.85):
            stage.put(mirror, x, wall, over=-0.4)
        elif piece is toilet and draws.chance(0.4):
            stage.put(
                draws.pick((towel, painting, window)), x, wall, over=-0.4, lift=1.2
            )
        elif piece is bathtub and draws.chance(0.5):
            if draws.chance(0.4):
                put_window(room, x, 0.3)
            else:
                stage.put(towel, x, wall, over=-0.4, lift=1.15)
    if draws.chance(0.4):
        stage.put(
            towel, room.slots(4)[0], wall, over=-0.45, lift=draws.uniform(0.8, 1.1)
        )
    if draws.chance(0.4):
        stage.put(carpet, draws.uniform(36, 76), room.near(24, 36), over=-30)
    if draws.chance(0.3):
        stage.put(
            cabinet,
            draws.uniform(6, 106),
            wall + 4,
            wide=0.5,
            high=draws.uniform(0.7, 1.5),
        )
    if draws.chance(0.25):
        stage.put(plant, draws.uniform(4, 108), room.near(6, 26))
    if draws.chance(0.25):
        stage.put(person, draws.uniform(10, 102), room.near(10, 28))
    if draws.chance(0.15):
        stage.put(chair, draws.uniform(8, 104), room.near(10, 30))
    inside(stage, wall)
    return stage
