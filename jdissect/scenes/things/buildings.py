"""Houses, towers and harbor structures."""

from jdissect.scenes.palette import Stuff
from jdissect.scenes.pen import Pen
from jdissect.scenes.shading import Lamp
from jdissect.scenes.stage import Stage


def _lit_pane(stage: Stage) -> tuple[Stuff, dict[str, float]]:
    """Returns a window's glass from outside; at night it is lit half the time."""
    if stage.light.night and stage.draws.chance(0.55):
        return stage.stuff("glass", "yellow"), {"glow": 0.9}
    return stage.stuff("glass", "blue", "gray", "black"), {"bright": -0.1}


def _window(
    stage: Stage, pen: Pen, frame: Stuff, u: float, v: float, wide: float, high: float
) -> None:
    """Draws a window of a facade around (u, v): frame and panes."""
    glass, look = _lit_pane(stage)
    pen.box(
        "window",
        frame,
        u - wide / 2 - 0.1,
        v - high / 2 - 0.1,
        u + wide / 2 + 0.1,
        v + high / 2 + 0.1,
    )
    pen.box(
        "window", glass, u - wide / 2, v - high / 2, u + wide / 2, v + high / 2, **look
    )
    pen.box("window", frame, u - 0.06, v - high / 2, u + 0.06, v + high / 2)


