"""Outdoor things: fences, benches, lamps, signs, playground equipment."""

from jdissect.scenes.shading import Lamp
from jdissect.scenes.stage import Stage


def fence(stage: Stage, x: float, y: float, length: float = 0.0) -> None:
    """Draws a fence from `x` to the right, 1.1 m high.

    Args:
        length: meters; 0 leads out of the picture.
    """
    pen = stage.pen("fence", x, y, mirror=False)
    wood = stage.stuff("wood", "brown", "white", "white", "gray", "green")
    length = length or 130 / pen.scale
    pickets = stage.draws.chance(0.4)
    for v in (0.4, 0.85):
        pen.box("rail", wood, 0, v - 0.07, length, v + 0.07, bright=-0.06)
    step = max(0.35 if pickets else 1.4, 3.2 / pen.scale)
    for place in range(int(length / step) + 1):
        u = place * step
        half = min(0.1 if pickets else 0.12, step * 0.3)
        pen.box("post", wood, u - half, 0, u + half, 1.15, grain=1)


def bench(stage: Stage, x: float, y: float) -> None:
    """Draws a bench, 1.6 m."""
    pen = stage.pen("bench", x, y, mirror=False)
    wood = stage.stuff("wood", "brown", "brown", "green", "white", "red", "yellow")
    iron = stage.stuff("metal", "black", "gray")
    pen.shadow(-0.85, 0.85, 0.4)
    for v in (0.62, 0.82):
        pen.box("backrest", wood, -0.8, v - 0.075, 0.8, v + 0.085)
    for u in (-0.66, 0.66):
        pen.box("leg", iron, u - 0.05, 0.0, u + 0.05, 0.92, bright=-0.1)
    pen.block("seat", wood, -0.82, 0.36, 0.82, 0.46, 0.45)
    for u in (-0.7, 0.7):
        pen.box("leg", iron, u - 0.06, 0.0, u + 0.06, 0.38)


def streetlight(stage: Stage, x: float, y: float) -> None:
    """Draws a street lamp, 5 m: one arm, two arms or an old lantern."""
    draws = stage.draws
    pen = stage.pen("streetlight", x, y)
    iron = stage.stuff("metal", "black", "gray", "gray", "green")
    glass = stage.stuff("glass", "white", "yellow")
    glow = 1.0 if stage.light.night else 0.0
    pen.shadow(-0.3, 0.3, 0.2)
    pen.limb("pole", iron, (0, 0), (0, 4.8), 0.22, 0.14, round=0.2, grain=1)
    pen.box("pole", iron, -0.2, 0, 0.2, 0.5)
    heads: list[tuple[float, float]] = []
    kind = draws.integer(0, 2)
    if kind == 2:
        pen.poly(
            "lantern",
            glass,
            (-0.22, 4.7),
            (0.22, 4.7),
            (0.34, 5.35),
            (-0.34, 5.35),
            glow=glow,
        )
        pen.poly("lantern", iron, (-0.42, 5.35), (0.42, 5.35), (0.1, 5.7), (-0.1, 5.7))
        heads.append((0, 5.0))
    else:
        for side in (1, -1)[: kind + 1]:
            pen.limb("pole", iron, (0, 4.75), (side * 1.0, 5.1), 0.13)
            pen.limb("lantern", iron, (side * 0.8, 5.12), (side * 1.6, 5.12), 0.2)
            pen.limb(
                "lantern",
                glass,
                (side * 0.9, 4.98),
                (side * 1.55, 4.98),
                0.18,
                glow=glow,
            )
            heads.append((side * 1.2, 4.9))
    if glow:
        for head in heads:
            x, y = pen.at(head)
            reach = max(2.0 * pen.scale, 8)
            lamp = Lamp(x, y, reach, (0.85, 0.7, 0.4), pen.instance)
            stage.light.lamps.append(lamp)


def traffic_light(stage: Stage, x: float, y: float) -> None:
    """Draws a traffic light, 3.4 m."""
    draws = stage.draws
    pen = stage.pen("traffic light", x, y)
    iron = stage.stuff("metal", "gray", "black")
    case = stage.stuff("plastic", "black", "black", "yellow", "green")
    pen.shadow(-0.25, 0.25, 0.2)
    pen.limb("pole", iron, (0, 0), (0, 2.5), 0.16, round=0.2)
    pen.box("housing", case, -0.28, 2.3, 0.28, 3.7, round=0.1)
    lit = draws.integer(0, 2)
    for place, color in enumerate(("green", "yellow", "red")):
        on = place == lit
        stuff = stage.stuff("glass", color)
        pen.disc(
            "lens",
            stuff,
            0,
            2.54 + place * 0.45,
            0.19,
            bright=0.3 if on else -0.45,
            glow=1.0 if on else 0.0,
        )


def sign(stage: Stage, x: float, y: float, wide: float = 0.0) -> None:
    """Draws a sign on a pole, 2.6 m; with `wide` meters a board on two poles."""
    draws = stage.draws
    pen = stage.pen("sign", x, y, mirror=False)
    iron = stage.stuff("metal", "gray", "white", "black")
    color = stage.stuff("metal", "red", "blue", "yellow", "green")
    white = stage.stuff("metal", "white")
    pen.shadow(-0.25, 0.25, 0.15)
    if wide:
        for u in (-wide * 0.4, wide * 0.4):
            pen.limb("pole", iron, (u, 0), (u, 2.4), 0.12)
        pen.box("board", color, -wide / 2, 1.9, wide / 2, 2.7)
        pen.box("board", white, -wide * 0.4, 2.22, wide * 0.4, 2.4)
        return
    pen.limb("pole", iron, (0, 0), (0, 2.3), 0.11)
    shape = draws.integer(0, 2)
    if shape == 0:
        pen.disc("board", color, 0, 2.4, 0.42)
        pen.box("board", white, -0.28, 2.3, 0.28, 2.5)
    elif shape == 1:
        pen.poly("board", color, (-0.5, 2.05), (0.5, 2.05), (0, 2.9))
        pen.poly("board", white, (-0.28, 2.18), (0.28, 2.18), (0, 2.64))
    else:
        pen.box("board", color, -0.4, 2.0, 0.4, 2.8)
        pen.limb("board", white, (0, 2.1), (0, 2.7), 0.14)


