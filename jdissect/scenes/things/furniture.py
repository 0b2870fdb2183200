"""Chairs, tables, sofas and beds."""

from jdissect.scenes.stage import Stage

WOODS = ("brown", "brown", "white", "black", "yellow", "gray")


CLOTHS = (
    "red",
    "blue",
    "green",
    "gray",
    "gray",
    "brown",
    "purple",
    "orange",
    "pink",
    "white",
    "yellow",
    "black",
)


def chair(stage: Stage, x: float, y: float, kind: str = "", view: str = "") -> None:
    """Draws a chair, 0.9 m.

    Args:
        kind: 'wood', 'plastic', 'office'; '': one of the first two.
        view: 'side', 'front', 'back'; '': any.
    """
    draws = stage.draws
    kind = kind or draws.pick(("wood", "wood", "plastic"))
    view = view or draws.pick(("side", "side", "front", "back"))
    pen = stage.pen("chair", x, y)
    if kind == "office":
        seat = stage.stuff("fabric", "black", "blue", "gray", "red", "green")
        frame = stage.stuff("metal", "black", "gray")
    elif kind == "plastic":
        seat = stage.stuff(
            "plastic", "white", "red", "yellow", "blue", "orange", "green"
        )
        frame = stage.stuff("metal", "gray", "black")
    else:
        seat = frame = stage.stuff("wood", *WOODS)
        if draws.chance(0.3):
            seat = stage.stuff("fabric", *CLOTHS)
    back = seat if kind != "wood" else frame
    pen.shadow(-0.28, 0.28, 0.3)
    if kind == "office":
        for u in (-0.26, 0.0, 0.26):
            pen.limb("leg", frame, (0, 0.18), (u, 0.04), 0.07)
            pen.disc("leg", frame, u, 0.04, 0.045)
        pen.limb("leg", frame, (0, 0.1), (0, 0.45), 0.08)
    else:
        for u in (-0.2, 0.2):
            pen.limb("leg", frame, (u * 0.9, 0.42), (u * 0.9, 0.13), 0.06, bright=-0.25)
        for u in (-0.22, 0.22):
            pen.limb("leg", frame, (u, 0.45), (u * 1.08, 0), 0.065)
    if view == "side":
        pen.poly(
            "backrest", back, (-0.26, 0.45), (-0.18, 0.45), (-0.25, 0.98), (-0.33, 0.98)
        )
        pen.box("seat", seat, -0.26, 0.42, 0.26, 0.51)
        pen.poly(
            "seat",
            seat,
            (-0.24, 0.51),
            (0.24, 0.51),
            (0.18, 0.55),
            (-0.2, 0.55),
            bright=0.1,
        )
        return
    if view == "front":
        pen.box("backrest", back, -0.22, 0.55, 0.22, 1.0, bright=-0.06)
    pen.poly(
        "seat",
        seat,
        (-0.26, 0.44),
        (0.26, 0.44),
        (0.21, 0.58),
        (-0.21, 0.58),
        bright=0.1,
    )
    pen.box("seat", seat, -0.26, 0.39, 0.26, 0.45, bright=-0.05)
    if view == "back":
        pen.box("backrest", back, -0.24, 0.52, 0.24, 1.0)


def table(
    stage: Stage, x: float, y: float, wide: float = 0.0, drawers: bool = False
) -> None:
    """Draws a table, 0.75 m high, `wide` meters; with drawers a desk."""
    draws = stage.draws
    wide = (wide or draws.uniform(1.1, 1.7)) / 2
    pen = stage.pen("table", x, y, mirror=False)
    wood = stage.stuff("wood", *WOODS)
    leg = wood if draws.chance(0.6) else stage.stuff("metal", "black", "gray", "white")
    pen.shadow(-wide, wide, 0.6)
    for u in (-wide + 0.08, wide - 0.08):
        pen.poly(
            "leg",
            leg,
            (u - 0.04, 0, 0.7),
            (u + 0.04, 0, 0.7),
            (u + 0.04, 0.7, 0.7),
            (u - 0.04, 0.7, 0.7),
            bright=-0.25,
        )
    if drawers:
        side = draws.sign() * (wide - 0.3)
        knob = stage.stuff("metal", "gray", "black", "yellow")
        for place in range(3):
            v = 0.06 + place * 0.22
            pen.box("drawer", wood, side - 0.24, v, side + 0.24, v + 0.2, bright=-0.08)
            pen.box("drawer", knob, side - 0.07, v + 0.09, side + 0.07, v + 0.13)
    for u in (-wide + 0.06, wide - 0.06):
        pen.limb("leg", leg, (u, 0), (u, 0.7), 0.085, grain=1)
    pen.block("top", wood, -wide, 0.68, wide, 0.76, 0.8)


