"""Things in or on a room's walls."""

from jdissect.scenes.stage import Stage

GAY = (
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "pink",
    "purple",
    "white",
    "brown",
    "gray",
)


def window(
    stage: Stage,
    x: float,
    y: float,
    lift: float = 0.9,
    wide: float = 1.2,
    high: float = 1.2,
) -> None:
    """Draws a window in a room's wall; daylight or night behind it."""
    draws = stage.draws
    pen = stage.pen("window", x, y, lift=lift, mirror=False)
    wood = stage.stuff("wood", "white", "white", "brown")
    night = stage.light.night
    color = (
        draws.pick(("black", "blue"))
        if night
        else draws.pick(("blue", "white", "white", "green"))
    )
    glass = stage.stuff("glass", color)
    half = wide / 2
    pen.box("frame", wood, -half - 0.08, -0.08, half + 0.08, high + 0.08)
    look = {"bright": -0.55} if night else {"glow": 0.7, "bright": 0.1}
    columns = 2 if wide < 1.6 else 3
    step = wide / columns
    rows = draws.integer(1, 2)
    for column in range(columns):
        for row in range(rows):
            u, v = -half + column * step, row * high / rows
            pen.box(
                "pane",
                glass,
                u + 0.04,
                v + 0.04,
                u + step - 0.04,
                v + high / rows - 0.04,
                **look,
            )
    pen.block("sill", wood, -half - 0.16, -0.16, half + 0.16, -0.06, 0.1, bright=0.05)


def curtain(
    stage: Stage, x: float, y: float, wide: float = 1.2, top: float = 2.25
) -> None:
    """Draws two curtains, `wide` meters apart, under a rod at `top`."""
    draws = stage.draws
    pen = stage.pen("curtain", x, y, mirror=False)
    cloth = stage.stuff("fabric", *GAY)
    rod = stage.stuff("metal", "black", "yellow", "gray", "brown")
    low = draws.pick((0.05, 0.75))
    for side in (-1, 1):
        inner, outer = side * wide * 0.42, side * (wide / 2 + 0.28)
        for fold in range(4):
            u = inner + (outer - inner) * fold / 4
            end = inner + (outer - inner) * (fold + 1) / 4
            pen.box(
                "",
                cloth,
                u,
                low,
                end,
                top,
                bright=0.08 if fold % 2 else -0.1,
                fall=0.04,
            )
    pen.limb("rod", rod, (-wide / 2 - 0.38, top), (wide / 2 + 0.38, top), 0.08)


def door(stage: Stage, x: float, y: float) -> None:
    """Draws a room's door, 2 m."""
    pen = stage.pen("door", x, y)
    wood = stage.stuff("wood", "white", "brown", "brown", "gray", "blue", "green")
    frame = stage.stuff("wood", "white", "brown")
    pen.box("frame", frame, -0.52, 0, 0.52, 2.12)
    pen.box("panel", wood, -0.43, 0, 0.43, 2.03, grain=1)
    for low, high in ((0.18, 0.85), (1.05, 1.85)):
        pen.box("panel", wood, -0.3, low, 0.3, high, bright=-0.1, grain=1)
    pen.disc(
        "handle", stage.stuff("metal", "gray", "yellow", "black"), 0.35, 0.98, 0.065
    )


def painting(stage: Stage, x: float, y: float, lift: float = 1.3) -> None:
    """Draws a picture on the wall: a landscape, or shapes."""
    draws = stage.draws
    pen = stage.pen("painting", x, y, lift=lift)
    wide, high = draws.uniform(0.25, 0.5), draws.uniform(0.4, 0.7)
    frame = stage.stuff("wood", "brown", "black", "yellow", "white")
    pen.box("frame", frame, -wide - 0.07, -0.07, wide + 0.07, high + 0.07)
    ground = stage.stuff("paper", "white", "blue", "yellow", "pink", "gray")
    pen.box("canvas", ground, -wide, 0, wide, high)
    if draws.chance(0.5):
        hill, sun = (
            stage.stuff("paper", "green", "brown", "purple"),
            stage.stuff("paper", "red", "orange", "yellow"),
        )
        pen.disc("canvas", sun, wide * 0.4, high * 0.66, 0.09)
        pen.poly(
            "canvas",
            hill,
            (-wide, 0),
            (wide, 0),
            (wide, high * 0.25),
            (-wide * 0.2, high * 0.55),
            (-wide, high * 0.3),
        )
    else:
        for _ in range(3):
            u, v = draws.uniform(-0.6, 0.6) * wide, draws.uniform(0.25, 0.75) * high
            pen.disc(
                "canvas", stage.stuff("paper", *GAY), u, v, draws.uniform(0.06, 0.16)
            )


