"""Read the JSON of NWPU-Captions, whose pictures are in a folder for each class.

{"airplane": [{"filename": "airplane_001.jpg", "split": "train", "raw": "...", "raw_1": "...", ...}, ...], ...}

`raw1` and `raw 1` are read like `raw_1`.
"""

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, RootModel, model_validator

from captioning.base.quoting import shorten
from captioning.data.readers.folder.json_files import JsonFile, JsonForm, StatedSplit, is_list_of, validate
from captioning.data.readers.names import name_source
from captioning.data.readers.rows import Annotation

CAPTION = re.compile(r"raw[_ ]?(\d+)")


class Image(BaseModel):
    model_config = ConfigDict(extra="allow")

    filename: str
    raw: str
    split: StatedSplit | None = None
    __pydantic_extra__: dict[str, Any]

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        unknown = [key for key in self.__pydantic_extra__ if key.startswith("raw") and not CAPTION.fullmatch(key)]
        if unknown:
            raise ValueError(f"key {shorten(unknown[0])} is unknown; its captions are raw, raw_1, raw_2, …")
        return self

    @property
    def captions(self) -> list[str]:
        """Return `raw`, `raw_1`, ... in the order of their numbers."""
        extra = self.__pydantic_extra__
        texts = {key: str(value) for key, value in extra.items() if value is not None}
        numbered = [(int(match[1]), texts[key]) for key in texts if (match := CAPTION.fullmatch(key))]
        return [self.raw, *(text for _, text in sorted(numbered))]


class Nwpu(RootModel):
    root: dict[str, list[Image]]


def fits(content: Any) -> bool:
    return isinstance(content, dict) and any(is_list_of(group, "filename", "raw") for group in content.values())


def read(content: Any, where: JsonFile) -> list[Annotation]:
    """Return an annotation for each image; its line is the image's number. Raises `UserError` with all faults."""
    source = name_source(where.file, where.root)
    images = [(class_, image) for class_, group in validate(Nwpu, content, where).root.items() for image in group]
    return [
        Annotation(number, image.filename, image.captions, source, image.split, where.file, (source, class_))
        for number, (class_, image) in enumerate(images, start=1)
    ]


FORM = JsonForm("the JSON of NWPU-Captions (classes of images with raw, raw_1, …)", fits, read)
