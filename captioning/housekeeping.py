"""`make clean` and `make gc`: what takes room and can be made again, told item by item before it goes.

`clean`: caches of tools, interrupted trainings, downloads, outputs that a killed run left half written, and a dvc.lock
that was cut short; no results, and no tracking: a Weights & Biases run may still have to be sent. It tells and removes.
`gc`: what is left of other results. It tells, and removes only with `--yes` or an answer on a terminal:

1. In DVC's cache, what neither the working tree nor any commit or experiment names: `dvc gc` says what that is, and its
   run cache what it was. Parameters that no commit holds are trained anew when they come back. Where dvc.lock may have
   lost the record of results, or git has other worktrees, it refuses; of other clones that use this cache nobody knows.
2. States of interrupted runs, `.cache/resume/<stage>/<run>/`. A run under way holds a lock there: both commands
   leave what is its. Beside DVC or a stage at work here, also in an experiment's own folder, both refuse.
3. A cache outside this project is left alone: others may use it.
"""

import argparse
import fcntl
import fnmatch
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from captioning.dvc_cache import UNNEEDED, Refusal, dvc, identifier, outputs, unused
from captioning.lockfile import TORN
from captioning.places import CACHE, RESUME, RUN_LOCK, TRACKING
from captioning.sizes import occupied, told

TOOLS = (".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis")
OUTPUTS = ("data", "models", "metrics", "plots")
PARTIAL = ".*.partial"  # as captioning.outputs names what is not whole yet
CLEANED = "tools' caches, interrupted trainings, downloads, what is half written; no results, no tracking"
UNUSED = "not needed by the working tree, a commit or an experiment; another clone that uses this cache loses it too"
OTHER = "of no run that is remembered"


@dataclass(frozen=True)
class Item:
    """What would go, all of it together."""

    what: str
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        return occupied(*self.paths)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell what would go, and remove it; the exit status."""
    chosen = parser().parse_args(arguments)
    try:
        if not Path("dvc.yaml").is_file():
            raise Refusal("no dvc.yaml here; run this in the project's folder")
        refuse_beside_work()
        return clean() if chosen.command == "clean" else gc(chosen.yes)
    except Refusal as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; give the command again, and it tells what is left", file=sys.stderr)
        return 130


def refuse_beside_work() -> None:
    """Raises `Refusal` where DVC or a stage is at work below this folder: what it needs is named nowhere yet."""
    for number in sorted(int(one.name) for one in Path("/proc").glob("[0-9]*")):
        if number != os.getpid() and (command := at_work(Path("/proc", str(number)))):
            raise Refusal(f"{command} (process {number}) is under way; wait for it, then give the command again")


def at_work(process: Path) -> str:
    """The command of a process that is DVC's or a stage's and works in this folder or below; "" of any other."""
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        below = Path(os.readlink(process / "cwd")).is_relative_to(Path.cwd())
    except OSError:  # it has ended, or is not ours to ask
        return ""
    named = any(word.startswith(("stages.", "captioning.jobs")) or Path(word).name == "dvc" for word in words[:4])
    return " ".join(words[:6]).strip() if below and named else ""


def clean() -> int:
    with ExitStack() as stack:
        left = under_way(stack)
        items = [Item(str(path), (path,)) for path in leftovers(left)]
        show(items, f"removed: {CLEANED.partition(';')[0]}", left)
        for item in items:
            remove(item)
    if CACHE.is_dir() and not any(CACHE.iterdir()):
        CACHE.rmdir()
    return 0


def leftovers(left: Sequence[Path]) -> Iterator[Path]:
    """What `clean` removes: all but tracking, and what a run under way needs."""
    if CACHE.is_symlink():
        yield CACHE
    elif CACHE.is_dir():
        yield from (path for path in sorted(CACHE.iterdir()) if path != TRACKING and not (left and path == RESUME))
        if left:
            yield from (run for run in runs() if run not in left)
    yield from (path for path in (*map(Path, TOOLS), TORN) if path.exists())
    if not left:
        yield from half_written()


def half_written() -> Iterator[Path]:
    """Outputs that a killed run did not finish; nothing below one of them."""
    for folder in OUTPUTS:
        for place, names, files in os.walk(folder):
            found = fnmatch.filter(sorted(names + files), PARTIAL)
            names[:] = set(names).difference(found)
            yield from (Path(place, name) for name in found)


def gc(yes: bool) -> int:
    with ExitStack() as stack:
        left = under_way(stack)
        objects = unused()
        interrupted = [Item(f"{run}, interrupted", (run,)) for run in runs() if run not in left]
        items = named(objects) + interrupted
        show(items, UNUSED, left)
        if not items:
            return 0
        if not (yes or confirmed()):
            print("nothing was freed; `make gc YES=1` frees it", file=sys.stderr)
            return 0
        if objects:
            dvc(*UNNEEDED, "--force")  # which looks again what is needed
        for item in interrupted:
            remove(item)
    print("freed", file=sys.stderr)
    return 0


def confirmed() -> bool:
    """Whether somebody at a terminal says so; its end, Ctrl-D, is a no."""
    try:
        return sys.stdin.isatty() and input("free it? [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt) as ended:
        print()
        if isinstance(ended, KeyboardInterrupt):
            raise
        return False


def show(items: Sequence[Item], what: str, left: Sequence[Path]) -> None:
    """A line an item with its size, the largest first, and all together."""
    sizes = {item: item.size for item in items}
    print(f"{what}:" if items else f"{what}: nothing")
    for item in sorted(items, key=lambda one: (-sizes[one], one.what)):
        print(f"  {told(sizes[item]):>9}  {item.what}")
    if items:
        print(f"  {told(sum(sizes.values())):>9}  together", flush=True)
    for run in left:
        print(f"stays, as its run is under way: {run}", file=sys.stderr)


def remove(item: Item) -> None:
    for path in item.paths:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def runs() -> list[Path]:
    """Folders of runs that were interrupted or are under way."""
    return sorted(path for path in RESUME.glob("*/*") if path.is_dir() and not path.is_symlink())


def under_way(stack: ExitStack) -> list[Path]:
    """The runs whose lock is held; the others' locks are held from here on, until `stack` is left."""
    return [run for run in runs() if not stack.enter_context(taken(run / RUN_LOCK))]


@contextmanager
def taken(lock: Path) -> Iterator[bool]:
    """Whether `lock`, if there is one, was nobody's; it is ours for the block then."""
    if not lock.is_file():
        yield True
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def named(objects: Sequence[Path]) -> list[Item]:
    """`objects` by the output they belong to, as the run cache remembers it."""
    known = outputs(objects)
    grouped: dict[str, set[Path]] = defaultdict(set)
    for path in objects:
        grouped[known.get(identifier(path), OTHER)].add(path)
    return [Item(f"DVC's cache: {what} ({count(paths)})", tuple(sorted(paths))) for what, paths in grouped.items()]


def count(paths: set[Path]) -> str:
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m captioning.housekeeping", description="Tell what takes room, free it."
    )
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("clean", help=CLEANED)
    freed = commands.add_parser("gc", help="what nothing needs in DVC's cache, and checkpoints of interrupted runs")
    freed.add_argument("--yes", action="store_true", help="free it, unasked")
    return made


if __name__ == "__main__":
    sys.exit(main())
