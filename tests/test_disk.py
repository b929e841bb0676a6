"""What a stage says it will write is what it writes, within `NEAR`; a disk that cannot hold it is told before any
work."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captioning import disk
from captioning.disk import Written, require
from captioning.runlog import UserError
from captioning.sizes import length, occupied, told

NEAR = 2.5  # an estimate is at least what was written, and at most so many times as much
SMALL = 1_000_000  # bytes; below them only the first holds

Free = Callable[[int], None]


@pytest.fixture
def free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets what is free on every disk; the project is an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    return lambda size: monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


def configure(text: str, name: str = "config") -> None:
    Path(".dvc", name).write_text(text, encoding="utf-8")


def total(parts: list[Written], cached: bool = False) -> int:
    return sum(part.size * (1 + (cached and part.output)) for part in parts)


def test_an_output_counts_twice(free: Free) -> None:
    parts = [Written("weights", Path("models/base"), 3_000_000_000), Written("scratch", Path(".cache/x"), 10, False)]
    free(6_000_000_010)
    require("checkpoint base", parts)
    free(6_000_000_009)
    with pytest.raises(UserError) as caught:
        require("checkpoint base", parts)
    assert str(caught.value) == (
        "checkpoint base will write about 6.0 GB (weights 3.0 GB, DVC's copy of weights 3.0 GB, scratch 10 bytes), the "
        "disk of . has 6.0 GB free; free some (`make gc` shows what can go), or keep DVC's cache on another disk "
        "(`dvc cache dir --local`)"
    )


@pytest.mark.parametrize("types", ["hardlink", "symlink,copy", "reflink"])
def test_a_cache_of_links_takes_nothing(free: Free, types: str) -> None:
    configure(f"[core]\n    analytics = false\n[cache]\n    type = {types}\n")
    free(100)
    require("split", [Written("ids", Path("data"), 100)])


@pytest.mark.parametrize("level", ["DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR"])
def test_what_dvc_is_told_for_the_whole_machine_counts(
    free: Free, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "everywhere").mkdir()
    (tmp_path / "everywhere/config").write_text(f"[cache]\n    dir = {tmp_path}/shared\n", encoding="utf-8")
    monkeypatch.setenv(level, str(tmp_path / "everywhere"))
    assert disk.cache_folder() == tmp_path / "shared"
    configure("[cache]\n    dir = own\n")
    assert disk.cache_folder() == tmp_path / ".dvc/own"


@pytest.mark.parametrize("text", ["", "[cache]\n    type = reflink,copy\n", "[cache]\n    type = copy\n", "no section"])
def test_any_other_is_a_copy(free: Free, text: str) -> None:
    configure(text)
    free(199)
    with pytest.raises(UserError, match="will write about 200 bytes"):
        require("split", [Written("ids", Path("data"), 100)])


def test_each_disk_is_asked_for_what_it_holds(free: Free, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("[cache]\n    dir = /elsewhere\n")
    configure(f"[cache]\n    dir = {tmp_path}/apart\n", "config.local")
    assert disk.cache_folder() == tmp_path / "apart"
    (tmp_path / "apart").mkdir()
    real = Path.stat
    monkeypatch.setattr(
        Path, "stat",
        lambda self, **options: SimpleNamespace(st_dev=1) if self.name == "apart" else real(self, **options),
    )  # fmt: skip
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 if path.name == "apart" else 10))
    with pytest.raises(UserError) as caught:
        require("split", [Written("ids", Path("data"), 50)])
    assert "the disk of . has 10 bytes free" in str(caught.value) and "apart" not in str(caught.value)


def test_what_is_there_already_is_room(free: Free) -> None:
    Path("shards").mkdir()
    Path("shards/0.parquet").write_bytes(b"x" * 80)
    free(20)
    require("download", [Written("shards", Path("shards"), 100, output=False)])
    free(19)
    with pytest.raises(UserError, match="about 20 bytes"):
        require("download", [Written("shards", Path("shards"), 100, output=False)])


def near(estimate: int, written: int) -> None:
    assert written <= estimate, "more was written than was said"
    assert estimate <= max(NEAR * written, SMALL)


def test_estimates_are_what_the_small_world_wrote(world: Any) -> None:
    images, params = 100, world.yaml("params.yaml")["profiles"]["miniature"]
    here, plots = world.folder, world.folder / "plots"
    assert params["data"]["images"] == images
    near(total(disk.drawn_images(Path("x"), images, params["data"]["image_size"])), length(here / "data/captions"))
    for name in ("base", "mix", "paligemma2"):
        near(total(disk.checkpoint(Path("x"))), length(here / f"models/checkpoints/{name}"))
    test = len(world.read("data/splits/test.txt").split())
    predictions = list((here / "data/predictions").iterdir())
    for path in predictions:
        near(
            total(disk.captions(Path("x"), test, world.yaml("params.yaml")["decoding"]["maximum_tokens"])), length(path)
        )
    described = (here / "metrics/captions.json", *plots.glob("caption-lengths*"), *plots.glob("figure-[12].*"))
    lengths = {
        "split": length(here / "data/splits") + length(here / "metrics/splits.json"),
        "caption-stats": sum(map(length, (here / "data/references", here / "data/words.txt", *described))),
        "evaluate": length(here / "data/scores") + length(here / "metrics/scores.json"),
        "report": length(plots) - length(plots / "steps"),
    }  # fmt: skip
    counted = {"split": images, "caption-stats": images, "evaluate": test * len(predictions), "report": 0}
    for stage, written in lengths.items():
        near(total(disk.results(stage, Path("x"), counted[stage])), written)


def test_an_adapter_is_as_large_as_its_recipe_says(world: Any, processor: Any) -> None:
    from captioning.training_disk import COPIES, finetune_files, scst_files

    for name, start in (("base-r4", None), ("mix", None), ("scst-mix-greedy", "mix-1")):
        recipe = json.loads(world.read(f"data/recipes/{name}.json"))
        checkpoint = world.folder / "models/checkpoints" / recipe["checkpoint"]["name"]
        counts = {"train": 60, "validation": 20}
        if start:
            held = scst_files(f"{name}-1", checkpoint, recipe, world.folder / "models/adapters" / start, counts, 1)
        else:
            held = finetune_files(f"{name}-1", checkpoint, recipe, processor, counts, 1)
        adapter, resume = held
        near(adapter.size, length(world.folder / f"models/adapters/{name}-1"))
        assert not resume.output and resume.size >= 3 * COPIES * (world.adapter(f"{name}-1").stat().st_size - 40_000)


def test_what_is_mapped_is_as_large_as_its_file(
    checkpoint: Path, quantised: Any, processor: Any, pictures: list[bytes], tmp_path: Path
) -> None:
    """Decoded pictures and features, which go to a file where several processes share them."""
    from captioning.features import encode_all
    from captioning.pixels import decode_all
    from captioning.training_disk import finetune_files, scst_files

    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "rslora": False, "targets": "table2"}
    recipe = {"machine": {"compute": "float32"}, "lora": lora,
              "scst": {"images": 3, "validation_images": 9}}  # fmt: skip
    decode_all(processor, pictures, tmp_path / "pixels", in_memory=0)
    encode_all(quantised, processor, pictures, 2, tmp_path / "features", in_memory=0)
    decoded = finetune_files("x", checkpoint, recipe, processor, {"train": 4}, 2)[-1]
    assert (decoded.what, decoded.size) == ("train.pixels", length(tmp_path / "pixels"))
    features = scst_files("x", checkpoint, recipe, tmp_path, {"train": 5, "validation": 4}, 2)[-2:]
    one = length(tmp_path / "features") // 4
    assert [(part.what, part.size) for part in features] == [
        ("train.features", 3 * one),
        ("validation.features", 4 * one),
    ]


FULL = """
import runpy, shutil, sys
from types import SimpleNamespace
shutil.disk_usage = lambda _: SimpleNamespace(free=1000)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
STAGES: dict[str, list[str]] = {
    "download": [], "split": [], "caption_stats": [], "evaluate": [], "report": [],
    "qlora_train": ["mix", "1"], "scst": ["mix", "greedy", "1"],
    "generate": ["--checkpoint", "models/checkpoints/base", "--out", "data/predictions/x.jsonl"],
    "checkpoint": ["mix"],  # the last, as it empties its folder first
}  # fmt: skip


