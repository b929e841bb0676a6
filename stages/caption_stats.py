"""Caption statistics, Figures 1 and 2; PTB tokens and the training split's document frequencies, once for all."""

import csv
import json
from pathlib import Path
from typing import Any

from wordcloud import STOPWORDS

from captioning import caption_stats, disk, figures
from captioning.cider import DocumentFrequencies
from captioning.dataset import read_table
from captioning.ptb import tokenize
from captioning.runlog import stage_main

REFERENCES, PLOTS = Path("data/references"), Path("plots")
CLOUD_SEED = 1  # where the words of Figure 2 lie


@stage_main
def main() -> None:
    table = read_table(Path("data/captions/images.parquet"), columns=["id", "source", "captions"]).to_pydict()
    disk.require("caption-stats", disk.results("caption-stats", Path("data"), len(table["id"])))
    captions = dict(zip(table["id"], table["captions"], strict=True))
    flat = iter(tokenize([caption for of_image in captions.values() for caption in of_image]))
    tokens = {id_: [next(flat) for _ in of_image] for id_, of_image in captions.items()}
    train = Path("data/splits/train.txt").read_text(encoding="utf-8").split()
    frequencies = DocumentFrequencies.from_references((tokens[id_] for id_ in train), eos=True)
    words = sorted({word for id_ in train for caption in captions[id_] for word in caption.split()})
    write(REFERENCES / "tokens.json", tokens)
    write(REFERENCES / "document_frequencies.json", frequencies.to_json())
    Path("data/words.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    sources = dict(zip(table["id"], table["source"], strict=True))
    write(Path("metrics/captions.json"), caption_stats.describe(tokens, sources, STOPWORDS), indent=1)
    plot(tokens)


def plot(tokens: dict[str, list[str]]) -> None:
    every = [caption for of_image in tokens.values() for caption in of_image]
    lengths, without = caption_stats.lengths(every), caption_stats.lengths(every, STOPWORDS)
    PLOTS.mkdir(exist_ok=True)
    with (PLOTS / "caption-lengths.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["kind", "words", "captions"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(caption_stats.histogram({"all words": lengths, "without stop words": without}))
    figures.save(figures.caption_lengths(lengths, without), PLOTS / "figure-1")
    figures.save(figures.word_cloud(caption_stats.word_counts(tokens, STOPWORDS), CLOUD_SEED), PLOTS / "figure-2")


def write(path: Path, content: Any, indent: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
