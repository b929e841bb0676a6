"""Copies of the project as git repositories, with a world small enough to run all stages in minutes.

A copy holds the files that git tracks or does not ignore, so that a forgotten file becomes visible.
"""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML

from benchmarks.copies import AUTHOR, ROOT, copy_files, edit_yaml, set_values
from tests.helpers import planted
from tests.helpers.opened import StageFiles, record_opened, within

SMALL: dict[str, Any] = {  # smaller numbers by dotted key; all code paths remain
    "finetune.epochs": 1,
    "decoding.maximum_tokens": 12,
    "scst.starts": ["mix"],
    "scst.samples": 2,
    "scst.validation_images": 10,
    "profiles.miniature.data.images": 100,
    "profiles.miniature.checkpoints.base.processes": 1,
    "profiles.miniature.checkpoints.base.images": 96,
    "profiles.miniature.checkpoints.base.tower_epochs": 1,
    "profiles.miniature.checkpoints.base.epochs": 1,
    "profiles.miniature.checkpoints.base.tower_tag_examples": 800,
    "profiles.miniature.checkpoints.base.tag_examples": 200,
    "profiles.miniature.checkpoints.mix.tag_examples": 50,
    "profiles.miniature.checkpoints.mix.images": 64,
    "profiles.miniature.checkpoints.cococap.images": 32,
    "profiles.miniature.checkpoints.rsvqa-lr.images": 32,
    "profiles.miniature.checkpoints.paligemma2.processes": 1,
    "profiles.miniature.checkpoints.paligemma2.images": 64,
    "profiles.miniature.checkpoints.paligemma2.tower_epochs": 1,
    "profiles.miniature.checkpoints.paligemma2.epochs": 1,
    "profiles.miniature.machine.decoding_batch": 8,
    "profiles.miniature.scst.images": 16,
    "profiles.miniature.scst.epochs": 1,
    "profiles.miniature.scst.batch": 8,
    "profiles.miniature.scst.validate_every": 1,
}
VARIANTS = ("base-r4", "mix", "paligemma2")  # each one costs two starts of torch
REFINED = {"scst-mix-greedy", "scst-mix-leave-one-out"}
OUTPUT_FOLDERS = (
    "models/checkpoints",
    "models/adapters",
    "data/training",
    "data/predictions",
    "plots/steps",
    "metrics",
)
TRACKED_FILES = {"data/.gitignore", "models/.gitignore", "data/raw/.gitignore", "data/raw/README.md"}
HOOK = ROOT / "tests/helpers/audit_hook"
TIMESTAMP = re.compile(rb"(?<!\d)20[2-9]\d-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d")  # a date with its time


@dataclass(frozen=True)
class Finished:
    """A command's exit status, stdout and stderr."""

    status: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def ran(self) -> list[str]:
        """Name the stages that DVC ran, in order, without those it skipped or took from its run cache."""
        lines = [line for line in self.all.splitlines() if line.startswith("Running stage ")]
        return [line.split("'")[1] for line in lines]

    @property
    def started(self) -> list[str]:
        """Name the stages that `pipeline.jobs` started."""
        return re.findall(r"^started: (.*)$", self.err, re.MULTILINE)


