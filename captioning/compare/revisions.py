"""Read the results of a commit, a branch, a tag, an experiment or the workspace, through DVC's file system.

Nothing is checked out: DVC opens each file in the workspace or in its cache.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet as pq
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.scm import SCMError
from jaxtyping import Float
from PIL import Image

from captioning.base.errors import UserError
from captioning.data.outputs import Output
from captioning.evaluation.predictions import NO_SEED, Prediction
from captioning.images.decoded import FORMATS
from captioning.runtime.paths import IMAGE_SCORES, IMAGES, PREDICTIONS, SCORES, SPLITS

WORKSPACE = "workspace"
PICTURE_PIXELS = 224  # longest side of an embedded picture
FETCH = "`dvc fetch --all-commits` looks for it on the remote, and `dvc repro` in that revision makes it again"


class ComparedRow(Output):
    """The part of data/scores/scores.json that every revision has of a row: its kind, and its mean measures."""

    kind: str
    mean: Mapping[str, float]


class ComparedRows(Output):
    rows: Mapping[str, ComparedRow]


@dataclass(frozen=True)
class Revision:
    """A revision's test images with their references, its scores, and CIDEr by row, seed and test image."""

    name: str
    references: Mapping[str, Sequence[str]]  # by test image, in the split's order
    rows: Mapping[str, ComparedRow]
    ciders: Mapping[str, Mapping[int, Mapping[str, float]]]
    files: DVCFileSystem

    def compared_scores(self, row: str) -> Float[np.ndarray, "seeds images"]:
        """Return CIDEr of all test images, one line for each seed."""
        return np.array([[scores[id_] for id_ in self.references] for scores in self.ciders[row].values()])

    def read_captions(self, row: str, seed: int) -> dict[str, str]:
        """Return the captions of a row by image."""
        path = PREDICTIONS / (f"{row}.jsonl" if seed == NO_SEED else f"{row}-{seed}.jsonl")
        lines = read_file(self.files, self.name, path).decode().splitlines()
        records = (Prediction.model_validate_json(line) for line in lines if line)
        return {record.id: record.caption for record in records}

    def read_pictures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures of these images as WebP, by image."""
        with open_file(self.files, self.name, IMAGES) as file:
            table = pq.read_table(file, columns=["id", "image"], filters=[("id", "in", list(ids))])
        return {row["id"]: encode_picture(row["image"]["bytes"]) for row in table.to_pylist()}


def read_revision(name: str) -> Revision:
    """Read a revision's results. Raises `UserError` if it does not exist, or if a file cannot be had."""
    files = open_revision(name)
    rows = ComparedRows.parse(f"{name}: {SCORES}", read_file(files, name, SCORES)).rows
    ids = read_file(files, name, SPLITS / "test.txt").decode().split("\n")[:-1]
    with open_file(files, name, IMAGES) as file:
        columns = pq.read_table(file, columns=["id", "captions"]).to_pydict()
    captions = dict(zip(columns["id"], columns["captions"], strict=True))
    ciders: dict[str, dict[int, dict[str, float]]] = {}
    for record in pq.read_table(io.BytesIO(read_file(files, name, IMAGE_SCORES))).to_pylist():
        ciders.setdefault(record["row"], {}).setdefault(record["seed"], {})[record["id"]] = record["CIDEr"]
    return Revision(name, {id_: captions[id_] for id_ in ids}, rows, ciders, files)


def open_revision(name: str) -> DVCFileSystem:
    """Return DVC's files of a revision. Raises `UserError` if it does not exist."""
    try:
        Repo.find_root()
        files = DVCFileSystem(rev=None if name == WORKSPACE else name)
        files.repo.root_dir  # opens the repository  # noqa: B018
    except NotDvcRepoError:
        raise UserError("this folder is no DVC repository; change to the project's folder") from None
    except (SCMError, DvcException, AttributeError) as error:  # the last: a name of a file or a tree
        reason = "no commit" if isinstance(error, AttributeError) else " ".join(str(error).split())
        remedy = f"`dvc exp show` lists experiments, `git log` commits, and {WORKSPACE} is what lies here"
        raise UserError(f"{name}: no such commit, branch, tag or experiment ({reason}); {remedy}") from None
    return files


def open_file(files: DVCFileSystem, revision: str, path: Path) -> IO[bytes]:
    """Open a file of a revision. Raises `UserError` if no stage wrote it then, or if the cache does not hold it."""
    try:
        return files.open(path.as_posix(), "rb")
    except Exception:  # of DVC, its index, its cache, or of a remote's library
        if not any(path.is_relative_to(out.def_path) for out in files.repo.index.outs):
            raise UserError(f"{revision}: it has no {path}; name one that was committed after a run") from None
        raise UserError(f"{revision}: {path} is not in DVC's cache; {FETCH}") from None


def read_file(files: DVCFileSystem, revision: str, path: Path) -> bytes:
    with open_file(files, revision, path) as file:
        return bytes(file.read())


def encode_picture(encoded: bytes) -> bytes:
    """Return a picture as WebP of at most `PICTURE_PIXELS` a side; a small one is enlarged without interpolation."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        small = image.convert("RGB")
    factor = max(1, PICTURE_PIXELS // max(small.size))
    small = small.resize((factor * small.width, factor * small.height), Image.Resampling.NEAREST)
    small.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
