"""Read what a stage declares in dvc.yaml, and detect whether it changed while the stage worked.

DVC hashes dependencies after a command has ended, so an edit in the meantime would make dvc.lock wrong. A stage
therefore notes its inputs before it imports its code, and compares them whenever it saves a state and at its end. Their
hash, with those of processor and packages, is the run's fingerprint (runtime/resume.py). This module parses dvc.yaml
itself, because importing DVC takes seconds.
"""

import hashlib
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from secrets import token_hex
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.base.instructions import AVX2, THREADS
from captioning.base.quoting import shorten
from captioning.base.yaml_file import read_yaml

PIPELINE, PARAMS, REQUIREMENTS = Path("dvc.yaml"), Path("params.yaml"), Path("requirements.txt")
CHECKED = Path("data/checked.txt")  # the profile that `check`, DVC's first stage, accepted
FINGERPRINT = "STAGE_FINGERPRINT"  # environment variable: the processes of one stage share it
IGNORED = ("__pycache__", "*.pyc", "*.partial", ".ipynb_checkpoints", ".DS_Store", "*~", "*.swp")  # as in .dvcignore
DVC_STAGE = "DVC_STAGE"  # environment variable that DVC sets
BY_HAND = "by-hand"  # instead of a stage's name
REFERENCE = re.compile(r"\$\{([^}]+)\}")

noted_inputs: list["Inputs"] = []  # of this process, once `begin` has been called


@dataclass(frozen=True)
class DeclaredStage:
    """A stage of dvc.yaml, with every `${…}` replaced: its paths, and its keys of params.yaml."""

    name: str
    deps: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """The inputs of a stage when it started."""

    stage: DeclaredStage
    paths: list[Path]  # files and folders
    stats: dict[str, tuple[int, ...]]  # size, time of the last change and inode of each file
    values: dict[str, Any]  # of the declared keys of params.yaml
    params: dict[Any, Any] | None  # all of params.yaml; None: malformed
    parent: int = field(default_factory=os.getppid)  # the process that started this one

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that the stage's outputs depend on."""
        hashes = {name: sha256(Path(name)) for name in self.stats}
        limits = [os.environ.get(name) for name in (*AVX2, *THREADS)]
        machine = [describe_processor(), limits, sys.version, installed_versions()]
        return hashlib.sha256(repr([self.stage.name, hashes, self.values, *machine]).encode()).hexdigest()

    def list_changed(self) -> list[str]:
        """List the files and parameters that were edited since, even if undone: the stage may have read the edit."""
        stats = _list_stats(self.paths)
        files = sorted(name for name in stats.keys() | self.stats.keys() if stats.get(name) != self.stats.get(name))
        values = _select(read_yaml(PARAMS), self.stage.params) if self.values else {}
        return files + [f"{PARAMS} ({key})" for key, value in self.values.items() if values.get(key) != value]


def begin(command: Sequence[str]) -> None:
    """Note the inputs of the stage with this command (without the program), and set its fingerprint if none is set.
    Raises `UserError` if dvc.yaml or the profile changed after DVC had read it."""
    params = None
    with suppress(UserError):  # DVC, or the code that reads the file later, reports it
        params = read_yaml(PARAMS)
    stage = _identify_stage(command, params)
    _require_checked_profile(stage, params)
    paths = [Path(dep) for dep in stage.deps]
    inputs = Inputs(stage, paths, _list_stats(paths), _select(params, stage.params), params)
    noted_inputs.append(inputs)
    if FINGERPRINT not in os.environ:
        key = token_hex(8) if stage.name == BY_HAND else inputs.fingerprint()[:16]
        os.environ[FINGERPRINT] = f"{stage.name}/{key}"


def params_at_start() -> dict[Any, Any] | None:
    """Return what params.yaml held when this stage started, so that a later edit does not reach it."""
    return next((inputs.params for inputs in noted_inputs), None)


def watch(folder: Path) -> None:
    """Add a folder that dvc.yaml cannot name to the inputs: the checkpoint that a recipe names."""
    for inputs in noted_inputs:
        inputs.paths.append(folder)
        inputs.stats.update(_list_stats([folder]))


