"""DVC's commands as a user gives them, on a copy of the project with a small world.

The copy is made and run once; each test reads it or works on a clone. `dvc repro --dry` names the
stages that would train; tests/test_experiments.py compares this with a run.
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
from pycocoevalcap.meteor.meteor import Meteor

from captioning.evaluation.scores import java_on_path
from captioning.params.sections import CHECKPOINTS
from tests.helpers.coco_scorer import coco_scores
from tests.helpers.project_copy import REFINED, ROOT, VARIANTS, Project, draw_folder, scst_stages
from tests.runtime.test_trust import is_forbidden, records

OWN_LINE = re.compile(  # of a stage or of DVC
    r"Running stage '.+':|> python -m stages\..+|\w+: [\d.]+ s, [\d.]+ GB|source: overhead|\d+ set aside"
    r"|[\w-]+: no row starts from it|((en|de)coding images|steps|hashes|rows|METEOR|images): +\d+%\|.+"
)
CHECK_OUTPUTS = ("data/checked.txt", "data/packages", "data/wanted")  # missing after `check` has failed
DEFAULT_RANK = {"mix", "cococap", "rsvqa-lr", "rslora", "mix-random", "mix-all", "paligemma2"}  # rank: lora.rank


@pytest.fixture(scope="module")
def clone(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    """Make clones of the world."""
    return lambda: world.clone(tmp_path_factory.mktemp("clone") / "project")


def test_a_second_repro_does_nothing(world: Project) -> None:
    """DVC alone accepts the results of `pipeline.jobs`."""
    lock = world.read("dvc.lock")
    second = world.dvc("repro")
    assert second.ran == [] and "up to date" in second.all
    assert world.read("dvc.lock") == lock
    assert "up to date" in world.dvc("status").out
    assert world.run("git", "status", "--porcelain").out == "", (
        "a run must leave no file that git neither tracks nor ignores"
    )


def test_stages_print_their_own_lines_alone(world: Project) -> None:
    """Notices of libraries and DVC's warnings would hide them."""
    lines = [line for path in (world.folder / ".cache/logs").glob("*.log") for line in path.read_text().splitlines()]
    assert sum(line.startswith("> python -m stages.") for line in lines) == len(world.yaml("dvc.lock")["stages"])
    assert [line for line in lines if line and not OWN_LINE.fullmatch(line)] == []


def test_outputs_are_the_declared_ones_and_the_same_on_each_machine(world: Project) -> None:
    assert world.undeclared_files() == set()
    assert all((world.folder / out).exists() for out in world.declared())
    assert world.machine_dependent_outputs() == []


def test_cocos_own_evaluation_gives_table_2_to_the_last_printed_digit(world: Project) -> None:
    lines = {line["row"]: line for line in csv.DictReader(world.read("plots/table-2.csv").splitlines())}
    folder = world.folder / "data/scores/coco"
    names = {row: row if (folder / f"{row}.json").exists() else f"{row}-1" for row in lines}
    assert {path.stem for path in folder.iterdir()} == {*names.values(), "references", "human-caption-references"}
    with java_on_path():
        meteor = Meteor()  # one process for all rows
    for row in ("mix", "scst-mix-greedy", "human-caption"):
        printed = {score: f"{value:.1f}" for score, value in coco_scores(folder, names[row], lambda: meteor).items()}
        assert printed == {score: f"{float(lines[row][score]):.1f}" for score in printed}, row


def test_a_second_run_of_a_stage_gives_the_same_bytes(clone: Callable[[], Project]) -> None:
    """tests/tools/test_kills.py shows the same for a training."""
    project = clone()
    before = project.outputs()
    modified = {path: (project.folder / path).stat().st_mtime_ns for path in before}
    project.run_stages("download", "split", "caption_stats", "recipes", "report", "viewer")
    assert project.outputs() == before
    rewritten = [path for path, time in modified.items() if (project.folder / path).stat().st_mtime_ns != time]
    assert {"data/captions/images.parquet", "plots/report.html", "plots/captions.html"} <= {*rewritten}


def test_lora_rank_changes_the_recipes_that_use_it(clone: Callable[[], Project]) -> None:
    """The project has more variants than the small world."""
    project = clone()
    variants = Project(ROOT).yaml("params.yaml")["variants"]
    project.set_params({"variants": variants, "rows": list(variants)})
    project.run_stages("recipes")
    before = project.outputs()
    project.set_params({"lora.rank": 3})
    project.run_stages("recipes")
    changed = {name for name, content in project.outputs().items() if before.get(name) != content}
    assert {name for name, variant in variants.items() if "rank" not in variant} == DEFAULT_RANK
    assert changed == {f"data/recipes/{name}.json" for name in DEFAULT_RANK | REFINED}
    assert '"rank": 3' in project.read("data/recipes/scst-mix-greedy.json")


def test_a_checkpoint_without_rows_is_not_made(world: Project) -> None:
    assert world.read("models/checkpoints/cococap.json") == "{}\n"
    assert [path.name for path in (world.folder / "models/checkpoints/cococap").iterdir()] == ["unused.txt"]


