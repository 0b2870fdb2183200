"""Smaller household things, and bathroom fixtures."""

from jdissect.scenes.shading import Lamp
from jdissect.scenes.stage import Stage
from jdissect.scenes.things.walls import GAY


def beach_towel(stage: Stage, x: float, y: float) -> None:
    """Draws a towel on the ground."""
    pen = stage.pen("towel", x, y)
    cloth = stage.stuff("fabric", *GAY)
    stripe = stage.stuff("fabric", "white", "blue", "red", "yellow")
    pen.poly("", cloth, (-0.9, 0), (0.9, 0), (0.9, 0, 0.9), (-0.9, 0, 0.9))
    for u in (-0.6, 0.45):
        pen.poly("stripe", stripe, (u, 0), (u + 0.2, 0), (u + 0.2, 0, 0.9), (u, 0, 0.9))


def lamp(
    stage: Stage, x: float, y: float, kind: str = "floor", lift: float = 0.0
) -> None:
    """Draws a lamp: on the 'floor' (1.5 m), a 'table' lamp, or 'hanging' from above."""
    draws = stage.draws
    size = {"floor": 1.0, "table": 0.55, "hanging": 0.9}[kind]
    pen = stage.pen("lamp", x, y, lift=lift, mirror=False)
    metal = stage.stuff(
        *draws.pick((("metal", "black", "gray", "yellow"), ("wood", "brown")))
    )
    cloth = stage.stuff(
        "fabric", "white", "yellow", "yellow", "orange", "red", "green", "blue"
    )
    on = stage.light.night or draws.chance(0.35)
    glow = 0.85 if on else 0.0
    w = 0.3 * size / (0.75 if kind == "table" else 1)
    if kind == "hanging":
        pen.limb("stand", metal, (0, 0.3), (0, 1.6), 0.04)
        low, high = 0.0, 0.36
    else:
        tall = 1.2 if kind == "floor" else 0.22
        if not lift:
            pen.shadow(-0.2, 0.2, 0.2)
        pen.limb("stand", metal, (0, 0), (0, tall), 0.055)
        pen.disc("stand", metal, 0, 0.03, 0.17 * size, 0.045)
        low, high = tall - 0.04, tall + 0.42 * (1 if kind == "floor" else 0.75)
    pen.poly(
        "shade",
        cloth,
        (-w, low),
        (w, low),
        (w * 0.6, high),
        (-w * 0.6, high),
        round=0.12,
        glow=glow,
        bright=0.08 if on else 0,
    )
    if on:
        at = pen.at((0, low))
        reach = 1.3 * pen.scale
        light = Lamp(*at, reach, (0.5, 0.4, 0.22), pen.instance)
        stage.light.lamps.append(light)


def television(stage: Stage, x: float, y: float, lift: float = 0.0) -> None:
    """Draws a television."""
    draws = stage.draws
    pen = stage.pen("television", x, y, lift=lift, mirror=False)
    case = stage.stuff("plastic", "black", "black", "gray")
    pen.box("frame", case, -0.14, 0, 0.14, 0.08)
    pen.box("frame", case, -0.5, 0.06, 0.5, 0.68)
    on = draws.chance(0.5)
    screen = stage.stuff(
        "glass", *(("blue", "green", "purple", "orange") if on else ("black",))
    )
    pen.box("screen", screen, -0.45, 0.11, 0.45, 0.63, glow=0.8 if on else 0.0)


def computer(stage: Stage, x: float, y: float, lift: float = 0.76) -> None:
    """Draws a screen on its stand with a keyboard, on a desk."""
    draws = stage.draws
    pen = stage.pen("computer", x, y, lift=lift, mirror=False)
    case = stage.stuff("plastic", "black", "gray", "white")
    screen = stage.stuff("glass", "blue", "white", "gray", "green", "black")
    pen.poly(
        "stand",
        case,
        (-0.13, 0.0, 0.3),
        (0.13, 0.0, 0.3),
        (0.05, 0.2, 0.3),
        (-0.05, 0.2, 0.3),
        bright=-0.1,
    )
    pen.box("stand", case, -0.34, 0.14, 0.34, 0.6)
    pen.box("screen", screen, -0.3, 0.18, 0.3, 0.56, glow=0.75)
    if draws.chance(0.7) and screen.rgb[2] > 60:
        line = stage.stuff("glass", "white", "black")
        for v in (0.28, 0.38, 0.47):
            pen.box(
                "screen",
                line,
                -0.25,
                v - 0.02,
                draws.uniform(-0.05, 0.22),
                v + 0.02,
                glow=0.75,
            )
    keys = stage.stuff("plastic", "black", "white", "gray")
    pen.poly("keyboard", keys, (-0.3, 0.02), (0.3, 0.02), (0.27, 0.1), (-0.27, 0.1))