def require_unchanged_inputs() -> None:
    """Raise `UserError` if an input changed since the stage started, or if the DVC that started it has ended."""
    stage = os.environ.get(DVC_STAGE)
    if stage and any(inputs.parent != os.getppid() for inputs in noted_inputs):  # another DVC may write the outputs
        raise UserError(f"{stage}: the process that started this stage has ended; run `dvc repro` again")
    if changed := [name for inputs in noted_inputs for name in inputs.list_changed()]:
        remedy = "run `dvc repro` again, with or without the edit"
        raise UserError(f"{', '.join(changed)}: changed while this stage worked, so its outputs are invalid; {remedy}")


def installed_versions() -> dict[str, str]:
    """Return the installed version of each package that requirements.txt pins."""
    versions = {}
    for pin in REQUIREMENTS.read_text(encoding="utf-8").split():
        name = pin.partition("==")[0]
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def describe_processor() -> str:
    """Return the processor's instruction sets, since floating-point results depend on them."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else [platform.processor()]
    return next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])


def find_declared_stage(command: Sequence[str], params: dict[Any, Any] | None = None) -> DeclaredStage | None:
    """Return the stage of dvc.yaml with this command (without the program), or None."""
    stages = YAML(typ="safe").load(PIPELINE)["stages"]
    for name, body in _expand(stages, read_yaml(PARAMS) if params is None else params):
        if shlex.split(body["cmd"])[1:] == list(command):
            outs = [entry for kind in ("outs", "metrics", "plots") for entry in body.get(kind, ())]
            groups = body.get("deps", ()), body.get("params", ()), outs  # an entry may have options below it
            names = ([entry if isinstance(entry, str) else next(iter(entry)) for entry in group] for group in groups)
            return DeclaredStage(name, *map(tuple, names))
    return None


def _identify_stage(command: Sequence[str], params: dict[Any, Any] | None) -> DeclaredStage:
    try:
        stage = find_declared_stage(command, params)
    except (UserError, OSError, YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return DeclaredStage(BY_HAND)  # DVC or the stage `check` reports a malformed file
    if stage is None and DVC_STAGE in os.environ:
        fault = f"changed since `dvc repro` started, and no longer contains {os.environ[DVC_STAGE]}"
        raise UserError(f"{PARAMS} or {PIPELINE}: {fault}; run it again")
    return stage or DeclaredStage(BY_HAND)


def _require_checked_profile(stage: DeclaredStage, params: dict[Any, Any] | None) -> None:
    """Raise `UserError` if the profile changed since `check`: DVC records the parameters of that profile."""
    if DVC_STAGE not in os.environ or stage.name == "check" or params is None or not CHECKED.is_file():
        return
    if (checked := CHECKED.read_text(encoding="utf-8").strip()) != (profile := params.get("profile")):
        fault = f"profile is {shorten(profile)}, but the stage `check` ran with {checked}"
        raise UserError(f"{PARAMS}: {fault}; run `dvc repro` again, which starts with it")


def _expand(stages: dict[str, Any], params: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and body of each stage, and of each instance of a `foreach` over a map or of a `matrix`."""
    for name, body in stages.items():
        if "foreach" in body:
            for key, item in body["foreach"].items():
                yield f"{name}@{key}", _fill(body["do"], params | {"key": key, "item": item})
        elif "matrix" in body:
            axes = {axis: _look_up(reference[2:-1], params) for axis, reference in body["matrix"].items()}
            for values in product(*axes.values()):
                item = dict(zip(axes, values, strict=True))
                yield f"{name}@{'-'.join(map(str, values))}", _fill(body, params | {"item": item})
        else:
            yield name, _fill(body, params)


def _fill(body: Any, values: dict[str, Any]) -> Any:
    """Replace each `${key}` in `body` by the value of the key."""
    text = json.dumps(body, ensure_ascii=False)
    return json.loads(REFERENCE.sub(lambda match: json.dumps(str(_look_up(match[1], values)))[1:-1], text))


def _look_up(key: str, values: Any) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _select(params: Any, keys: Sequence[str]) -> dict[str, Any]:
    values = {}
    for key in keys:
        with suppress(KeyError, TypeError):
            values[key] = _look_up(key, params)
    return values


def _list_stats(paths: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Return size, time and inode of each file in `paths` or below them, except those that DVC ignores."""
    entries = sorted(entry for path in paths for entry in (path.rglob("*") if path.is_dir() else [path]))
    ignored = {entry for entry in entries for part in entry.parts for name in IGNORED if fnmatch(part, name)}
    stats = {str(entry): entry.stat() for entry in entries if entry not in ignored and entry.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}
