"""Read the Hub: resolve a revision of a repository and fetch its files, each checked by its hash and fetched once.

1. The Hub's client restarts an interrupted download, because its partial file has a random name. Here the partial file
   is named by the hash of the complete file, and a Range request continues it, in this run or a later one.
2. A file is complete if its SHA-256 (Git LFS) or its Git blob id is that of the revision. Its length is not enough.
3. An error becomes one line with a remedy. The line never quotes the error's text, which may hold a signed address or
   a header. Only the Hub gets the token: httpx drops it when another host serves the bytes.
4. A file that the Hub's own client has cached is not fetched again. Without internet, what an earlier fetch or that
   client left on this machine serves (data/revisions.py).
"""

import errno
import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from captioning.base.errors import UserError
from captioning.data.revisions import (
    HubFile,
    Repository,
    Snapshot,
    Unavailable,
    find_copy,
    note_revision,
    require_inside,
    take_cached,
)
from captioning.runtime.progress import progress

TIMEOUT = 30.0  # seconds without an answer
ATTEMPTS = 5  # in a row without a new byte
PAUSE = 1.0  # seconds between attempts
CHUNK = 1 << 16  # bytes; an interruption loses at most one chunk
TEMPORARY_STATUSES = (408, 429, 500, 502, 503, 504)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
RETRY = "try again, fetched bytes are kept"


def is_offline() -> bool:
    """Return whether the user wants no connection to the Hub."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def explain(error: UserError) -> str | None:
    """Return the error's line. If HF_HUB_OFFLINE is set, only print what is unavailable, since DVC may have it."""
    if not isinstance(error, Unavailable) or not is_offline():
        return str(error)
    print(f"note: only DVC may have it: {error}", file=sys.stderr)
    return None


def resolve_revision(repository: Repository, folder: Path) -> Snapshot:
    """Ask the Hub for the revision's commit and files, and whether a gated repository is open.

    If the Hub cannot be reached, a copy on this machine serves, such as an earlier fetch into `folder`. Raises
    `UserError`.
    """
    import httpx2
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    api = huggingface_hub.HfApi()
    try:
        query = api.model_info if repository.kind == "model" else api.dataset_info
        info = query(repository.name, revision=repository.revision, files_metadata=True, timeout=TIMEOUT)
        if info.gated:
            api.auth_check(repository.name, repo_type=repository.kind)
    except Exception as error:  # the client raises a dozen kinds
        is_unreachable = isinstance(error, OfflineModeIsEnabled | httpx2.TransportError)
        if is_unreachable and (copy := find_copy(repository, folder)):
            return copy
        raise repository.error(_explain_error(repository, error)) from None
    files = [
        HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings or []
    ]
    return Snapshot(repository, info.sha or repository.revision, tuple(files))


def fetch_files(snapshot: Snapshot, files: Sequence[HubFile], folder: Path) -> dict[str, Path]:
    """Fetch what `folder` lacks of `files`, and return where each path of the repository is. Raises `UserError`."""
    paths = {file.path: folder / file.path for file in files}
    require_inside(list(paths), folder, snapshot.repository)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note_revision(snapshot, folder)
        missing = [file for file in files if not file.matches(paths[file.path])]
        missing = [file for file in missing if not take_cached(snapshot, file, paths[file.path])]
        digests = {file: file.sha256 or file.blob or str(file.size) for file in missing}
        partials = {file: folder / f"{file.path}.{digest[:16]}.partial" for file, digest in digests.items()}
        needed = sum(max(file.size - _size(partial), 0) for file, partial in partials.items())
        if needed > (free := shutil.disk_usage(folder).free):
            raise snapshot.repository.error(f"{folder} has {free / 1e9:.1f} GB free and needs {needed / 1e9:.1f}")
        for file, partial in partials.items():
            _fetch_file(snapshot, file, partial)
            partial.replace(paths[file.path])
    except UserError:
        raise
    except Exception as error:
        raise snapshot.repository.error(_explain_error(snapshot.repository, error, folder)) from None
    return paths


