"""Write caption statistics, the PTB tokens of all captions, and the training split's document frequencies."""

from dataclasses import asdict
from itertools import islice
from pathlib import Path

from wordcloud import STOPWORDS

from captioning.base.files import atomic_folder, write_json, write_records
from captioning.data import statistics
from captioning.data.outputs import CaptionWords
from captioning.data.tags import TaggedImage, count_tags, write_tagged, write_words
from captioning.images.table import read_ids, read_images, read_table
from captioning.metrics.cider import DocumentFrequencies
from captioning.metrics.ptb import tokenize
from captioning.params.load import load_params
from captioning.runtime.stage import stage_main

REFERENCES = Path("data/references")
TAGS = Path("data/tags/images.parquet")


@stage_main
def main() -> None:
    table = read_table(Path("data/captions/images.parquet"), columns=["id", "source", "captions"]).to_pydict()
    captions = dict(zip(table["id"], table["captions"], strict=True))
    all_tokens = iter(tokenize([caption for texts in captions.values() for caption in texts]))
    tokens = {id_: list(islice(all_tokens, len(texts))) for id_, texts in captions.items()}
    train = read_ids(Path("data/splits/train.txt"))
    frequencies = DocumentFrequencies.from_references((tokens[id_] for id_ in train), eos=True)
    write_words(Path("data/words.txt"), (caption for id_ in train for caption in captions[id_]))
    with atomic_folder(REFERENCES) as folder:
        write_json(folder / "tokens.json", tokens, indent=None, ensure_ascii=False)
        write_json(folder / "document_frequencies.json", asdict(frequencies), indent=None, ensure_ascii=False)
    write_tags({id_: tokens[id_] for id_ in train})
    sources = dict(zip(table["id"], table["source"], strict=True))
    described = statistics.describe(tokens, sources, STOPWORDS)
    write_json(Path("data/caption-statistics.json"), described.model_dump(), ensure_ascii=False)
    flat = [caption for texts in tokens.values() for caption in texts]
    lengths, without = statistics.count_words(flat), statistics.count_words(flat, STOPWORDS)
    counts = statistics.count_occurrences(tokens, STOPWORDS)
    words = CaptionWords(lengths=tuple(lengths), without=tuple(without), counts=counts)
    write_json(Path("data/caption-words.json"), words.model_dump(), indent=None)
    histogram = statistics.histogram({"all words": lengths, "without stop words": without})
    write_records(Path("plots/caption-lengths.csv"), histogram, ["kind", "words", "captions"])


def write_tags(tokens: dict[str, list[str]]) -> None:
    """Write the training images with their tags; no row if images are drawn or checkpoints are downloaded."""
    active = load_params().active
    is_used = active.checkpoints.origin == "miniature" and active.data.source != "overhead"
    tags = count_tags(tokens, STOPWORDS) if is_used else {}
    images = read_images(Path("data/captions/images.parquet"), list(tags))
    tagged = (TaggedImage(row.id, row.image, list(tags[row.id]), list(tags[row.id].values())) for row in images)
    write_tagged(tagged, TAGS)


if __name__ == "__main__":
    main()