def clock(stage: Stage, x: float, y: float, lift: float = 1.7) -> None:
    """Draws a round clock, on a wall."""
    draws = stage.draws
    pen = stage.pen("clock", x, y, lift=lift, size=draws.uniform(0.9, 1.3))
    dark = stage.stuff("metal", "black")
    pen.disc(
        "frame",
        stage.stuff("plastic", "black", "red", "gray", "brown", "blue"),
        0,
        0.2,
        0.22,
    )
    pen.disc(
        "dial",
        stage.stuff("plastic", "white", "white", "yellow"),
        0,
        0.2,
        0.17,
        bright=0.05,
    )
    for length, wide in ((0.14, 0.035), (0.1, 0.045)):
        u, v = draws.uniform(-0.8, 0.8) * length, draws.uniform(-0.8, 0.8) * length
        pen.limb("dial", dark, (0, 0.2), (u, 0.2 + v), wide)


def mirror(stage: Stage, x: float, y: float, lift: float = 1.15) -> None:
    """Draws a mirror on the wall, round or square."""
    draws = stage.draws
    pen = stage.pen("mirror", x, y, lift=lift, mirror=False)
    frame = stage.stuff(
        *draws.pick((("wood", "brown", "white", "black"), ("metal", "gray", "yellow")))
    )
    glass = stage.stuff("glass", "gray", "white", "blue")
    if draws.chance(0.4):
        pen.disc("frame", frame, 0, 0.4, 0.4, 0.44)
        pen.disc("pane", glass, 0, 0.4, 0.33, 0.37, bright=0.1)
    else:
        wide = draws.uniform(0.3, 0.5)
        pen.box("frame", frame, -wide - 0.06, -0.06, wide + 0.06, 0.81)
        pen.box("pane", glass, -wide, 0, wide, 0.75, bright=0.1)


def towel(stage: Stage, x: float, y: float, lift: float = 0.75) -> None:
    """Draws a towel on a wall."""
    pen = stage.pen("towel", x, y, lift=lift)
    cloth = stage.stuff("fabric", *GAY)
    stripe = stage.stuff("fabric", "white", "blue", "red", "yellow")
    pen.box("", cloth, -0.22, 0, 0.22, 0.7, round=0.1)
    pen.box("stripe", stripe, -0.22, 0.1, 0.22, 0.2, round=0.1)


def blackboard(stage: Stage, x: float, y: float, lift: float = 0.9) -> None:
    """Draws a blackboard with writing, 2.6 m wide."""
    draws = stage.draws
    pen = stage.pen("blackboard", x, y, lift=lift, mirror=False)
    wide = draws.uniform(1.0, 1.5)
    board = stage.stuff("plastic", "green", "green", "black", "gray")
    chalk = stage.stuff("plaster", "white", "white", "yellow")
    pen.box(
        "frame",
        stage.stuff("wood", "brown", "gray"),
        -wide - 0.08,
        -0.08,
        wide + 0.08,
        1.16,
    )
    pen.box("", board, -wide, 0, wide, 1.08, bright=-0.12)
    for line in range(draws.integer(2, 4)):
        v = 0.9 - line * 0.22
        start = draws.uniform(-0.85, -0.2) * wide
        for _ in range(draws.integer(1, 3)):
            end = min(start + draws.uniform(0.2, 0.55), wide - 0.1)
            pen.box("writing", chalk, start, v - 0.035, end, v + 0.035)
            start = end + 0.12
            if start > wide - 0.3:
                break
    pen.box(
        "frame", stage.stuff("wood", "brown"), -wide, -0.12, wide, -0.04, bright=0.06
    )
