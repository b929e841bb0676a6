"""dvc.lock, put right where DVC was killed while it wrote it: `python -m captioning.lockfile`, as `make repro` begins.

DVC (3.67) writes the file in place after each stage, so a kill or a full disk can leave it empty or cut short; DVC then
refuses to begin, or takes half a hash for a changed output. No result is lost with it: before that, DVC has put the
stage's record and outputs into its run cache, from where `dvc repro` takes them back. Only `caption-stats` and `report`
run again, in seconds: that cache takes no stage with plain outputs that git keeps.

What needs packages is imported where it is used: `make clean`, which takes the torn file's name from here, needs none.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning.outputs import write_text

LOCK, TORN = Path("dvc.lock"), Path(".dvc/tmp/dvc.lock.torn")
CONFLICT = re.compile(rb"^(<<<<<<<|=======$|>>>>>>>)", re.MULTILINE)  # of a merge: the user's to settle
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


def mend() -> None:
    """Where dvc.lock is cut short, put the last commit's in its place, or none; the torn one is kept in `TORN`. What
    another DVC is writing is left alone. Raises `UserError` where the disk has no room for it."""
    if not _is_torn():
        return
    from dvc.lock import LockError
    from dvc.repo import Repo

    from captioning.runlog import UserError

    try:
        with Repo() as repo, repo.lock:
            if _is_torn():  # still, with nobody writing
                _put_right()
    except LockError:
        return
    except OSError as error:
        told = f"{LOCK} is cut short and cannot be put right: {(error.strerror or str(error)).lower()}"
        raise UserError(f"{told}; make room, then give the command again") from None


def _is_torn() -> bool:
    content = LOCK.read_bytes() if LOCK.is_file() else None
    return content is not None and not CONFLICT.search(content) and not is_whole(content)


def _put_right() -> None:
    committed = _committed()
    TORN.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(LOCK, TORN)
    if committed is None:
        LOCK.unlink()
    else:
        write_text(LOCK, committed)
    instead = "it begins anew" if committed is None else "the last commit's takes its place"
    told = f"{LOCK}: cut short, as DVC was stopped while it wrote it; {instead}, the torn one is in {TORN}"
    print(f"{told}; what finished since comes from DVC's cache", file=sys.stderr)


def _committed() -> str | None:
    """The last commit's, where git is there and has a whole one."""
    try:
        shown = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True)
    except FileNotFoundError:
        return None
    return shown.stdout.decode() if shown.returncode == 0 and is_whole(shown.stdout) else None


def is_whole(content: bytes) -> bool:
    """Whether `content` is a lock that DVC has written to its end. A key that stands twice is no cut but a merge."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    try:
        found = COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(content.decode()))
    except DuplicateKeyError:
        return True
    except (YAMLError, UnicodeDecodeError, Invalid):
        return False
    return content.endswith(b"\n") and all(HASH.fullmatch(str(one)) for one in _hashes(found))


def _hashes(lock: dict[str, Any]) -> Iterator[Any]:
    """Those of every input and output."""
    for stage in lock.get("stages", {}).values():
        for one in (*stage.get("deps", ()), *stage.get("outs", ())):
            if "md5" in one:
                yield one["md5"]


def main() -> int:
    """The exit status."""
    from captioning.runlog import UserError

    try:
        mend()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
