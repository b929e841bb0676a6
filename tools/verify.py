"""`make verify`: compare the numbers of a run with the committed ones.

Before that, `dvc status` must find nothing: every output is there, made from the code and the values that are here.

1. What no model influences must be equal: in dvc.lock the hashes of images, splits, references and document
   frequencies; leakage, scores of the yardsticks.
2. Recipes hold hashes of checkpoints, and another instruction set trains other last digits. So their hashes are
   compared only if all checkpoints' hashes agree; otherwise their inputs in dvc.lock are: parameters and code.
3. Scores of trained rows may differ by `TOLERANCES`. Results of trainings are not compared: a best epoch may change.
4. A stage or an output that only one of the two dvc.lock names is a difference.
5. On x86-64 with `machine.instructions: avx2` (the default), each machine computes the same bytes
   (base/instructions.py): no number and no hash of an output may differ, images included.
6. Elsewhere (arm64, a GPU, `native`), figures and the page, drawn from these numbers, are not compared. No output holds
   times.
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
Files = Mapping[str, str]  # text by path

# Another instruction set changes the seventh digit of the first loss, and pre-training turns that into another model.
# Two whole runs in float32 with `native`, one of them with ATEN_CPU_CAPABILITY=default, differed from `avx2` by up to
# 21.0 points of CIDEr, 3.2 of BLEU, 3.8 of METEOR, 2.7 of ROUGE-L, 1.6 words and 3.5 points of the gain, over 24 rows.
# The tolerances are 1.5 to 2 times that. Points are scores times 100.
TOLERANCES = {"CIDEr": 35.0, "BLEU-4": 5.0, "METEOR": 6.0, "ROUGE-L": 5.0, "length": 2.5, "SCST gain %": 7.0}
CIDER_FILE = "metrics/CIDEr.json"  # {row: value}
SCORE_FILES = (CIDER_FILE, "metrics/scores.json")  # the second: {measure: {row: value}}
YARDSTICKS = ("constant-caption", "human-caption", "nearest-image")  # no model, only a rounded last digit
ROUNDING = 0.011
STAGES_WITHOUT_MODEL = ("download", "split", "caption-stats")
CHECKPOINT_STAGE = "checkpoint@"
IMAGE_SUFFIXES = (".png", ".svg")
PRESENT = "present"  # instead of a hash that may differ
COMPARED_PATHS = ("dvc.lock", "metrics", "params.yaml")
X86_64 = ("x86_64", "AMD64")  # as Python names it


@dataclass(frozen=True)
class Mismatch:
    """A value that differs by more than it may; None if it is missing."""

    key: Key
    committed: Any
    computed: Any
    tolerance: float

    def row(self) -> tuple[str, ...]:
        texts = ["missing" if value is None else str(value)[:24] for value in (self.committed, self.computed)]
        has_distance = are_numbers(self.committed, self.computed)
        distance = f"{abs(self.computed - self.committed):.4g}" if has_distance else ""
        return f"{self.key[0]}: {'.'.join(self.key[1:])}", *texts, distance, f"{self.tolerance:g}"


def are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def list_leaves(content: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    """Yield each value of nested maps with its keys; a list is one value."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from list_leaves(value, (*key, str(name)))
    else:
        yield key, content


def choose_tolerance(key: Key) -> float:
    """Return how far a number may be from the committed one."""
    if key[0] in SCORE_FILES and len(key) > 1:
        measure = "CIDEr" if key[0] == CIDER_FILE else key[1]
        return ROUNDING if key[-1] in YARDSTICKS else TOLERANCES.get(measure, 0.0)
    return 0.0


def list_mismatches(committed: Mapping[Key, Any], computed: Mapping[Key, Any], exact: bool) -> list[Mismatch]:
    """List values that are missing, added, or too far apart, by key; with `exact`, no tolerance applies."""
    results = []
    for key in sorted(committed.keys() | computed.keys()):
        limit = 0.0 if exact else choose_tolerance(key)
        before: Any = committed.get(key)
        after: Any = computed.get(key)
        is_near = limit and are_numbers(before, after) and math.isfinite(after) and abs(before - after) <= limit
        if before != after and not is_near:
            results.append(Mismatch(key, before, after, limit))
    return results


def lock_values(lock: Mapping[str, Any], checkpoints_agree: bool, exact: bool = False) -> dict[Key, Any]:
    """Return what must be equal in dvc.lock: names of stages and outputs, and hashes (`exact`: all of them)."""
    stages = lock.get("stages", {})
    values: dict[Key, Any] = {("dvc.lock", name): PRESENT for name in stages}
    for name, stage in stages.items():
        for out in stage.get("outs", ()):
            without_model = name in STAGES_WITHOUT_MODEL and not out["path"].endswith(IMAGE_SUFFIXES)
            must_agree = exact or without_model or (name == "recipes" and checkpoints_agree)
            values["dvc.lock", name, out["path"]] = out.get("md5") if must_agree else PRESENT
    if checkpoints_agree:
        return values
    recipes = stages.get("recipes", {})
    code = {dep["path"]: dep.get("md5") for dep in recipes.get("deps", ()) if dep["path"].endswith(".py")}
    return values | dict(list_leaves({"params": recipes.get("params", {}), "deps": code}, ("dvc.lock", "recipes")))


