"""Write the page that shows the captions of test images side by side, from predictions, references and scores."""

from pathlib import Path

from wordcloud import STOPWORDS

from captioning.base.files import write_text
from captioning.base.json_files import read_map
from captioning.evaluation.predictions import expected_runs
from captioning.images.table import draw_ids, read_ids, read_images
from captioning.params.load import load_params
from captioning.params.recipes import refined_rows
from captioning.report.viewer.content import show_image
from captioning.report.viewer.page import render_page
from captioning.report.viewer.rows import NamedRows, read_rows
from captioning.runtime.paths import IMAGES, SPLITS, TOKENS
from captioning.runtime.stage import stage_main

OUTPUT, SEED = Path("plots/captions.html"), "captions.html"


@stage_main
def main() -> None:
    params = load_params()
    test, captioned = (read_ids(SPLITS / f"{name}.txt") for name in ("test", "captioned"))
    ids = draw_ids(test, params.viewer.images, SEED)
    shown = read_images(IMAGES, ids)
    tokens: dict[str, list[str]] = read_map(TOKENS, *ids)
    checkpoints = {row: params.variants[row].checkpoint for row in params.rows}
    starts = {row: start for row, (start, _) in refined_rows(params).items()}
    runs = expected_runs(params.zero_shot, checkpoints, starts, params.seeds)
    names = {row.key: row.name for row in NamedRows.read(Path("plots/table-2.json")).rows}
    rows = read_rows(runs, names, captioned, {image.id: image.captions for image in shown})
    refined, start = next(iter(starts.items()))
    pair = f"{start}-{params.seeds[0]}", f"{refined}-{params.seeds[0]}"
    images = []
    for image in shown:
        references = [caption.split() for caption in tokens[image.id]]
        images.append(show_image(image, rows, references, STOPWORDS))
    write_text(OUTPUT, render_page(rows, images, pair, params.profile, len(test)))


if __name__ == "__main__":
    main()
