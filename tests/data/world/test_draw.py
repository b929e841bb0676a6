"""Drawn overhead scenes: deterministic, true to their facts, of any size."""

import random
from dataclasses import replace

import numpy as np
import pytest

from captioning.data.world.draw import draw_scene
from captioning.data.world.painters import PAINTERS
from captioning.data.world.scenes import COLOURS, SCENES, Scene, SceneClass

COLOURED_SHARE = 0.08  # of an image's pixels; the least that a class gives to its colour
NAMES = [kind.name for kind in SCENES]


def make_scene(kind: SceneClass, colour: str | None = None, count: int | None = None, beside: str = "") -> Scene:
    return Scene(kind.name, colour or kind.colours[0], min(kind.max_count, 2) if count is None else count, beside)


def test_the_world_is_varied() -> None:
    assert len(SCENES) >= 20 and set(PAINTERS) == set(NAMES)
    for kind in SCENES:
        assert len(kind.colours) >= 3 and set(kind.colours) <= set(COLOURS) and kind.beside
        assert (kind.max_count > 0) == (kind.number == "counted")


def test_a_seed_alone_decides_the_bytes() -> None:
    for kind in SCENES:
        images = [draw_scene(make_scene(kind), 48, random.Random(seed)).tobytes() for seed in (1, 1, 2)]
        assert images[0] == images[1] != images[2]


@pytest.mark.parametrize("size", [32, 48, 64, 65, 112, 224])
def test_every_class_draws_at_every_size(size: int) -> None:
    for kind in SCENES:
        image = draw_scene(make_scene(kind, beside=kind.beside[0]), size, random.Random(size))
        assert image.size == (size, size) and image.mode == "RGB"


@pytest.mark.parametrize("kind", SCENES, ids=NAMES)
def test_the_colour_covers_a_large_share_of_the_image(kind: SceneClass) -> None:
    """Count pixels that are nearer to the scene's colour than to any other of the class."""
    palette = np.array([COLOURS[colour] for colour in kind.colours])
    for index, colour in enumerate(kind.colours):
        shares = []
        for seed in range(6):
            count = 1 + seed % kind.max_count if kind.max_count else 0
            image = draw_scene(make_scene(kind, colour, count), 48, random.Random(seed))
            pixels = np.asarray(image, dtype=float).reshape(-1, 3)
            distance = np.linalg.norm(pixels[:, None] - palette[None], axis=2)
            shares.append(float(((distance.argmin(1) == index) & (distance.min(1) < 70)).mean()))
        assert np.mean(shares) >= COLOURED_SHARE, (colour, shares)


def test_counted_things_do_not_touch() -> None:
    """Green discs on bare land are counted by connected components."""
    depot = Scene("oil depot", "green", 1, "")
    for count in range(1, 7):
        pixels = np.asarray(draw_scene(replace(depot, count=count), 96, random.Random(count)), dtype=int)
        green = pixels[..., 1] - np.maximum(pixels[..., 0], pixels[..., 2]) > 45
        assert count_components(green, min_size=20) == count


def count_components(mask: np.ndarray, min_size: int) -> int:
    remaining = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    components = 0
    while remaining:
        stack, size = [remaining.pop()], 1
        while stack:
            y, x = stack.pop()
            neighbours = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & remaining
            remaining -= neighbours
            stack += neighbours
            size += len(neighbours)
        components += size >= min_size
    return components


def test_surroundings_change_one_edge() -> None:
    """A road makes one edge much darker than the desert's sand; without it, no edge is dark."""
    edges = (np.s_[:9], np.s_[-9:], np.s_[:, :9], np.s_[:, -9:])
    for seed in range(8):
        for beside, dark_edges in (("", 0), ("road", 1)):
            image = draw_scene(Scene("desert", "yellow", 0, beside), 48, random.Random(seed))
            pixels = np.asarray(image, dtype=float).mean(2)
            assert sum(bool(np.median(pixels[edge]) < 110) for edge in edges) == dark_edges
