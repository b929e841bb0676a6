"""One painter a scene class: how it looks from above. Classes differ in shape before colour."""

import math
from collections.abc import Callable
from itertools import product

from captioning.data.world.canvas import ASPHALT, BARE, CONCRETE, EARTH, FOAM, GRASS, LEAF, PALE, STRAW, WATER

from captioning.data.world.canvas import RGB, Canvas, shade  # isort: skip

HULL = ((-0.22, 0.5), (-0.25, -0.15), (0, -0.55), (0.25, -0.15), (0.22, 0.5))
PLANE = (
    ((-0.1, -0.5), (0.1, -0.5), (0.1, 0.5), (-0.1, 0.5)),
    ((-0.52, 0.14), (0, -0.24), (0.52, 0.14), (0.52, 0.26), (0, 0.06), (-0.52, 0.26)),
    ((-0.24, 0.52), (0, 0.3), (0.24, 0.52)),
)
SQUARE = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
CROSS = ((-0.16, -0.5), (0.16, -0.5), (0.16, -0.2), (0.44, -0.2), (0.44, 0.12), (0.16, 0.12), (0.16, 0.5))


def _airport(c: Canvas, colour: RGB, count: int) -> None:
    c.box(0, 0.8, 1, 0.97, ASPHALT)
    for i in range(5):
        c.box(0.06 + 0.2 * i, 0.87, 0.16 + 0.2 * i, 0.9, PALE)
    turn = c.jitter(0.2)
    for x, y, size in c.cells(count, 0.78):
        for part in PLANE:
            c.shape(x, y, size * 0.98, turn, part, colour)


def _baseball_field(c: Canvas, colour: RGB, count: int) -> None:
    u, v, r = 0.5 * c.width, 0.95 * c.height, 0.86 * c.height
    start, end = 218 + c.jitter(5), 322 + c.jitter(5)
    for share, fill in ((1.0, colour), (0.62, shade(GRASS, 0.7)), (0.48, colour)):
        c.pen.pieslice((u - share * r, v - share * r, u + share * r, v + share * r), start, end, fill=fill)
    c.shape(0.5, 0.74, 0.17, math.pi / 4, SQUARE, shade(GRASS, 0.7))


def _beach(c: Canvas, colour: RGB, count: int) -> None:
    shore, phase = 0.5 + c.jitter(0.06), c.rng.uniform(0, 6.3)
    edge = [(i / 12, shore + 0.06 * math.sin(i * 0.6 + phase)) for i in range(13)]
    c.area([(0, 0), *edge, (1, 0)], WATER)
    c.line(edge, 0.05, FOAM)
    c.line([(x, y - 0.14) for x, y in edge], 0.02, FOAM)


def _bridge(c: Canvas, colour: RGB, count: int) -> None:
    c.box(0, 0, 0.16, 1, STRAW)
    c.box(0.84, 0, 1, 1, STRAW)
    y, tilt = 0.5 + c.jitter(0.12), c.jitter(0.12)
    for breadth, fill in ((0.3, shade(WATER, 0.5)), (0.24, colour), (0.025, ASPHALT)):
        c.line([(-0.1, y - tilt), (1.1, y + tilt)], breadth, fill)


def _church(c: Canvas, colour: RGB, count: int) -> None:
    x, y, turn, size = 0.5 + c.jitter(0.06), 0.5 + c.jitter(0.04), c.jitter(0.3), 0.78 * c.height / c.width
    c.disc(x, y, 0.47 * c.height / c.width, STRAW)
    for side in (-1, 1):
        corners = [(side * a, b) for a, b in CROSS] + [(0, 0.5), (0, -0.5)]
        c.shape(x, y, size, turn, corners, shade(colour, 1.0 if side < 0 else 0.82))


def _dense_residential_area(c: Canvas, colour: RGB, count: int) -> None:
    for row, column in product(range(4), repeat=2):
        x, y = column / 4 + 0.03 + c.jitter(0.015), row / 4 + 0.03 + c.jitter(0.015)
        c.box(x, y, x + 0.19, y + 0.19, colour)
        c.area([(x, y), (x + 0.19, y), (x + 0.095, y + 0.095)], shade(colour, 0.55))
        c.area([(x, y + 0.19), (x + 0.19, y + 0.19), (x + 0.095, y + 0.095)], shade(colour, 0.75))


def _desert(c: Canvas, colour: RGB, count: int) -> None:
    phase, bend = c.rng.uniform(0, 6.3), c.rng.uniform(0.08, 0.14)
    for i in range(-1, 7):
        crest = [(j / 10, i / 6 + bend * math.sin(j * 0.55 + phase)) for j in range(11)]
        c.line(crest, 0.045, shade(colour, 0.72))


