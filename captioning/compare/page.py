"""Write the comparison as one HTML file, complete in itself: pictures are data URIs, and nothing is fetched."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from captioning.compare.changes import MovedCaption
from captioning.report.table_text import Cells
from captioning.report.viewer.html import make_image_uri, render_template

MarkedWords = tuple[str, bool]  # words, and whether the other caption lacks them


@dataclass(frozen=True)
class Card:
    """A test image: its picture as a data URI, its references, and the captions that moved."""

    id: str
    uri: str
    references: Sequence[str]
    captions: Sequence[MovedCaption]


def make_cards(
    moved: Sequence[MovedCaption], references: Mapping[str, Sequence[str]], pictures: Mapping[str, bytes]
) -> list[Card]:
    """Return a card for each image, so that no picture is in the page twice; the largest move first."""
    by_image: dict[str, list[MovedCaption]] = {}
    for caption in moved:
        by_image.setdefault(caption.id, []).append(caption)
    uris = {id_: make_image_uri("webp", picture) for id_, picture in pictures.items()}
    return [Card(id_, uris[id_], references[id_], captions) for id_, captions in by_image.items()]


def mark_words(text: str, other: str) -> Iterator[MarkedWords]:
    """Yield the words of `text` in order, in pieces that `other` has too or lacks."""
    words, other_words = text.split(), other.split()
    for kind, begin, end, *_ in SequenceMatcher(None, words, other_words, autojunk=False).get_opcodes():
        if end > begin:
            yield " ".join(words[begin:end]), kind != "equal"


def render_page(names: Sequence[str], tables: Sequence[Cells], sentences: Sequence[str], cards: Sequence[Card]) -> str:
    """Return the page; `names`: of both revisions."""
    content = {"names": names, "tables": tables, "sentences": sentences, "cards": cards, "mark_words": mark_words}
    return render_template("captioning.compare", "compare.html.j2", content) + "\n"
