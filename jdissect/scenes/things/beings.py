"""People and animals, with limbs that move."""

from jdissect.scenes.draws import direction
from jdissect.scenes.stage import Stage

_CLOTHES = (
    "red",
    "blue",
    "blue",
    "green",
    "yellow",
    "white",
    "pink",
    "purple",
    "orange",
    "gray",
    "black",
)


_TROUSERS = ("blue", "black", "gray", "brown", "white")


def _reach(
    start: tuple[float, float], degrees: float, length: float
) -> tuple[float, float]:
    """Returns the end of a limb; 0 degrees points down, positive to the right."""
    cosine, sine = direction(degrees - 90)
    return start[0] + length * cosine, start[1] + length * sine


def person(
    stage: Stage,
    x: float,
    y: float,
    pose: str = "",
    size: float = 1.0,
    lift: float = 0.0,
    summer: bool = False,
) -> None:
    """Draws a person, 1.7 m.

    Args:
        pose: 'stand', 'walk', 'wave', 'sit' (on a seat of 0.45 m); '': not 'sit'.
        size: 0.6 is a child.
        lift: height above the ground in meters.
        summer: whether in bathing clothes.
    """
    draws = stage.draws
    pose = pose or draws.pick(("stand", "walk", "walk", "wave"))
    pen = stage.pen(
        "person",
        x,
        y,
        size=size * draws.uniform(0.95, 1.08),
        lift=lift,
        turn=draws.uniform(-3, 3),
    )
    skin = stage.stuff("skin", "pink", "pink", "brown")
    hair = stage.stuff("hair", "black", "brown", "brown", "yellow", "orange", "gray")
    shirt = stage.stuff("fabric", *_CLOTHES)
    legs = skin if summer else stage.stuff("fabric", *_TROUSERS)
    shoe = stage.stuff("leather", "black", "brown", "white", "red")
    sleeve = skin if summer or draws.chance(0.4) else shirt
    if not lift:
        pen.shadow(-0.35, 0.35, 0.25)
    if pose == "sit":
        hip, stride = 0.5, 0.0
        for side in (-1, 1):
            knee = (0.42 + side * 0.05, 0.5)
            pen.limb(
                "leg",
                legs,
                (side * 0.04, hip + 0.04),
                knee,
                0.19,
                0.15,
                bright=side * 0.05,
            )
            foot = (knee[0] + side * 0.06, 0.06)
            pen.limb("leg", legs, knee, foot, 0.14, 0.1, bright=side * 0.05)
            pen.disc("shoe", shoe, foot[0] + 0.06, 0.05, 0.13, 0.06)
    else:
        hip = 0.86
        stride = draws.uniform(14, 26) if pose == "walk" else draws.uniform(2, 8)
        for side in (-1, 1):
            top = (side * 0.08, hip + 0.03)
            knee = _reach(top, side * stride, 0.43)
            foot = _reach(knee, side * stride * (0.4 if side > 0 else 1.3), 0.42)
            pen.limb("leg", legs, top, knee, 0.19, 0.15, bright=side * 0.06)
            pen.limb("leg", legs, knee, foot, 0.14, 0.1, bright=side * 0.06)
            pen.disc("shoe", shoe, foot[0] + 0.05, foot[1] - 0.0, 0.13, 0.065)
    neck = hip + 0.58
    if draws.chance(0.4):  # long hair lies behind
        pen.disc("hair", hair, 0, neck + 0.12, 0.17, 0.22, bright=-0.1)
    far, near = draws.uniform(-30, -8), draws.uniform(8, 30)
    if pose == "wave":
        near = draws.uniform(120, 160)
    if pose == "sit":
        far, near = 40, 60
    for side, swing in ((-1, far), (1, near)):
        shoulder = (side * 0.2, neck - 0.06)
        elbow = _reach(shoulder, swing, 0.3)
        hand = _reach(elbow, swing + (35 if pose == "sit" else 14 * side), 0.27)
        pen.limb("arm", sleeve, shoulder, elbow, 0.13, 0.11, bright=0.05 * side)
        pen.limb("arm", sleeve, elbow, hand, 0.1, 0.08, bright=0.05 * side)
        pen.disc("arm", skin, *hand, 0.06)
    skirt = 0.3 if draws.chance(0.2) else 0.18
    pen.poly(
        "torso",
        shirt,
        (-0.23, neck),
        (0.23, neck),
        (0.17, hip + 0.2),
        (-0.17, hip + 0.2),
        round=0.14,
    )
    pen.poly(
        "torso",
        shirt,
        (-0.17, hip + 0.2),
        (0.17, hip + 0.2),
        (skirt, hip - skirt + 0.12),
        (-skirt, hip - skirt + 0.12),
        round=0.14,
    )
    pen.limb("head", skin, (0, neck - 0.02), (0, neck + 0.1), 0.11, bright=-0.12)
    pen.disc("head", skin, 0, neck + 0.2, 0.13, 0.155, round=0.14)
    pen.disc("hair", hair, -0.02, neck + 0.29, 0.14, 0.09, tilt=8, round=0.1)