def test_every_stage_says_so_before_it_works(world: Any, tmp_path: Path) -> None:
    project = world.clone(tmp_path / "project")
    before = project.outputs()
    for stage, arguments in STAGES.items():
        done = project.run(sys.executable, "-c", FULL, f"stages.{stage}", *arguments, ok=False)
        assert done.status == 1, done.all
        (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert "will write about" in line and "1.0 kB free; free some (`make gc`" in line, line
        assert "Traceback" not in done.all
    assert project.outputs() == before


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (34_500, "34 kB"),
        (7_103_084, "7.1 MB"),
        (1.23e10, "12 GB"),
    ],
)
def test_sizes_are_told_with_two_digits(size: float, text: str) -> None:
    assert told(size) == text


def test_sizes_are_those_of_du(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"x" * 10_000)
    (tmp_path / "a/b/link").hardlink_to(tmp_path / "a/one")
    (tmp_path / "a/far").symlink_to("/usr")
    (tmp_path / "a/b/.hidden").write_bytes(b"y")
    du = subprocess.run(["du", "-s", "--block-size=1", "a"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert occupied(tmp_path / "a") == int(du.stdout.split()[0])
    assert occupied(tmp_path / "a/one", tmp_path / "a/b/link") == occupied(tmp_path / "a/one")
    assert length(tmp_path / "a") == 20_001 + len("/usr")
    assert (length(tmp_path / "none"), occupied(tmp_path / "none")) == (0, 0)
