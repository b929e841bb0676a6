"""`python -m captioning`: the stage's own captions, for files, in three forms; what is broken stops nothing else."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.commands.picture_files import (
    FileCaption,
    find_image_files,
    format_csv,
    format_json,
    format_text,
    printable_path,
    summarise_notes,
)
from captioning.images.table import CaptionedImage, write_parquet
from tests.helpers.small_recipes import variant_recipe

ROOT = Path(__file__).parents[2]
LIMIT = 9  # tokens
ADAPTER = "mix-1"


def photograph(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path, pictures: list[bytes],
    adapted: Callable[..., Any],
) -> Path:  # fmt: skip
    """A project with one checkpoint, one adapter that says something else than it, test images, and them as files."""
    from captioning.adapters.card import model_card
    from captioning.adapters.lora import count_parameters, save_adapter
    from captioning.base.hashes import file_hashes

    monkeypatch.chdir(tmp_path)
    start = tmp_path / "models/checkpoints/mix"
    shutil.copytree(checkpoint, start)
    start.with_name("mix.json").write_text(json.dumps(file_hashes(start)))
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("maximum_tokens: 40", f"maximum_tokens: {LIMIT}"),
        ("decoding_batch: 64", "decoding_batch: 3"),
    ):
        assert old in params
        params = params.replace(old, new)
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    recipe = variant_recipe(files=file_hashes(start), decoding_batch=3, dequantise=True)
    (tmp_path / "data/recipes").mkdir(parents=True)
    (tmp_path / "data/recipes/mix.json").write_text(recipe.model_dump_json())
    model = adapted(strength=0.3)
    save_adapter(model, tmp_path / "models/adapters" / ADAPTER, model_card(ADAPTER, recipe, count_parameters(model)))
    shots = tmp_path / "shots"
    shots.mkdir()
    for index, data in enumerate(pictures):
        (shots / f"{index}.png").write_bytes(data)
    for index in range(3):
        photograph(index).save(shots / f"photo-{index}.jpg", quality=85)
    images = [CaptionedImage(path.name, "UCM", "test", path.read_bytes(), path.name, ("a",)) for path in files(shots)]
    write_parquet(images, tmp_path / "data/captions/images.parquet")
    (tmp_path / "data/splits").mkdir()
    (tmp_path / "data/splits/test.txt").write_text("".join(f"{one.id}\n" for one in images))
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def staged(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, dict[str, Any]]:
    """What the `generate` stage writes, by image."""
    from stages.generate import main

    monkeypatch.setattr(sys, "argv", ["generate", *arguments, "--out", "predictions.jsonl"])
    main()
    lines = Path("predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def command(*arguments: str) -> int:
    from captioning.commands.caption import main

    return main(arguments)


OF_MIX = ["--recipe", "data/recipes/mix.json", "--adapter", f"models/adapters/{ADAPTER}"]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("mix", OF_MIX),
        (f"models/adapters/{ADAPTER}", OF_MIX),
        ("zero-shot-mix", ["--checkpoint", "models/checkpoints/mix"]),
    ],
)
def test_captions_are_the_stages(project: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: list[str]) -> None:
    expected = staged(monkeypatch, *stage)
    assert len({record["caption"] for record in expected.values()}) > 2
    assert command("shots", "--model", name, "--format", "json", "--out", "captions.json") == 0
    records = json.loads(Path("captions.json").read_text(encoding="utf-8"))
    assert [record["file"] for record in records] == [f"shots/{id_}" for id_ in expected]
    for record in records:
        wanted = expected[Path(record["file"]).name]
        assert {key: record[key] for key in ("caption", "tokens", "ended")} == {
            key: wanted[key] for key in ("caption", "tokens", "ended")
        }


def test_adapter_and_checkpoint_say_other_things(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above could not tell them apart."""
    assert staged(monkeypatch, *OF_MIX) != staged(monkeypatch, "--checkpoint", "models/checkpoints/mix")


@pytest.mark.parametrize("size", [(90, 60), (7, 300), (24, 24)])
def test_a_fitted_picture_is_the_same_to_the_processor(processor: Any, size: tuple[int, int]) -> None:
    from captioning.commands.caption import resize_for
    from captioning.images.pictures import encode_png
    from captioning.paligemma.model import pixel_values

    image = photograph(5, size)
    direct, by_way = (
        pixel_values(processor, [encode_png(image)]),
        pixel_values(processor, [encode_png(resize_for(image, processor))]),
    )
    assert direct.equal(by_way)


