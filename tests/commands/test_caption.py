"""`python -m captioning` gives files the captions of the stage; unreadable files do not stop the others."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rasterio.io import MemoryFile

from captioning.commands import caption
from captioning.commands.caption import main, resize_for_model
from captioning.commands.picture_files import (
    FileCaption,
    escape_path,
    find_image_files,
    format_csv,
    format_json,
    format_text,
    summarise_notes,
)
from captioning.images.decoded import encode_png
from captioning.images.table import CaptionedImage, write_parquet
from captioning.paligemma.model import pixel_values
from stages import generate

ROOT = Path(__file__).parents[2]
ADAPTER = "mix-1"


def photograph(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def shots(project: Path, pictures: list[bytes]) -> Path:
    """A folder of image files, which are also the test images of the project."""
    folder = project / "shots"
    folder.mkdir()
    for index, data in enumerate(pictures):
        (folder / f"{index}.png").write_bytes(data)
    for index in range(3):
        photograph(index).save(folder / f"photo-{index}.jpg", quality=85)
    images = [
        CaptionedImage(path.name, "UCM", "test", path.read_bytes(), path.name, ("a",))
        for path in sorted(folder.iterdir())
    ]
    write_parquet(images, project / "data/captions/images.parquet")
    (project / "data/splits").mkdir()
    (project / "data/splits/captioned.txt").write_text("".join(f"{image.id}\n" for image in images))
    return folder


def run_stage(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, Any]]:
    """Run the `generate` stage and return its records."""
    monkeypatch.setattr(sys, "argv", ["generate", *arguments, "--out", "predictions.jsonl"])
    generate.main()
    lines = Path("predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_batches_of_any_size_give_the_same_captions(
    shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In float32: of the stage and of the command, with a number and with `auto`, which takes all at once."""
    params = Path("params.yaml").read_text(encoding="utf-8")
    expected = run_stage(monkeypatch, "--checkpoint", "models/checkpoints/mix")
    for size in ("1", "auto"):
        Path("params.yaml").write_text(params.replace("decoding_batch: 3", f"decoding_batch: {size}"), encoding="utf-8")
        capsys.readouterr()
        assert run_stage(monkeypatch, "--checkpoint", "models/checkpoints/mix") == expected
        assert ("auto: machine.decoding_batch 256: " in capsys.readouterr().err) == (size == "auto")
    main([str(shots), "--model", "zero-shot-mix", "--format", "json"])
    output = capsys.readouterr()
    assert [record["caption"] for record in json.loads(output.out)] == [record["caption"] for record in expected]
    assert "auto: machine.decoding_batch 256" in output.err


