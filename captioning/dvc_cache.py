"""DVC's cache: what nothing needs in it, as `dvc gc` says, and what it was, as the run cache remembers."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from captioning.lockfile import LOCK, TORN, is_whole

OBJECTS, RUNS = Path(".dvc/cache"), Path(".dvc/cache/runs")
UNNEEDED = ("dvc", "gc", "--workspace", "--all-commits", "--all-experiments")  # branches, tags and remotes are commits
WORKTREE = re.compile(r"^worktree (.+)$", re.MULTILINE)
OBJECT = re.compile(r"^Removing (.+)$", re.MULTILINE)


class Refusal(Exception):
    """Why nothing is done, in a line."""


def unused() -> list[Path]:
    """The files of DVC's cache that nothing needs. Raises `Refusal` where DVC does not say, or may not know."""
    folder = Path(dvc("dvc", "cache", "dir").strip())
    if folder.resolve() != OBJECTS.resolve() or OBJECTS.is_symlink():
        print(f"DVC's cache, {folder}, is not this project's alone and is left as it is", file=sys.stderr)
        return []
    refuse_torn_lock()
    found = sorted(Path(line) for line in OBJECT.findall(dvc(*UNNEEDED, "--dry"))) if folder.is_dir() else []
    if found:
        refuse_beside_worktrees()
        refuse_unrecorded()
    return found


def refuse_torn_lock() -> None:
    """Raises `Refusal` where DVC would not take dvc.lock."""
    if LOCK.is_file() and not is_whole(LOCK.read_bytes()):
        raise Refusal(f"{LOCK} is cut short, or a merge is not settled in it; settle that, or run `make repro`")


def refuse_beside_worktrees() -> None:
    """Raises `Refusal` where git has other worktrees: one that uses this cache may need what no commit names."""
    listed = WORKTREE.findall(said("git", "worktree", "list", "--porcelain"))
    if len(trees := [path for path in listed if Path(path).is_dir()]) > 1:
        remedy = "commit what they hold, `git worktree remove` them, then give the command again"
        raise Refusal(f"git has {len(trees)} worktrees here, and another may use this cache; {remedy}")


def refuse_unrecorded() -> None:
    """Raises `Refusal` where results may be named by DVC's run cache alone, since dvc.lock lost their record."""
    remedy = "`dvc repro` takes them back; commit dvc.lock, then give the command again"
    if lost := unrecorded():
        raise Refusal(f"{lost[0]} is there and dvc.lock does not record it; {remedy}")
    if TORN.is_file() and not up_to_date():
        raise Refusal(f"results since the last commit may stand in {TORN} alone; {remedy} (`make clean` gives them up)")


def unrecorded() -> list[str]:
    """Outputs that stand here and that DVC would have in its cache, without a record in dvc.lock."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        outs = list(Repo().index.outs)
        return sorted(str(out) for out in outs if out.use_cache and not out.hash_info and out.exists)
    except DvcException as error:
        raise Refusal(" ".join(f"dvc: {error}".split())) from None


def up_to_date() -> bool:
    """Whether `dvc repro` would have nothing to do."""
    return subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet"], capture_output=True).returncode == 0


def dvc(*command: str) -> str:
    """What DVC says. Raises `Refusal` where it fails."""
    return said(sys.executable, "-m", *command)


def said(*command: str) -> str:
    """What a command says. Raises `Refusal` with its error's first line where it fails."""
    name = " ".join(command).removeprefix(f"{sys.executable} -m ")
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    except OSError as error:
        raise Refusal(f"{name}: {error.strerror}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        told = next((line for line in lines if line.startswith("ERROR: ")), lines[-1])
        raise Refusal(f"{name}: {told.removeprefix('ERROR: ')}")
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
