"""dvc.lock, put right where DVC was killed while it wrote it: `python -m captioning.lockfile`; as `make repro` begins.

DVC (3.67) writes the file in place after each stage, so a kill or a full disk can leave it empty or cut short, and DVC
then refuses to begin. No result is lost with it: before that, DVC has put the stage's record and outputs into its run
cache, from where `dvc repro` takes them back. Only `caption-stats` and `report` run again, in seconds: that cache takes
no stage with plain outputs that git keeps.
"""

import subprocess
import sys
from pathlib import Path

from captioning.outputs import write_text

LOCK, TORN = Path("dvc.lock"), Path(".dvc/tmp/dvc.lock.torn")
CONFLICT = "<<<<<<< "  # of a merge: the user's to settle, and DVC says so


def mend() -> None:
    """Where dvc.lock is no whole lock, put the last commit's in its place, or none; the torn one is kept in `TORN`."""
    if not LOCK.is_file():
        return
    torn = LOCK.read_bytes()
    if CONFLICT.encode() in torn or is_whole(torn):
        return
    shown = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], capture_output=True)
    TORN.parent.mkdir(parents=True, exist_ok=True)
    LOCK.replace(TORN)
    if committed := shown.returncode == 0 and is_whole(shown.stdout):
        write_text(LOCK, shown.stdout.decode())
    instead = "the last commit's takes its place" if committed else "it begins anew"
    told = f"{LOCK}: cut short, as DVC was stopped while it wrote it; {instead}, the torn one is in {TORN}"
    print(f"{told}; what finished since comes from DVC's cache", file=sys.stderr)


def is_whole(content: bytes) -> bool:
    """Whether DVC would take `content` for a lock."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(content.decode()))
    except (YAMLError, UnicodeDecodeError, Invalid):
        return False
    return True


if __name__ == "__main__":
    mend()
