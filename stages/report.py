"""Table II, the figures, the curves and the page, from scores, step records and predictions."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas

from captioning.base.files import write_text
from captioning.base.json_files import read_json
from captioning.evaluation.predictions import read_predictions
from captioning.images.table import read_ids, read_table
from captioning.params.load import Params, load_params
from captioning.params.recipes import refined_rows
from captioning.report.examples import Example, draw_examples, examples, groups
from captioning.report.figures import caption_lengths, captioning_example, save, word_cloud
from captioning.report.page import FIGURES, Picture, Run, drawings, page
from captioning.report.table import Row, build_table
from captioning.report.table_text import files
from captioning.runtime import resume
from captioning.runtime.stage import stage_main

PLOTS, IMAGES = Path("plots"), Path("data/captions/images.parquet")


@stage_main
def main() -> None:
    params = load_params()
    rows = [*params.rows, *refined_rows(params)]
    run = Run(
        scores=read_json("data/scores/scores.json"),
        significance=read_json("data/scores/significance.json"),
        training={row: [read_json(f"metrics/training/{row}-{seed}.json") for seed in params.seeds] for row in rows},
        recipes={row: read_json(f"data/recipes/{row}.json") for row in rows},
        splits=read_json("metrics/splits.json"),
        captions=read_json("metrics/captions.json"),
        params_text=shown_params(Path("params.yaml").read_text(encoding="utf-8")),
    )
    shape = (params.zero_shot, params.profile, params.seeds)
    table = build_table(run.scores, run.significance, run.counts, run.recipes, *shape)
    steps = {row: [pandas.read_csv(PLOTS / f"steps/{row}-{seed}.csv") for seed in params.seeds] for row in rows}
    shown = shown_examples(table.rows, params)
    words = read_json("data/caption-words.json")
    figures = {name: captioning_example(one.picture, one.lines, one.title) for name, one in shown.items()}
    figures |= {
        "figure-1": caption_lengths(words["lengths"], words["without"]),
        "figure-2": word_cloud(words["counts"]),
    }
    for name, figure in (drawings(table, run, steps) | figures).items():
        save(figure, PLOTS / name)
    titles = FIGURES | {name: (one.heading, one.text) for name, one in shown.items()}
    pictures = {name: Picture((PLOTS / f"{name}.svg").read_bytes(), *title) for name, title in titles.items()}
    taken = {row: int(of[0]["step"].max()) for row, of in steps.items()}
    for name, text in (files(table) | {"report.html": page(table, run, pictures, taken)}).items():
        write_text(PLOTS / name, text)
    resume.remove_finished_runs()


def shown_params(text: str) -> str:
    """params.yaml without `tracking` and `resume`: where a log goes, and what is kept, change no result, so no page."""
    return re.sub(r"^(tracking|resume):.*\n(?: .*\n)*\n?", "", text, flags=re.MULTILINE)


def shown_examples(rows: Sequence[Row], params: Params) -> dict[str, Example]:
    """Figures 4 to 7 by name; of several seeds, the first."""
    ids = read_ids(Path("data/splits/test.txt"))
    drawn = draw_examples(groups(read_table(IMAGES, ids, ["id", "source", "facts"]).to_pylist()))

    def captions(row: Row) -> dict[str, str]:
        name = row.key if row.key.startswith("zero-shot") else f"{row.key}-{params.seeds[0]}"
        return {one["id"]: one["caption"] for one in read_predictions(Path(f"data/predictions/{name}.jsonl"), ids)}

    return examples(read_table(IMAGES, drawn).to_pylist(), rows, captions)


if __name__ == "__main__":
    main()
