"""Find the image that an annotation names, among the files of a folder or of an archive."""

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from captioning.data.readers.names import Unusable, folder_word, is_image, is_system_file


class ImageFiles:
    """The image files of a source, by their paths in it; `read` returns the bytes of one or raises `Unusable`."""

    def __init__(self, paths: Iterable[str], read: Callable[[str], bytes]) -> None:
        self.paths = frozenset(path for path in paths if is_image(path) and not is_system_file(path))
        self.read = read
        self._by_name: dict[str, list[str]] = {}
        for path in sorted(self.paths):
            self._by_name.setdefault(_compose(PurePosixPath(path).name).casefold(), []).append(path)

    def find(self, name: str, folder: str = "", words: Sequence[str] = ()) -> str:
        """Return the path of the file `name`, which may have folders. Raises `Unusable` if none or several fit.

        If no file has the name, those that differ in capital letters count: `a.jpg` for `A.JPG`. Of several files,
        those nearest to `folder` count, of these the ones below a folder named by a word, in the order of `words`, and
        of these the one that `name` leads to from `folder`.
        """
        fitting = self._fitting(name) or self._fitting(name.replace("\\", "/"))
        if len(fitting) > 1:
            shared = [_shared_folders(path, folder) for path in fitting]
            fitting = [path for path, depth in zip(fitting, shared, strict=True) if depth == max(shared)]
            for word in words:
                fitting = [path for path in fitting if folder_word(word) in _folder_words(path)] or fitting
            fitting = [path for path in fitting if path == str(PurePosixPath(folder, name))] or fitting
        if not fitting:
            raise Unusable("no such file")
        if len(fitting) > 1:
            raise Unusable(f"{len(fitting)} files have its name; write it with its folder: {', '.join(fitting[:2])}")
        return fitting[0]

    def _fitting(self, name: str) -> list[str]:
        path = PurePosixPath(_compose(name))
        files, end = self._by_name.get(path.name.casefold(), []), f"/{path}"
        exact = [file for file in files if f"/{_compose(file)}".endswith(end)]
        return exact or [file for file in files if f"/{_compose(file)}".casefold().endswith(end.casefold())]


def _compose(path: str) -> str:
    """Return `path` with composed accents: a Macintosh writes them apart in the names of files."""
    return unicodedata.normalize("NFC", path)


def _folder_words(path: str) -> Collection[str]:
    return {folder_word(folder) for folder in PurePosixPath(path).parts[:-1]}


def _shared_folders(path: str, folder: str) -> int:
    """Return how many folders `path` shares with `folder`, from the top."""
    pairs = zip(PurePosixPath(path).parts[:-1], PurePosixPath(folder).parts, strict=False)
    depth = 0
    for first, second in pairs:
        if first != second:
            break
        depth += 1
    return depth


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files below `folder`, sorted, without hidden and system files; links are followed."""
    return sorted(_walk(folder, "", frozenset()))


def _walk(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():  # a link that leads to a folder above it has no end
        return
    for entry in os.scandir(folder):
        path = f"{prefix}{entry.name}"
        if is_system_file(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{path}/", above | {real})
        elif entry.is_file():
            yield path