def sofa(stage: Stage, x: float, y: float) -> None:
    """Draws a sofa or armchair, 0.85 m high."""
    draws = stage.draws
    pen = stage.pen("sofa", x, y, mirror=False)
    cloth = stage.stuff(
        *draws.pick(
            (("fabric", *CLOTHS), ("leather", "brown", "black", "white", "red"))
        )
    )
    wide = draws.pick((0.55, 0.95, 1.1))
    pen.shadow(-wide - 0.2, wide + 0.2, 0.5)
    pen.block("backrest", cloth, -wide, 0.3, wide, 0.95, 0.25, bright=-0.04)
    seats = 1 if wide < 0.6 else 2
    step = 2 * wide / seats
    for place in range(seats):
        u = -wide + place * step
        pen.box("backrest", cloth, u + 0.02, 0.45, u + step - 0.02, 0.92, fall=0.12)
    pen.poly(
        "seat",
        cloth,
        (-wide, 0.38),
        (wide, 0.38),
        (wide * 0.96, 0.54),
        (-wide * 0.96, 0.54),
        bright=0.1,
    )
    for _ in range(draws.integer(0, 2)):
        cushion = stage.stuff("fabric", *CLOTHS)
        u = draws.uniform(-wide + 0.2, wide - 0.2)
        pen.poly(
            "cushion",
            cushion,
            (u - 0.2, 0.45),
            (u + 0.2, 0.46),
            (u + 0.18, 0.8),
            (u - 0.19, 0.78),
            round=0.1,
            bright=0.04,
        )
    pen.box("seat", cloth, -wide, 0.08, wide, 0.4, bright=-0.06, fall=0.14)
    for side in (-1, 1):
        pen.block("arm", cloth, side * wide - 0.13, 0.05, side * wide + 0.13, 0.62, 0.7)


def bed(stage: Stage, x: float, y: float) -> None:
    """Draws a bed seen from its side or its foot."""
    draws = stage.draws
    pen = stage.pen("bed", x, y)
    wood = stage.stuff("wood", *WOODS)
    sheet = stage.stuff("fabric", "white", "white", "blue", "pink", "gray")
    blanket = stage.stuff("fabric", *CLOTHS)
    pillow = stage.stuff("fabric", "white", "white", "blue", "pink", "yellow", "gray")
    if draws.chance(0.5):  # from the side
        pen.shadow(-1.05, 1.05, 0.6)
        pen.box("headboard", wood, -1.15, 0, -1.02, 1.1, bright=-0.1)
        pen.poly(
            "headboard",
            wood,
            (-1.02, 0.3),
            (-1.02, 1.1),
            (-0.98, 1.1, 1.3),
            (-0.98, 0.3, 1.3),
        )
        for u in (-1.05, 0.98):
            pen.box("leg", wood, u - 0.05, 0, u + 0.05, 0.3)
        pen.block("mattress", sheet, -1.05, 0.22, 1.05, 0.52, 1.3)
        pen.poly(
            "blanket",
            blanket,
            (-0.35, 0.53),
            (1.06, 0.53),
            (1.06, 0.53, 1.3),
            (-0.35, 0.53, 1.3),
            bright=0.08,
        )
        pen.box("blanket", blanket, -0.35, 0.18, 1.06, 0.54, fall=0.12)
        for d in (0.9, 0.2):
            pen.poly(
                "pillow",
                pillow,
                (-0.98, 0.56, d),
                (-0.5, 0.54, d),
                (-0.52, 0.64, d + 0.45),
                (-0.94, 0.72, d + 0.45),
                bright=0.06,
            )
        return
    wide = draws.pick((0.55, 0.85))
    pen.shadow(-wide, wide, 0.5)
    pen.poly(
        "headboard",
        wood,
        (-wide - 0.08, 0.2, 2.0),
        (wide + 0.08, 0.2, 2.0),
        (wide + 0.08, 1.25, 2.0),
        (-wide - 0.08, 1.25, 2.0),
    )
    pen.block("mattress", sheet, -wide, 0.2, wide, 0.52, 2.0)
    for u in (-wide / 2, wide / 2) if wide > 0.6 else (0.0,):
        pen.poly(
            "pillow",
            pillow,
            (u - 0.34, 0.56, 1.5),
            (u + 0.34, 0.56, 1.5),
            (u + 0.32, 0.8, 1.95),
            (u - 0.32, 0.8, 1.95),
            round=0.1,
        )
    pen.poly(
        "blanket",
        blanket,
        (-wide - 0.02, 0.54),
        (wide + 0.02, 0.54),
        (wide + 0.02, 0.54, 1.35),
        (-wide - 0.02, 0.54, 1.35),
        bright=0.08,
        round=0.1,
    )
    pen.box(
        "blanket",
        blanket,
        -wide - 0.02,
        0.14,
        wide + 0.02,
        0.54,
        bright=-0.05,
        fall=0.14,
    )
    for u in (-wide + 0.06, wide - 0.06):
        pen.box("leg", wood, u - 0.06, 0, u + 0.06, 0.15)
