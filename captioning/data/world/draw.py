"""Draw overhead images, the miniature's stand-in for satellite images, with one painter a scene class.

1. Images are drawn two to four times larger and averaged down, so that edges are mixed as a sensor mixes them.
2. The surroundings are drawn as a strip at the bottom; one of eight turns and reflections follows.
3. Texture (coarse and fine noise) is added last, to the whole image: only shape and colour tell classes apart.
"""

import random

import numpy as np
from PIL import Image

from captioning.data.world.canvas import ASPHALT, BARE, LEAF, PALE, STRAW, TILE, WATER, Canvas, shade
from captioning.data.world.painters import PAINTERS
from captioning.data.world.scenes import COLOURS, Scene

STRIP = 0.21  # share of the image that the surroundings take
COLOUR_JITTER = 12  # sRGB levels, up or down, per image
COARSE_NOISE = 6.0  # standard deviation, sRGB levels
FINE_NOISE = 6.0


def _paint_strip(c: Canvas, beside: str) -> None:
    """Paint the surroundings over the bottom `STRIP` of `c`, which spans the whole image."""
    top, rng = 1 - STRIP, c.rng
    ground = {"trees": shade(LEAF, 0.6), "water": WATER, "road": PALE, "houses": STRAW, "bare land": BARE}[beside]
    c.box(0, top, 1, 1, ground)
    if beside == "trees":
        for i in range(14):
            y = top + rng.choice((0.06, 0.15)) + c.jitter(0.02)
            c.disc((i + 0.5) / 14, y, 0.055, shade(LEAF, rng.uniform(1.0, 1.5)))
    elif beside == "water":
        for y in (0.06, 0.14):
            c.line([(i / 16, top + y + (0.012 if i % 2 else -0.012)) for i in range(17)], 0.014, shade(WATER, 2.0))
    elif beside == "road":
        c.box(0, top + 0.03, 1, 1 - 0.02, ASPHALT)
        for i in range(5):
            c.box(0.06 + 0.2 * i, top + 0.1, 0.16 + 0.2 * i, top + 0.125, PALE)
    elif beside == "houses":
        for i in range(5):
            x, y = 0.03 + 0.2 * i + c.jitter(0.012), top + 0.035 + c.jitter(0.01)
            c.box(x, y, x + 0.14, y + 0.13, shade(TILE, 0.55))
            c.box(x, y, x + 0.14, y + 0.065, TILE)
    else:
        for _ in range(14):
            c.disc(rng.random(), top + rng.uniform(0.03, STRIP), 0.012, shade(BARE, 0.7))


def _add_texture(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """Scale `image` to `size` pixels and add coarse and fine noise, the same on the three channels."""
    noise = np.random.default_rng(rng.getrandbits(64))
    coarse = Image.fromarray(noise.normal(0, COARSE_NOISE, (7, 7)).astype(np.float32))
    grain = np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR))
    grain = grain + noise.normal(0, FINE_NOISE, (size, size))
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float32) + grain[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_scene(scene: Scene, size: int, rng: random.Random) -> Image.Image:
    """Return the scene as an RGB image of `size` x `size` pixels; the same state of `rng` gives the same bytes."""
    width = size * (4 if size <= 64 else 2)
    painter, ground = PAINTERS[scene.scene]
    red, green, blue = (level + rng.randint(-COLOUR_JITTER, COLOUR_JITTER) for level in COLOURS[scene.colour])
    colour = shade((red, green, blue), 1.0)
    canvas = Canvas(width, 1 - STRIP if scene.beside else 1.0, shade(ground or colour, rng.uniform(0.92, 1.06)), rng)
    painter(canvas, colour, scene.count)
    if scene.beside:
        canvas.height = width
        _paint_strip(canvas, scene.beside)
    turn = rng.randrange(8)  # the seven of Image.Transpose, and none
    image = canvas.image.transpose(Image.Transpose(turn)) if turn < 7 else canvas.image
    return _add_texture(image, size, rng)