class Project:
    """A copy of the project. Its commands have secrets in their environment, which they must not print; an audit hook
    in each stage writes to `audit`, beside the copy."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.audit = folder, folder.with_name(f"{folder.name}-audit")

    def run(self, *command: str, ok: bool = True) -> Finished:
        """Run `command` here. With `ok`, its failure fails the test."""
        process = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=self.environment())
        result = Finished(process.returncode, process.stdout, process.stderr)
        assert result.status == 0 or not ok, f"{' '.join(command)} in {self.folder}:\n{result.all}"
        assert not (names := planted.secret_names(result.all.encode())), f"{' '.join(command)} prints {names}"
        return result

    def environment(self) -> dict[str, str]:
        self.audit.mkdir(exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        settings = {"DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "PATH": path}
        python_path = os.pathsep.join(path for path in (str(HOOK), os.environ.get("PYTHONPATH", "")) if path)
        audit = {"PYTHONPATH": python_path, "AUDIT_LOG": str(self.audit)}
        return os.environ | AUTHOR | settings | audit | planted.plant(self.folder.with_name(f"{self.folder.name}-home"))

    def dvc(self, *arguments: str, ok: bool = True) -> Finished:
        return self.run("dvc", *arguments, ok=ok)

    def run_stages(self, *commands: str) -> Finished:
        """Run stages without DVC, in one process; each as `NAME ARGUMENTS`."""
        return self.run("python", "-m", "tests.helpers.run_stages", *commands)

    def experiment(self, *changes: str) -> "Experiment":
        """Run an experiment with `changes`, each as key=value."""
        return self, self.dvc("exp", "run", *(word for change in changes for word in ("-S", change)))

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def read(self, path: str) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def adapter(self, name: str) -> Path:
        return self.folder / f"models/adapters/{name}/adapter_model.safetensors"

    def yaml(self, path: str) -> Any:
        return YAML(typ="safe").load(self.read(path))

    @property
    def stages(self) -> dict[str, Any]:
        return self.yaml("dvc.yaml")["stages"]

    def outputs(self, *without: str) -> dict[str, bytes]:
        """Return the files that stages wrote, by path, except those named or in a folder named by `without`."""
        folders = (self.folder / name for name in ("data", "models", "metrics", "plots"))
        files = {path.relative_to(self.folder).as_posix(): path for folder in folders for path in folder.rglob("*")}
        excluded = tuple(f"{name}/" for name in without)
        files = {name: path for name, path in files.items() if path.is_file() and not f"{name}/".startswith(excluded)}
        return {name: path.read_bytes() for name, path in files.items()}

    def declared(self) -> set[str]:
        """Return the outputs that dvc.lock names: files and folders."""
        return {out["path"] for entry in self.yaml("dvc.lock")["stages"].values() for out in entry["outs"]}

    def machine_dependent_outputs(self) -> list[str]:
        """Name outputs, dvc.lock among them, that hold a path of this machine or a time."""
        machine = machine_marks(self.folder)
        outputs = self.outputs() | {"dvc.lock": self.read("dvc.lock").encode()}
        return [name for name, content in outputs.items() if machine.search(content) or TIMESTAMP.search(content)]

    def undeclared_files(self) -> set[str]:
        """Name files among the outputs that neither DVC nor git tracks."""
        declared = self.declared()
        return {path for path in self.outputs() if path not in TRACKED_FILES and not within(path, declared)}

    def edit_params(self, edit: Callable[[Any], None]) -> None:
        """Apply `edit` to params.yaml; comments stay."""
        edit_yaml(self.folder / "params.yaml", edit)

    def set_params(self, values: dict[str, Any]) -> None:
        set_values(self.folder / "params.yaml", values)

    def train_only(self, rows: Collection[str]) -> None:
        self.set_params({"rows": list(rows)})

    def clone(self, folder: Path) -> "Project":
        """Copy everything except logs and saved states; the files of DVC's cache are hard links.

        A clone never changes this folder, which other tests read at the same time.
        """
        left_out = shutil.ignore_patterns(".cache", "__pycache__", "cache", "tmp")
        shutil.copytree(self.folder, folder, symlinks=True, ignore=left_out)
        shutil.copytree(self.folder / ".dvc/cache", folder / ".dvc/cache", copy_function=os.link)
        return Project(folder)


Experiment = tuple[Project, Finished]


def make_world(folder: Path) -> Project:
    """Copy the project, run it once, and commit the results. `opened_files` returns what each stage opened."""
    project = copy_project(folder, VARIANTS, zero_shot=("base",))
    for name in OUTPUT_FOLDERS:  # what appears in a new folder at once is not seen
        (folder / name).mkdir(parents=True)
    with record_opened(folder) as opened:
        result = project.run("python", "-m", "pipeline.jobs", "--jobs", "1")
    assert {name.split("@")[0] for name in result.started} == set(project.stages), "some stage did not run"
    lists = {
        stage: {kind: sorted(names) for kind, names in vars(files).items()} for stage, files in opened.stages.items()
    }
    folder.with_name(f"{folder.name}-opened.json").write_text(json.dumps(lists), encoding="utf-8")
    project.commit("Run")
    return project


def opened_files(world: Project) -> dict[str, StageFiles]:
    """Return the files that each stage of the world opened and wrote."""
    lists = json.loads(world.folder.with_name(f"{world.folder.name}-opened.json").read_text(encoding="utf-8"))
    return {stage: StageFiles(**{kind: set(names) for kind, names in kinds.items()}) for stage, kinds in lists.items()}


def copy_project(folder: Path, variants: Sequence[str], zero_shot: Sequence[str]) -> Project:
    """Copy the project with the values of `SMALL` and these rows, without results, and commit it."""
    copy_files(folder, lambda name: name != "dvc.lock" and not name.startswith(("metrics/", "plots/")))
    project = Project(folder)
    project.train_only(variants)
    project.set_params(SMALL | {"zero_shot": list(zero_shot)})
    project.run("git", "init", "--quiet")
    project.commit("The project, never run")
    return project


def machine_marks(folder: Path) -> re.Pattern[bytes]:
    """Match this machine's name and its paths, such as `folder` and the project's."""
    marks = [str(folder), str(ROOT), str(Path.home()) + "/"]
    marks += [name for name in (socket.gethostname(),) if len(name) > 7]  # a short name occurs in any compressed file
    return re.compile("|".join(map(re.escape, marks)).encode())


def draw_folder(folder: Path, images: int = 50) -> None:
    """Draw different images in RISC's layout.

    One has a zero-width space in a caption, one is missing, one has an empty caption, one is damaged.
    """
    (folder / "resized").mkdir(parents=True)
    rows = []
    for index in range(images):
        gradient = Image.linear_gradient("L").rotate(7 * index).resize((64, 64))
        colours = Image.new("RGB", (64, 64), (5 * index, 255 - 4 * index, 80))
        image = Image.blend(gradient.convert("RGB"), colours, 0.5)
        image.paste((40, 90, 200), (index, 5, index + 12, 20 + index % 30))
        image.save(folder / f"resized/RSICD_{index}.jpg", quality=90)
        captions = [f"field {index} is seen in way {way} ." for way in range(5)]
        rows.append(["RSICD", "train", f"RSICD_{index}.jpg", *captions])
    rows[0][3] = "a field\u200b beside a road ."
    (folder / "resized/RSICD_1.jpg").unlink()
    rows[2][5] = "1 ."
    (folder / "resized/RSICD_3.jpg").write_bytes(b"no image")
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        header = ["source", "split", "image", *(f"caption_{way}" for way in range(1, 6))]
        csv.writer(file).writerows([header, *rows])


def scst_stages(seed: int) -> set[str]:
    """Name the stages that refine a seed's adapter with each baseline, and caption with it."""
    return {f"{stage}{name.removeprefix('scst-')}-{seed}" for stage in ("scst@", "generate-scst@") for name in REFINED}
