"""Cars, buses, tractors, trains and boats."""

from jdissect.scenes.palette import Stuff
from jdissect.scenes.pen import Pen
from jdissect.scenes.shading import Lamp
from jdissect.scenes.stage import Stage

_LACQUERS = ("red", "blue", "white", "gray", "black", "yellow", "green", "orange")


def _wheel(pen: Pen, tyre: Stuff, hub: Stuff, u: float, r: float) -> None:
    pen.disc("wheel", tyre, u, r, r, bright=-0.1)
    pen.disc("wheel", hub, u, r, r * 0.52, round=0.1)


def _pane(stage: Stage) -> tuple[Stuff, dict[str, float]]:
    """Returns the glass of a vehicle, and its look."""
    if stage.light.night:
        return stage.stuff("glass", "black", "black", "yellow"), {"bright": 0.0}
    return stage.stuff("glass", "blue", "gray", "black"), {"bright": -0.05}


def _headlight(stage: Stage, pen: Pen, u: float, v: float, r: float) -> None:
    white = stage.stuff("glass", "white", "yellow")
    glow = 1.0 if stage.light.night else 0.0
    pen.disc("headlight", white, u, v, r, r * 1.1, glow=glow, bright=0.1)
    if glow:
        x, y = pen.at((u, v))
        lamp = Lamp(x, y, 7.0, (0.5, 0.46, 0.32), pen.instance)
        stage.light.lamps.append(lamp)


