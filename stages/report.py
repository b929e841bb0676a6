"""Write Table II, the figures, the curves and the page from scores, step records and predictions."""

from pathlib import Path

import matplotlib
import pandas

from captioning.base.files import write_text
from captioning.data.outputs import CaptionStatistics, CaptionWords, Manifest, SplitStatistics
from captioning.evaluation.outputs import Evaluation, Significance
from captioning.params.load import load_params
from captioning.params.recipe import read_any_recipe
from captioning.params.recipes import refined_rows
from captioning.report.examples import read_examples
from captioning.report.figures import save_figure
from captioning.report.page import draw_figures, render_page
from captioning.report.table import Refinement, RunOutputs, Training, build_table
from captioning.report.table_text import format_files
from captioning.runtime import resume
from captioning.runtime.stage import stage_main

PLOTS, DATA = Path("plots"), Path("data")


@stage_main
def main() -> None:
    matplotlib.rcdefaults()  # not the user's matplotlibrc
    params = load_params()
    rows = dict.fromkeys(params.rows, Training) | dict.fromkeys(refined_rows(params), Refinement)
    run = RunOutputs(
        scores=Evaluation.read(DATA / "scores/scores.json"),
        significance=Significance.read(DATA / "scores/significance.json"),
        training={
            row: [kind.read(DATA / f"training/{row}-{seed}.json") for seed in params.seeds]
            for row, kind in rows.items()
        },
        recipes={row: read_any_recipe(DATA / f"recipes/{row}.json") for row in rows},
        splits=SplitStatistics.read(DATA / "splits/statistics.json"),
        captions=CaptionStatistics.read(DATA / "caption-statistics.json"),
        manifest=Manifest.read(DATA / "captions/manifest.json"),
        params_text=Path("params.yaml").read_text(encoding="utf-8"),
    )
    table = build_table(run, params.zero_shot, params.profile, params.seeds)
    steps = {row: [pandas.read_csv(PLOTS / f"steps/{row}-{seed}.csv") for seed in params.seeds] for row in rows}
    words, examples = CaptionWords.read(DATA / "caption-words.json"), read_examples(table.rows, params.seeds[0])
    figures = draw_figures(table, run, steps, words) | {name: example.draw() for name, example in examples.items()}
    for name, figure in figures.items():
        save_figure(figure, PLOTS / name)
    svgs = {name: (PLOTS / f"svg/{name}.svg").read_bytes() for name in figures}
    page = render_page(table, run, svgs, examples, {row: int(seeds[0]["step"].max()) for row, seeds in steps.items()})
    for name, text in (format_files(table) | {"report.html": page}).items():
        write_text(PLOTS / name, text)
    resume.remove_finished_runs()


if __name__ == "__main__":
    main()
