"""`make verify`: what came out here against what is committed, number by number.

Compared are the numbers a run leaves in git, each with the difference it may have:

1. What no model touches is equal, or something is wrong: the hashes of images, splits, references and document
   frequencies in dvc.lock, caption statistics, leakage, the counts of parameters, the yardsticks.
2. Recipes hold the hashes of checkpoints, and another instruction set trains other last digits. So their own hash is
   compared only where all checkpoints' hashes agree; else what they are made from: parameters and code, as in dvc.lock.
3. What was trained may differ by `TOLERANCES`. A best epoch or step is not compared: two as good as each other swap.
4. A stage, or an output of one, that only one of the two dvc.lock names is a difference.
5. On x86-64, where `machine.instructions` is `avx2`, as is the default, every machine computes the same bytes
   (compute/instructions.py): nothing may differ, neither a number nor the hash of any output, pictures included.
6. Elsewhere (arm64, a GPU, `native`) pictures and the page, drawn from these numbers, are not compared. No output
   holds times.
"""

import json
import math
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from voluptuous import Invalid

from captioning.base.errors import UserError
from captioning.runtime.stage import stage_main

Key = tuple[str, ...]  # a file and the keys within it

# Same machine: identical bytes. Another instruction set differs in the seventh digit of the first loss, and
# pre-training carries that to another model. How far was measured with two runs of the same parameters that differ in
# nothing but the rounding of attention (fused kernel, plain products): up to 30.5 points of CIDEr, 9.9 of BLEU, 2.9 of
# METEOR, 11.6 of ROUGE-L, 1.4 words, shares 0.18 of distinct, 0.13 of colour in a row that was trained, 0.45 without.
# Allowed is about half as much again, of length rather more. Not measured, and set by judgement, are the shares ended,
# scene and count, the loss and the gain; the CIDEr of validation is allowed what that of the test images is. Points are
# those of scores times 100; shares and losses are absolute.
TOLERANCES = {
    "CIDEr": 45.0,
    "BLEU-1": 15.0, "BLEU-2": 15.0, "BLEU-3": 15.0, "BLEU-4": 15.0, "METEOR": 4.5, "ROUGE-L": 18.0,
    "length": 2.5,  # words; SCST moves it most
    "ended": 0.12, "distinct": 0.28, "scene": 0.2, "colour": 0.2, "count": 0.2,
    "validation_loss": 0.15,
    "validation_cider": 45.0, "start_validation_cider": 45.0,
    "gain_percent": 10.0, "gain_percent_low": 10.0, "gain_percent_high": 10.0,  # percent of the start's score
}  # fmt: skip
UNTRAINED_NAMING = 0.7  # scene and colour of a zero-shot row: whether a checkpoint names them unasked is luck
YARDSTICKS = ("constant-caption", "human-caption", "nearest-image")  # no model: a rounded last digit
ROUNDING = 0.011
NOT_COMPARED = ("best_epoch", "best_step")
NO_MODEL = ("download", "split", "caption-stats")
CHECKPOINTS = "checkpoint@"
PICTURES = (".png", ".svg")
RECORDED = "recorded"  # in place of a hash that may differ
COMPARED = ("dvc.lock", "metrics", "params.yaml")
X86_64 = ("x86_64", "AMD64")  # as Python names it


