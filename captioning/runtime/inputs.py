"""What a stage declares in dvc.yaml, and whether it stayed as it was while the stage worked.

DVC hashes dependencies after a command ran: an edit in the meantime makes a lock that lies. So a stage's process notes
them first of all, before it imports the code that it runs (stages/__init__.py), and looks again whenever it keeps a
state to go on from, and at its end.

Their hashes, with the versions of all that requirements.txt pins, are the stage's fingerprint: what an interrupted
run left is taken up by a run with the same fingerprint only (runtime/resume.py).
"""

import hashlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
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
from captioning.base.quoting import shorten
from captioning.base.yaml_file import read_yaml
from captioning.compute.instructions import AVX2, THREADS

PIPELINE, PARAMS, REQUIREMENTS = Path("dvc.yaml"), Path("params.yaml"), Path("requirements.txt")
CHECKED = Path("data/checked.txt")  # the profile that `check`, DVC's first stage, found
FINGERPRINT = "STAGE_FINGERPRINT"  # environment: tells it to the processes that do the stage together
IGNORED = ("__pycache__", "*.pyc", "*.partial", ".ipynb_checkpoints", ".DS_Store", "*~", "*.swp")  # .dvcignore's
DVC_STAGE = "DVC_STAGE"  # environment: set by DVC
BY_HAND = "by-hand"  # in place of a stage's name
REFERENCE = re.compile(r"\$\{([^}]+)\}")

Stat = tuple[int, int, int]  # size, time of the last change, number on the disk
noted_inputs: list["Inputs"] = []  # of this process, once `begin` has been called


@dataclass(frozen=True)
class DeclaredStage:
    """One stage of dvc.yaml, every name in it spelt out: its paths, and its keys of params.yaml."""

    name: str
    deps: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """What a stage had before it when it began."""

    declared: DeclaredStage
    paths: list[Path]  # files and folders
    stats: dict[str, Stat]  # of every file
    values: dict[str, Any]  # of params.yaml, those that are declared
    params: dict[Any, Any] | None  # all that it holds; None where it is malformed
    owner: bool = True  # whether this process began the stage, and did not join it
    parent: int = field(default_factory=os.getppid)  # the process that began this one

    def fingerprint(self) -> str:
        """SHA-256 of all that the stage's outputs depend on: inputs, parameters, instructions, versions of Python and
        packages."""
        hashes = {name: sha256(Path(name)) for name in self.stats}
        told = [
            self.declared.name,
            hashes,
            self.values,
            describe_processor(),
            limit_variables(),
            sys.version,
            installed_versions(),
        ]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def list_changed(self) -> list[str]:
        """The declared files and parameters that are not what they were, or were touched: what stands there again may
        have been something else when it was read."""
        now = _stats(self.paths)
        files = sorted(name for name in now.keys() | self.stats.keys() if now.get(name) != self.stats.get(name))
        values = _values(read_yaml(PARAMS), self.declared.params) if self.values else {}
        return files + [f"{PARAMS} ({key})" for key, value in self.values.items() if values.get(key) != value]


def begin(command: Sequence[str]) -> None:
    """Note the inputs of the stage whose command this process is; the first of its processes names the fingerprint.

    A command that is no stage's, as one typed by hand with other paths, has a fingerprint that never comes again.
    Raises `UserError` where DVC runs a stage that dvc.yaml and params.yaml no longer hold, or with another profile.
    """
    params = _params_now()
    stage = _declared_now(command, params)
    _check_profile(stage, params)
    paths = [Path(dep) for dep in stage.deps]
    values = _values(params, stage.params)
    found = Inputs(stage, paths, _stats(paths), values, params, owner=FINGERPRINT not in os.environ)
    noted_inputs.append(found)
    if found.owner:
        key = token_hex(8) if stage.name == BY_HAND else found.fingerprint()[:16]
        os.environ[FINGERPRINT] = f"{stage.name}/{key}"


def params_at_start() -> dict[Any, Any] | None:
    """What params.yaml held when this process began: an edit in the meantime, even one put back, does not reach it."""
    return next((found.params for found in noted_inputs), None)


def _params_now() -> dict[Any, Any] | None:
    try:
        return read_yaml(PARAMS)
    except (UserError, OSError):
        return None  # told by DVC, or by whoever reads it


def _check_profile(stage: DeclaredStage, params: Mapping[Any, Any] | None) -> None:
    """DVC notes the values of the profile with which it began."""
    if DVC_STAGE not in os.environ or stage.name == "check" or params is None or not CHECKED.is_file():
        return
    if (known := CHECKED.read_text(encoding="utf-8").strip()) != (profile := params.get("profile")):
        told = f"{PARAMS}: profile is {shorten(profile)}, and the stage `check` found {known}"
        raise UserError(f"{told}; run `dvc repro` again, which begins with it")


