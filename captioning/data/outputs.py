"""The JSON that stages write of the data, and that later stages and commands read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from captioning.base.errors import UserError
from captioning.base.json_files import REMEDY
from captioning.base.quoting import escape
from captioning.params.sections import Declared

Counts = Mapping[str, int]
Origin = dict[str, str | dict[str, str]]  # of a source: its archive or form, SHA-256 of its files, the Hub's commit


class Output(BaseModel):
    """A JSON file that a stage writes, or a part of one; fields are in the order of the file."""

    model_config = ConfigDict(
        frozen=True, strict=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the content of `path`. Raises `UserError` if it is damaged, `OSError` if it does not exist."""
        return cls.parse(path, path.read_bytes())

    @classmethod
    def parse(cls, path: Path | str, content: bytes) -> Self:
        """Return the `content` of the file `path`. Raises `UserError` if it is damaged."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            texts = (str(path), ".".join(map(str, fault["loc"])), fault["msg"])
            raise UserError(f"{escape(': '.join(filter(None, texts)))}; {REMEDY}") from None


class Manifest(Output):
    """data/captions/manifest.json: where the images are from, and what was kept, changed and set aside."""

    source: Origin
    declared: Declared | None
    rows: int  # of the whole source, as `captions`
    captions: int
    rows_read: int
    images: Counts  # by source
    images_by_captions_kept: Counts
    cleaning_rules_fired: Counts
    set_aside: int
    set_aside_by_reason: Counts
    sha256: Mapping[str, str]  # of the table of images


class LeakedShares(Output):
    """The shares of the test split that are also in the training split (0 to 1).

    Captions that also occur there; images whose hash occurs there; images of a group that has a member there.
    """

    captions: float
    equal_images: float
    near_images: float


class Leakage(Output):
    """What leaks if a method splits image by image, and group by group."""

    images_apart: LeakedShares
    groups_whole: LeakedShares


class SplitStatistics(Output):
    """data/splits/statistics.json: numbers of images and groups, and the leakage of each method if it is possible."""

    method: str
    images: Counts  # by split
    images_by_source: Mapping[str, Counts]
    near_equal_groups: int
    images_in_groups: int
    largest_group: int  # images
    leakage: Mapping[str, Leakage | None]

    @property
    def leaked(self) -> LeakedShares:
        """What leaks in the split that was made, which has whole groups."""
        if (leakage := self.leakage[self.method]) is None:
            raise LookupError(f"the split is by {self.method}, whose leakage was not measured")
        return leakage.groups_whole


class Lengths(Output):
    """Words a caption; the mode is the smallest of several."""

    mean: float
    median: float
    mode: int
    minimum: int
    maximum: int


class CaptionStatistics(Output):
    """data/caption-statistics.json."""

    images: int
    captions: int
    distinct_words: int
    words: Lengths
    words_without_stop_words: Lengths
    first_caption_words: Lengths
    first_caption_words_without_stop_words: Lengths
    near_duplicate_pairs: float  # share of the pairs of captions of one image
    distinct_captions: Mapping[str, Mapping[str, float]]  # share of a source's images by their different captions


class CaptionWords(Output):
    """data/caption-words.json: words of each caption, with and without stop words, and how often each word occurs."""

    lengths: tuple[int, ...]
    without: tuple[int, ...]
    counts: Counts
