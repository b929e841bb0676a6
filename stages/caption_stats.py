"""Write caption statistics, the PTB tokens of all captions, and the training split's document frequencies."""

from dataclasses import asdict
from itertools import islice
from pathlib import Path

from wordcloud import STOPWORDS

from captioning.base.files import atomic_folder, write_json, write_records, write_text
from captioning.data import statistics
from captioning.images.table import read_ids, read_table
from captioning.metrics.cider import DocumentFrequencies
from captioning.metrics.ptb import tokenize
from captioning.runtime.stage import stage_main

REFERENCES = Path("data/references")


@stage_main
def main() -> None:
    table = read_table(Path("data/captions/images.parquet"), columns=["id", "source", "captions"]).to_pydict()
    captions = dict(zip(table["id"], table["captions"], strict=True))
    all_tokens = iter(tokenize([caption for texts in captions.values() for caption in texts]))
    tokens = {id_: list(islice(all_tokens, len(texts))) for id_, texts in captions.items()}
    train = read_ids(Path("data/splits/train.txt"))
    frequencies = DocumentFrequencies.from_references((tokens[id_] for id_ in train), eos=True)
    words = sorted({word for id_ in train for caption in captions[id_] for word in caption.split()})
    with atomic_folder(REFERENCES) as folder:
        write_json(folder / "tokens.json", tokens, indent=None, ensure_ascii=False)
        write_json(folder / "document_frequencies.json", asdict(frequencies), indent=None, ensure_ascii=False)
    write_text(Path("data/words.txt"), "".join(f"{word}\n" for word in words))
    sources = dict(zip(table["id"], table["source"], strict=True))
    write_json(Path("metrics/captions.json"), statistics.describe(tokens, sources, STOPWORDS), ensure_ascii=False)
    flat = [caption for texts in tokens.values() for caption in texts]
    lengths, without = statistics.count_words(flat), statistics.count_words(flat, STOPWORDS)
    counts = statistics.count_occurrences(tokens, STOPWORDS)
    write_json(Path("data/caption-words.json"), {"lengths": lengths, "without": without, "counts": counts}, indent=None)
    histogram = statistics.histogram({"all words": lengths, "without stop words": without})
    write_records(Path("plots/caption-lengths.csv"), histogram, ["kind", "words", "captions"])


if __name__ == "__main__":
    main()