@dataclass(frozen=True)
class Difference:
    """One value that is not what it should be; None: it is not there."""

    key: Key
    committed: Any
    found: Any
    allowed: float

    def row(self) -> tuple[str, str, str, str, str]:
        by = f"{abs(self.found - self.committed):.4g}" if _numbers(self.committed, self.found) else ""
        what = f"{self.key[0]}: {'.'.join(self.key[1:])}"
        return what, _shown(self.committed), _shown(self.found), by, f"{self.allowed:g}"


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _shown(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def leaves(content: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    """Every value of nested mappings with the way to it; a list is one value."""
    if not isinstance(content, Mapping):
        yield key, content
        return
    for name, value in content.items():
        yield from leaves(value, (*key, str(name)))


def tolerance(key: Key) -> float | None:
    """How far a number may be from the committed one; 0: not at all; None: it is not compared."""
    if key[-1] in NOT_COMPARED:
        return None
    if key[0] == "metrics/scores.json" and len(key) > 1:
        measure = key[-1].removesuffix(" caption_1").removesuffix(" low").removesuffix(" high")
        if key[1].startswith("zero-shot") and measure in ("scene", "colour"):
            return UNTRAINED_NAMING
        return ROUNDING if key[1] in YARDSTICKS else TOLERANCES.get(measure, 0.0)
    return TOLERANCES.get(key[-1], 0.0) if key[0].startswith("metrics/training/") else 0.0


def differences(committed: Mapping[Key, Any], found: Mapping[Key, Any], exact: bool = False) -> list[Difference]:
    """What is missing, too many, or further apart than it may be (`exact`: at all); sorted by key."""
    wrong = []
    for key in sorted(committed.keys() | found.keys()):
        allowed, one, other = 0.0 if exact else tolerance(key), committed.get(key), found.get(key)
        if allowed is not None and not _agree(one, other, allowed):
            wrong.append(Difference(key, one, other, allowed))
    return wrong


def _agree(one: Any, other: Any, allowed: float) -> bool:
    if _numbers(one, other) and allowed:
        return math.isfinite(other) and abs(one - other) <= allowed
    return bool(one == other)


def lock_values(lock: Mapping[str, Any], checkpoints_agree: bool, exact: bool = False) -> dict[Key, Any]:
    """What of dvc.lock must be equal: which outputs there are, hashes of what no model touches, and of recipes or what
    they are made from; `exact`: the hash of every output."""
    stages = lock.get("stages", {})
    values: dict[Key, Any] = {("dvc.lock", name): RECORDED for name in stages}
    for name, stage in stages.items():
        for out in stage.get("outs", ()):
            hashed = exact or _modelless(name, out["path"]) or (name == "recipes" and checkpoints_agree)
            values["dvc.lock", name, out["path"]] = out.get("md5") if hashed else RECORDED
    if checkpoints_agree:
        return values
    recipes = stages.get("recipes", {})
    code = {dep["path"]: dep.get("md5") for dep in recipes.get("deps", ()) if dep["path"].endswith(".py")}
    return values | dict(leaves({"params": recipes.get("params", {}), "deps": code}, ("dvc.lock", "recipes")))


def _modelless(stage: str, path: str) -> bool:
    return stage in NO_MODEL and not path.endswith(PICTURES)


def checkpoint_hashes(lock: Mapping[str, Any]) -> dict[str, str]:
    """The hash of every checkpoint, by its path."""
    stages = [stage for name, stage in lock.get("stages", {}).items() if name.startswith(CHECKPOINTS)]
    return {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", ())}


def values(files: Mapping[str, str], agree: bool, exact: bool = False) -> dict[Key, Any]:
    """Every value of `files` (dvc.lock and metrics/*.json, by path) that is compared."""
    metrics = {path: _json(path, text) for path, text in files.items() if path.endswith(".json")}
    in_metrics = {key: value for path, content in metrics.items() for key, value in leaves(content, (path,))}
    return lock_values(_yaml("dvc.lock", files["dvc.lock"]), agree, exact) | in_metrics


def _yaml(name: str, text: str) -> Any:
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        raise UserError(f"{name}: no YAML; settle the conflict of a merge, or `git checkout {name}`") from None


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{name}: no JSON, or cut short; `git checkout {name}`, or let `dvc repro` write it") from None


def table(wrong: list[Difference]) -> str:
    """The differences, one a line, in columns."""
    rows = [("what", "committed", "here", "differs by", "allowed"), *(one.row() for one in wrong)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def committed_files(*paths: str) -> dict[str, str]:
    """Text of the files of HEAD under `paths`, by path. Raises `UserError` where there is no HEAD."""
    listed = _git("ls-tree", "-r", "--name-only", "HEAD", *paths).splitlines()
    return {path: _git("show", f"HEAD:{path}") for path in listed if not path.endswith(PICTURES)}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {done.stderr.strip()}; run this in a checkout of the project")
    return done.stdout


def found_files(*paths: str) -> dict[str, str]:
    """Text of the files of the working tree under `paths`, by path."""
    files = (path for name in paths for path in (Path(name), *Path(name).rglob("*")) if path.is_file())
    kept = (path for path in files if path.suffix not in PICTURES)
    return {path.as_posix(): path.read_text(encoding="utf-8", errors="replace") for path in kept}


def check_lock(where: str, files: Mapping[str, str]) -> None:
    """Raises `UserError` where there is no dvc.lock, or none that DVC would take."""
    if "dvc.lock" not in files:
        raise UserError(f"dvc.lock: not in {where}; `make repro` writes it, `git commit` keeps it")
    text = files["dvc.lock"]
    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
        whole = text.endswith("\n")
    except (YAMLError, Invalid):
        whole = False
    if not whole:
        raise UserError(
            f"dvc.lock: torn in {where}, by a merge or a kill; settle the conflict, or `git checkout dvc.lock`"
        )


def limited(params: Any, architecture: str) -> bool:
    """Whether every machine must come to the same bytes: on x86-64's CPUs, under `machine.instructions: avx2`."""
    machine = params.get("profiles", {}).get(params["profile"], {}).get("machine", {})
    return machine.get("instructions") == "avx2" and machine.get("device") == "cpu" and architecture in X86_64


@stage_main
def main() -> None:
    before, now = committed_files(*COMPARED), found_files(*COMPARED)
    check_lock("HEAD", before)
    check_lock("the working tree", now)
    params, committed = (_yaml("params.yaml", files.pop("params.yaml", "")) for files in (now, before))
    if params != committed:
        remedy = "`git checkout params.yaml`, or commit it with its results"
        raise UserError(f"params.yaml: differs from HEAD, so the numbers must; {remedy}")
    exact = limited(params, platform.machine())
    kind = "every byte is compared" if exact else "numbers are compared, with tolerances; bytes are not the same here"
    print(f"{platform.machine()}: {kind}", file=sys.stderr)
    hashes = [checkpoint_hashes(_yaml("dvc.lock", files["dvc.lock"])) for files in (before, now)]
    agree = hashes[0] == hashes[1]
    wrong = differences(values(before, agree, exact), values(now, agree, exact), exact)
    if wrong:
        print(table(wrong))
        print(f"{len(wrong)} value(s) are not what is committed", file=sys.stderr)
        sys.exit(1)
    checkpoints = "are identical" if agree else "differ, as on another instruction set"
    near = f"within tolerance of what is committed; checkpoints {checkpoints}"
    if exact:
        near = "every output is what is committed; dvc.lock differs in what they were made from"
    print("identical bytes: dvc.lock and metrics are what is committed" if before == now else near)


if __name__ == "__main__":
    main()
