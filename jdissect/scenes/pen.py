"""Draws an object with a pen that converts meters to pixels, and shapes to surfaces.

A pen stands where its object touches the ground and works in meters, u to the right and
v upwards; a third coordinate is the distance from the viewer in meters. The camera
looks at the horizon's middle, so a point d meters behind another moves towards it.
"""

import math

from jdissect.scenes.canvas import FOCAL, MIDDLE, Canvas, Surface
from jdissect.scenes.draws import direction
from jdissect.scenes.palette import Stuff
from jdissect.scenes.raster import Ellipse, Polygon
from jdissect.scenes.world import OBJECT_NUMBER, OBJECT_PARTS, PART_NUMBER, SIDE

_TEXELS = 256  # fixed point: texture coordinates are in 1/256 texels
_MEDIUM = 14.0  # pixels per meter at which a texel is a pixel

Point = tuple[float, float] | tuple[float, float, float]


class Pen:
    """Draws one object.

    Args:
        canvas: canvas to draw on.
        name: name of the object.
        x, y: where it touches the ground, in pixels.
        scale: pixels per meter.
        horizon: row of the horizon in pixels.
        light: side that the light comes from, -1 left, 1 right.
        mirror: whether to swap left and right.
        turn: degrees counter-clockwise about (x, y).
        haze: see `Surface`.
        offset: texture coordinate where the object begins, in texels.
        step: texels per pixel; 0: chosen by the scale.

    Attributes:
        instance: number of the object in the picture.
    """

    def __init__(
        self,
        canvas: Canvas,
        name: str,
        x: float,
        y: float,
        scale: float,
        *,
        horizon: float,
        light: float = 1.0,
        mirror: bool = False,
        turn: float = 0.0,
        haze: float = 0.0,
        offset: int = 0,
        step: float = 0.0,
    ):
        self.x, self.y, self.scale, self.horizon = x, y, scale, horizon
        self._canvas = canvas
        self._object = OBJECT_NUMBER[name]
        self._parts = {part: PART_NUMBER[part] for part in OBJECT_PARTS[name]}
        self._parts[""] = 0
        canvas.instances += 1
        self.instance = canvas.instances
        self._light, self._haze = light, haze
        cosine, sine = direction(turn)
        flip = -scale if mirror else scale
        # (u, v) -> pixels
        self._ux, self._uy = cosine * flip, -sine * flip
        self._vx, self._vy = -sine * scale, -cosine * scale
        step = step or min(max(math.sqrt(_MEDIUM / scale), 0.8), 2.2)
        self._level = 1 if step > 1.5 else 0
        whole = int(step * _TEXELS)
        self._texture = (
            int(cosine * whole),
            int(-sine * whole),
            int(sine * whole),
            int(cosine * whole),
            offset * _TEXELS,
        )

    def at(self, point: Point) -> tuple[float, float]:
        """Returns the pixel position of a point in meters."""
        u, v = point[0], point[1]
        x = self.x + self._ux * u + self._vx * v
        y = self.y + self._uy * u + self._vy * v
        if len(point) == 3:
            nearer = FOCAL / (FOCAL + point[2] * self.scale)
            x = MIDDLE + (x - MIDDLE) * nearer
            y = self.horizon + (y - self.horizon) * nearer
        return x, y

    def poly(self, part: str, stuff: Stuff, *points: Point, **look: float) -> None:
        """Draws a convex polygon.

        Args:
            part: part of the object; '' for none.
            stuff: its material and color.
            points: corners in meters.
            look: see `_surface`.
        """
        corners = [self.at(point) for point in points]
        xs = [x for x, _ in corners]
        ys = [y for _, y in corners]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        if right < 0 or left > SIDE or bottom < 0 or top > SIDE:
            return
        number = self._surface(part, stuff, left, right, top, bottom, **look)
        self._canvas.polygons.append(Polygon(number, corners))

    def box(
        self,
        part: str,
        stuff: Stuff,
        u0: float,
        v0: float,
        u1: float,
        v1: float,
        **look: float,
    ) -> None:
        """Draws a rectangle from (u0, v0) to (u1, v1)."""
        self.poly(part, stuff, (u0, v0), (u1, v0), (u1, v1), (u0, v1), **look)

    def block(
        self,
        part: str,
        stuff: Stuff,
        u0: float,
        v0: float,
        u1: float,
        v1: float,
        depth: float,
        top: str | None = None,
        top_stuff: Stuff | None = None,
        **look: float,
    ) -> None:
        """Draws a box with its visible sides; `depth` meters deep."""
        bright = look.pop("bright", 0.0)
        x0, x1 = sorted((self.at((u0, v0))[0], self.at((u1, v0))[0]))
        if (self._ux > 0) == (x0 > MIDDLE):
            near = u0
        else:
            near = u1
        if x0 > MIDDLE or x1 < MIDDLE:
            lit = 0.06 if (x0 > MIDDLE) == (self._light < 0) else -0.2
            corners = (
                (near, v0),
                (near, v0, depth),
                (near, v1, depth),
                (near, v1),
            )
            self.poly(part, stuff, *corners, bright=bright + lit, **look)
        if self.at((u0, v1))[1] > self.horizon:
            above = ((u0, v1), (u1, v1), (u1, v1, depth), (u0, v1, depth))
            self.poly(
                part if top is None else top,
                top_stuff or stuff,
                *above,
                bright=bright + 0.12,
                **look,
            )
        self.box(part, stuff, u0, v0, u1, v1, bright=bright, **look)

    def limb(
        self,
        part: str,
        stuff: Stuff,
        start: tuple[float, float],
        end: tuple[float, float],
        width: float,
        end_width: float | None = None,
        **look: float,
    ) -> None:
        """Draws a straight limb with a width in meters at each end."""
        end_width = width if end_width is None else end_width
        du, dv = end[0] - start[0], end[1] - start[1]
        length = math.sqrt(du * du + dv * dv) or 1.0
        nu, nv = -dv / length / 2, du / length / 2
        self.poly(
            part,
            stuff,
            (start[0] + nu * width, start[1] + nv * width),
            (end[0] + nu * end_width, end[1] + nv * end_width),
            (end[0] - nu * end_width, end[1] - nv * end_width),
            (start[0] - nu * width, start[1] - nv * width),
            **look,
        )

    def disc(
        self,
        part: str,
        stuff: Stuff,
        u: float,
        v: float,
        ru: float,
        rv: float | None = None,
        tilt: float = 0.0,
        **look: float,
    ) -> None:
        """Draws an ellipse with half axes `ru` and `rv` (default equal), in meters."""
        rv = ru if rv is None else rv
        cosine, sine = direction(tilt)
        x, y = self.at((u, v))
        ax = ru * (cosine * self._ux + sine * self._vx)
        ay = ru * (cosine * self._uy + sine * self._vy)
        bx = rv * (cosine * self._vx - sine * self._ux)
        by = rv * (cosine * self._vy - sine * self._uy)
        xx, xy, yy = ax * ax + bx * bx, ax * ay + bx * by, ay * ay + by * by
        wide, high = math.sqrt(xx), math.sqrt(yy)
        if x + wide < 0 or x - wide > SIDE or y + high < 0 or y - high > SIDE:
            return
        number = self._surface(
            part, stuff, x - wide, x + wide, y - high, y + high, **look
        )
        self._canvas.ellipses.append(Ellipse(number, x, y, xx, xy, yy))

    def shadow(
        self, u0: float, u1: float, depth: float = 0.3, strength: float = 0.34
    ) -> None:
        """Draws a soft shadow on the ground from u0 to u1, on earlier surfaces."""
        x0, x1 = self.at((u0, 0))[0], self.at((u1, 0))[0]
        x, y = (x0 + x1) / 2 - self._light * 0.08 * abs(x1 - x0), self.y
        wide = abs(x1 - x0) / 2
        flat = min(max((self.y - self.horizon) / FOCAL, 0.08), 0.6)
        high = max(depth * self.scale * flat, 0.9)
        number = len(self._canvas.surfaces) + 1
        for grow, share in ((1.2, 0.5), (0.95, 1.0)):
            a, b = wide * grow, high * grow
            self._canvas.shadows.append(Ellipse(number, x, y, a * a, 0.0, b * b))
            self._canvas.strengths.append(strength * share)
            self._canvas.casters.append(self.instance)

    def _surface(
        self,
        part: str,
        stuff: Stuff,
        left: float,
        right: float,
        top: float,
        bottom: float,
        *,
        bright: float = 0.0,
        round: float = 0.05,
        fall: float = 0.08,
        glow: float = 0.0,
        grain: float = 0,
        ground: float = 0,
    ) -> int:
        """Adds a surface and returns its number.

        Args:
            bright: added to the brightness 1.
            round: brightness gained from the middle to the side of the light.
            fall: brightness gained from the middle to the top.
            glow: see `Surface`.
            grain: 1 rotates the texture by a right angle.
            ground: see `Surface`.
        """
        red, green, blue = stuff.rgb
        ux, uy, vx, vy, offset = self._texture
        if grain:
            ux, uy, vx, vy = vx, vy, ux, uy
        self._canvas.surfaces.append(
            Surface(
                self._object,
                self._parts[part],
                stuff.material,
                stuff.color,
                self.instance,
                red,
                green,
                blue,
                1.0 + bright,
                2 * round * self._light / max(right - left, 1.0),
                -2 * fall / max(bottom - top, 1.0),
                (left + right) / 2,
                (top + bottom) / 2,
                glow,
                self._haze,
                int(ground),
                self._level,
                ux,
                uy,
                offset,
                vx,
                vy,
                offset // 2,
            )
        )
        return len(self._canvas.surfaces)