def plant(
    stage: Stage, x: float, y: float, size: float = 1.0, lift: float = 0.0
) -> None:
    """Draws a plant in a pot, 0.9 m."""
    draws = stage.draws
    pen = stage.pen("plant", x, y, size=size * draws.uniform(0.8, 1.2), lift=lift)
    pot = stage.stuff("ceramic", "orange", "brown", "white", "blue", "gray", "red")
    leaf = stage.stuff("foliage", "green")
    if not lift:
        pen.shadow(-0.2, 0.2, 0.2)
    for turn in (-62, -36, -12, 14, 38, 64):
        bend, tall = turn / 90, draws.uniform(0.42, 0.62)
        end = (bend * 0.42, 0.28 + tall * (1 - abs(bend) * 0.5))
        middle = (bend * 0.16, 0.3 + tall * 0.5)
        bright = draws.uniform(-0.15, 0.12)
        pen.limb("leaf", leaf, (0, 0.25), middle, 0.05, 0.17, bright=bright)
        pen.limb("leaf", leaf, middle, end, 0.17, 0.03, bright=bright + 0.06)
    pen.poly("pot", pot, (-0.13, 0), (0.13, 0), (0.19, 0.28), (-0.19, 0.28), round=0.2)
    pen.box("pot", pot, -0.21, 0.25, 0.21, 0.32, bright=0.08, round=0.2)


def carpet(stage: Stage, x: float, y: float) -> None:
    """Draws a carpet on the floor, with a border; `y` is its near edge."""
    draws = stage.draws
    pen = stage.pen("carpet", x, y, mirror=False)
    cloth = stage.stuff("fabric", *GAY)
    border = stage.stuff("fabric", *GAY)
    wide, deep = draws.uniform(0.9, 1.5), draws.uniform(0.9, 1.6)
    pen.poly("border", border, (-wide, 0), (wide, 0), (wide, 0, deep), (-wide, 0, deep))
    wide -= 0.14
    pen.poly(
        "",
        cloth,
        (-wide, 0, 0.12),
        (wide, 0, 0.12),
        (wide, 0, deep - 0.15),
        (-wide, 0, deep - 0.15),
    )


def bottle(stage: Stage, x: float, y: float, lift: float = 0.78) -> None:
    """Draws a bottle."""
    pen = stage.pen("bottle", x, y, lift=lift, mirror=False)
    glass = stage.stuff("glass", "green", "brown", "blue", "white", "red")
    pen.box("", glass, -0.07, 0, 0.07, 0.24, round=0.2)
    pen.poly(
        "neck",
        glass,
        (-0.07, 0.24),
        (0.07, 0.24),
        (0.03, 0.32),
        (-0.03, 0.32),
        round=0.2,
    )
    pen.box("neck", glass, -0.03, 0.3, 0.03, 0.42, round=0.2)


def cup(stage: Stage, x: float, y: float, lift: float = 0.78) -> None:
    """Draws a cup with a handle."""
    pen = stage.pen("cup", x, y, lift=lift)
    clay = stage.stuff("ceramic", *GAY)
    pen.disc("handle", clay, 0.1, 0.08, 0.055, 0.065, bright=-0.15)
    pen.poly(
        "", clay, (-0.075, 0), (0.075, 0), (0.095, 0.17), (-0.095, 0.17), round=0.2
    )


