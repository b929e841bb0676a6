"""Table II, Figures 3 to 7, the curves and the page, from scores, step records and predictions."""

import json
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas
from PIL import Image

from captioning.curves import scst_curves, training_curves
from captioning.dataset import read_table
from captioning.diagram import two_stage_pipeline
from captioning.figures import captioning_example, save, table_picture
from captioning.params import Params, load_params
from captioning.report import FIGURES, Picture, draw_examples, example_rows, page, scene_or_source
from captioning.runlog import stage_main
from captioning.table import Table, build_table, csv_text, display, json_text, markdown, scores_csv

PLOTS, IMAGES = Path("plots"), Path("data/captions/images.parquet")


def load(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(table: Table) -> None:
    header, rows = display(table)
    save(table_picture(header, rows, table.notes), PLOTS / "table-2")
    for suffix, text in ("md", markdown), ("csv", csv_text), ("json", json_text):
        (PLOTS / f"table-2.{suffix}").write_text(text(table), encoding="utf-8")
    (PLOTS / "scores.csv").write_text(scores_csv(table), encoding="utf-8")


def write_examples(table: Table, params: Params) -> dict[str, tuple[str, str]]:
    """Figures 4-7; returns their titles and captions."""
    ids, groups, titles = Path("data/splits/test.txt").read_text(encoding="utf-8").split(), defaultdict(list), {}
    for row in read_table(IMAGES, ids, ["id", "source", "facts"]).to_pylist():
        groups[scene_or_source(row)].append(row["id"])
    examples = read_table(IMAGES, draw_examples(groups)).to_pylist()
    for number, image in enumerate(examples, start=4):
        lines = [(row.name, caption(row.key, image["id"], params)) for row in example_rows(number, table.rows)]
        lines.append(("Reference C1", image["captions"][0]))
        title = f"Image {image['id']} ({scene_or_source(image)})"
        save(captioning_example(Image.open(BytesIO(image["image"]["bytes"])), lines, title), PLOTS / f"figure-{number}")
        titles[f"figure-{number}"] = (f"Figure {number}. {title}", "; ".join(f"{who}: “{what}”" for who, what in lines))
    return titles


def caption(row: str, image: str, params: Params) -> str:
    """What `row` said about the image; of several seeds, the first."""
    name = row if row.startswith("zero-shot") else f"{row}-{params.seeds[0]}"
    lines = map(json.loads, Path(f"data/predictions/{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return next(line["caption"] for line in lines if line["id"] == image)


@stage_main
def main() -> None:
    params, scores = load_params(), load("data/scores/scores.json")
    recipes = {name: load(f"data/recipes/{name}.json") for name in [*params.variants, "scst"]}
    training = {name: load(f"metrics/training/{name}-{params.seeds[0]}.json") for name in recipes}
    steps = {name: [pandas.read_csv(PLOTS / f"steps/{name}-{seed}.csv") for seed in params.seeds] for name in recipes}
    table = build_table(scores, training, recipes, params.zero_shot, params.profile, params.seeds)
    write_table(table)
    save(two_stage_pipeline(recipes[params.scst.start], recipes["scst"]), PLOTS / "figure-3")
    save(scst_curves(steps.pop("scst")), PLOTS / "scst-curves")
    save(training_curves(steps), PLOTS / "training-curves")
    titles = FIGURES | write_examples(table, params)
    pictures = {name: Picture((PLOTS / f"{name}.svg").read_bytes(), *title) for name, title in titles.items()}
    text = page(
        table,
        scores,
        training,
        recipes,
        pictures,
        load("metrics/splits.json"),
        load("metrics/captions.json"),
        Path("params.yaml").read_text(encoding="utf-8"),
    )
    (PLOTS / "report.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