def umbrella(stage: Stage, x: float, y: float) -> None:
    """Draws a sunshade, 2.2 m, in two colors."""
    draws = stage.draws
    pen = stage.pen(
        "umbrella", x, y, turn=draws.uniform(-14, 14), size=draws.uniform(0.9, 1.15)
    )
    pole = stage.stuff("wood", "white", "brown")
    first = stage.stuff(
        "fabric", "red", "blue", "yellow", "green", "orange", "pink", "purple"
    )
    second = stage.stuff("fabric", "white", "white", "yellow", "blue")
    pen.shadow(-1.2, 1.2, 0.7, 0.5)
    pen.limb("pole", pole, (0, 0), (0, 2.2), 0.08)
    edge = [
        (-1.3, 1.55),
        (-0.78, 1.45),
        (-0.26, 1.42),
        (0.26, 1.42),
        (0.78, 1.45),
        (1.3, 1.55),
    ]
    bend = [
        (-0.85, 2.0),
        (-0.5, 2.06),
        (-0.17, 2.1),
        (0.17, 2.1),
        (0.5, 2.06),
        (0.85, 2.0),
    ]
    for place in range(5):
        stuff = first if place % 2 == 0 else second
        bright = 0.06 * stage.light.side * (place - 2)
        pen.poly(
            "canopy",
            stuff,
            edge[place],
            edge[place + 1],
            bend[place + 1],
            bend[place],
            bright=bright,
        )
        pen.poly(
            "canopy",
            stuff,
            bend[place],
            bend[place + 1],
            (0, 2.35),
            bright=bright + 0.05,
        )


def ball(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a ball, 0.5 m, with a stripe."""
    draws = stage.draws
    pen = stage.pen("ball", x, y, size=size, turn=draws.uniform(-60, 60))
    paint = stage.stuff(
        "plastic", "red", "blue", "yellow", "green", "orange", "white", "pink", "purple"
    )
    stripe = stage.stuff("plastic", "white", "yellow", "blue")
    down = 0.27 * pen.scale
    pen.shadow(-0.28, 0.28, 0.2)
    pen.y -= down
    pen.disc("", paint, 0, 0, 0.28, round=0.2, fall=0.22)
    pen.disc("stripe", stripe, 0, 0, 0.265, 0.085, round=0.2, fall=0.1)


def slide(stage: Stage, x: float, y: float) -> None:
    """Draws a slide, 2.4 m: ladder, top and chute."""
    pen = stage.pen("slide", x, y)
    chute = stage.stuff("plastic", "red", "yellow", "blue", "orange", "green", "pink")
    steel = stage.stuff("metal", "gray", "blue", "yellow", "red")
    pen.shadow(-1.2, 2.2, 0.5)
    for u in (-1.2, -0.75):
        pen.limb("ladder", steel, (u, 0), (u + 0.35, 2.5), 0.1)
    for step in range(5):
        v = 0.3 + step * 0.4
        u = -1.2 + v * 0.14
        pen.box("ladder", steel, u, v - 0.05, u + 0.5, v + 0.05, bright=0.1)
    pen.limb("ladder", steel, (0.9, 0), (0.9, 1.2), 0.1)
    pen.box("chute", chute, -0.85, 1.85, -0.1, 2.05)
    pen.limb("chute", chute, (-0.15, 1.95), (1.7, 0.35), 0.36, fall=0.16)
    pen.limb("chute", chute, (-0.15, 2.08), (1.7, 0.48), 0.1, bright=-0.2)
    pen.limb("chute", chute, (1.6, 0.35), (2.3, 0.3), 0.3)


def swing(stage: Stage, x: float, y: float) -> None:
    """Draws a swing of two seats, 2.4 m."""
    draws = stage.draws
    pen = stage.pen("swing", x, y, mirror=False)
    steel = stage.stuff("metal", "red", "blue", "yellow", "green", "gray")
    rope = stage.stuff("metal", "gray", "black", "white")
    seat = stage.stuff("plastic", "red", "black", "yellow", "blue", "green")
    pen.shadow(-1.9, 1.9, 0.6, 0.3)
    for u in (-1.7, 1.7):
        pen.limb("frame", steel, (u - 0.55, 0), (u, 2.4), 0.14, bright=-0.08)
        pen.limb("frame", steel, (u + 0.55, 0), (u, 2.4), 0.14)
    for middle in (-0.8, 0.8):
        sway = draws.uniform(-0.6, 0.6)
        low = 0.5 + 0.2 * sway * sway
        for u in (-0.24, 0.24):
            pen.limb("rope", rope, (middle + u, 2.35), (middle + u + sway, low), 0.06)
        pen.limb(
            "seat", seat, (middle - 0.34 + sway, low), (middle + 0.34 + sway, low), 0.15
        )
    pen.limb("frame", steel, (-1.8, 2.4), (1.8, 2.4), 0.16)
