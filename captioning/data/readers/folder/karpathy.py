"""Read the JSON of RSICD, UCM-Captions and Sydney-Captions, in Karpathy's form.

    {"images": [{"filename": "airport_1.jpg", "split": "train", "sentences": [{"raw": "..."}, ...]}, ...]}

`dataset` names the source, `filepath` the image's folder; both are optional.
"""

from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel

from captioning.data.readers.folder.json_files import JsonFile, JsonForm, StatedSplit, is_list_of, validate
from captioning.data.readers.names import name_source
from captioning.data.readers.rows import Annotation


class Sentence(BaseModel):
    raw: str


class Image(BaseModel):
    filename: str
    sentences: list[Sentence] = []  # an image without any is set aside
    split: StatedSplit | None = None
    filepath: str = ""


class Karpathy(BaseModel):
    images: list[Image]
    dataset: str = ""


def fits(content: Any) -> bool:
    return isinstance(content, dict) and is_list_of(content.get("images"), "filename", "sentences")


def read(content: Any, where: JsonFile) -> list[Annotation]:
    """Return an annotation for each image; its line is the image's number. Raises `UserError` with all faults."""
    form = validate(Karpathy, content, where)
    source = form.dataset or name_source(where.file, where.root)
    return [
        Annotation(
            number,
            str(PurePosixPath(image.filepath, image.filename)) if image.filepath and image.filename else image.filename,
            [sentence.raw for sentence in image.sentences],
            source,
            image.split,
            where.file,
            (source,),
        )
        for number, image in enumerate(form.images, start=1)
    ]


FORM = JsonForm("the JSON of RSICD, UCM and Sydney (images with sentences)", fits, read)
