"""Write references and captions in the format of COCO's captions, which other scorers read.

`references.json` has COCO's annotations: `images` and `annotations`. `<row>-<seed>.json` has a row's results, a list of
`image_id` and `caption`. `<row>-references.json` exists for a row that is scored against other references. Only METEOR
of a row with empty captions is another in COCO's own evaluation (evaluation/scores.py explains why).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning.base.files import write_json
from captioning.evaluation.exchange.texts import Captions, Texts


def write_coco(folder: Path, texts: Sequence[Texts]) -> None:
    """Write the references of all rows, and the captions of each of `texts`; the first one has all images."""
    folder.mkdir()
    common = texts[0].references
    numbers = {id_: number for number, id_ in enumerate(common, start=1)}
    write_json(folder / "references.json", _annotations(common, numbers), None)
    for row in texts:
        if row.references != common:
            write_json(folder / f"{row.run.name}-references.json", _annotations(row.references, numbers), None)
        results = [{"image_id": numbers[id_], "caption": caption} for id_, caption in row.captions.items()]
        write_json(folder / f"{row.run.name}.json", results, None)


def _annotations(references: Captions, numbers: Mapping[str, int]) -> dict[str, object]:
    """Return COCO's annotations; `file_name` is the image's id here. `numbers`: COCO's ids of images."""
    pairs = [(numbers[id_], caption) for id_, captions in references.items() for caption in captions]
    return {
        "info": {"description": "Test images and their references; file_name is the id of an image"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": numbers[id_], "file_name": id_} for id_ in references],
        "annotations": [
            {"id": number, "image_id": image, "caption": caption}
            for number, (image, caption) in enumerate(pairs, start=1)
        ],
    }
