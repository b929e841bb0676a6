"""The sheet on which overhead images are drawn, in fractions of its sides, and the colours of the ground."""

import math
import random
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

GRASS, STRAW, EARTH, BARE = (128, 140, 92), (196, 188, 142), (88, 72, 50), (206, 184, 146)
CONCRETE, ASPHALT, PALE, WATER, FOAM = (158, 158, 152), (74, 76, 80), (214, 210, 200), (28, 62, 100), (206, 222, 226)
LEAF, TILE = (24, 62, 28), (178, 152, 146)
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3}  # number of things in a row, by their count


class Canvas:
    """The part of the image that shows the scene: x and y from 0 to 1 of it, lengths in shares of the image's width."""

    def __init__(self, width: int, share: float, ground: RGB, rng: random.Random) -> None:
        self.image = Image.new("RGB", (width, width), ground)
        self.pen = ImageDraw.Draw(self.image)
        self.width, self.height, self.rng = width, width * share, rng

    def to_pixels(self, x: float, y: float) -> Point:
        return x * self.width, y * self.height

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, outline: RGB | None = None) -> None:
        stroke = max(1, self.width // 60) if outline else 0
        self.pen.rectangle((*self.to_pixels(x0, y0), *self.to_pixels(x1, y1)), fill=fill, outline=outline, width=stroke)

    def disc(self, x: float, y: float, radius: float, fill: RGB) -> None:
        (u, v), r = self.to_pixels(x, y), radius * self.width
        self.pen.ellipse((u - r, v - r, u + r, v + r), fill=fill)

    def line(self, points: Sequence[Point], breadth: float, fill: RGB) -> None:
        width = max(1, round(breadth * self.width))
        self.pen.line([self.to_pixels(*p) for p in points], fill=fill, width=width, joint="curve")

    def area(self, points: Sequence[Point], fill: RGB) -> None:
        self.pen.polygon([self.to_pixels(*p) for p in points], fill=fill)

    def shape(self, x: float, y: float, size: float, turn: float, corners: Sequence[Point], fill: RGB) -> None:
        """Draw a polygon around (x, y) with `corners` in shares of `size`, turned by `turn` radians."""
        (u, v), s = self.to_pixels(x, y), size * self.width
        c, d = math.cos(turn) * s, math.sin(turn) * s
        self.pen.polygon([(u + a * c - b * d, v + a * d + b * c) for a, b in corners], fill=fill)

    def cells(self, count: int, bottom: float = 1.0) -> Iterator[tuple[float, float, float]]:
        """Yield centres and sizes of `count` things in rows above y = `bottom`."""
        columns = COLUMNS[count]
        rows = math.ceil(count / columns)
        row_height = bottom * self.height / self.width / rows
        size = min(min(0.62, 0.92 * row_height) * (0.94 if columns == 1 else 0.88), 0.96 / columns)
        for i in range(count):
            row, column = divmod(i, columns)
            in_row = min(columns, count - row * columns)
            yield (column + 0.5) / in_row + self.jitter(0.012), bottom * (row + 0.5) / rows + self.jitter(0.012), size

    def jitter(self, spread: float) -> float:
        return self.rng.uniform(-spread, spread)

    def blob(self, x: float, y: float, radii: dict[float, RGB], rough: float) -> None:
        """Draw nested closed shapes, {mean radius: fill}, widest first; the radius varies by the share `rough`."""
        waves = [(k, self.rng.uniform(0, rough / k), self.rng.uniform(0, 6.3)) for k in (2, 3, 4)]
        turns = [math.tau * i / 36 for i in range(36)]
        bulge = [1 + sum(a * math.cos(k * t + p) for k, a, p in waves) for t in turns]
        for radius, fill in radii.items():
            rim = [(radius * r * math.cos(t), radius * r * math.sin(t)) for r, t in zip(bulge, turns, strict=True)]
            self.area([(x + dx, y + dy) for dx, dy in rim], fill)


def shade(colour: RGB, factor: float) -> RGB:
    """Return `colour` darkened or lightened by `factor`, clipped to 0..255."""
    red, green, blue = (max(0, min(255, round(level * factor))) for level in colour)
    return red, green, blue