def test_two_processes_give_the_outputs_of_one(clone: Callable[[], Project], world: Project) -> None:
    """Captions are the same bytes; losses differ by rounding (tests/compute/test_processes.py bounds it).

    torchrun starts the processes of `scst`; those of the other stages are forks.
    """
    project = clone()
    project.set_params({"launch.processes": 2})
    generate = "generate --recipe data/recipes/mix.json --adapter models/adapters/mix-1 --out data/two.jsonl"
    project.run_stages("recipes", generate, "qlora_train mix 1")
    project.run("python", "-m", "stages.scst", "mix", "greedy", "1")
    assert project.read("data/two.jsonl") == world.read("data/predictions/mix-1.jsonl")
    for name in ("mix-1", "scst-mix-greedy-1"):
        path = f"data/training/{name}.json"
        alone, shared = (json.loads(copy.read(path)) for copy in (world, project))
        assert shared.keys() == alone.keys()
        assert shared["trainable_parameters"] == alone["trainable_parameters"]
    losses = [json.loads(copy.read("data/training/mix-1.json"))["validation_loss"] for copy in (world, project)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=0.01)
    events = records(project.audit)
    assert [record for record in events if is_forbidden(record)] == []
    assert "subprocess.Popen" in {record["event"] for record in events}
    runs = list((project.folder / ".cache/resume").glob("*/*"))
    assert runs and all((run / "finished").exists() for run in runs), "the next run would start from an old state"


def test_a_change_of_parameters_trains_the_rows_it_affects(clone: Callable[[], Project]) -> None:
    """A variant's value trains one adapter; `lora.rank` trains the variants without a rank."""
    project = clone()
    project.set_params({"variants.base-r4": {"checkpoint": "base", "rank": 4, "alpha": 4.0}})
    assert project.dvc("repro", "recipes").ran == ["check", "recipes"]
    assert project.dvc("repro", "--dry", "qlora-train@base-r4-1").ran == ["qlora-train@base-r4-1"]
    trained = {"qlora-train@base-r4-1", "generate@base-r4-1"}
    assert set(project.dvc("repro", "--dry").ran) == trained | {"evaluate", "report", "viewer"}  # it reads `variants`
    project.set_params({"lora.rank": 3})
    assert project.dvc("repro", "recipes").ran == ["check", "recipes"]
    trained |= {f"{stage}@{name}-1" for stage in ("qlora-train", "generate") for name in DEFAULT_RANK & set(VARIANTS)}
    assert set(project.dvc("repro", "--dry").ran) == trained | scst_stages(1) | {"evaluate", "report", "viewer"}


def test_another_seed_trains_that_seed_alone(clone: Callable[[], Project]) -> None:
    project = clone()
    project.set_params({"seeds": [1, 2], "rows": ["mix"]})
    emptied = {"checkpoint@paligemma2"}  # no row starts from it now
    assert set(project.dvc("repro", "recipes").ran) == emptied | {"check", "recipes"}
    trained = {"qlora-train@mix-2", "generate@mix-2"} | scst_stages(2)
    assert json.loads(project.dvc("status", "--json").out).keys() == trained | {"evaluate", "report", "viewer"}


def test_two_seeds_give_mean_and_deviation(clone: Callable[[], Project]) -> None:
    """They do so in each table: all references, `caption_1`, by source, other protocols. The second seed's captions are
    those of the first seed, each given to the next image."""
    project = clone()
    project.train_only(["mix"])
    project.set_params({"seeds": [1, 2]})
    for path in project.folder.glob("data/predictions/*mix*-1.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        shifted = [row | {"caption": other["caption"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
        second = path.with_name(path.name.replace("-1.jsonl", "-2.jsonl"))
        second.write_text("".join(json.dumps(row) + "\n" for row in shifted), encoding="utf-8")
    for pattern in ("data/training/*mix*-1.json", "plots/steps/*mix*-1.csv"):
        for path in project.folder.glob(pattern):
            shutil.copy(path, path.with_name(path.name.replace("-1.", "-2.")))
    project.run_stages("evaluate", "report")
    table = project.read("plots/table-2.md")
    rows = [line for line in table.splitlines() if "QLoRA-r16" in line and "**" not in line]
    assert len(rows) == 3 * 4 and all(re.search(r"\d ± \d", row) for row in rows), rows


def test_commands_that_show_results(clone: Callable[[], Project]) -> None:
    project = clone()
    assert "CIDEr" in project.dvc("metrics", "show").out
    assert "qlora-train@mix-1" in project.dvc("dag").out
    assert "lora.rank" in project.dvc("exp", "show", "--csv").out
    page = Path(project.dvc("plots", "show").out.strip().removeprefix("file://"))
    assert page.suffix == ".html" and "caption-lengths" in page.read_text(encoding="utf-8")
    assert project.run("git", "status", "--porcelain").out == "", "git must ignore the plots' folder"


def test_push_and_pull_restore_everything_but_checkpoints(
    world: Project, clone: Callable[[], Project], tmp_path: Path
) -> None:
    """A checkpoint's licence may forbid copies, so it is not pushed; its results are usable without it."""
    sender, receiver = clone(), Project(tmp_path / "receiver")
    sender.run("git", "clone", "--quiet", ".", str(receiver.folder))
    for project in (sender, receiver):
        project.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "remote"))
    sender.dvc("push")
    receiver.dvc("pull", "--allow-missing")
    checkpoints = {name for name in world.outputs() if re.match("models/checkpoints/[^/]+/", name)}
    assert {Path(name).parent.name for name in checkpoints} == set(CHECKPOINTS)
    assert receiver.outputs() == world.outputs(*checkpoints)
    dry = receiver.dvc("repro", "--allow-missing", "--dry")
    assert dry.ran == [] and "up to date" in dry.all


