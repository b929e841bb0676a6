"""Tags: the content words of an image's captions, and the training images that have them.

Where the images are not drawn, the miniature's checkpoints are pre-trained on tags, which stand for what a model of
web scale has met: images of this kind with words. They hold no sentence, and nothing of validation or test.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.files import atomic_file, write_text

SCHEMA = pa.schema(
    {"id": pa.string(), "image": pa.binary(), "words": pa.list_(pa.string()), "shares": pa.list_(pa.float64())}
)
MINIMUM_IMAGES = 10  # whose captions hold a word; rarer words are not learnt


@dataclass(frozen=True)
class TaggedImage:
    """A training image: its id, its encoded bytes, and its tags as words and shares."""

    id: str
    image: bytes
    words: Sequence[str]
    shares: Sequence[float]


def count_tags(tokens: Mapping[str, Sequence[str]], stop_words: Collection[str]) -> dict[str, dict[str, float]]:
    """Return the tags of each image from its tokenised captions, the most telling first: often here, rarely elsewhere.

    A word is a tag if the captions of `MINIMUM_IMAGES` images hold it and it is no stop word.
    """
    counts = {id_: Counter(word for text in texts for word in set(text.split())) for id_, texts in tokens.items()}
    images = Counter(word for words in counts.values() for word in words)
    rarity = {
        word: math.log(len(tokens) / count)
        for word, count in images.items()
        if count >= MINIMUM_IMAGES and word not in stop_words
    }
    tags = {}
    for id_, words in counts.items():
        chosen = sorted(words.keys() & rarity.keys(), key=lambda word: (-words[word] * rarity[word], word))
        tags[id_] = {word: words[word] / len(tokens[id_]) for word in chosen}
    return tags


def write_tagged(images: Iterable[TaggedImage], path: Path) -> None:
    """Write `images` to a Parquet file."""
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist([asdict(image) for image in images], SCHEMA), partial, compression="zstd")


def read_tagged(path: Path) -> list[TaggedImage]:
    """Read the images of `write_tagged`."""
    return [TaggedImage(**row) for row in pq.read_table(path).to_pylist()]


def write_words(path: Path, captions: Iterable[str]) -> None:
    """Write how often each word of `captions` occurs, a word and its number in a line, sorted."""
    counts = Counter(word for caption in captions for word in caption.split())
    write_text(path, "".join(f"{word} {counts[word]}\n" for word in sorted(counts)))


def read_words(path: Path) -> dict[str, int]:
    """Read what `write_words` wrote."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return {word: int(count) for word, count in (line.split(" ") for line in lines)}