def _declared_now(command: Sequence[str], params: dict[Any, Any] | None) -> DeclaredStage:
    try:
        stage = find_declared_stage(command, params)
    except (UserError, OSError, YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return DeclaredStage(BY_HAND)  # a malformed file: told by DVC, or by the stage `check`
    if stage is None and DVC_STAGE in os.environ:
        told = f"{PARAMS} or {PIPELINE} changed since `dvc repro` began, and {os.environ[DVC_STAGE]} is not in them now"
        raise UserError(f"{told}; run it again")
    return stage or DeclaredStage(BY_HAND)


def watch(folder: Path) -> None:
    """Watch `folder`, too, by size and time: a checkpoint, which a recipe names by its hashes and dvc.yaml cannot."""
    for found in noted_inputs:
        found.paths.append(folder)
        found.stats.update(_stats([folder]))


def require_unchanged_inputs() -> None:
    """Raises `UserError` where something has changed since `begin`; of a stage of DVC's also where who began this
    process is gone, and another run may write the same outputs by now."""
    if DVC_STAGE in os.environ and any(found.parent != os.getppid() for found in noted_inputs):
        raise UserError(f"{os.environ[DVC_STAGE]}: whoever began this stage has ended meanwhile; run `dvc repro` again")
    if moved := [name for found in noted_inputs for name in found.list_changed()]:
        told = "changed while this stage worked, so what came out is of neither version"
        raise UserError(f"{', '.join(moved)}: {told}; run `dvc repro` again, or put it back and do so")


def installed_versions() -> dict[str, str]:
    """The installed version of every package that requirements.txt pins; "" where there is none."""
    names = [line.partition("==")[0] for line in REQUIREMENTS.read_text(encoding="utf-8").split()]
    return {name: _version(name) for name in names}


def limit_variables() -> list[str | None]:
    """What the libraries were told of instructions and threads."""
    return [os.environ.get(name) for name in (*AVX2, *THREADS)]


def describe_processor() -> str:
    """What the processor can do: another one rounds otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def find_declared_stage(command: Sequence[str], params: dict[Any, Any] | None = None) -> DeclaredStage | None:
    """The stage of dvc.yaml with this command, program left out; None where there is none. `params`: of params.yaml."""
    stages = YAML(typ="safe").load(PIPELINE.read_text(encoding="utf-8"))["stages"]
    for name, body, context in _spelt_out(stages, read_yaml(PARAMS) if params is None else params):
        if shlex.split(_fill(body["cmd"], context))[1:] == list(command):
            return _declared(name, body, context)
    return None


def _declared(name: str, body: dict[str, Any], context: dict[str, Any]) -> DeclaredStage:
    outs = [one for kind in ("outs", "metrics", "plots") for one in body.get(kind, ())]
    named = (body.get("deps", ()), body.get("params", ()), outs)
    return DeclaredStage(name, *(tuple(_fill(_name(one), context) for one in of) for of in named))


def _name(entry: str | dict[str, Any]) -> str:
    """A path or key, which DVC takes alone or with options below it."""
    return entry if isinstance(entry, str) else next(iter(entry))


def _spelt_out(stages: dict[str, Any], params: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every stage, those of a `foreach` or `matrix` one by one, with what its references are filled from."""
    for name, body in stages.items():
        if "foreach" in body:
            for key, item in body["foreach"].items():
                yield f"{name}@{key}", body["do"], params | {"key": key, "item": item}
        elif "matrix" in body:
            axes = {axis: _list(values, params) for axis, values in body["matrix"].items()}
            for values in product(*axes.values()):
                item = dict(zip(axes, values, strict=True))
                yield f"{name}@{'-'.join(map(str, values))}", body, params | {"item": item}
        else:
            yield name, body, params


def _list(values: Any, params: dict[str, Any]) -> list[Any]:
    return list(_look_up(REFERENCE.fullmatch(values)[1], params) if isinstance(values, str) else values)  # type: ignore[index]


def _fill(text: str, context: dict[str, Any]) -> str:
    return REFERENCE.sub(lambda found: str(_look_up(found[1], context)), text)


def _look_up(key: str, context: Any) -> Any:
    for part in key.strip().split("."):
        context = context[part]
    return context


def _values(params: Any, keys: Sequence[str]) -> dict[str, Any]:
    """What params.yaml says of `keys`; a key that is not there is left out."""
    found = {}
    for key in keys:
        try:
            found[key] = _look_up(key, params)
        except (KeyError, TypeError):
            continue
    return found


def _is_ignored(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)


def _stats(paths: Sequence[Path]) -> dict[str, Stat]:
    """Size and time of every file of `paths` and below them that DVC does not ignore."""
    every = [one for path in paths for one in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [one for one in every if one.is_file() and not _is_ignored(one)]
    return {str(one): (stat.st_size, stat.st_mtime_ns, stat.st_ino) for one in files if (stat := one.stat())}