def test_a_profile_without_its_data_stops_in_one_line(clone: Callable[[], Project]) -> None:
    project = clone()
    before, lock = project.outputs(*CHECK_OUTPUTS), project.read("dvc.lock")
    failed = project.dvc("exp", "run", "-S", "profile=paper", ok=False)
    errors = [line for line in failed.err.splitlines() if line.startswith("error: ")]
    assert failed.status != 0 and failed.ran == ["check"] and len(errors) == 1 and "Traceback" not in failed.all
    assert all(words in failed.all for words in ("caglarmert/full_riscm", "google/paligemma-3b"))
    assert (project.outputs(), project.read("dvc.lock")) == (before, lock)
    project.set_params({"profile": "miniature"})
    project.dvc("repro", "check")
    assert set(project.dvc("repro", "--dry").ran) <= {"report", "viewer"}, "going back to the miniature trains nothing"


def test_all_faults_of_params_are_named(clone: Callable[[], Project]) -> None:
    project = clone()
    before = project.outputs(*CHECK_OUTPUTS)

    def damage(params: Any) -> None:
        params["lora"] |= {"rank": 0, "rnak": 8}
        params["split"]["ratios"]["train"] = 0.9
        params["scst"]["baselines"] = ["greedily"]
        del params["finetune"]["batch"]

    project.edit_params(damage)
    failed = project.dvc("repro", ok=False)
    assert failed.status != 0 and failed.ran == ["check"] and "Traceback" not in failed.all
    for key in ("lora.rank", "lora.rnak", "split.ratios", "scst.baselines.0", "finetune.batch"):
        assert re.search(rf"^  {re.escape(key)}: ", failed.err, re.MULTILINE), f"{key} is not named:\n{failed.err}"
    assert project.outputs() == before


def test_a_users_folder_of_images(clone: Callable[[], Project]) -> None:
    """Images in RISC's layout, with its dirt, pass the data stages; the list of what is set aside has the reasons."""
    project = clone()
    draw_folder(project.folder / "data/raw")
    project.set_params({"profiles.miniature.data.source": "folder", "profiles.miniature.data.images": 60})
    assert project.dvc("repro", "caption-stats").ran == ["check", "download", "split", "caption-stats"]
    set_aside = csv.DictReader(project.read("data/captions/set_aside.csv").splitlines())
    reasons = {row["image"]: (row["line"], row["reason"]) for row in set_aside}
    assert reasons.keys() == {"RSICD_1.jpg", "RSICD_2.jpg", "RSICD_3.jpg"}
    assert reasons["RSICD_1.jpg"] == ("3", "no such file") and "nearly empty" in reasons["RSICD_2.jpg"][1]
    assert "unreadable image" in reasons["RSICD_3.jpg"][1]
    manifest = json.loads(project.read("data/captions/manifest.json"))
    assert manifest["images"] == {"RSICD": 48} and manifest["images_by_captions_kept"] == {"4": 1, "5": 47}
    assert manifest["cleaning_rules_fired"]["zero-width characters removed"] == 1
    ids = [id_ for split in ("train", "validation", "test") for id_ in project.read(f"data/splits/{split}.txt").split()]
    assert len(ids) == 48 and {"RSICD_1", "RSICD_3"}.isdisjoint(ids)


def test_adapters_load_without_the_project(world: Project) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

    rank = json.loads(world.read("data/recipes/mix.json"))["lora"]["rank"]
    checkpoint = world.folder / "models/checkpoints/mix"
    base = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint, backend="pil")
    batch = processor(images=Image.new("RGB", (48, 48), "green"), text="<image>caption en", return_tensors="pt")
    for name in ("mix-1", "scst-mix-greedy-1", "scst-mix-leave-one-out-1"):
        model = PeftModel.from_pretrained(base, world.folder / "models/adapters" / name)
        assert model.peft_config["default"].r == rank
        assert model.generate(**batch, max_new_tokens=3, do_sample=False).shape[0] == 1
        base = model.unload()
    start, refined = (load_file(world.adapter(name)) for name in ("mix-1", "scst-mix-greedy-1"))
    decoder = {name: value for name, value in refined.items() if "language_model" in name}
    assert all(start[name].equal(value) for name, value in refined.items() if name not in decoder)
    metrics = json.loads(world.read("data/training/scst-mix-greedy-1.json"))
    assert metrics["trainable_parameters"] == sum(value.numel() for value in decoder.values())
