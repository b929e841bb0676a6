"""Score every row and the yardsticks with one scorer; the parameters decide which rows exist."""

from dataclasses import replace

from captioning.base.files import atomic_folder, write_json
from captioning.base.json_files import read_map
from captioning.data.outputs import SplitStatistics
from captioning.evaluation.exchange.coco_format import write_coco
from captioning.evaluation.exchange.protocols import add_protocols
from captioning.evaluation.exchange.texts import restore_texts
from captioning.evaluation.outputs import Evaluation
from captioning.evaluation.predictions import expected_runs, read_predictions, yardstick_run
from captioning.evaluation.rows import ScoredImages, evaluate, score_rows, significance, write_image_scores, yardsticks
from captioning.evaluation.scores import open_scorer, read_features
from captioning.evaluation.summary import cider_metrics, score_metrics
from captioning.images.table import read_captions, read_ids, read_table
from captioning.metrics.ptb import tokenize
from captioning.params.load import load_params
from captioning.params.recipes import refined_rows
from captioning.runtime.paths import CIDER, IMAGE_SCORES, IMAGES, PREDICTIONS, SCORES, SIGNIFICANCE, SPLITS, TOKENS
from captioning.runtime.progress import progress
from captioning.runtime.stage import stage_main


@stage_main
def main() -> None:
    params, splits = load_params(), SplitStatistics.read(SPLITS / "statistics.json")
    train, test, captioned = (read_ids(SPLITS / f"{name}.txt") for name in ("train", "test", "captioned"))
    tokens: dict[str, list[str]] = read_map(TOKENS, *captioned)
    facts = dict(zip(test, read_table(IMAGES, test, ["facts"])["facts"].to_pylist(), strict=True))
    images = ScoredImages({id_: tokens[id_] for id_ in captioned}, facts, read_map(SPLITS / "parts.json"))
    checkpoints = {row: params.variants[row].checkpoint for row in params.rows}
    starts = {row: start for row, (start, _) in refined_rows(params).items()}
    runs = expected_runs(params.zero_shot, checkpoints, starts, params.seeds)
    predictions = [read_predictions(PREDICTIONS / f"{run.name}.jsonl", captioned) for run in runs]
    tokenised = tokenize([record.caption for records in predictions for record in records])
    results = []
    with open_scorer() as scorer:
        for number, (run, records) in progress(list(enumerate(zip(runs, predictions, strict=True))), len(runs), "rows"):
            start = number * len(captioned)
            captions = dict(zip(captioned, tokenised[start : start + len(captioned)], strict=True))
            ended = [record.ended for record in records if record.id in facts]
            results.append(evaluate(run, images, captions, scorer, ended))
        features = read_features(IMAGES, train, captioned)
        for row, (references, captions) in yardsticks(tokens, train, captioned, *features).items():
            results.append(evaluate(yardstick_run(row), replace(images, references=references), captions, scorer))
        list(progress((scores.result() for scores in scorer.meteor), len(scorer.meteor), "METEOR"))  # wait for it
    texts, limit = restore_texts(results, predictions, tokens, read_captions(IMAGES)), params.decoding.maximum_tokens
    rows = add_protocols(score_rows(results, limit), results, texts, limit)
    with atomic_folder(SCORES.parent) as folder:
        write_coco(folder / "coco", texts)
        write_json(folder / SCORES.name, Evaluation(images=len(test), rows=rows).model_dump())
        write_json(folder / SIGNIFICANCE.name, significance(results, seed=1).model_dump())
        write_image_scores(folder / IMAGE_SCORES.name, results)
    write_json(CIDER, cider_metrics(rows))
    write_json(CIDER.with_name("scores.json"), score_metrics(rows, starts, splits))


if __name__ == "__main__":
    main()
