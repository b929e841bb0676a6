"""Kill trainings at random moments, go on, compare bytes: `python -m tools.kills --kills 100` prints survived/tried.

Each trial takes a stage's record and outputs away, runs it with DVC, sends a signal to all of its processes at a random
moment, puts a dvc.lock that was cut short back, and gives the same command again. It has survived where outputs and
dvc.lock are those of an undisturbed run.
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
LONGER: dict[str, Any] = {  # many steps, each of them kept
    "resume.every": 0.0,
    "finetune.epochs": 8,
    "profiles.miniature.scst.images": 64,
    "profiles.miniature.scst.epochs": 3,
    "scst.baselines": ["greedy"],
}
AGAIN = "going on from step"


@dataclass(frozen=True)
class Trial:
    """What became of one kill."""

    stage: str
    signal: str
    moment: float  # seconds after the command was given
    ended: bool  # before it could be killed
    resumed: bool
    torn: bool  # dvc.lock, in which DVC was writing
    differing: list[str]  # files that are not those of an undisturbed run
    said: str  # by the run that was killed

    @property
    def survived(self) -> bool:
        return not self.differing


class Disturbed:
    """A project in which one stage is disturbed again and again."""

    def __init__(self, project: Project, stage: str) -> None:
        self.project, self.stage = project, stage
        self.command = ["dvc", "repro", "--single-item", "--no-run-cache", stage]
        self.lock = project.read("dvc.lock")
        entry = YAML(typ="safe").load(self.lock)["stages"][stage]
        self.outs = [out["path"] for out in entry["outs"]]
        self.undisturbed = self.outputs()
        self.unrecord()

    def outputs(self) -> dict[str, Any]:
        """The stage's outputs, and what dvc.lock holds (in whatever order: a record taken out comes back last)."""
        every = self.project.outputs()
        lock = self.project.yaml("dvc.lock")
        return {name: content for name, content in every.items() if within(name, self.outs)} | {"dvc.lock": lock}

    def check(self) -> list[str]:
        """Files that are not those of an undisturbed run."""
        now = self.outputs()
        return sorted(
            name for name in now.keys() | self.undisturbed.keys() if now.get(name) != self.undisturbed.get(name)
        )

    def unrecord(self) -> None:
        """Take the stage's record out of dvc.lock, and what it has left to go on from."""
        shutil.rmtree(self.project.folder / ".cache/resume", ignore_errors=True)
        yaml = YAML()
        yaml.width = 1000
        content = yaml.load(self.lock)
        del content["stages"][self.stage]
        with (self.project.folder / "dvc.lock").open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
        self.unrecorded = self.project.read("dvc.lock")

    def start(self, output: Any) -> subprocess.Popen[str]:
        """The stage, under way in a process group of its own; what it says goes to `output`."""
        return subprocess.Popen(
            self.command, cwd=self.project.folder, env=self.project.environment(), start_new_session=True, text=True,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def mend(self) -> bool:
        """Put a dvc.lock that was cut short back, as `git checkout dvc.lock` does; whether that was needed."""
        yaml = YAML(typ="safe")
        with suppress(YAMLError):
            if self.project.yaml("dvc.lock") in (yaml.load(self.unrecorded), self.undisturbed["dvc.lock"]):
                return False
        (self.project.folder / "dvc.lock").write_text(self.unrecorded, encoding="utf-8")
        return True


class Killer(Disturbed):
    """A stage that is killed at moments between its beginning and its end."""

    def __init__(self, project: Project, stage: str) -> None:
        super().__init__(project, stage)
        begun = time.monotonic()
        project.run(*self.command)
        self.seconds = time.monotonic() - begun
        assert self.check() == [], "an undisturbed run is not its own equal"

    def trial(self, moment: float, number: signal.Signals) -> Trial:
        """Kill the stage `moment` seconds after it is begun, and go on."""
        self.unrecord()
        first = self.start(subprocess.PIPE)
        try:
            said, ended = first.communicate(timeout=moment)[0], True
        except subprocess.TimeoutExpired:
            ended = False
            os.killpg(first.pid, number)
            said = first.communicate()[0]
        wait_for_group(first.pid)
        torn = self.mend()
        again = self.project.run(*self.command, ok=False)
        differing = self.check() if again.status == 0 else [again.all]
        return Trial(self.stage, number.name, moment, ended, AGAIN in again.err, torn, differing, said)

    def trials(self, kills: int, seed: int) -> Iterator[Trial]:
        """So many, at moments from nothing to the end."""
        rng = random.Random(f"{self.stage} {seed}")
        for number in range(kills):
            yield self.trial(rng.uniform(0.05, self.seconds), SIGNALS[number % len(SIGNALS)])


def wait_for_group(group: int) -> None:
    """Until no process of `group` is left."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes of group {group} live on")


def killers(folder: Path) -> list[Killer]:
    """A small world that has been run, and a clone of it a stage."""
    world = copy_project(folder / "world", ("mix",), zero_shot=())
    world.set_params(LONGER)
    world.commit("Longer")
    world.dvc("repro", *STAGES)
    world.commit("Run")
    clones = [world.clone(folder / stage.partition("@")[0], checkout=False) for stage in STAGES]
    for clone in clones:
        clone.dvc("checkout", "--quiet", *world.yaml("dvc.lock")["stages"])  # no more than was run
    return [Killer(clone, stage) for clone, stage in zip(clones, STAGES, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for killer in killers(Path(folder)):
            each = options.kills // len(STAGES)
            found += list(tqdm(killer.trials(each, options.seed), total=each, desc=killer.stage))
    for one in found:
        if not one.survived:
            print(f"{one.stage}: {one.signal} after {one.moment:.2f} s: {', '.join(one.differing)}\n{one.said}")
    resumed, survived = sum(one.resumed for one in found), sum(one.survived for one in found)
    print(f"{resumed} went on from a state, {sum(one.ended for one in found)} had ended before they were killed")
    print(f"{sum(one.torn for one in found)} hit DVC while it wrote dvc.lock")
    print(f"survived {survived}/{len(found)} tried")


if __name__ == "__main__":
    main()
