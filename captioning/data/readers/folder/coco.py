"""Read COCO captions: images and annotations in two lists, joined by the image's number.

    {"images": [{"id": 1, "file_name": "a.jpg"}, ...], "annotations": [{"image_id": 1, "caption": "..."}, ...]}

`split` of an image is optional. Without it, the split is that of the file's name, such as `captions_val2017.json`, if
several files name several.
"""

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from captioning.base.errors import UserError
from captioning.base.quoting import join_faults, shorten
from captioning.data.readers.folder.json_files import JsonFile, JsonForm, StatedSplit, is_list_of, validate
from captioning.data.readers.names import name_source
from captioning.data.readers.rows import Annotation


def read_id(value: object) -> str:
    """Return an image's number as text: programs write 1, "1" or, by way of pandas, 1.0."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise ValueError("write a number or text")


ImageId = Annotated[str, BeforeValidator(read_id)]


class Image(BaseModel):
    id: ImageId
    file_name: str
    split: StatedSplit | None = None


class Caption(BaseModel):
    image_id: ImageId
    caption: str


class Coco(BaseModel):
    images: list[Image]
    annotations: list[Caption]


def fits(content: Any) -> bool:
    is_map = isinstance(content, dict)
    has_images = is_map and is_list_of(content.get("images"), "id", "file_name")
    return has_images and is_list_of(content.get("annotations"), "image_id", "caption")


def read(content: Any, where: JsonFile) -> list[Annotation]:
    """Return an annotation for each image; its line is the image's number. Raises `UserError` with all faults."""
    form, source = validate(Coco, content, where), name_source(where.file, where.root)
    captions: dict[str, list[str]] = {image.id: [] for image in form.images}
    repeated = [id_ for id_, count in Counter(image.id for image in form.images).items() if count > 1]
    faults = [f"images: id {shorten(id_)} occurs twice; correct one" for id_ in repeated]
    for number, entry in enumerate(form.annotations):
        if entry.image_id in captions:
            captions[entry.image_id].append(entry.caption)
        else:
            faults.append(
                f"annotations[{number}].image_id: {shorten(entry.image_id)}: no image has this id; correct it"
            )
    if faults:
        raise UserError(join_faults([f"{where.path}: {fault}" for fault in faults]))
    folder = PurePosixPath(where.file).stem.rpartition("_")[2]  # captions_val2017.json: val2017
    return [
        Annotation(number, image.file_name, captions[image.id], source, image.split, where.file, (folder,))
        for number, image in enumerate(form.images, start=1)
    ]


FORM = JsonForm("COCO captions (images and annotations with captions)", fits, read)
