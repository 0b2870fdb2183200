"""Chooses time of day and weather: the sky, and the light that comes with it."""

from jdissect.scenes.draws import Draws
from jdissect.scenes.palette import as_rgb
from jdissect.scenes.stage import Stage
from jdissect.scenes.world import SIDE

# Repetitions set the frequencies.
_TIMES = ("day",) * 11 + ("overcast",) * 4 + ("dusk",) * 3 + ("night",) * 3


def outdoors(
    draws: Draws, horizon: tuple[float, float], camera: tuple[float, float]
) -> tuple[Stage, str]:
    """Returns a stage with the sky drawn, and the time of day.

    Args:
        draws: random draws of the picture.
        horizon: range of its row.
        camera: range of its height in meters.
    """
    stage = Stage(draws, draws.uniform(*horizon), draws.uniform(*camera))
    time = draws.pick(_TIMES)
    light = stage.light
    if time == "day":
        sky = stage.stuff("air", "blue")
        light.rgb = as_rgb(draws.uniform(0.95, 1.12) * f for f in (1.0, 0.99, 0.95))
    elif time == "overcast":
        sky = stage.stuff("air", "gray", "gray", "white")
        light.rgb = as_rgb(draws.uniform(0.76, 0.92) * f for f in (0.97, 0.99, 1.02))
        light.shadow = 0.5
    elif time == "dusk":
        sky = stage.stuff("air", "orange", "pink", "purple")
        light.rgb = as_rgb(draws.uniform(0.72, 0.92) * f for f in (1.1, 0.83, 0.72))
    else:
        sky = stage.stuff("air", "black", "blue")
        if sky.rgb[2] > 120:
            sky = sky._replace(rgb=as_rgb(c * 0.36 for c in sky.rgb))
        light.rgb = as_rgb(draws.uniform(0.5, 0.7) * f for f in (0.74, 0.86, 1.12))
        light.night, light.shadow = True, 0.5
    lighter = 0.3 if time == "night" else 0.45
    light.air = as_rgb(
        c + (245 * (1 if time != "night" else 0.25) - c) * lighter for c in sky.rgb
    )
    light.across = light.side * draws.uniform(0.0, 0.14)
    light.down = draws.uniform(-0.04, 0.06)
    stage.hazy = draws.uniform(0.25, 0.6)

    pen = stage.flat("sky")
    bottom = min(stage.horizon + 6, SIDE)
    pen.poly(
        "",
        sky,
        (0, 0),
        (SIDE, 0),
        (SIDE, -bottom),
        (0, -bottom),
        glow=1,
        round=0.02,
        fall=-0.12,
    )
    if time in ("day", "dusk") and draws.chance(0.3):
        sun = (
            stage.stuff("air", "yellow", "white")
            if time == "day"
            else stage.stuff("air", "orange", "red", "yellow")
        )
        r = draws.uniform(4, 7)
        u = _SUNNY_SIDE[light.side] + draws.uniform(-18, 18)
        v = stage.horizon * (0.25 if time == "day" else 0.8)
        pen.disc("sun", sun, u, -v, r, glow=1, bright=0.12)
    if time == "night" and draws.chance(0.4):
        moon = stage.stuff("air", "white", "yellow")
        pen.disc("sun", moon, draws.uniform(10, 102), -draws.uniform(5, 16), 4, glow=1)
    if not (time == "day" and draws.chance(0.2)):
        _clouds(stage, time)
    return stage, time


_SUNNY_SIDE = {-1.0: 28.0, 1.0: 84.0}


def _clouds(stage: Stage, time: str) -> None:
    draws = stage.draws
    stuff = {
        "day": ("white",),
        "overcast": ("gray", "white"),
        "dusk": ("pink", "orange", "purple", "gray"),
        "night": ("black", "gray"),
    }[time]
    cloud = stage.stuff("air", *stuff)
    if time == "night":
        cloud = cloud._replace(rgb=as_rgb(c * 0.3 + 14 for c in cloud.rgb))
    pen = stage.flat("sky")
    for _ in range(draws.integer(1, 4)):
        x, y = (
            draws.uniform(-5, SIDE + 5),
            draws.uniform(3, max(stage.horizon * 0.62, 6)),
        )
        wide = draws.uniform(8, 20)
        high = wide * draws.uniform(0.16, 0.26)
        for layer, bright in ((0.5, -0.07), (0.0, 0.0), (-0.5, 0.05)):
            for _ in range(3):
                u = x + draws.uniform(-1, 1) * wide * (0.62 + 0.4 * layer)
                r = wide * draws.uniform(0.26, 0.42)
                v = y + layer * high
                pen.disc(
                    "cloud",
                    cloud,
                    u,
                    -v,
                    r,
                    high * draws.uniform(0.6, 0.95),
                    glow=1,
                    bright=bright,
                    fall=0.04,
                    round=0.02,
                )
