"""Kill trainings at random moments, go on, compare bytes: `python -m tools.kills --kills 100` prints survived/tried.

Each trial removes a stage's record and outputs, runs the stage with DVC, sends a signal to all of its processes at a
random moment, restores dvc.lock if it was cut short, and gives the same command again. The stage has survived if its
outputs and dvc.lock are those of an undisturbed run.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from tests.helpers.opened import within
from tests.helpers.project_copy import Project, copy_project

STAGES = ("qlora-train@mix-1", "scst@mix-greedy-1")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGER: dict[str, Any] = {  # many steps, with a state after each
    "resume.every": 0.0,
    "finetune.epochs": 8,
    "profiles.miniature.scst.images": 64,
    "profiles.miniature.scst.epochs": 3,
    "scst.baselines": ["greedy"],
}
RESUMED = "going on from step"


@dataclass(frozen=True)
class Trial:
    """The outcome of one kill."""

    stage: str
    signal: str
    moment: float  # seconds after the command was given
    had_ended: bool  # before the signal
    has_resumed: bool
    different_files: list[str]  # from those of an undisturbed run
    output: str  # of the killed run


class DisturbedStage:
    """A stage of a project, to be disturbed repeatedly."""

    def __init__(self, project: Project, stage: str) -> None:
        self.project, self.stage = project, stage
        self.command = ["dvc", "repro", "--single-item", "--no-run-cache", stage]
        self.lock = project.read("dvc.lock")
        self.outs = [out["path"] for out in project.yaml("dvc.lock")["stages"][stage]["outs"]]
        self.undisturbed = self.outputs()
        self.unrecord()

    def outputs(self) -> dict[str, Any]:
        """Return the stage's outputs, and dvc.lock as a map: a record that was removed comes back as the last."""
        outputs = {name: content for name, content in self.project.outputs().items() if within(name, self.outs)}
        return outputs | {"dvc.lock": self.project.yaml("dvc.lock")}

    def different_files(self) -> list[str]:
        """Name the files that differ from those of an undisturbed run."""
        outputs, names = self.outputs(), self.undisturbed.keys()
        return sorted(name for name in outputs.keys() | names if outputs.get(name) != self.undisturbed.get(name))

    def unrecord(self) -> None:
        """Remove the stage's record from dvc.lock, and its states."""
        shutil.rmtree(self.project.folder / ".cache/resume", ignore_errors=True)
        yaml = YAML()
        yaml.width = 1000
        content = yaml.load(self.lock)
        del content["stages"][self.stage]
        with (self.project.folder / "dvc.lock").open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
        self.lock_without_stage = self.project.read("dvc.lock")

    def start(self, output: Any) -> subprocess.Popen[str]:
        """Start the stage in a new process group; its messages go to `output`."""
        environment, folder = self.project.environment(), self.project.folder
        streams = {"stdout": output, "stderr": subprocess.STDOUT}
        return subprocess.Popen(self.command, cwd=folder, env=environment, start_new_session=True, text=True, **streams)

    def restore_lock(self) -> None:
        """Restore dvc.lock if it was cut short, as `git checkout dvc.lock` does."""
        with suppress(YAMLError):
            intact = (YAML(typ="safe").load(self.lock_without_stage), self.undisturbed["dvc.lock"])
            if self.project.yaml("dvc.lock") in intact:
                return
        (self.project.folder / "dvc.lock").write_text(self.lock_without_stage, encoding="utf-8")

    def kill_once(self, moment: float, number: signal.Signals) -> Trial:
        """Kill the stage `moment` seconds after its start, and run it again."""
        self.unrecord()
        run = self.start(subprocess.PIPE)
        try:
            output, had_ended = run.communicate(timeout=moment)[0], True
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, number)
            output, had_ended = run.communicate()[0], False
        wait_for_group(run.pid)
        self.restore_lock()
        second = self.project.run(*self.command, ok=False)
        different = self.different_files() if second.status == 0 else [second.all]
        return Trial(self.stage, number.name, moment, had_ended, RESUMED in second.err, different, output)

    def trials(self, kills: int, seed: int) -> Iterator[Trial]:
        """Kill the stage at moments between its beginning and its end."""
        start = time.monotonic()
        self.project.run(*self.command)
        seconds, rng = time.monotonic() - start, random.Random(f"{self.stage} {seed}")
        assert self.different_files() == [], "two undisturbed runs differ"
        for number in range(kills):
            yield self.kill_once(rng.uniform(0.05, seconds), SIGNALS[number % len(SIGNALS)])


def wait_for_group(group: int) -> None:
    """Wait until no process of `group` is alive."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes of group {group} are still alive")


def make_stages(folder: Path) -> list[DisturbedStage]:
    """Run a small world, and clone it once for each stage."""
    world = copy_project(folder / "world", ("mix",), zero_shot=())
    world.set_params(LONGER)
    world.commit("Longer")
    world.dvc("repro", *STAGES)
    world.commit("Run")
    clones = [world.clone(folder / stage.partition("@")[0]) for stage in STAGES]
    return [DisturbedStage(clone, stage) for clone, stage in zip(clones, STAGES, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trials: list[Trial] = []
        kills = options.kills // len(STAGES)
        with suppress(KeyboardInterrupt):  # prints what was tried so far
            for stage in make_stages(Path(folder)):
                for trial in tqdm(stage.trials(kills, options.seed), total=kills, desc=stage.stage):
                    trials.append(trial)
    failures = [trial for trial in trials if trial.different_files]
    for trial in failures:
        files = ", ".join(trial.different_files)
        print(f"{trial.stage}: {trial.signal} after {trial.moment:.2f} s: {files}\n{trial.output}")
    resumed, ended = sum(trial.has_resumed for trial in trials), sum(trial.had_ended for trial in trials)
    print(f"{resumed} went on from a state, {ended} had ended before they were killed")
    print(f"survived {len(trials) - len(failures)}/{len(trials)} tried")


if __name__ == "__main__":
    main()
