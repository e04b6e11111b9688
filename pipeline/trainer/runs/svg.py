"""Line charts and scatter plots as SVG, whose colours are those of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40  # around the plot
COLOURS = 6  # classes c0 to c5 of the style sheet
TICKS = 5


@dataclass(frozen=True)
class Axis:
    """One axis: its name, and the values at its two ends."""

    name: str
    low: float
    high: float

    @classmethod
    def around(cls, name: str, values: Sequence[float]) -> Axis:
        """Make an axis on which all values are."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        margin = (high - low) * 0.04 or 0.5
        return cls(name, low - margin, high + margin)

    def share(self, value: float) -> float:
        """Return where a value is between the ends, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values between the ends."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = -(-self.low // step)
        count = int((self.high - first * step) / step + 1e-9)
        return [round((first + number) * step, 10) for number in range(count + 1)]


def lines(
    title: str,
    x: Axis,
    y: Axis,
    series: Mapping[str, Sequence[tuple[float, float]]],
    marked: Mapping[str, float],
) -> Markup:
    """Draw one line for each name, and a dot where its `marked` x is."""
    parts = []
    for number, (name, points) in enumerate(series.items()):
        at = " ".join(f"{_x(x, one)},{_y(y, other)}" for one, other in points)
        colour = f"c{number % COLOURS}"
        parts.append(
            Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(
                colour, at, name
            )
        )
        parts += [_dot(x, y, point, colour, name, 4) for point in points if point[0] == marked.get(name)]
    return _chart(title, x, y, parts, tuple(series))


def scatter(
    title: str, x: Axis, y: Axis, groups: Mapping[str, Sequence[tuple[float, float]]], diagonal: bool = False
) -> Markup:
    """Draw points of several groups, and the line on which both values are equal."""
    parts = []
    if diagonal:
        ends = max(x.low, y.low), min(x.high, y.high)
        start, end = ((_x(x, one), _y(y, one)) for one in ends)
        parts.append(Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*start, *end))
    for number, points in enumerate(groups.values()):
        parts += [_dot(x, y, point, f"c{number % COLOURS}", "", 2.5) for point in points]
    return _chart(title, x, y, parts, tuple(groups))


def _chart(title: str, x: Axis, y: Axis, parts: Sequence[Markup], names: Sequence[str]) -> Markup:
    frame = []
    for value in x.ticks():
        frame.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                _x(x, value), HEIGHT - BOTTOM + 16, f"{value:g}"
            )
        )
    for value in y.ticks():
        height = _y(y, value)
        frame.append(
            Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
                LEFT, height, WIDTH - RIGHT, height
            )
        )
        frame.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                LEFT - 6, height + 4, f"{value:g}"
            )
        )
    frame.append(
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.name
        )
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    frame.append(
        Markup('<text transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            middle, y.name
        )
    )
    key = [
        Markup('<span><i class="c{}"></i>{}</span>').format(number % COLOURS, name)
        for number, name in enumerate(names)
    ]
    return Markup(
        '<figure><figcaption>{}</figcaption><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        '<div class="key">{}</div></figure>'
    ).format(title, WIDTH, HEIGHT, title, Markup().join([*frame, *parts]), Markup().join(key))


def _dot(x: Axis, y: Axis, point: tuple[float, float], colour: str, name: str, radius: float) -> Markup:
    title = Markup("<title>{}</title>").format(name) if name else ""
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>').format(
        colour, _x(x, point[0]), _y(y, point[1]), radius, escape(title)
    )


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(axis: Axis, value: float) -> float:
    return round(HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM), 1)
