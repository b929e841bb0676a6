"""Caption a scene tile by tile, as GeoJSON or as a map in HTML: `python -m captioning SCENE --tiles N`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.base.hashes import file_hashes
from captioning.commands.loading import choose_batch, load_row, resize_for_model
from captioning.commands.picture_files import check_output, escape_path
from captioning.commands.trained_rows import TrainedRow
from captioning.images.decoded import TIFF_STARTS, UnreadableImage, encode_png
from captioning.runtime.progress import write_stdout

SCENE_FORMATS = ("geojson", "html")
LARGE = 200_000_000  # bytes of a scene whose range of values takes more than a second


def caption_scene(options: argparse.Namespace, row: TrainedRow, maximum_tokens: int) -> int:
    """Caption the scene that `options` name, and return the exit status. Raises `UserError`."""
    path = _require_scene(options)
    from captioning.commands.scenes.captions import caption_tiles, saved_captions
    from captioning.commands.scenes.maps import MAP_FORMATS, SceneMap
    from captioning.commands.scenes.scene import cut_tiles, open_scene

    device = options.device or row.machine.device
    batch = choose_batch(options.batch, row, device, maximum_tokens)
    choices = {"tiles": options.tiles, "batch": batch, "device": device, "maximum_tokens": maximum_tokens}
    if path.stat().st_size > LARGE:
        print(f"{escape_path(path)}: finding the range of its values", file=sys.stderr)
    try:
        with open_scene(path, options.bands) as scene:
            _require_few(scene.dataset.width, scene.dataset.height, options.tiles)
            tiles = cut_tiles(scene.dataset.width, scene.dataset.height, options.tiles)
            with saved_captions(scene, _list_settings(row) | choices) as results:
                caption = _LazyCaptions(row, device, maximum_tokens, batch)
                captions = caption_tiles(scene, tiles, batch, results, caption)
                scene_map = SceneMap(scene, row.name, tiles, captions)
                text = MAP_FORMATS[options.format or "geojson"](scene_map)
                write_text(options.out, text) if options.out else write_stdout(text)
            for note in scene_map.notes:
                print(f"note: {note}: {escape_path(path)}", file=sys.stderr)
    except UnreadableImage as reason:
        raise UserError(f"{escape_path(path)}: {reason}; correct it or leave it out") from None
    return 0


class _LazyCaptions:
    """Caption images, with a row that is loaded for the first of them: a scene that is finished needs no model."""

    def __init__(self, row: TrainedRow, device: str, maximum_tokens: int, batch: int) -> None:
        self.row, self.device, self.maximum_tokens, self.batch = row, device, maximum_tokens, batch
        self.loaded: tuple[Any, Any] | None = None

    def __call__(self, images: Sequence[Image.Image]) -> list[tuple[str, float]]:
        model, processor = self.loaded = self.loaded or load_row(self.row, self.device)
        import torch

        from captioning.commands.scenes.confidence import captions_with_confidence

        encoded = [encode_png(resize_for_model(image, processor)) for image in images]
        try:
            captions = captions_with_confidence(model, processor, encoded, self.row.prompt, self.maximum_tokens)
        except torch.OutOfMemoryError:
            raise UserError(f"--batch {self.batch}: too many tiles at once for {model.device}; choose fewer") from None
        return [(caption.text, round(confidence, 4)) for caption, confidence in captions]


def _require_scene(options: argparse.Namespace) -> Path:
    """Return the path of the only scene. Raises `UserError` if the options do not fit a scene."""
    formats = " or ".join(SCENE_FORMATS)
    if not options.tiles:
        raise UserError(f"--format {options.format}: only for a scene; add --tiles 256")
    if options.format not in (None, *SCENE_FORMATS):
        raise UserError(f"--format {options.format}: not for a scene; choose {formats}")
    names = ", ".join(map(escape_path, options.images))
    if len(options.images) > 1 or options.images[0].is_dir():
        raise UserError(f"--tiles: {names} is not one scene; name one TIFF at a time")
    path: Path = options.images[0]
    check_output(options.out, [path])
    with path.open("rb") as file:
        if file.read(4) not in TIFF_STARTS:
            raise UserError(f"{names}: a scene must be a TIFF; convert it with `gdal_translate`, or leave out --tiles")
    return path


def _require_few(width: int, height: int, size: int) -> None:
    from captioning.commands.scenes.scene import MAX_TILE, MAX_TILES

    if size > MAX_TILE:
        raise UserError(f"--tiles {size}: at most {MAX_TILE} pixels; choose fewer")
    if (count := math.ceil(width / size) * math.ceil(height / size)) > MAX_TILES:
        raise UserError(f"--tiles {size}: {count:,} tiles, at most {MAX_TILES:,}; choose larger ones")


def _list_settings(row: TrainedRow) -> dict[str, object]:
    """Return all that decides the captions of a row."""
    adapter = file_hashes(row.adapter) if row.adapter else {}
    machine = row.machine
    return {
        "row": row.name,
        "checkpoint": row.files,
        "adapter": adapter,
        "prompt": row.prompt,
        "compute": [machine.compute, machine.dequantise],
    }