def dog(stage: Stage, x: float, y: float) -> None:
    """Draws a dog, 0.6 m."""
    draws = stage.draws
    pen = stage.pen("dog", x, y, size=draws.uniform(0.85, 1.15))
    coat = stage.stuff("hair", "brown", "black", "white", "gray", "orange", "yellow")
    pen.shadow(-0.4, 0.4, 0.2)
    for u, bright in ((-0.3, -0.15), (0.18, -0.15), (-0.2, 0.0), (0.27, 0.0)):
        foot = _reach((u, 0.34), draws.uniform(-22, 22), 0.33)
        pen.limb("leg", coat, (u, 0.36), foot, 0.11, 0.07, bright=bright)
    pen.limb(
        "tail",
        coat,
        (-0.34, 0.45),
        _reach((-0.34, 0.45), draws.uniform(-150, -110), 0.3),
        0.08,
        0.04,
    )
    pen.disc("torso", coat, 0, 0.43, 0.4, 0.15, fall=0.16)
    pen.limb("head", coat, (0.28, 0.46), (0.42, 0.62), 0.18, 0.16)
    pen.disc("head", coat, 0.45, 0.66, 0.14, 0.12, fall=0.12)
    pen.limb("head", coat, (0.48, 0.63), (0.66, 0.6), 0.13, 0.08)
    pen.disc("ear", coat, 0.37, 0.68, 0.05, 0.13, tilt=-20, bright=-0.25)


def cow(stage: Stage, x: float, y: float) -> None:
    """Draws a cow, 1.4 m, often spotted, at times grazing."""
    draws = stage.draws
    pen = stage.pen("cow", x, y, size=draws.uniform(0.9, 1.1))
    coat = stage.stuff("hair", "brown", "white", "white", "black", "orange")
    horn = stage.stuff("leather", "white", "yellow")
    pink = stage.stuff("skin", "pink")
    pen.shadow(-1.1, 1.1, 0.4)
    for u, bright in ((-0.75, -0.18), (0.5, -0.18), (-0.62, 0.0), (0.66, 0.0)):
        foot = _reach((u, 0.7), draws.uniform(-9, 9), 0.68)
        pen.limb("leg", coat, (u, 0.75), foot, 0.22, 0.13, bright=bright)
    pen.limb("tail", coat, (-0.95, 1.2), (-1.06, 0.55), 0.08, 0.12, bright=-0.1)
    pen.disc("udder", pink, -0.45, 0.62, 0.2, 0.14)
    pen.poly(
        "torso",
        coat,
        (-0.95, 0.75),
        (-1.0, 1.2),
        (-0.85, 1.36),
        (0.6, 1.36),
        (0.86, 1.2),
        (0.84, 0.8),
        (0.5, 0.62),
        (-0.6, 0.64),
        fall=0.16,
    )
    if draws.chance(0.6):
        spot = stage.stuff("hair", "black", "brown", "white")
        for _ in range(4):
            pen.disc(
                "torso",
                spot,
                draws.uniform(-0.65, 0.5),
                draws.uniform(0.85, 1.2),
                draws.uniform(0.12, 0.24),
                0.13,
                tilt=draws.uniform(0, 90),
            )
    nose = (1.25, 0.35) if draws.chance(0.4) else (1.45, 1.15)
    head = (1.08, 0.62) if nose[1] < 1 else (1.15, 1.3)
    pen.limb("head", coat, (0.7, 1.15), head, 0.46, 0.3)
    for side in (-1, 1):
        pen.limb(
            "horn",
            horn,
            (head[0] - 0.05, head[1] + 0.12),
            (head[0] - 0.05 + side * 0.2, head[1] + 0.34),
            0.09,
            0.04,
        )
    pen.limb("head", coat, head, nose, 0.34, 0.22, bright=0.05)
    pen.disc("head", coat, *head, 0.18, bright=0.05)
    pen.disc("head", pink, *nose, 0.12, bright=-0.05)
