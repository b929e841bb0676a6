"""A revision of a repository on the Hub: its commit, its files, and where these already lie on this machine.

Without internet, a revision is looked up in two places:

1. `.cache/downloads`, where a fetch notes the commit and the files of the revision (`NOTE`).
2. The cache of the Hub's own client. It keeps files as `snapshots/<commit>/<path>`, links to blobs that are named by
   their hash.
"""

import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from captioning.base.errors import UserError
from captioning.base.files import write_json
from captioning.base.hashes import git_blob_id, sha256
from captioning.base.json_files import read_json

NOTE = ".revision.json"
SHA256, GIT_BLOB = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


class Unavailable(UserError):
    """A repository, or a part of it, that cannot be fetched."""


@dataclass(frozen=True)
class HubFile:
    """A file of a revision."""

    path: str
    size: int  # bytes
    sha256: str | None  # of a file in Git LFS
    blob: str | None  # Git's id of any other file

    def matches(self, path: Path) -> bool:
        """Return whether `path` holds the revision's bytes."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256:
            return sha256(path) == self.sha256
        return self.blob is None or git_blob_id(path) == self.blob


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub at a revision: a branch, a tag or a commit."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str
    alternative: str  # what the user can do without it

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def error(self, reason: str) -> "Unavailable":
        content = "weights" if self.kind == "model" else "images"
        return Unavailable(f"cannot fetch {content} {self.name}: {reason}; or {self.alternative}")


@dataclass(frozen=True)
class Snapshot:
    """The commit of a resolved revision, and its files; `copy`: the folder that they were found in without the Hub."""

    repository: Repository
    commit: str
    files: tuple[HubFile, ...]
    copy: Path | None = None

    @property
    def label(self) -> str:
        """Name the revision, or its copy, in a message."""
        return f"revision {self.repository.revision!r}" + ("" if self.copy is None else f", as in {self.copy},")


def note_revision(snapshot: Snapshot, folder: Path) -> None:
    """Note beside the fetched files which revision they are; that of a copy may be incomplete."""
    if snapshot.copy is not None:
        return
    name, revision = snapshot.repository.name, snapshot.repository.revision
    files = [asdict(file) for file in snapshot.files]
    write_json(folder / NOTE, {"repository": name, "revision": revision, "commit": snapshot.commit, "files": files})


def find_copy(repository: Repository, folder: Path) -> Snapshot | None:
    """Return the revision as an earlier fetch noted it in `folder`, or as the Hub's own cache holds it, or None."""
    with suppress(UserError, OSError, KeyError, TypeError):
        note = read_json(folder / NOTE)
        is_same = note["repository"] == repository.name and repository.revision in (note["revision"], note["commit"])
        files = tuple(HubFile(**file) for file in note["files"])
        if is_same and any((folder / file.path).is_file() for file in files):
            return Snapshot(repository, note["commit"], files, folder)
    return _find_in_hub_cache(repository)


def _find_in_hub_cache(repository: Repository) -> Snapshot | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, kind, revision = repository.name, repository.kind, repository.revision
    try:
        folder = Path(snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
        return None
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(_describe(path, path.relative_to(folder).as_posix()) for path in paths)
    return Snapshot(repository, folder.name, files, folder) if files else None


def _describe(path: Path, name: str) -> HubFile:
    """Describe a file of the Hub's cache: the name of its blob is its hash."""
    digest = path.resolve().name
    is_lfs, is_plain = SHA256.fullmatch(digest), GIT_BLOB.fullmatch(digest)
    return HubFile(name, path.stat().st_size, digest if is_lfs else None, digest if is_plain else None)


def take_cached(snapshot: Snapshot, file: HubFile, target: Path) -> bool:
    """Link or copy a file from the Hub's own cache to `target` if it is there with the revision's bytes."""
    from huggingface_hub import try_to_load_from_cache

    repository = snapshot.repository
    cached = try_to_load_from_cache(repository.name, file.path, revision=snapshot.commit, repo_type=repository.kind)
    if not isinstance(cached, str) or not file.matches(path := Path(cached).resolve()):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(path, target)
    return True


def link_or_copy(path: Path, target: Path) -> None:
    """Make `target` a hard link of `path`, which takes no disk space; copy it where that is impossible."""
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def require_inside(names: list[str], folder: Path, repository: Repository) -> None:
    """Raise `UserError` if the name of a file leads out of `folder`."""
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise repository.error(f"its file {name!r} would be outside {folder}")