def test_captions_are_those_of_the_stage(shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_adapter = run_stage(monkeypatch, "--recipe", "data/recipes/mix.json", "--adapter", f"models/adapters/{ADAPTER}")
    of_checkpoint = run_stage(monkeypatch, "--checkpoint", "models/checkpoints/mix")
    assert of_adapter != of_checkpoint
    names = {"mix": of_adapter, f"models/adapters/{ADAPTER}": of_adapter, "zero-shot-mix": of_checkpoint}
    for name, expected in names.items():
        assert len({record["caption"] for record in expected}) > 2
        assert main(["shots", "--model", name, "--format", "json", "--out", "captions.json"]) == 0
        records = json.loads(Path("captions.json").read_text(encoding="utf-8"))
        assert [record["file"] for record in records] == [f"shots/{record['id']}" for record in expected]
        for key in ("caption", "tokens", "ended"):
            assert [record[key] for record in records] == [record[key] for record in expected]


@pytest.mark.parametrize("size", [(90, 60), (7, 300), (24, 24)])
def test_the_processor_does_not_change_a_resized_image(processor: Any, size: tuple[int, int]) -> None:
    image = photograph(5, size)
    resized = encode_png(resize_for_model(image, processor))
    assert pixel_values(processor, [resized]).equal(pixel_values(processor, [encode_png(image)]))


def test_unreadable_files_do_not_stop_the_others(shots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in shots.iterdir())
    photo = (shots / "photo-1.jpg").read_bytes()
    (shots / "0-cut.jpg").write_bytes(photo[: len(photo) // 2])
    (shots / "photo-0-note.png").write_text("text")
    Image.fromarray(np.array([[2000, 2500, 3000]] * 60, dtype=np.uint16)).save("deep.tif")
    assert main(["shots", "missing.tif", "deep.tif", "--model", "mix", "--batch", "2"]) == 1
    streams = capsys.readouterr()
    captions = dict(line.split("\t") for line in streams.out.splitlines())
    assert list(captions) == [*(f"shots/{name}" for name in names), "deep.tif"]
    note, *errors = [line for line in streams.err.splitlines() if line.startswith(("note: ", "error: "))]
    assert note == "note: values from 2000 to 3000 stretched to 8 bits: deep.tif"
    assert errors[0].startswith("error: shots/0-cut.jpg: broken or truncated")
    assert errors[1].startswith("error: shots/photo-0-note.png: no JPEG, PNG")
    assert errors[2].startswith("error: missing.tif: no such file")
    assert main(["shots/0.png", "--model", "mix"]) == 0
    assert capsys.readouterr().out == f"shots/0.png\t{captions['shots/0.png']}\n"


def test_missing_files_need_no_model(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["missing.tif", "--model", "mix", "--format", "csv"]) == 1
    (record,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (record["file"], record["caption"], record["error"]) == ("missing.tif", "", "no such file")


def test_tokens_are_limited(shots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shots/0.png", "--model", "mix", "--maximum-tokens", "2", "--format", "json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["tokens"], record["ended"]) == (2, False)


def test_a_mistake_is_one_line(
    shots: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    mistakes = {
        "shots": "no --model; choose one of mix-1, zero-shot-mix",
        "shots --model mixx": "mixx: no such row",
        "data --model mix": "data: no JPEG, PNG or TIFF files",
        "shots --model mix --out no/where.txt": "--out no/where.txt: not a file in an existing, writable folder",
        "shots --model mix --out shots": "--out shots: not a file in",
        "shots --model mix --out shots/0.png": "--out shots/0.png: this is one of the images",
        "shots --model mix --device cuda": "--device cuda: torch finds none",
    }
    for arguments, message in mistakes.items():
        assert main(arguments.split()) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}")
        assert error.count("\n") == 1
    with Path("models/checkpoints/mix/config.json").open("a") as file:
        file.write("\n")
    assert main(["shots", "--model", "mix"]) == 1
    assert "models/checkpoints/mix: config.json differ from the recipe" in capsys.readouterr().err


def test_an_interrupted_run_writes_nothing(shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    out = Path("captions.txt")
    out.write_text("earlier")
    monkeypatch.setattr(caption, "caption_files", interrupt)
    assert main(["shots", "--model", "mix", "--out", "captions.txt"]) == 130
    assert out.read_text() == "earlier"
    assert list(Path().glob(".*partial")) == []


def test_a_shell_gets_only_captions_on_stdout(shots: Path, project: Path) -> None:
    (shots / "none.png").write_bytes(b"")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-m", "captioning", "shots", "--model", "mix"]
    result = subprocess.run(call, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 7
    assert all(line.startswith("shots/") and "\t" in line for line in result.stdout.splitlines())
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == "error: shots/none.png: the file is empty; fix it or leave it out"


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    for name in ("b/2.TIF", "b/1.jpg", "a.png", "b/c/z.jpeg", "notes.txt", ".hidden/x.jpg", "b/.x.jpg", "c.gif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "b/loop").symlink_to(tmp_path)
    files = [tmp_path / name for name in ("a.png", "b/1.jpg", "b/2.TIF", "b/c/z.jpeg")]
    assert find_image_files([tmp_path]) == files
    gif = tmp_path / "c.gif"
    assert find_image_files([gif, tmp_path / "b/1.jpg", tmp_path]) == [gif, files[1], files[0], *files[2:]]


def test_text_json_and_csv() -> None:
    text = 'a "quoted"\nfield — ü'
    captions = [FileCaption("a, b.jpg", text, 4, True, ("turned upright", "x")), FileCaption("c.jpg", error="empty")]
    assert format_text(captions) == 'a, b.jpg\ta "quoted"\\nfield — ü\n'
    assert json.loads(format_json(captions))[0]["caption"] == text
    assert "ü" in format_json(captions)
    first, second = csv.DictReader(io.StringIO(format_csv(captions)))
    assert list(first.values()) == ["a, b.jpg", 'a "quoted"\\nfield — ü', "4", "True", "turned upright; x", ""]
    assert (second["caption"], second["error"]) == ("", "empty")


def test_any_path_can_be_printed() -> None:
    assert escape_path(Path("a\tb\n.jpg")) == "a\\tb\\n.jpg"
    assert escape_path(Path(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))).encode()


def test_bands_of_a_tiff_are_chosen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).integers(0, 4000, (4, 24, 24), dtype=np.uint16)
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=24, height=24, count=4, dtype="uint16") as dataset:
            dataset.write(values)
        Path("four.tif").write_bytes(memory.read())
    assert main(["four.tif", "--model", "mix", "--bands", "4,3,2"]) == 0
    assert "note: bands 4, 3, 2 of 4: four.tif" in capsys.readouterr().err
    assert main(["four.tif", "--model", "mix", "--bands", "5,3,2"]) == 1
    assert "error: four.tif: no band 5, it has 4; choose others with --bands" in capsys.readouterr().err
    for wrong in ("4,3", "0,1,2", "red", "1,2,3,4"):
        with pytest.raises(SystemExit):
            main(["four.tif", "--model", "mix", "--bands", wrong])
        assert "argument --bands" in capsys.readouterr().err


def test_notes_are_summarised() -> None:
    captions = [FileCaption(f"{n}.tif", "a", 1, True, ("16 bits scaled to 8",)) for n in range(5)]
    assert summarise_notes(captions) == ["16 bits scaled to 8: 0.tif, 1.tif, 2.tif and 2 more"]
    captions = [FileCaption(f"{n}.tif", "a", 1, True, (f"values from {n}.5 to 9 stretched",)) for n in range(2)]
    assert summarise_notes(captions) == ["values from … to … stretched: 0.tif, 1.tif"]