def checkpoint_hashes(lock: Mapping[str, Any]) -> dict[str, str]:
    """Return the hash of each checkpoint by its path."""
    stages = [stage for name, stage in lock.get("stages", {}).items() if name.startswith(CHECKPOINT_STAGE)]
    return {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", ())}


def compared_values(files: Files, checkpoints_agree: bool, exact: bool = False) -> dict[Key, Any]:
    """Return each compared value of dvc.lock and metrics/*.json."""
    metrics = {path: _parse_json(path, text) for path, text in files.items() if path.endswith(".json")}
    in_metrics = {key: value for path, content in metrics.items() for key, value in list_leaves(content, (path,))}
    return lock_values(_parse_lock(files["dvc.lock"]), checkpoints_agree, exact) | in_metrics


def _parse_yaml(name: str, text: str) -> Any:
    try:
        return YAML(typ="safe").load(text) or {}
    except YAMLError:
        raise UserError(f"{name}: not YAML; settle the conflict of a merge, or `git checkout {name}`") from None


def _parse_lock(text: str) -> Any:
    """Return dvc.lock. Raises `UserError` if it is not complete, as after a kill."""
    try:
        lock = COMPILED_LOCKFILE_SCHEMA(_parse_yaml("dvc.lock", text))
    except Invalid:
        lock = None
    if lock is None or not text.endswith("\n"):
        raise UserError("dvc.lock: damaged or incomplete; `git checkout dvc.lock`, or run `dvc repro`")
    return lock


def _parse_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{name}: not JSON, or incomplete; `git checkout {name}`, or run `dvc repro`") from None


def format_table(results: list[Mismatch]) -> str:
    """Format the differences in columns, a line each."""
    rows = [("what", "committed", "here", "differs by", "allowed"), *(difference.row() for difference in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def read_committed() -> dict[str, str]:
    """Return the compared files of HEAD. Raises `UserError` if there is no HEAD."""
    names = _git("ls-tree", "-r", "--name-only", "HEAD", *COMPARED_PATHS).splitlines()
    return {name: _git("show", f"HEAD:{name}") for name in names if not name.endswith(IMAGE_SUFFIXES)}


def _git(*arguments: str) -> str:
    process = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", errors="replace")
    if process.returncode:
        raise UserError(f"git {arguments[0]}: {process.stderr.strip()}; run this in a checkout of the project")
    return process.stdout


def read_computed() -> dict[str, str]:
    """Return the compared files of the working tree."""
    paths = [path for name in COMPARED_PATHS for path in (Path(name), *Path(name).rglob("*"))]
    files = [path for path in paths if path.is_file() and path.suffix not in IMAGE_SUFFIXES]
    return {path.as_posix(): path.read_text(encoding="utf-8", errors="replace") for path in files}


def require_reproduced() -> None:
    """Raise `UserError` unless every output is there, made from the code and the values that are here."""
    process = subprocess.run(["dvc", "status", "--json"], capture_output=True, encoding="utf-8", errors="replace")
    if process.returncode:
        raise UserError(f"dvc status: {process.stderr.strip()}; run this in a checkout of the project")
    if changed := sorted(json.loads(process.stdout)):
        names = ", ".join(changed[:3]) + (", …" if len(changed) > 3 else "")
        raise UserError(f"{len(changed)} stage(s) have not run with what is here ({names}); run `make repro`")


def is_exact(params: Any, architecture: str) -> bool:
    """Return whether each machine must compute the same bytes: on x86-64's CPUs with `machine.instructions: avx2`."""
    machine = params.get("profiles", {}).get(params["profile"], {}).get("machine", {})
    return machine.get("instructions") == "avx2" and machine.get("device") == "cpu" and architecture in X86_64


@stage_main
def main() -> None:
    committed, computed = read_committed(), read_computed()
    for location, files in (("HEAD", committed), ("the working tree", computed)):
        if "dvc.lock" not in files:
            raise UserError(f"dvc.lock: not in {location}; `make repro` writes it, then `git commit` it")
    params, old_params = (_parse_yaml("params.yaml", files.pop("params.yaml", "")) for files in (computed, committed))
    if params != old_params:
        remedy = "`git checkout params.yaml`, or commit it with its results"
        raise UserError(f"params.yaml: differs from HEAD, so the numbers must; {remedy}")
    require_reproduced()
    exact = is_exact(params, platform.machine())
    mode = "every byte is compared" if exact else "numbers are compared, with tolerances; bytes may differ here"
    print(f"{platform.machine()}: {mode}", file=sys.stderr)
    hashes = [checkpoint_hashes(_parse_lock(files["dvc.lock"])) for files in (committed, computed)]
    checkpoints_agree = hashes[0] == hashes[1]
    before, after = (compared_values(files, checkpoints_agree, exact) for files in (committed, computed))
    if results := list_mismatches(before, after, exact):
        print(format_table(results))
        print(f"{len(results)} value(s) differ from the committed ones", file=sys.stderr)
        sys.exit(1)
    if committed == computed:
        print("identical bytes: dvc.lock and metrics are the committed ones")
    elif exact:
        print("every output is the committed one; dvc.lock differs in what they were made from")
    else:
        checkpoints = "are identical" if checkpoints_agree else "differ, as on another instruction set"
        print(f"within tolerance of the committed numbers; checkpoints {checkpoints}")


if __name__ == "__main__":
    main()