def house(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a house of one or two floors, gable or eaves towards the viewer."""
    draws = stage.draws
    pen = stage.pen("house", x, y, size=size, mirror=False)
    wall = stage.stuff(
        *draws.pick(
            (
                ("brick", "red", "brown", "yellow"),
                ("plaster", "white", "yellow", "pink", "gray", "blue", "green"),
                ("wood", "brown", "white", "red", "green"),
                ("stone", "gray", "brown"),
            )
        )
    )
    tiles = stage.stuff("shingle", "red", "brown", "gray", "orange", "black")
    frame = stage.stuff("wood", "white", "white", "brown", "green")
    leaf = stage.stuff("wood", "brown", "red", "green", "blue", "white")
    floors = draws.integer(1, 2)
    wide, deep = draws.uniform(3.2, 4.4), draws.uniform(5, 7)
    eaves, rise = 2.7 * floors + 0.4, draws.uniform(1.8, 2.8)
    pen.shadow(-wide * 1.05, wide * 1.05, 1.2, 0.5)
    chimney = stage.stuff("brick", "red", "brown", "gray")
    if draws.chance(0.6):
        side = draws.uniform(0.35, 0.5) * wide * draws.sign()
        pen.block(
            "chimney",
            chimney,
            side - 0.4,
            eaves + 0.3,
            side + 0.4,
            eaves + rise + 0.7,
            0.8,
        )
    if draws.chance(0.5):  # the gable faces the viewer
        top = (0.0, eaves + rise)
        for edge in (-wide, wide):
            over = edge * 1.1
            pen.poly(
                "roof",
                tiles,
                top,
                (*top, deep),
                (over, eaves - 0.15, deep),
                (over, eaves - 0.15),
                bright=-0.06,
            )
        pen.block(
            "wall", wall, -wide, 0, wide, eaves, deep, top="roof", top_stuff=tiles
        )
        pen.poly("wall", wall, (-wide, eaves), (wide, eaves), top)
        for edge in (-1, 1):
            pen.limb(
                "roof",
                tiles,
                (0, top[1] + 0.1),
                (edge * wide * 1.12, eaves - 0.15),
                0.32,
                bright=-0.14,
            )
        _window(stage, pen, frame, 0, eaves + rise * 0.3, 0.9, 0.9)
    else:
        pen.block("wall", wall, -wide, 0, wide, eaves, deep)
        pen.poly(
            "roof",
            tiles,
            (-wide - 0.35, eaves - 0.15),
            (wide + 0.35, eaves - 0.15),
            (wide - 0.5, eaves + rise),
            (-wide + 0.5, eaves + rise),
            fall=0.14,
        )
    door = draws.pick((-0.55, 0.0, 0.55)) * wide
    for floor in range(floors):
        v = 1.55 + floor * 2.7
        for u in (-0.58 * wide, 0.0, 0.58 * wide):
            if floor or abs(u - door) > 1.2:
                _window(stage, pen, frame, u, v, 1.1, 1.3)
    pen.box("door", frame, door - 0.62, 0, door + 0.62, 2.2)
    pen.box("door", leaf, door - 0.5, 0, door + 0.5, 2.1)
    pen.disc("door", frame, door + 0.36, 1.0, 0.09)


def building(
    stage: Stage, x: float, y: float, floors: int = 0, wide: float = 0.0
) -> None:
    """Draws a block of flats or offices, 4 to 8 floors."""
    draws = stage.draws
    pen = stage.pen("building", x, y, mirror=False)
    wall = stage.stuff(
        *draws.pick(
            (
                ("brick", "red", "brown"),
                ("plaster", "white", "yellow", "pink", "gray", "orange"),
                ("stone", "gray", "brown", "white"),
            )
        )
    )
    edge = stage.stuff("stone", "white", "gray", "brown")
    frame = stage.stuff("wood", "white", "gray", "black")
    floors = floors or draws.integer(3, 6)
    columns = draws.integer(3, 4)
    wide = wide or columns * draws.uniform(1.05, 1.3)
    high = floors * 3.0 + 0.8
    pen.shadow(-wide, wide, 1.5, 0.5)
    pen.block("wall", wall, -wide, 0, wide, high, 7, fall=0.05)
    pen.box("cornice", edge, -wide - 0.2, high - 0.5, wide + 0.2, high + 0.2)
    balconies = draws.chance(0.45)
    rail = stage.stuff("metal", "black", "gray", "white")
    step = 2 * wide / columns
    for floor in range(floors):
        v = floor * 3.0 + 1.8
        for column in range(columns):
            u = -wide + (column + 0.5) * step
            if floor == 0 and column == columns // 2:
                leaf = stage.stuff("wood", "brown", "black", "blue", "green", "red")
                pen.box("door", edge, u - 0.85, 0, u + 0.85, 2.7)
                pen.box("door", leaf, u - 0.65, 0, u + 0.65, 2.5)
                continue
            if pen.scale > 5:
                _window(stage, pen, frame, u, v, step * 0.42, 1.6)
            else:
                glass, look = _lit_pane(stage)
                pen.box(
                    "window",
                    glass,
                    u - step * 0.26,
                    v - 0.85,
                    u + step * 0.26,
                    v + 0.85,
                    **look,
                )
            if balconies and floor and column % 2 == 0:
                pen.box(
                    "balcony",
                    rail,
                    u - step * 0.42,
                    v - 1.15,
                    u + step * 0.42,
                    v - 0.35,
                    grain=1,
                )


def barn(stage: Stage, x: float, y: float) -> None:
    """Draws a barn with a broken roof and a wide door."""
    draws = stage.draws
    pen = stage.pen("barn", x, y, mirror=False)
    wall = stage.stuff("wood", "red", "red", "brown", "gray", "white")
    tiles = stage.stuff("shingle", "gray", "black", "brown", "red")
    trim = stage.stuff("wood", "white", "white", "brown")
    deep = draws.uniform(8, 11)
    pen.shadow(-4.6, 4.6, 1.5, 0.5)
    shape = ((-4.4, 3.2), (-3.0, 5.4), (0.0, 6.6), (3.0, 5.4), (4.4, 3.2))
    for start, end in zip(shape[:-1], shape[1:], strict=True):
        pen.poly("roof", tiles, start, (*start, deep), (*end, deep), end)
    pen.block("wall", wall, -4.2, 0, 4.2, 3.2, deep, grain=1)
    pen.poly(
        "wall",
        wall,
        (-4.2, 3.2),
        (-2.9, 5.3),
        (0, 6.4),
        (2.9, 5.3),
        (4.2, 3.2),
        grain=1,
    )
    for start, end in zip(shape[:-1], shape[1:], strict=True):
        pen.limb("roof", tiles, start, end, 0.36, bright=-0.1)
    leaf = stage.stuff("wood", "brown", "red", "white", "black")
    pen.box("door", trim, -1.7, 0, 1.7, 3.0)
    pen.box("door", leaf, -1.5, 0, 1.5, 2.8, grain=1, bright=-0.08)
    for edge in (-1, 1):
        pen.limb("door", trim, (edge * 1.4, 0.1), (0, 2.7), 0.18)
    pen.box("door", trim, -0.08, 0, 0.08, 2.8)
    pen.box("door", leaf, -0.7, 3.9, 0.7, 5.0, bright=-0.25)


def lighthouse(stage: Stage, x: float, y: float) -> None:
    """Draws a lighthouse with bands, 12 m."""
    pen = stage.pen("lighthouse", x, y, size=stage.draws.uniform(0.8, 1.1))
    white = stage.stuff("plaster", "white")
    band = stage.stuff("plaster", "red", "red", "blue", "black")
    dark = stage.stuff("metal", "black", "gray", "red")
    pen.shadow(-1.8, 1.8, 0.8, 0.5)
    for place in range(5):
        low, high = place * 1.8, (place + 1) * 1.8
        wide, narrow = 1.6 - 0.15 * place, 1.6 - 0.15 * (place + 1)
        stuff = band if place % 2 else white
        pen.poly(
            "tower",
            stuff,
            (-wide, low),
            (wide, low),
            (narrow, high),
            (-narrow, high),
            round=0.28,
            fall=0,
        )
    pen.box("tower", dark, -1.15, 9.0, 1.15, 9.3)
    glass = stage.stuff("glass", "yellow", "white")
    pen.box(
        "lantern", glass, -0.65, 9.3, 0.65, 10.6, glow=1.0 if stage.light.night else 0.0
    )
    pen.poly("lantern", dark, (-0.9, 10.6), (0.9, 10.6), (0, 11.6), round=0.2)
    pen.box("door", stage.stuff("wood", "brown", "blue", "green"), -0.45, 0, 0.45, 1.7)
    if stage.light.night:
        at = pen.at((0, 10))
        lamp = Lamp(*at, 12.0, (0.7, 0.65, 0.45), pen.instance)
        stage.light.lamps.append(lamp)


def crane(stage: Stage, x: float, y: float, size: float = 1.0) -> None:
    """Draws a harbour crane, 15 m: lattice mast, jib, counterweight, cable."""
    draws = stage.draws
    pen = stage.pen("crane", x, y, size=size * draws.uniform(0.85, 1.15))
    steel = stage.stuff("metal", "yellow", "orange", "red", "blue", "gray")
    heavy = stage.stuff("stone", "gray")
    rope = stage.stuff("metal", "black")
    pen.shadow(-1.8, 1.8, 0.8, 0.5)
    for side in (-1, 1):
        pen.limb(
            "mast", steel, (side * 1.3, 0), (side * 0.6, 10.5), 0.42, bright=side * 0.08
        )
    for step in range(5):
        low, high = step * 2.1, (step + 1) * 2.1
        side = 1 if step % 2 else -1
        pen.limb(
            "mast",
            steel,
            (side * (1.3 - low * 0.066), low),
            (-side * (1.3 - high * 0.066), high),
            0.24,
            bright=-0.1,
        )
    pen.limb("jib", steel, (-4.0, 10.4), (7.5, 12.2), 0.75, 0.4)
    pen.limb("jib", steel, (0, 10.4), (0, 13.2), 0.4)
    pen.limb("cable", rope, (0, 13.2), (6.6, 12.2), 0.14)
    pen.limb("cable", rope, (0, 13.2), (-3.8, 10.6), 0.14)
    pen.box("counterweight", heavy, -4.6, 8.9, -2.9, 10.5)
    low = draws.uniform(3.5, 7.5)
    pen.limb("cable", rope, (6.6, 12), (6.6, low), 0.16)
    pen.box("cable", rope, 6.2, low - 0.6, 7.0, low)
    pen.box("mast", steel, -1.0, 9.6, 1.0, 11.0, bright=0.05)


def container(stage: Stage, x: float, y: float, stacked: int = 0) -> None:
    """Draws containers in a stack, 6 m long."""
    draws = stage.draws
    for level in range(stacked or draws.integer(1, 3)):
        shift = draws.uniform(-2, 2)
        pen = stage.pen("container", x + shift, y, mirror=False, lift=level * 2.4)
        paint = stage.stuff(
            "metal", "red", "blue", "green", "orange", "gray", "yellow", "brown"
        )
        if not level:
            pen.shadow(-3.0, 3.0, 0.8, 0.5)
        pen.block("", paint, -3.0, 0, 3.0, 2.38, 2.4, grain=1)
        for u in (2.2, 2.75):
            pen.box("door", paint, u - 0.25, 0.15, u + 0.22, 2.2, bright=-0.16, grain=1)
