"""Cupboards, bookcases and kitchen appliances."""

from jdissect.scenes.palette import Stuff
from jdissect.scenes.stage import Stage
from jdissect.scenes.things.furniture import CLOTHS, WOODS


def cabinet(
    stage: Stage,
    x: float,
    y: float,
    wide: float = 0.0,
    high: float = 0.0,
    wood: Stuff | None = None,
    top: Stuff | None = None,
    lift: float = 0.0,
) -> None:
    """Draws a cupboard: a night table, sideboard, wardrobe or kitchen unit by its size.

    Args:
        wide, high: meters; 0: as a sideboard.
        wood, top: stuff of its doors and its top, to match other furniture.
        lift: height above the ground in meters.
    """
    draws = stage.draws
    wide, high = wide or draws.uniform(0.8, 1.4), high or draws.uniform(0.7, 0.95)
    pen = stage.pen("cabinet", x, y, mirror=False, lift=lift)
    wood = wood or stage.stuff("wood", *WOODS, "green", "blue")
    handle = stage.stuff("metal", "gray", "black", "yellow")
    if not lift:
        pen.shadow(-wide / 2, wide / 2, 0.3)
    pen.block(
        "", wood, -wide / 2, 0, wide / 2, high, 0.5, top="top", top_stuff=top or wood
    )
    if top:
        pen.box("top", top, -wide / 2 - 0.02, high - 0.06, wide / 2 + 0.02, high)
        high -= 0.06
    doors = max(1, round(wide / 0.5))
    step = wide / doors
    for place in range(doors):
        u = -wide / 2 + place * step
        pen.box(
            "door",
            wood,
            u + 0.03,
            0.06,
            u + step - 0.03,
            high - 0.05,
            bright=0.07,
            grain=1,
        )
        edge = u + (step - 0.1 if place % 2 == 0 else 0.1)
        pen.box(
            "handle",
            handle,
            edge - 0.03,
            high * 0.5,
            edge + 0.03,
            high * 0.5 + min(0.3, high * 0.28),
        )


def bookcase(stage: Stage, x: float, y: float) -> None:
    """Draws shelves with books, 1.8 m."""
    draws = stage.draws
    pen = stage.pen("bookcase", x, y, mirror=False)
    wood = stage.stuff("wood", *WOODS)
    wide, shelves = draws.uniform(0.4, 0.65), draws.integer(3, 4)
    high = shelves * 0.45 + 0.1
    pen.shadow(-wide, wide, 0.25)
    pen.block("shelf", wood, -wide, 0, wide, high, 0.3, bright=-0.1)
    pen.box("shelf", wood, -wide + 0.05, 0.06, wide - 0.05, high - 0.05, bright=-0.4)
    for shelf in range(shelves):
        v = 0.08 + shelf * 0.45
        u = -wide + 0.06
        while u < wide - 0.16:
            thick = draws.uniform(0.07, 0.15)
            if draws.chance(0.85):
                book = stage.stuff("paper", *CLOTHS)
                pen.box(
                    "book",
                    book,
                    u,
                    v,
                    u + thick,
                    v + draws.uniform(0.24, 0.36),
                    grain=1,
                )
            u += thick + 0.01
        pen.box("shelf", wood, -wide, v - 0.05, wide, v, bright=0.05)


def refrigerator(stage: Stage, x: float, y: float) -> None:
    """Draws a refrigerator, 1.8 m."""
    draws = stage.draws
    pen = stage.pen("refrigerator", x, y, mirror=False)
    paint = stage.stuff("metal", "white", "white", "gray", "red", "black", "blue")
    handle = stage.stuff("metal", "gray", "black")
    pen.shadow(-0.35, 0.35, 0.3)
    pen.block("", paint, -0.36, 0, 0.36, 1.8, 0.6)
    split = draws.pick((0.7, 1.25))
    for low, high in ((0.06, split - 0.015), (split + 0.015, 1.77)):
        pen.box("door", paint, -0.34, low, 0.34, high, bright=0.05)
    for v in (split - 0.4, split + 0.12):
        pen.box("handle", handle, -0.28, v, -0.22, v + 0.28)


def stove(stage: Stage, x: float, y: float) -> None:
    """Draws a stove with oven door, knobs and hob, 0.9 m."""
    pen = stage.pen("stove", x, y, mirror=False)
    paint = stage.stuff("metal", "white", "gray", "black", "red")
    dark, glass = stage.stuff("metal", "black"), stage.stuff("glass", "black", "gray")
    knob = stage.stuff("plastic", "black", "red", "white")
    pen.shadow(-0.32, 0.32, 0.3)
    pen.block("", paint, -0.33, 0, 0.33, 0.9, 0.55, top="hob", top_stuff=dark)
    pen.box("door", paint, -0.29, 0.1, 0.29, 0.66, bright=0.05)
    pen.box("door", glass, -0.22, 0.18, 0.22, 0.5)
    pen.box("door", dark, -0.24, 0.57, 0.24, 0.61)
    for u in (-0.2, -0.07, 0.07, 0.2):
        pen.disc("knob", knob, u, 0.77, 0.055)
    if stage.draws.chance(0.5):
        pot = stage.stuff("metal", "gray", "red", "blue")
        pen.box("hob", pot, -0.24, 0.94, 0.02, 1.14, round=0.2)