def bathtub(stage: Stage, x: float, y: float) -> None:
    """Draws a bathtub along the wall, with its tap."""
    pen = stage.pen("bathtub", x, y)
    white = stage.stuff("ceramic", "white", "white", "white", "pink", "blue", "green")
    metal = stage.stuff("metal", "gray", "yellow")
    water = stage.stuff("water", "blue", "green") if stage.draws.chance(0.4) else white
    pen.shadow(-0.8, 0.8, 0.3)
    pen.limb("tap", metal, (0.72, 0.6), (0.72, 0.86), 0.07)
    pen.limb("tap", metal, (0.75, 0.84), (0.55, 0.8), 0.07)
    pen.poly(
        "basin",
        white,
        (-0.8, 0.54),
        (0.8, 0.54),
        (0.8, 0.54, 0.65),
        (-0.8, 0.54, 0.65),
        bright=0.08,
    )
    pen.poly(
        "basin",
        water,
        (-0.7, 0.53, 0.12),
        (0.7, 0.53, 0.12),
        (0.7, 0.53, 0.55),
        (-0.7, 0.53, 0.55),
        bright=-0.22,
    )
    pen.poly(
        "basin",
        white,
        (-0.8, 0.56),
        (0.8, 0.56),
        (0.72, 0.08),
        (-0.72, 0.08),
        fall=0.14,
    )
    pen.box("basin", white, -0.84, 0.5, 0.84, 0.58, bright=0.08)


def toilet(stage: Stage, x: float, y: float) -> None:
    """Draws a toilet from its side: bowl, lid and tank."""
    pen = stage.pen("toilet", x, y)
    white = stage.stuff("ceramic", "white", "white", "white", "pink", "blue")
    lid = stage.stuff("plastic", "white", "white", "black", "brown", "blue")
    pen.shadow(-0.3, 0.35, 0.2)
    pen.box("tank", white, -0.36, 0.4, -0.16, 0.85, fall=0.1)
    pen.box("tank", white, -0.39, 0.82, -0.13, 0.88, bright=0.08)
    pen.poly("bowl", white, (-0.3, 0.0), (0.16, 0.0), (0.12, 0.16), (-0.26, 0.16))
    pen.poly(
        "bowl",
        white,
        (-0.3, 0.42),
        (0.36, 0.42),
        (0.3, 0.26),
        (0.1, 0.12),
        (-0.25, 0.12),
        fall=0.14,
    )
    pen.limb("lid", lid, (-0.24, 0.43), (0.37, 0.43), 0.06)
    if stage.draws.chance(0.5):
        pen.limb("lid", lid, (-0.19, 0.43), (-0.26, 0.86), 0.06)


def sink(stage: Stage, x: float, y: float, kind: str = "stand") -> None:
    """Draws a wash basin on its 'stand', or set 'in' a worktop of 0.9 m."""
    pen = stage.pen("sink", x, y)
    white = stage.stuff("ceramic", "white", "white", "white", "gray", "pink", "blue")
    metal = stage.stuff("metal", "gray", "gray", "yellow")
    if kind == "in":
        steel = stage.stuff("metal", "gray")
        pen.limb("tap", metal, (0, 0.9), (0, 1.22), 0.06)
        pen.limb("tap", metal, (0.02, 1.2), (-0.2, 1.18), 0.06)
        pen.poly(
            "basin",
            steel,
            (-0.3, 0.93),
            (0.3, 0.93),
            (0.26, 1.0),
            (-0.26, 1.0),
            bright=-0.2,
        )
        return
    pen.shadow(-0.15, 0.15, 0.2)
    pen.poly(
        "basin",
        white,
        (-0.11, 0),
        (0.11, 0),
        (0.08, 0.7),
        (-0.08, 0.7),
        bright=-0.08,
        round=0.15,
    )
    pen.limb("tap", metal, (0, 0.84), (0, 1.06), 0.06)
    pen.limb("tap", metal, (0, 1.04), (0.12, 1.02), 0.06)
    pen.poly(
        "basin",
        white,
        (-0.34, 0.86),
        (0.34, 0.86),
        (0.24, 0.64),
        (-0.24, 0.64),
        round=0.12,
    )
    pen.box("basin", white, -0.36, 0.82, 0.36, 0.89, bright=0.08)
