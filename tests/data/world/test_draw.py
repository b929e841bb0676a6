"""Drawn overhead scenes: deterministic, true to their facts, fast, at any size."""

import random
import time
from dataclasses import replace

import numpy as np
import pytest

from captioning.base.errors import UserError
from captioning.data.world.draw import draw_scene
from captioning.data.world.painters import PAINTERS
from captioning.data.world.scenes import (
    COLOURS,
    SCENES,
    Scene,
    SceneClass,
    sample_scene,
    scene_from_facts,
    scene_to_facts,
)

COLOURED_SHARE = 0.08  # of a picture's pixels; the least that any class may give to its colour
NAMES = [kind.name for kind in SCENES]


def _scene(kind: SceneClass, colour: str | None = None, count: int | None = None, beside: str = "") -> Scene:
    return Scene(kind.name, colour or kind.colours[0], min(kind.max_count, 2) if count is None else count, beside)


def test_world_has_the_promised_variety() -> None:
    assert len(SCENES) >= 20 and set(PAINTERS) == set(NAMES)
    for kind in SCENES:
        assert len(kind.colours) >= 3 and set(kind.colours) <= set(COLOURS) and kind.beside
        assert (kind.max_count > 0) == (kind.number == "counted")


def test_same_seed_draws_the_same_bytes_and_another_seed_does_not() -> None:
    for kind in SCENES:
        one, again, other = (draw_scene(_scene(kind), 48, random.Random(seed)).tobytes() for seed in (1, 1, 2))
        assert one == again != other


def test_drawing_takes_nothing_from_the_global_generators() -> None:
    random.seed(0)
    first = draw_scene(sample_scene(random.Random(3)), 48, random.Random(3)).tobytes()
    random.seed(1)
    np.random.seed(5)
    assert draw_scene(sample_scene(random.Random(3)), 48, random.Random(3)).tobytes() == first


@pytest.mark.parametrize("size", [32, 48, 64, 65, 112, 224])
def test_every_class_draws_at_every_size(size: int) -> None:
    for kind in SCENES:
        image = draw_scene(_scene(kind, beside=kind.beside[0]), size, random.Random(size))
        assert image.size == (size, size) and image.mode == "RGB"


@pytest.mark.parametrize("kind", SCENES, ids=NAMES)
def test_colour_covers_a_large_share_of_the_picture(kind: SceneClass) -> None:
    """Pixels nearer to the scene's colour than to any other of the class: a nearest-colour classifier as reference."""
    palette = np.array([COLOURS[colour] for colour in kind.colours])
    for index, colour in enumerate(kind.colours):
        shares = []
        for seed in range(6):
            count = 1 + seed % kind.max_count if kind.max_count else 0
            pixels = np.asarray(draw_scene(_scene(kind, colour, count), 48, random.Random(seed)), dtype=float).reshape(
                -1, 3
            )
            distance = np.linalg.norm(pixels[:, None] - palette[None], axis=2)
            shares.append(float(((distance.argmin(1) == index) & (distance.min(1) < 70)).mean()))
        assert np.mean(shares) >= COLOURED_SHARE, (colour, shares)


def test_more_things_counted_cover_separate_places() -> None:
    """Green discs on bare land are counted by connected components: an independent count of what was drawn."""
    depot = Scene("oil depot", "green", 1, "")
    for count in range(1, 7):
        pixels = np.asarray(draw_scene(replace(depot, count=count), 96, random.Random(count)), dtype=int)
        green = pixels[..., 1] - np.maximum(pixels[..., 0], pixels[..., 2]) > 45
        assert _components(green, least=20) == count


def _components(mask: np.ndarray, least: int) -> int:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = 0
    while left:
        stack, size = [left.pop()], 1
        while stack:
            y, x = stack.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    stack.append(near)
                    size += 1
        found += size >= least
    return found


def test_what_lies_beside_changes_one_edge() -> None:
    """With the road beside, one edge strip is much darker than the sand of the desert; without it none is."""
    edges = (np.s_[:9], np.s_[-9:], np.s_[:, :9], np.s_[:, -9:])
    for seed in range(8):
        dark = {}
        for beside in ("", "road"):
            scene = Scene("desert", "yellow", 0, beside)
            pixels = np.asarray(draw_scene(scene, 48, random.Random(seed)), dtype=float).mean(2)
            dark[beside] = [bool(np.median(pixels[edge]) < 110) for edge in edges]
        assert sum(dark[""]) == 0 and sum(dark["road"]) == 1


def test_facts_and_back() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng)
        assert scene_from_facts(scene_to_facts(scene)) == scene


@pytest.mark.parametrize(
    "fault",
    [{"scene": "moon"}, {"colour": "pink"}, {"count": 7}, {"count": 0}, {"beside": "water"}, {"count": "some"}],
)
def test_facts_of_no_scene_are_refused(fault: dict[str, str | int]) -> None:
    with pytest.raises(UserError, match="facts"):
        scene_from_facts({**scene_to_facts(Scene("port", "red", 3, "road")), **fault})


def test_missing_fact_is_refused() -> None:
    with pytest.raises(UserError, match="beside"):
        scene_from_facts({"scene": "port", "colour": "red", "count": 3})


def test_a_picture_takes_a_few_milliseconds() -> None:
    rng = random.Random(0)
    start = time.process_time()
    for _ in range(100):
        draw_scene(sample_scene(rng), 48, rng)
    assert time.process_time() - start < 1.0
