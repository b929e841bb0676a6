"""`python -m captioning SCENE --tiles N` with a real model: its captions, its confidence, kills, mistakes, the page."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from captioning.commands import scene as command
from captioning.commands.caption import main
from captioning.commands.scenes.confidence import captions_with_confidence
from captioning.decoding import greedy_captions
from captioning.paligemma.model import load_frozen, load_processor
from tests.conftest import COLOURS, PROMPT, SIZE, png
from tests.helpers.browser import open_chromium, read_console, read_requests

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
LIMIT = 9  # tokens


def draw_tile(index: int) -> Image.Image:
    tile = Image.new("RGB", (SIZE, SIZE), COLOURS[index])
    tile.putpixel((0, 0), (255, 255, 255))
    return tile


@pytest.fixture
def scene(project: Path) -> Path:
    """Write a scene of 4 x 2 tiles, each of `COLOURS` with a white pixel; the last has no data."""
    values = np.zeros((3, 2 * SIZE, 4 * SIZE), np.uint8)
    for index in range(7):
        row, column = divmod(index, 4)
        area = np.s_[:, row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
        values[area] = np.asarray(draw_tile(index % 4)).transpose(2, 0, 1)
    profile = {"driver": "GTiff", "width": 4 * SIZE, "height": 2 * SIZE, "count": 3, "dtype": "uint8", "nodata": 0}
    placed = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "photometric": "RGB"}
    with rasterio.open(project / "scene.tif", "w", **profile, **placed) as dataset:
        dataset.write(values)
    return project / "scene.tif"


def test_tiles_get_the_captions_of_images(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scene.tif", "--model", "mix", "--tiles", str(SIZE), "--out", "scene.geojson"]) == 0
    assert "note: 1 of 8 tiles have no data or one colour, skipped: scene.tif" in capsys.readouterr().err
    features = json.loads(Path("scene.geojson").read_text(encoding="utf-8"))["features"]
    names = [f"{index}.png" for index in range(4)]
    for index, name in enumerate(names):
        draw_tile(index).save(name)
    assert main([*names, "--model", "mix", "--format", "json"]) == 0
    expected = [record["caption"] for record in json.loads(capsys.readouterr().out)]
    assert [feature["properties"]["caption"] for feature in features] == [expected[index % 4] for index in range(7)]
    assert {feature["properties"]["row"] for feature in features} == {"mix-1"}
    assert all(feature["properties"]["confidence"] < 0 for feature in features)
    assert list(Path(".cache/scenes").iterdir()) == []


def test_confidence_is_the_mean_log_probability(checkpoint: Path, pictures: list[bytes]) -> None:
    """Against the logits of one pass over image, prompt and caption, without the tokens that no caption may hold."""
    model, processor = load_frozen(checkpoint, "float32", "cpu", True), load_processor(checkpoint)
    scored = captions_with_confidence(model, processor, pictures, PROMPT, LIMIT)
    assert [caption for caption, _ in scored] == list(greedy_captions(model, processor, pictures, PROMPT, LIMIT, 4))
    assert len({caption.tokens for caption, _ in scored}) > 1, "shorter captions are padded in a batch"
    processor.tokenizer.padding_side = "right"
    banned = [processor.image_token_id, processor.tokenizer.pad_token_id, processor.tokenizer.bos_token_id]
    for picture, (caption, confidence) in zip(pictures, scored, strict=True):
        image, prompt = Image.open(io.BytesIO(picture)), f"<image>{PROMPT}"
        inputs = processor(images=image, text=prompt, suffix=caption.text, return_tensors="pt")
        labels = inputs.pop("labels")[0]
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        logits[:, banned] = -torch.inf
        positions = [index for index in range(len(labels)) if labels[index] >= 0][: caption.tokens]
        logs = [logits[index - 1].log_softmax(-1)[labels[index]].item() for index in positions]
        assert len(logs) == caption.tokens
        assert confidence == pytest.approx(np.mean(logs), abs=1e-4)


def test_an_interrupted_scene_goes_on_to_the_same_bytes(
    scene: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["scene.tif", "--model", "mix", "--tiles", str(SIZE), "--format", "html", "--out"]
    assert main([*arguments, "whole.html"]) == 0
    calls: list[int] = []
    caption = command._LazyCaptions.__call__

    def interrupt(self: Any, images: Any) -> Any:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return caption(self, images)

    monkeypatch.setattr(command._LazyCaptions, "__call__", interrupt)
    capsys.readouterr()
    assert main([*arguments, "again.html"]) == 130
    assert "give the command again, and it goes on" in capsys.readouterr().err
    assert not Path("again.html").exists()
    assert main([*arguments, "again.html"]) == 0
    assert "going on after 3 tiles" in capsys.readouterr().err
    assert calls == [3, 3, 3, 1]
    assert Path("again.html").read_bytes() == Path("whole.html").read_bytes()


def test_a_mistake_is_one_line_before_any_work(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photo.png").write_bytes(png(COLOURS[0]))
    Path("cut.tif").write_bytes(scene.read_bytes()[:99])
    Path("b\udce9.tif").write_bytes(scene.read_bytes())
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save("empty.tif")
    mistakes = {
        "scene.tif --format geojson": "--format geojson: only for a scene; add --tiles 256",
        "scene.tif --tiles 24 --format csv": "--format csv: not for a scene; choose geojson or html",
        "scene.tif photo.png --tiles 24": "--tiles: scene.tif, photo.png is not one scene",
        ". --tiles 24": "--tiles: . is not one scene",
        "photo.png --tiles 24": "photo.png: a scene must be a TIFF; convert it",
        "missing.tif --tiles 24": "missing.tif: No such file",
        "cut.tif --tiles 24": "cut.tif: broken or truncated",
        "empty.tif --tiles 24": "empty.tif: no pixel has data",
        "scene.tif --tiles 5000": "--tiles 5000: at most 4096 pixels",
        "scene.tif --tiles 24 --bands 7": "scene.tif: no band 7, it has 3",
        "scene.tif --tiles 24 --out scene.tif": "--out scene.tif: this is one of the images",
        "scene.tif --tiles 24 --out no/a.html": "--out no/a.html: not a file in an existing, writable folder",
    }
    for arguments, message in mistakes.items():
        assert main([*arguments.split(), "--model", "mix"]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}") and error.count("\n") == 1, error
    assert main(["b\udce9.tif", "--tiles", "24", "--model", "mix"]) == 1
    assert "its path is not UTF-8, which GDAL needs; rename it" in capsys.readouterr().err


def test_the_map_works_in_a_browser(scene: Path) -> None:
    assert main(["scene.tif", "--model", "mix", "--tiles", str(SIZE), "--format", "html", "--out", "map.html"]) == 0
    with open_chromium() as driver:
        driver.get(Path("map.html").absolute().as_uri())
        find = driver.find_elements
        assert len(find("css selector", "#list li")) == len(find("css selector", "#map g")) == 7
        assert driver.execute_script("return document.querySelector('#map image').getBBox().width") == 4 * SIZE
        assert find("css selector", "#map text")[0].is_displayed()
        words = find("css selector", "#list button")[0].text.split()[:2]
        find("css selector", "#filter")[0].send_keys(" ".join(words))
        shown = [item for item in find("css selector", "#list li") if item.is_displayed()]
        missed = find("css selector", "#map g.missed")
        assert 0 < len(shown) < 7 and len(shown) + len(missed) == 7
        shown[0].click()
        assert len(find("css selector", "#map g.chosen")) == 1
        before = driver.execute_script("return document.querySelector('#map').getAttribute('viewBox')")
        find("css selector", "#in")[0].click()
        assert driver.execute_script("return document.querySelector('#map').getAttribute('viewBox')") != before
        find("css selector", "#all")[0].click()
        box = driver.execute_script("return document.querySelector('#map').getAttribute('viewBox')")
        assert box == f"0 0 {4 * SIZE} {2 * SIZE}"
        assert read_console(driver) == []
        assert [address for address in read_requests(driver) if not address.startswith("file:")] == []