def test_the_broken_stop_nobody(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shots = project / "shots"
    whole = (shots / "photo-1.jpg").read_bytes()
    (shots / "0-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (shots / "photo-0-note.png").write_text("no picture")
    status = command("shots", "missing.tif", "--model", "mix", "--batch", "2")
    told = capsys.readouterr()
    assert status == 1
    said = dict(line.split("\t") for line in told.out.splitlines())
    assert list(said) == [
        f"shots/{path.name}" for path in files(shots) if path.name not in ("0-cut.jpg", "photo-0-note.png")
    ]
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert errors[0].startswith("error: shots/0-cut.jpg: broken or truncated")
    assert errors[1].startswith("error: shots/photo-0-note.png: no JPEG, PNG")
    assert errors[2].startswith("error: missing.tif: no such file")
    assert command("shots/0.png", "--model", "mix") == 0
    assert capsys.readouterr().out == f"shots/0.png\t{said['shots/0.png']}\n"


def test_all_broken_needs_no_model(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("missing.tif", "--model", "mix", "--format", "csv") == 1
    (record,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (record["file"], record["caption"], record["error"]) == ("missing.tif", "", "no such file")


def test_tokens_are_limited(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("shots/0.png", "--model", "mix", "--maximum-tokens", "2", "--format", "json")
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["tokens"], record["ended"]) == (2, False)


def test_decisions_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((9, 9), 2000, dtype=np.uint16)).save(project / "deep.tif")
    assert command("deep.tif", "--model", "mix", "--format", "csv") == 0
    told = capsys.readouterr()
    (record,) = csv.DictReader(io.StringIO(told.out))
    assert record["notes"] == "11 bits scaled to 8"
    assert "note: 11 bits scaled to 8: deep.tif\n" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["shots"], "error: no --model; choose one of mix-1, zero-shot-mix"),
        (["shots", "--model", "mixx"], "error: mixx: no such row"),
        (["data", "--model", "mix"], "error: data: no JPEG, PNG or TIFF files in there"),
        (["shots", "--model", "mix", "--out", "no/where.txt"], "error: --out no/where.txt: a file in a folder"),
        (["shots", "--model", "mix", "--out", "shots"], "error: --out shots: a file in a folder"),
        (["shots", "--model", "mix", "--out", "shots/0.png"], "error: --out shots/0.png: this is one of the pictures"),
    ],
)
def test_a_mistake_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert command(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1


def test_a_checkpoint_that_is_another_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "models/checkpoints/mix/config.json"
    path.write_text(path.read_text() + "\n")
    assert command("shots", "--model", "mix") == 1
    assert "models/checkpoints/mix: config.json differ from the recipe" in capsys.readouterr().err


def test_an_absent_device_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert command("shots", "--model", "mix", "--device", "cuda") == 1
    assert "error: --device cuda: torch finds none here" in capsys.readouterr().err


def test_a_file_appears_whole_or_not_at_all(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from captioning.commands import caption as module

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    out = project / "captions.txt"
    out.write_text("earlier")
    monkeypatch.setattr(module, "caption_files", interrupted)
    assert command("shots", "--model", "mix", "--out", "captions.txt") == 130
    assert out.read_text() == "earlier"
    assert [path.name for path in project.glob(".*part")] == []


def test_from_the_shell(project: Path) -> None:
    """The process as it is called: captions alone on stdout, no traceback, exit status 1 for a broken file."""
    (project / "shots/none.png").write_bytes(b"")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-m", "captioning", "shots", "--model", "mix"]
    done = subprocess.run(call, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 7
    assert all(line.startswith("shots/") and "\t" in line for line in done.stdout.splitlines())
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: shots/none.png: the file is empty; mend it or leave it out"


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    for name in ("b/2.TIF", "b/1.jpg", "a.png", "b/c/z.jpeg", "notes.txt", ".hidden/x.jpg", "b/.x.jpg", "c.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "b/loop").symlink_to(tmp_path)
    wanted = [tmp_path / name for name in ("a.png", "b/1.jpg", "b/2.TIF", "b/c/z.jpeg")]
    assert find_image_files([tmp_path]) == wanted
    named = tmp_path / "c.gif"
    assert find_image_files([named, tmp_path / "b/1.jpg", tmp_path]) == [named, wanted[1], wanted[0], *wanted[2:]]


CAPTIONS = [
    FileCaption("a, b.jpg", 'a "quoted"\nfield — ü', 4, True, ("turned upright", "x")),
    FileCaption("c.jpg", error="the file is empty"),
]


def test_three_forms() -> None:
    assert format_text(CAPTIONS[1:]) == ""
    assert format_text([FileCaption("a.jpg", "a port .", 4, True)]) == "a.jpg\ta port .\n"
    assert json.loads(format_json(CAPTIONS))[0]["caption"] == 'a "quoted"\nfield — ü'
    assert "ü" in format_json(CAPTIONS)
    first, second = csv.DictReader(io.StringIO(format_csv(CAPTIONS)))
    assert first == {
        "file": "a, b.jpg", "caption": 'a "quoted"\\nfield — ü', "tokens": "4", "ended": "True",
        "notes": "turned upright; x", "error": "",
    }  # fmt: skip
    assert (second["caption"], second["error"]) == ("", "the file is empty")


def test_names_that_are_no_text_can_be_printed() -> None:
    assert printable_path(Path("a\tb\n.jpg")) == "a\\tb\\n.jpg"
    assert printable_path(Path(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))).encode()


def test_notes_are_gathered() -> None:
    many = [FileCaption(f"{n}.tif", "a", 1, True, ("16 bits scaled to 8",)) for n in range(5)]
    assert summarise_notes(many) == ["16 bits scaled to 8: 0.tif, 1.tif, 2.tif and 2 more"]