def read_tail(snapshot: Snapshot, file: HubFile, size: int, folder: Path) -> bytes:
    """Return the last `size` bytes of a file, from this machine if it is there. Raises `UserError`."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status

    start = max(file.size - size, 0)
    local = [path for root in (folder, snapshot.copy) if root and (path := root / file.path).is_file()]
    if local:
        with local[0].open("rb") as stream:
            stream.seek(start)
            return stream.read()
    address, headers = _request(snapshot, file)
    try:
        with get_session().stream("GET", address, headers=headers | _range(start), timeout=TIMEOUT) as response:
            hf_raise_for_status(response)
            content = b"".join(response.iter_bytes(CHUNK))
    except Exception as error:
        raise snapshot.repository.error(_explain_error(snapshot.repository, error)) from None
    return content[-(file.size - start) :]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_file(snapshot: Snapshot, file: HubFile, partial: Path) -> None:
    """Complete `partial` and check its hash. Reconnect after an error as long as attempts bring new bytes."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.touch()
    failures = 0
    while (size := _size(partial)) < file.size:
        try:
            _receive_part(snapshot, file, partial)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            temporary = isinstance(error, httpx2.TransportError) or error.response.status_code in TEMPORARY_STATUSES
            failures = 0 if _size(partial) > size else failures + 1
            if not temporary or failures >= ATTEMPTS:
                raise
            time.sleep(PAUSE)
    if not file.matches(partial):
        partial.unlink()
        raise snapshot.repository.error(f"the hash of {file.path} is not the one that the Hub names; try again")


def _receive_part(snapshot: Snapshot, file: HubFile, partial: Path) -> None:
    """Make one request for the bytes that `partial` lacks."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status

    address, headers = _request(snapshot, file)
    with partial.open("ab") as output:
        ranged = headers | _range(output.tell())
        with get_session().stream("GET", address, headers=ranged, timeout=TIMEOUT) as response:
            hf_raise_for_status(response)
            # without status 206, the host ignores the range and sends the whole file
            size = output.tell() if response.status_code == 206 else output.truncate(0)
            chunks = math.ceil((file.size - size) / CHUNK)
            for chunk in progress(response.iter_bytes(CHUNK), chunks, file.path):
                output.write(chunk)


def _request(snapshot: Snapshot, file: HubFile) -> tuple[str, dict[str, str]]:
    """Return the address and the headers of a request for a file."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    options = {"repo_type": snapshot.repository.kind, "revision": snapshot.commit, "endpoint": constants.ENDPOINT}
    return hf_hub_url(snapshot.repository.name, file.path, **options), build_hf_headers() | {
        "Accept-Encoding": "identity"
    }


def _range(start: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-"} if start else {}


def _explain_error(repository: Repository, error: Exception, folder: Path | None = None) -> str:
    """Return the reason and the remedy for an error of the Hub, the network or the disk, without the error's text."""
    import httpx2
    from huggingface_hub import constants, errors, get_token

    kind = type(error).__name__
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_refusal(repository, error, bool(get_token()))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and no complete copy is on this machine; unset it and go online once"
    if isinstance(error, httpx2.TransportError):
        return f"cannot reach {constants.ENDPOINT} ({kind}); go online and {RETRY}"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"the disk is full at {folder}; free some space and {RETRY}"
    if isinstance(error, UnicodeError):
        return "HF_TOKEN holds characters that no token has; copy it again"
    if isinstance(error, errors.HFValidationError):
        return "this is not the name of a repository; write owner/name"
    return f"{kind} was raised; see {repository.page}"


def _explain_refusal(repository: Repository, error: Exception, has_token: bool) -> str:
    from huggingface_hub import constants, errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    page = repository.page
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {quote(repository.revision)!r}; {page}/tree/main shows its revisions"
    if isinstance(error, errors.GatedRepoError) and not has_token:
        return f"it is gated; accept its licence on {page}, then set HF_TOKEN or run `hf auth login`"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return f"the token has no access; accept the licence on {page}, and let the token read gated repositories"
    if isinstance(error, errors.RepositoryNotFoundError):
        obstacle = "this token cannot read it" if has_token else "needs a token (HF_TOKEN or `hf auth login`)"
        return f"{page} does not exist, or it is private and {obstacle}"
    if status == 401:
        return f"the Hub refuses the token; make a new one on {constants.ENDPOINT}/settings/tokens"
    return f"the Hub answers {status}; {RETRY}"