def _farmland(c: Canvas, colour: RGB, count: int) -> None:
    cut_x, cut_y = 0.5 + c.jitter(0.1), 0.5 + c.jitter(0.1)
    for i, (x0, x1) in enumerate(((0, cut_x), (cut_x, 1))):
        for j, (y0, y1) in enumerate(((0, cut_y), (cut_y, 1))):
            c.box(x0 + 0.025, y0 + 0.025, x1 - 0.025, y1 - 0.025, colour)
            for t in (1 / 5, 2 / 5, 3 / 5, 4 / 5):
                x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
                furrow = [(x, y0 + 0.03), (x, y1 - 0.03)] if (i + j) % 2 else [(x0 + 0.03, y), (x1 - 0.03, y)]
                c.line(furrow, 0.02, shade(colour, 0.68))


def _football_field(c: Canvas, colour: RGB, count: int) -> None:
    ratio = c.width / c.height
    x, y, r = 0.5 + c.jitter(0.03), 0.5 + c.jitter(0.03), 0.3
    for breadth, fill in ((r, colour), (r - 0.13, shade(GRASS, 0.75))):
        c.box(x - 0.17, y - breadth * ratio, x + 0.17, y + breadth * ratio, fill)
        c.disc(x - 0.17, y, breadth, fill)
        c.disc(x + 0.17, y, breadth, fill)
    c.line([(x, y - 0.16 * ratio), (x, y + 0.16 * ratio)], 0.025, PALE)


def _forest(c: Canvas, colour: RGB, count: int) -> None:
    for i, j in product(range(7), repeat=2):
        x, y, r = (i + 0.5) / 7 + c.jitter(0.03), (j + 0.5) / 7 + c.jitter(0.03), c.rng.uniform(0.065, 0.085)
        c.disc(x + 0.012, y + 0.012, r, shade(colour, 0.55))
        c.disc(x, y, r * 0.82, shade(colour, c.rng.uniform(0.88, 1.05)))


def _industrial_area(c: Canvas, colour: RGB, count: int) -> None:
    c.box(0, 0, 1, 1, CONCRETE)
    for x, y, size in c.cells(count):
        wide, tall = size * 0.46, size * 0.36 * c.width / c.height
        c.box(x - wide, y - tall, x + wide, y + tall, colour)
        for k in (-0.6, -0.2, 0.2, 0.6):
            c.line([(x + k * wide, y - tall), (x + k * wide, y + tall)], 0.02, shade(colour, 0.6))


def _island(c: Canvas, colour: RGB, count: int) -> None:
    c.blob(0.5 + c.jitter(0.06), 0.5 + c.jitter(0.05), {0.36: FOAM, 0.31: colour}, 0.35)


def _lake(c: Canvas, colour: RGB, count: int) -> None:
    c.blob(0.5 + c.jitter(0.06), 0.5 + c.jitter(0.05), {0.32: colour}, 0.45)


def _meadow(c: Canvas, colour: RGB, count: int) -> None:
    for i, j in product(range(8), repeat=2):
        c.disc((i + 0.5) / 8 + c.jitter(0.045), (j + 0.5) / 8 + c.jitter(0.045), 0.03, colour)


def _mountain(c: Canvas, colour: RGB, count: int) -> None:
    for row in range(4):
        for column in range(4 - row % 2):
            x, y = (column + 0.5 + 0.5 * (row % 2)) / 4 + c.jitter(0.03), row / 4 + c.jitter(0.03)
            foot, wide = y + 0.36, 0.17 + c.jitter(0.02)
            c.area([(x, y), (x - wide, foot), (x + 0.02, foot)], shade(colour, 1.05))
            c.area([(x, y), (x + wide, foot), (x + 0.02, foot)], shade(colour, 0.5))


def _oil_depot(c: Canvas, colour: RGB, count: int) -> None:
    for x, y, size in c.cells(count):
        c.disc(x + 0.03, y + 0.03, size * 0.46, shade(BARE, 0.45))
        c.disc(x, y, size * 0.46, colour)
        c.disc(x, y, size * 0.1, shade(colour, 0.6))


def _parking_lot(c: Canvas, colour: RGB, count: int) -> None:
    for row, column in product(range(3), range(7)):
        x, y = column / 7 + 0.02, row / 3 + 0.05
        c.line([(x - 0.015, y - 0.02), (x - 0.015, y + 0.24)], 0.012, PALE)
        c.box(x + 0.005, y + c.jitter(0.012), x + 0.1, y + 0.22, colour)


def _port(c: Canvas, colour: RGB, count: int) -> None:
    c.box(0, 0.86, 1, 1, CONCRETE)
    for x, y, size in c.cells(count, 0.86):
        c.shape(x, y, size, c.jitter(0.1), HULL, colour)
        c.shape(x, y + 0.04, size * 0.25, 0, SQUARE, shade(colour, 0.6))


