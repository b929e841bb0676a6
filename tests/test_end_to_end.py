"""Every verb of DVC a reader would use, on a copy of the project with a world cut down to minutes.

The copy is made and run once, two stages at a time; each test works on a clone of it, or only reads. What is trained
anew is asked of `dvc repro --dry`; tests/test_experiments.py holds it to a run.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.compute.packages import GROUPS
from captioning.params.load import CHECKPOINTS
from tests.helpers.project_copy import REFINED, ROOT, VARIANTS, Project, draw_folder, refining
from tests.runtime.test_trust import is_forbidden, records

CHECKED = (  # gone where `check` refuses
    "data/checked.txt",
    *(f"data/wanted/{name}.txt" for name in CHECKPOINTS),
    *(f"data/packages/{group}.txt" for group in GROUPS),
)
UNPINNED = {"mix", "cococap", "rsvqa-lr", "rslora", "mix-random", "mix-all", "paligemma2"}  # their rank is lora.rank


@pytest.fixture(scope="module")
def clone(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Project]:
    """Makes clones of the world."""
    return lambda **options: world.clone(tmp_path_factory.mktemp("clone") / "project", **options)


def test_a_second_repro_does_nothing(world: Project) -> None:
    """To DVC alone, one stage after another, what two stages at a time left is all that there is to do."""
    lock = world.read("dvc.lock")
    again = world.dvc("repro")
    assert again.ran == [] and "up to date" in again.all
    assert world.read("dvc.lock") == lock
    assert "up to date" in world.dvc("status").out
    assert world.run("git", "status", "--porcelain").out == "", "a run leaves files that git neither tracks nor ignores"


def test_every_output_stands_in_dvc_yaml(world: Project) -> None:
    """Nothing is written beside the declared outputs, and every declared output is there."""
    assert world.loose_files() == set()
    assert all((world.folder / out).exists() for out in world.declared())


def test_outputs_hold_no_path_of_the_machine_and_no_time(world: Project) -> None:
    assert world.telling() == []


def test_the_same_stage_anew_gives_the_same_lock(clone: Callable[..., Project]) -> None:
    """tests/tools/test_kills.py holds it of a training."""
    project = clone()
    before, lock = project.outputs(), project.read("dvc.lock")
    targets = ["download", "split", "caption-stats", "recipes", "report"]
    assert project.dvc("repro", "--single-item", "--force", *targets).ran == targets
    assert project.read("dvc.lock") == lock
    after = project.outputs()
    assert [name for name in before if before[name] != after.get(name)] == []


def test_recipes_alone_decide_who_is_trained_anew(clone: Callable[..., Project]) -> None:
    """With the variants of the project itself: `lora.rank` reaches those that take their rank from it, and no other."""
    project = clone()
    full = Project(ROOT).yaml("params.yaml")["variants"]
    project.set_params({"variants": full, "rows": list(full)})
    project.run("python", "-m", "stages.recipes")
    before = project.outputs()
    project.set_params({"lora.rank": 3})
    project.run("python", "-m", "stages.recipes")
    moved = {name for name, content in project.outputs().items() if before.get(name) != content}
    unpinned = {name for name, variant in full.items() if "rank" not in variant}
    start = project.read("data/recipes/scst-mix-greedy.json")
    assert unpinned == UNPINNED and '"rank": 3' in start
    assert moved == {f"data/recipes/{name}.json" for name in unpinned | REFINED}


def test_a_checkpoint_that_no_row_starts_from_is_not_made(world: Project) -> None:
    assert world.read("models/checkpoints/cococap.json") == "{}\n"
    assert not any((world.folder / "models/checkpoints/cococap").iterdir())


def test_two_processes_write_what_one_writes(clone: Callable[..., Project], world: Project) -> None:
    """Captions to the byte; losses as near as rounding allows (tests/compute/test_processes.py bounds it)."""
    project = clone()
    project.set_params({"launch.processes": 2})
    project.run("python", "-m", "stages.recipes")
    options = ["--recipe", "data/recipes/mix.json", "--adapter", "models/adapters/mix-1", "--out", "data/two.jsonl"]
    project.run("python", "-m", "stages.generate", *options)
    assert project.read("data/two.jsonl") == world.read("data/predictions/mix-1.jsonl")
    for stage, name in (["qlora_train", "mix", "1"], "mix-1"), (["scst", "mix", "greedy", "1"], "scst-mix-greedy-1"):
        path = f"metrics/training/{name}.json"
        project.run("python", "-m", f"stages.{stage[0]}", *stage[1:])
        alone, shared = (json.loads(one.read(path)) for one in (world, project))
        assert shared.keys() == alone.keys()
        assert shared["trainable_parameters"] == alone["trainable_parameters"]
    losses = [float(json.loads(one.read("metrics/training/mix-1.json"))["validation_loss"]) for one in (world, project)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    found = records(project.audit)
    assert [record for record in found if is_forbidden(record)] == [], "several processes do what one must not"
    assert "subprocess.Popen" in {record["event"] for record in found}
    runs = list((project.folder / ".cache/resume").glob("*/*"))
    assert runs and all((run / "finished").exists() for run in runs), "the next run would go on from half a work"


def test_one_target_runs_what_it_needs_and_no_more(clone: Callable[..., Project]) -> None:
    project = clone()
    project.set_params({"variants.base-r4": {"checkpoint": "base", "rank": 4, "alpha": 4.0}})
    assert project.dvc("repro", "recipes").ran == ["check", "recipes"]
    assert project.dvc("repro", "--dry", "qlora-train@base-r4-1").ran == ["qlora-train@base-r4-1"]
    assert set(project.dvc("repro", "--dry").ran) >= {"qlora-train@base-r4-1", "generate@base-r4-1"}


def test_a_rank_retrains_the_variants_that_take_it(clone: Callable[..., Project]) -> None:
    project = clone()
    project.set_params({"lora.rank": 3})
    assert project.dvc("repro", "recipes").ran == ["check", "recipes"]
    trained = {f"{stage}@{name}-1" for stage in ("qlora-train", "generate") for name in UNPINNED & set(VARIANTS)}
    assert set(project.dvc("repro", "--dry").ran) == trained | refining(1) | {"report"}


def test_a_seed_more_trains_that_seed_alone(clone: Callable[..., Project]) -> None:
    project = clone()
    project.set_params({"seeds": [1, 2], "rows": ["mix"]})
    emptied = {"checkpoint@paligemma2"}  # no row starts from it any more
    assert set(project.dvc("repro", "recipes").ran) == emptied | {"check", "recipes"}
    trained = {"qlora-train@mix-2", "generate@mix-2"} | refining(2)
    assert json.loads(project.dvc("status", "--json").out).keys() == trained | {"evaluate", "report"}, (
        "the first seed is there"
    )


def test_seeds_give_mean_and_deviation(clone: Callable[..., Project]) -> None:
    """In both tables: against all references, and against `caption_1` alone. The second seed's captions are the first
    one's, each given to the next image."""
    project = clone()
    project.train_only(["mix"])
    project.set_params({"seeds": [1, 2]})
    for path in project.folder.glob("data/predictions/*mix*-1.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        moved = [row | {"caption": other["caption"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
        second = path.with_name(path.name.replace("-1.jsonl", "-2.jsonl"))
        second.write_text("".join(json.dumps(row) + "\n" for row in moved), encoding="utf-8")
    for path in [
        *project.folder.glob("metrics/training/*mix*-1.json"),
        *project.folder.glob("plots/steps/*mix*-1.csv"),
    ]:
        shutil.copy(path, path.with_name(path.name.replace("-1.", "-2.")))
    project.run("python", "-m", "stages.evaluate")
    project.run("python", "-m", "stages.report")
    table = project.read("plots/table-2.md")
    rows = [line for line in table.splitlines() if "QLoRA-r16" in line and "**" not in line]
    assert len(rows) == 2 * 3 and all(re.search(r"\d ± \d", row) for row in rows), rows
    assert "One seed a variant" not in table


def test_verbs_that_show(clone: Callable[..., Project]) -> None:
    project = clone()
    assert "CIDEr" in project.dvc("metrics", "show").out
    assert "qlora-train@mix-1" in project.dvc("dag").out
    assert "lora.rank" in project.dvc("exp", "show", "--csv").out
    page = Path(project.dvc("plots", "show").out.strip().removeprefix("file://"))
    assert page.suffix == ".html" and "caption-lengths" in page.read_text(encoding="utf-8")
    assert project.run("git", "status", "--porcelain").out == "", "the plots' folder must be ignored"


def test_push_and_pull_restore_all_but_checkpoints(
    world: Project, clone: Callable[..., Project], tmp_path: Path
) -> None:
    """A checkpoint may be licensed: it stays at home, and everything made with it comes back without it."""
    remote = tmp_path / "remote"
    sender, fresh = clone(), clone(cache=False)
    for project in (sender, fresh):
        project.dvc("remote", "add", "--local", "--default", "store", str(remote))
    sender.dvc("push")
    fresh.dvc("pull", "--allow-missing")
    checkpoints = {name for name in world.outputs() if re.match("models/checkpoints/[^/]+/", name)}
    assert {Path(name).parent.name for name in checkpoints} == {"base", "mix", "paligemma2"}
    assert fresh.outputs() == world.outputs(*checkpoints)
    again = fresh.dvc("repro", "--allow-missing", "--dry")
    assert again.ran == [] and "up to date" in again.all


def test_a_profile_that_cannot_start_says_so_in_one_line(clone: Callable[..., Project]) -> None:
    project = clone()
    before, lock = project.outputs(*CHECKED), project.read("dvc.lock")
    failed = project.dvc("exp", "run", "-S", "profile=paper", ok=False)
    said = [line for line in failed.err.splitlines() if line.startswith("error: ")]
    assert failed.status != 0 and failed.ran == ["check"] and len(said) == 1
    for words in ("images caglarmert/full_riscm", "RISCM.zip", "google/paligemma-3b", "HF_HUB_OFFLINE", "folder"):
        assert words in said[0]
    assert "Traceback" not in failed.all
    assert (project.outputs(), project.read("dvc.lock")) == (before, lock)
    project.set_params({"profile": "miniature"})
    assert set(project.dvc("repro").ran) <= {"check", "report"}, "going back to the miniature trains nothing"


def test_a_wrong_parameter_file_is_refused_with_all_its_faults(clone: Callable[..., Project]) -> None:
    project = clone()
    before = project.outputs(*CHECKED)

    def spoil(params: Any) -> None:
        params["lora"]["rank"] = 0
        params["lora"]["rnak"] = 8
        params["split"]["ratios"]["train"] = 0.9
        params["scst"]["baselines"] = ["greedily"]
        del params["finetune"]["batch"]

    project.edit_params(spoil)
    failed = project.dvc("repro", ok=False)
    assert failed.status != 0 and failed.ran == ["check"] and "Traceback" not in failed.all
    for key in ("lora.rank", "lora.rnak", "split.ratios", "scst.baselines.0", "finetune.batch"):
        assert re.search(rf"^  {re.escape(key)}: ", failed.err, re.MULTILINE), f"{key} is not named:\n{failed.err}"
    assert project.outputs() == before


def test_a_folder_of_ones_own_images(clone: Callable[..., Project]) -> None:
    """Drawn pictures in RISC's layout with RISC's dirt go through the stages of data; what is left out says why."""
    project = clone()
    draw_folder(project.folder / "data/raw")
    project.set_params({"profiles.miniature.data.source": "folder", "profiles.miniature.data.images": 60})
    done = project.dvc("repro", "caption-stats")
    assert done.ran == ["check", "download", "split", "caption-stats"]
    aside = csv.DictReader(project.read("data/captions/set_aside.csv").splitlines())
    reasons = {row["image"]: (row["line"], row["reason"]) for row in aside}
    assert reasons.keys() == {"RSICD_1.jpg", "RSICD_2.jpg", "RSICD_3.jpg"}
    assert reasons["RSICD_1.jpg"] == ("3", "no such file") and "nearly empty" in reasons["RSICD_2.jpg"][1]
    assert "unreadable image" in reasons["RSICD_3.jpg"][1]
    manifest = json.loads(project.read("data/captions/manifest.json"))
    assert manifest["images"] == {"RSICD": 48} and manifest["images_by_captions_kept"] == {"4": 1, "5": 47}
    assert manifest["cleaning_rules_fired"]["zero-width characters removed"] == 1
    ids = [id_ for split in ("train", "validation", "test") for id_ in project.read(f"data/splits/{split}.txt").split()]
    assert len(ids) == 48 and {"RSICD_1", "RSICD_3"}.isdisjoint(ids)


def test_what_was_trained_loads_without_the_project(world: Project) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

    recipe = json.loads(world.read("data/recipes/mix.json"))
    checkpoint = world.folder / "models/checkpoints/mix"
    base = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint, backend="pil")
    for name in ("mix-1", "scst-mix-greedy-1", "scst-mix-leave-one-out-1"):
        model = PeftModel.from_pretrained(base, world.folder / "models/adapters" / name)
        assert model.peft_config["default"].r == recipe["lora"]["rank"]
        picture = Image.new("RGB", (48, 48), "green")
        batch = processor(images=picture, text="<image>caption en", return_tensors="pt")
        assert model.generate(**batch, max_new_tokens=3, do_sample=False).shape[0] == 1
        base = model.unload()
    start, refined = (load_file(world.adapter(name)) for name in ("mix-1", "scst-mix-greedy-1"))
    decoder = {name: value for name, value in refined.items() if "language_model" in name}
    assert all(start[name].equal(value) for name, value in refined.items() if name not in decoder)
    trained = json.loads(world.read("metrics/training/scst-mix-greedy-1.json"))["trainable_parameters"]
    assert trained == sum(value.numel() for value in decoder.values())