def car(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a car from the side, 4 m: saloon, hatchback or van."""
    draws = stage.draws
    pen = stage.pen("car", x, y, size=size)
    paint = stage.stuff("metal", *_LACQUERS)
    tyre, hub = stage.stuff("rubber", "black"), stage.stuff("metal", "gray")
    glass, look = _pane(stage)
    pen.shadow(-2.1, 2.1, 0.7, 0.6)
    kind = draws.pick(("saloon", "saloon", "hatchback", "van"))
    roof = {"saloon": 1.42, "hatchback": 1.5, "van": 1.85}[kind]
    back = {"saloon": -1.2, "hatchback": -1.85, "van": -2.0}[kind]
    rear = {"saloon": -1.7, "hatchback": -2.05, "van": -2.08}[kind]
    front = {"saloon": 0.5, "hatchback": 0.55, "van": 1.0}[kind]
    hood = {"saloon": 1.15, "hatchback": 1.2, "van": 1.65}[kind]
    pen.poly(
        "body",
        paint,
        (rear, 0.9),
        (back, roof),
        (front, roof),
        (hood, 0.92),
        round=0.04,
        fall=0.1,
    )
    pen.poly(
        "body",
        paint,
        (-2.08, 0.3),
        (-2.12, 0.75),
        (-2.02, 0.93),
        (hood, 0.96),
        (1.95, 0.82),
        (2.12, 0.6),
        (2.1, 0.3),
        fall=0.12,
    )
    low, high = 0.96, roof - 0.1
    lean = (roof - low) * 0.1
    middle = (back + front) / 2 + 0.1
    pen.poly(
        "window",
        glass,
        (rear + (back - rear) * 0.3 + 0.16, low),
        (back + 0.14, high),
        (middle - 0.06, high),
        (middle - 0.06, low),
        **look,
    )
    pen.poly(
        "window",
        glass,
        (middle + 0.06, low),
        (middle + 0.06, high),
        (front - 0.04, high),
        (hood - 0.22 - lean, low),
        **look,
    )
    pen.poly(
        "door",
        paint,
        (middle, 0.4),
        (middle, 0.9),
        (hood - 0.35, 0.9),
        (hood - 0.5, 0.4),
        bright=0.08,
    )
    trim = stage.stuff("plastic", "black")
    pen.box("body", trim, -2.14, 0.28, 2.13, 0.38)
    for u in (-1.3, 1.3):
        _wheel(pen, tyre, hub, u, 0.36)
    _headlight(stage, pen, 2.0, 0.66, 0.13)
    pen.disc("", stage.stuff("glass", "red"), -2.05, 0.74, 0.08, 0.1, glow=0.4)


def car_ahead(stage: Stage, x: float, y: float) -> None:
    """Draws a car from the front or the back, 1.8 m wide."""
    draws = stage.draws
    pen = stage.pen("car", x, y, mirror=False)
    paint = stage.stuff("metal", *_LACQUERS)
    tyre, trim = stage.stuff("rubber", "black"), stage.stuff("plastic", "black", "gray")
    glass, look = _pane(stage)
    front = draws.chance(0.5)
    pen.shadow(-0.95, 0.95, 1.2, 0.6)
    for u in (-0.68, 0.68):
        pen.box("wheel", tyre, u - 0.15, 0, u + 0.15, 0.5, bright=-0.1)
    pen.poly("body", paint, (-0.82, 0.85), (0.82, 0.85), (0.62, 1.5), (-0.62, 1.5))
    pen.poly(
        "window", glass, (-0.72, 0.9), (0.72, 0.9), (0.57, 1.4), (-0.57, 1.4), **look
    )
    pen.poly(
        "body",
        paint,
        (-0.9, 0.3),
        (-0.92, 0.75),
        (-0.8, 0.95),
        (0.8, 0.95),
        (0.92, 0.75),
        (0.9, 0.3),
        fall=0.14,
    )
    pen.box("body", trim, -0.9, 0.28, 0.9, 0.42)
    if front:
        pen.box("body", trim, -0.4, 0.52, 0.4, 0.68)
        for u in (-0.66, 0.66):
            _headlight(stage, pen, u, 0.64, 0.14)
        return
    red = stage.stuff("glass", "red")
    for u in (-0.7, 0.7):
        pen.box("", red, u - 0.14, 0.58, u + 0.14, 0.76, glow=0.4)
    plate = stage.stuff("metal", "white", "yellow")
    pen.box("", plate, -0.26, 0.52, 0.26, 0.66)


def bus(stage: Stage, x: float, y: float) -> None:
    """Draws a bus from the side, 9 m."""
    pen = stage.pen("bus", x, y)
    paint = stage.stuff("metal", "red", "yellow", "white", "blue", "green", "orange")
    band = stage.stuff("metal", "white", "gray", "blue", "black")
    tyre, hub = stage.stuff("rubber", "black"), stage.stuff("metal", "gray")
    glass, look = _pane(stage)
    pen.shadow(-4.5, 4.5, 0.9, 0.6)
    pen.box("body", paint, -4.5, 0.4, 4.5, 2.95, fall=0.1)
    pen.box("body", band, -4.5, 1.05, 4.5, 1.3)
    for place in range(6):
        u = -4.25 + place * 1.2
        pen.box("window", glass, u, 1.5, u + 1.05, 2.5, **look)
    pen.box("door", glass, 3.0, 0.45, 3.85, 2.5, bright=-0.1)
    pen.box("door", band, 3.4, 0.45, 3.46, 2.5)
    pen.box("window", glass, 4.1, 1.3, 4.5, 2.6, bright=0.05)
    for u in (-2.9, 2.4):
        _wheel(pen, tyre, hub, u, 0.5)
    _headlight(stage, pen, 4.42, 0.8, 0.16)


def tractor(stage: Stage, x: float, y: float) -> None:
    """Draws a tractor, 3.4 m."""
    pen = stage.pen("tractor", x, y)
    paint = stage.stuff("metal", "red", "green", "blue", "orange", "yellow")
    tyre = stage.stuff("rubber", "black")
    hub = stage.stuff("metal", "yellow", "red", "white")
    glass, look = _pane(stage)
    dark = stage.stuff("metal", "black", "gray")
    pen.shadow(-1.7, 1.8, 0.7, 0.55)
    pen.limb("exhaust", dark, (0.95, 1.3), (0.95, 2.25), 0.13)
    pen.box("body", paint, -0.1, 0.65, 1.7, 1.45, fall=0.12)
    pen.box("cab", glass, -1.15, 1.2, 0.2, 2.35, **look)
    pen.box("cab", paint, -1.3, 2.3, 0.35, 2.5)
    pen.box("cab", paint, -0.5, 1.2, -0.4, 2.35)
    pen.poly(
        "body", paint, (-1.4, 0.9), (-1.25, 1.4), (-0.1, 1.4), (0.0, 0.7), bright=-0.08
    )
    _wheel(pen, tyre, hub, -0.8, 0.82)
    _wheel(pen, tyre, hub, 1.25, 0.5)


def train(stage: Stage, x: float, y: float, cars: int = 2) -> None:
    """Draws a train from the side; `x` is the front of its first coach, 14 m each."""
    draws = stage.draws
    pen = stage.pen("train", x, y, mirror=draws.chance(0.5) if x == 56 else x < 56)
    paint = stage.stuff(
        "metal", "red", "blue", "green", "white", "yellow", "gray", "orange"
    )
    band = stage.stuff("metal", "white", "yellow", "gray", "black", "red")
    roof = stage.stuff("metal", "gray", "black")
    wheel = stage.stuff("metal", "black", "brown")
    glass, look = _pane(stage)
    for coach in range(cars):
        end = -coach * 14.4
        start = end - 14
        pen.shadow(start, end, 0.9, 0.6)
        pen.box("body", wheel, start + 0.6, 0.35, end - 0.6, 0.75, bright=-0.1)
        if coach == 0:
            pen.poly(
                "body",
                paint,
                (start, 0.6),
                (start, 3.2),
                (end - 1.6, 3.2),
                (end - 0.2, 1.9),
                (end, 0.6),
                fall=0.1,
            )
            pen.poly(
                "window",
                glass,
                (end - 1.9, 2.1),
                (end - 1.75, 2.95),
                (end - 1.5, 2.95),
                (end - 0.5, 2.1),
                **look,
            )
            _headlight(stage, pen, end - 0.35, 1.2, 0.2)
            last = end - 1.6
        else:
            pen.box("body", paint, start, 0.6, end, 3.2, fall=0.1)
            last = end
        pen.poly(
            "body",
            roof,
            (start, 3.15),
            (start + 0.2, 3.5),
            (last - 0.3, 3.5),
            (last, 3.15),
        )
        pen.box("body", band, start, 1.2, last, 1.5)
        for place in range(5):
            u = start + 2.0 + place * 2.0
            pen.box("window", glass, u, 1.85, u + 1.5, 2.8, **look)
        for u in (start + 0.45, last - 1.4):
            pen.box("door", band, u, 0.7, u + 1.1, 2.9, bright=-0.05)
            pen.box("door", glass, u + 0.25, 1.8, u + 0.85, 2.7, **look)
        for u in (start + 1.6, start + 3.0, end - 3.2, end - 1.8):
            pen.disc("wheel", wheel, u, 0.45, 0.45, round=0.15)


def boat(stage: Stage, x: float, y: float, kind: str = "") -> None:
    """Draws a boat on the water, 6 m: 'sail', 'motor' or 'row'."""
    draws = stage.draws
    kind = kind or draws.pick(("sail", "sail", "motor"))
    pen = stage.pen(
        "boat", x, y, turn=draws.uniform(-5, 5), size=draws.uniform(0.8, 1.15)
    )
    paint = stage.stuff("wood", "white", "red", "blue", "brown", "green", "black")
    trim = stage.stuff("wood", "white", "brown", "yellow")
    pen.shadow(-2.6, 2.6, 0.8, 0.5)
    pen.poly("hull", paint, (-2.7, 0.85), (2.9, 1.0), (1.9, 0), (-2.2, 0), fall=0.16)
    pen.poly("hull", trim, (-2.72, 0.72), (-2.7, 0.9), (2.95, 1.06), (2.8, 0.84))
    if kind == "sail":
        wood = stage.stuff("wood", "brown", "white")
        cloth = stage.stuff(
            "fabric", "white", "white", "white", "red", "blue", "yellow", "orange"
        )
        mast = draws.uniform(5.0, 6.4)
        pen.limb("mast", wood, (0.3, 0.8), (0.3, mast), 0.16, 0.1)
        if draws.chance(0.75):
            pen.poly(
                "sail", cloth, (0.15, 1.5), (0.15, mast - 0.2), (-2.4, 1.6), round=0.15
            )
            pen.poly(
                "sail",
                cloth,
                (0.5, mast - 0.5),
                (0.5, 1.3),
                (2.5, 1.2),
                round=0.15,
                bright=0.05,
            )
        else:
            pen.limb("mast", wood, (0.3, 1.5), (-2.2, 1.55), 0.14)
            pen.limb("sail", cloth, (0.2, 1.6), (-2.1, 1.65), 0.3)
    elif kind == "motor":
        cab = stage.stuff("plastic", "white", "white", "gray", "blue")
        glass, look = _pane(stage)
        pen.poly("cab", cab, (-1.4, 0.9), (-1.3, 2.2), (0.8, 2.2), (1.3, 0.95))
        pen.poly(
            "cab", glass, (-1.1, 1.4), (-1.05, 2.0), (0.7, 2.0), (0.95, 1.4), **look
        )
        pen.limb("mast", trim, (-0.9, 2.2), (-0.9, 3.2), 0.1)
    else:
        pen.box("hull", trim, -1.2, 0.75, -0.8, 0.95)