def _railway_station(c: Canvas, colour: RGB, count: int) -> None:
    c.box(0, 0.02, 1, 0.16, PALE)
    for i, rail in product(range(4), (-0.04, 0.04)):
        y = 0.28 + 0.2 * i + rail
        c.line([(0, y), (1, y)], 0.02, shade(EARTH, 0.5))
    for i in sorted(c.rng.sample(range(4), count)):
        y, x = 0.28 + 0.2 * i, c.rng.uniform(0.02, 0.1)
        c.box(x, y - 0.065, x + 0.88, y + 0.065, colour)
        for k in (1, 2, 3):
            c.box(x + 0.22 * k - 0.012, y - 0.065, x + 0.22 * k + 0.012, y + 0.065, shade(EARTH, 0.5))


def _river(c: Canvas, colour: RGB, count: int) -> None:
    phase, bend, y = c.rng.uniform(0, 6.3), c.rng.uniform(0.12, 0.2), 0.5 + c.jitter(0.08)
    course = [(i / 20, y + bend * math.sin(i * 0.35 + phase)) for i in range(-2, 23)]
    c.line(course, 0.28, shade(STRAW, 0.72))
    c.line(course, 0.23, colour)


def _roundabout(c: Canvas, colour: RGB, count: int) -> None:
    x, y = 0.5 + c.jitter(0.04), 0.5 + c.jitter(0.03)
    for way in ([(x, 0), (x, 1)], [(0, y), (1, y)]):
        c.line(way, 0.14, ASPHALT)
    for radius, fill in ((0.36, ASPHALT), (0.23, colour), (0.05, shade(colour, 0.6))):
        c.disc(x, y, radius, fill)


def _sparse_residential_area(c: Canvas, colour: RGB, count: int) -> None:
    for x, y, size in c.cells(count):
        c.disc(x + size * 0.42, y - size * 0.34, 0.05, LEAF)
        corners = ((-0.36, -0.36), (0.36, -0.36), (0.36, 0), (0.36, 0.36), (-0.36, 0.36), (-0.36, 0))
        turn = c.jitter(0.5)
        c.shape(x, y, size, turn, corners, colour)
        c.shape(x, y, size, turn, ((-0.36, -0.36), (0.36, -0.36), (0, 0)), shade(colour, 0.72))
        c.shape(x, y, size, turn, ((-0.36, 0.36), (0.36, 0.36), (0, 0)), shade(colour, 0.72))


def _tennis_club(c: Canvas, colour: RGB, count: int) -> None:
    for x, y, size in c.cells(count):
        wide, tall = size * 0.34, size * 0.47 * c.width / c.height
        c.box(x - wide, y - tall, x + wide, y + tall, colour, FOAM)
        c.line([(x - wide, y), (x + wide, y)], 0.025, FOAM)
        c.line([(x, y - tall * 0.5), (x, y + tall * 0.5)], 0.02, FOAM)


def _viaduct(c: Canvas, colour: RGB, count: int) -> None:
    a, b = 0.2 + c.jitter(0.06), 0.2 + c.jitter(0.06)
    ways = ([(-0.1, a), (1.1, 1 - a)], [(-0.1, 1 - b), (1.1, b)])
    loop = [(0.5 + 0.33 * math.cos(t / 4), 0.5 + 0.33 * math.sin(t / 4)) for t in range(27)]
    for way, breadth in ((loop, 0.09), (ways[0], 0.17), (ways[1], 0.17)):
        c.line(way, breadth + 0.04, shade(GRASS, 0.45))
        c.line(way, breadth, colour)


Painter = Callable[[Canvas, RGB, int], None]
PAINTERS: dict[str, tuple[Painter, RGB | None]] = {  # painter and ground; None: the ground has the scene's colour
    "airport": (_airport, shade(CONCRETE, 0.75)),
    "baseball field": (_baseball_field, GRASS),
    "beach": (_beach, None),
    "bridge": (_bridge, WATER),
    "church": (_church, GRASS),
    "dense residential area": (_dense_residential_area, shade(CONCRETE, 0.6)),
    "desert": (_desert, None),
    "farmland": (_farmland, shade(STRAW, 1.1)),
    "football field": (_football_field, STRAW),
    "forest": (_forest, EARTH),
    "industrial area": (_industrial_area, CONCRETE),
    "island": (_island, WATER),
    "lake": (_lake, STRAW),
    "meadow": (_meadow, shade(GRASS, 0.8)),
    "mountain": (_mountain, None),
    "oil depot": (_oil_depot, BARE),
    "parking lot": (_parking_lot, ASPHALT),
    "port": (_port, WATER),
    "railway station": (_railway_station, shade(CONCRETE, 0.7)),
    "river": (_river, STRAW),
    "roundabout": (_roundabout, GRASS),
    "sparse residential area": (_sparse_residential_area, GRASS),
    "tennis club": (_tennis_club, STRAW),
    "viaduct": (_viaduct, GRASS),
}
