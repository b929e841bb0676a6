"""The Hub: what a revision of a repository holds, and its files, each proven and never fetched twice.

1. The client's own download begins a file anew after an interruption (its partial file has a random name). Here a
   partial file carries the hash of what it becomes, and a Range request continues it, in this run or a later one.
2. A file counts when its SHA-256 (Git LFS) or its Git blob id is the one the revision names, not when its length fits.
3. An error becomes one line with its remedy, made from the error's kind and never from its text: that may quote a
   signed address or a header. The token goes to the Hub alone; httpx drops it where another host serves the bytes.
"""

import errno
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from captioning.base.errors import UserError
from captioning.base.hashes import git_blob_id, sha256
from captioning.runtime.progress import progress

TIMEOUT = 30.0  # seconds without an answer
ATTEMPTS = 5  # in a row that brought nothing
PAUSE = 1.0  # seconds between them
CHUNK = 1 << 16  # bytes; at most so many are fetched twice
PASSING = (408, 429, 500, 502, 503, 504)  # answers that another attempt may better
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class HubFile:
    """A file as its revision names it."""

    path: str
    size: int  # bytes
    sha256: str | None  # of a file in Git LFS
    blob: str | None  # Git's id of any other


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub at a revision: a branch, a tag or a commit."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str
    alternative: str  # what its user may do where it cannot be had

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def error(self, why: str) -> UserError:
        what = "weights" if self.kind == "model" else "images"
        return UserError(f"{what} {self.name} cannot be had: {why}; or {self.alternative}")


@dataclass(frozen=True)
class Snapshot:
    """A revision, resolved: its commit and its files."""

    repository: Repository
    commit: str
    files: tuple[HubFile, ...]


def resolve_revision(repository: Repository) -> Snapshot:
    """The revision's commit and files: one request, one more where the repository is gated. `UserError` where not."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        ask = api.model_info if repository.kind == "model" else api.dataset_info
        info = ask(repository.name, revision=repository.revision, files_metadata=True, timeout=TIMEOUT)
        if info.gated:
            api.auth_check(repository.name, repo_type=repository.kind)
    except Exception as error:  # the client raises a dozen kinds
        raise repository.error(explain_error(repository, error)) from None
    listed = info.siblings or []
    files = [HubFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None, one.blob_id) for one in listed]
    return Snapshot(repository, info.sha or repository.revision, tuple(files))


def fetch_files(snapshot: Snapshot, files: Sequence[HubFile], folder: Path) -> dict[str, Path]:
    """Bring `files` into `folder` under their own paths, continuing what is there. `UserError` where it fails."""
    places = {file.path: _place(snapshot, file, folder) for file in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _need_room(snapshot, files, places, folder)
        for file in files:
            if not _matches_hash(places[file.path], file):
                _fetch(snapshot, file, places[file.path])
    except UserError:
        raise
    except Exception as error:
        raise snapshot.repository.error(explain_error(snapshot.repository, error, folder)) from None
    return places


def _place(snapshot: Snapshot, file: HubFile, folder: Path) -> Path:
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts or "\\" in file.path:
        raise snapshot.repository.error(f"its file {file.path!r} would lie outside {folder}")
    return folder / path


def _partial(place: Path, file: HubFile) -> Path:
    return place.with_name(f"{place.name}.{(file.sha256 or file.blob or str(file.size))[:16]}.partial")


def _need_room(snapshot: Snapshot, files: Sequence[HubFile], places: dict[str, Path], folder: Path) -> None:
    there = {file.path: max(_length(places[file.path]), _length(_partial(places[file.path], file))) for file in files}
    needed = sum(max(file.size - there[file.path], 0) for file in files)
    if needed > (free := shutil.disk_usage(folder).free):
        raise snapshot.repository.error(f"{folder} has {free / 1e9:.1f} GB free and needs {needed / 1e9:.1f}")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch(snapshot: Snapshot, file: HubFile, place: Path) -> None:
    partial = _partial(place, file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if _length(partial) > file.size:
        partial.unlink()
    _receive_all(snapshot, file, partial)
    if not _matches_hash(partial, file):
        partial.unlink(missing_ok=True)
        raise snapshot.repository.error(f"{file.path} came with another hash than the Hub names; try again")
    partial.replace(place)


def _receive_all(snapshot: Snapshot, file: HubFile, partial: Path) -> None:
    """Until the file is whole: a connection that breaks is taken up where it broke."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    failures = 0
    partial.touch()
    while (begun := _length(partial)) < file.size:
        try:
            _receive_part(snapshot, file, partial)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            passing = isinstance(error, httpx2.TransportError) or error.response.status_code in PASSING
            failures = 0 if _length(partial) > begun else failures + 1
            if not passing or failures >= ATTEMPTS:
                raise
            time.sleep(PAUSE)


def _receive_part(snapshot: Snapshot, file: HubFile, partial: Path) -> None:
    """One request for what `partial` lacks."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    repository = snapshot.repository
    address = hf_hub_url(
        repository.name, file.path, repo_type=repository.kind, revision=snapshot.commit, endpoint=constants.ENDPOINT
    )
    with partial.open("ab") as kept:
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if kept.tell():
            headers["Range"] = f"bytes={kept.tell()}-"
        with get_session().stream("GET", address, headers=headers, timeout=TIMEOUT) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:  # the whole file, whatever was asked for
                kept.truncate(0)
            left = -((_length(partial) - file.size) // CHUNK)
            for chunk in progress(response.iter_bytes(CHUNK), left, file.path):
                kept.write(chunk)


def _matches_hash(path: Path, file: HubFile) -> bool:
    """Whether `path` holds what the revision names."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if file.sha256:
        return sha256(path) == file.sha256
    return file.blob is None or git_blob_id(path) == file.blob


def explain_error(repository: Repository, error: Exception, folder: Path | None = None) -> str:
    """What the Hub or the machine said no to, and the remedy, without the error's own text."""
    import httpx2
    from huggingface_hub import constants, errors, get_token

    told = type(error).__name__
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(repository, error, bool(get_token()))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it and be online"
    if isinstance(error, httpx2.TransportError):
        return f"{constants.ENDPOINT} cannot be reached ({told}); be online and try again, what was fetched is kept"
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the disk is full at {folder}; make room and try again, what was fetched is kept"
    if isinstance(error, UnicodeError):
        return "HF_TOKEN holds characters that no token has; copy it anew"
    if isinstance(error, errors.HFValidationError):
        return "that is no repository's name; write owner/name"
    return f"{told} came of it; see {repository.page}"


def _refused(repository: Repository, error: Exception, token: bool) -> str:
    """What an answer of the Hub means."""
    from huggingface_hub import constants, errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {quote(repository.revision)!r}; {repository.page}/tree/main shows those it has"
    if isinstance(error, errors.GatedRepoError) and not token:
        return (
            f"it is gated and there is no token; accept its licence on {repository.page}, then set HF_TOKEN or run "
            "`hf auth login`"
        )
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return (
            f"the token has no access; accept the licence on {repository.page} with its account, and let a "
            "fine-grained HF_TOKEN read gated repositories"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        whose = "this token cannot read" if token else "needs a token (HF_TOKEN or `hf auth login`)"
        return f"there is no {repository.page}, or it is private and {whose}"
    if status == 401:
        return f"the Hub refuses the token; make a new one on {constants.ENDPOINT}/settings/tokens"
    return f"the Hub answers {status}; try again later, what was fetched is kept"
