"""DVC's cache: what nothing needs in it, as `dvc gc` says, and what it was, as the run cache remembers."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

OBJECTS, RUNS = Path(".dvc/cache"), Path(".dvc/cache/runs")
UNNEEDED = ("dvc", "gc", "--workspace", "--all-commits", "--all-experiments")  # branches, tags and remotes are commits
OBJECT = re.compile(r"^Removing (.+)$", re.MULTILINE)


class Refusal(Exception):
    """Why nothing is done, in a line."""


def unused() -> list[Path]:
    """The files of DVC's cache that nothing needs. Raises `Refusal` where DVC does not say."""
    folder = Path(dvc("dvc", "cache", "dir").strip())
    if folder.resolve() != OBJECTS.resolve() or OBJECTS.is_symlink():
        print(f"DVC's cache, {folder}, is not this project's alone and is left as it is", file=sys.stderr)
        return []
    return sorted(Path(line) for line in OBJECT.findall(dvc(*UNNEEDED, "--dry"))) if folder.is_dir() else []


def dvc(*command: str) -> str:
    """What DVC says. Raises `Refusal` with its error's first line where it fails."""
    try:
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, encoding="utf-8")
    except OSError as error:
        raise Refusal(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        said = next((line for line in lines if line.startswith("ERROR: ")), lines[-1])
        raise Refusal(f"{' '.join(command)}: {said.removeprefix('ERROR: ')}")
    return done.stdout


def identifier(path: Path) -> str:
    """An object's hash; its first two digits name its folder."""
    return path.parent.name + path.name


def outputs(objects: Sequence[Path]) -> dict[str, str]:
    """The output's path by hash, of those that runs wrote; a folder's list tells the files in it."""
    from ruamel.yaml import YAML

    known: dict[str, str] = {}
    for entry in RUNS.rglob("*"):
        if entry.is_file():
            run = YAML(typ="safe").load(entry)
            known |= {out["md5"]: out["path"] for out in run.get("outs", ()) if "md5" in out}
    for path in objects:
        if (folder := known.get(identifier(path))) and path.suffix == ".dir":
            listed = json.loads(path.read_text(encoding="utf-8"))
            known |= {one["md5"]: folder for one in listed if one["md5"] not in known}
    return known
