"""Caption statistics, Figures 1 and 2; PTB tokens and the training split's document frequencies, once for all."""

from pathlib import Path

from wordcloud import STOPWORDS

from captioning import caption_stats, disk, figures
from captioning.cider import DocumentFrequencies
from captioning.dataset import read_ids, read_table
from captioning.outputs import whole_folder, write_json, write_records, write_text
from captioning.ptb import tokenize
from captioning.stage import stage_main

REFERENCES, PLOTS = Path("data/references"), Path("plots")
CLOUD_SEED = 1  # where the words of Figure 2 lie


@stage_main
def main() -> None:
    table = read_table(Path("data/captions/images.parquet"), columns=["id", "source", "captions"]).to_pydict()
    disk.require("caption-stats", disk.results("caption-stats", Path("data"), len(table["id"])))
    captions = dict(zip(table["id"], table["captions"], strict=True))
    flat = iter(tokenize([caption for of_image in captions.values() for caption in of_image]))
    tokens = {id_: [next(flat) for _ in of_image] for id_, of_image in captions.items()}
    train = read_ids(Path("data/splits/train.txt"))
    frequencies = DocumentFrequencies.from_references((tokens[id_] for id_ in train), eos=True)
    words = sorted({word for id_ in train for caption in captions[id_] for word in caption.split()})
    with whole_folder(REFERENCES) as out:
        write_json(out / "tokens.json", tokens, indent=None, ensure_ascii=False)
        write_json(out / "document_frequencies.json", frequencies.to_json(), indent=None, ensure_ascii=False)
    write_text(Path("data/words.txt"), "".join(f"{word}\n" for word in words))
    sources = dict(zip(table["id"], table["source"], strict=True))
    described = caption_stats.describe(tokens, sources, STOPWORDS)
    write_json(Path("metrics/captions.json"), described, ensure_ascii=False)
    plot(tokens)


def plot(tokens: dict[str, list[str]]) -> None:
    every = [caption for of_image in tokens.values() for caption in of_image]
    lengths, without = caption_stats.lengths(every), caption_stats.lengths(every, STOPWORDS)
    histogram = caption_stats.histogram({"all words": lengths, "without stop words": without})
    write_records(PLOTS / "caption-lengths.csv", histogram, ["kind", "words", "captions"])
    figures.save(figures.caption_lengths(lengths, without), PLOTS / "figure-1")
    figures.save(figures.word_cloud(caption_stats.word_counts(tokens, STOPWORDS), CLOUD_SEED), PLOTS / "figure-2")


if __name__ == "__main__":
    main()
