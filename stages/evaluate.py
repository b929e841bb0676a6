"""Every row through one scorer, the yardsticks too; the parameters say which rows there are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.files import atomic_folder, write_json
from captioning.base.json_files import read_map
from captioning.evaluation.predictions import NO_SEED, expected_runs, read_predictions
from captioning.evaluation.rows import by_row, differences, evaluate, image_scores, metrics, yardsticks
from captioning.evaluation.scores import image_feature, scorer
from captioning.images.table import read_ids, read_table, stream_images
from captioning.metrics.ptb import tokenize
from captioning.params.load import load_params
from captioning.params.recipes import refined_rows
from captioning.runtime.progress import progress
from captioning.runtime.stage import stage_main

IMAGES, OUT = Path("data/captions/images.parquet"), Path("data/scores")
SEED = 1  # of the resamples


@stage_main
def main() -> None:
    params = load_params()
    train, test = (read_ids(Path(f"data/splits/{name}.txt")) for name in ("train", "test"))
    tokens = read_map(Path("data/references/tokens.json"), *test)
    references = {id_: tokens[id_] for id_ in test}
    facts = dict(zip(test, read_table(IMAGES, test, ["facts"])["facts"].to_pylist(), strict=True))
    checkpoints = {row: params.variants[row].checkpoint for row in params.rows}
    refined = {row: start for row, (start, _) in refined_rows(params).items()}
    runs = expected_runs(params.zero_shot, checkpoints, refined, params.seeds)
    predicted = [read_predictions(Path(f"data/predictions/{run.name}.jsonl"), test) for run in runs]
    said = iter(tokenize([one["caption"] for predictions in predicted for one in predictions]))
    results = []
    with scorer() as metrics_of:
        for run, predictions in progress(list(zip(runs, predicted, strict=True)), len(runs), "rows"):
            ended, captions = [one["ended"] for one in predictions], {id_: next(said) for id_ in test}
            results.append(evaluate(run.row, run.kind, run.seed, references, captions, facts, metrics_of, ended))
        for row, (truth, captions) in yardsticks(tokens, train, test, *features(train, test)).items():
            results.append(evaluate(row, "yardstick", NO_SEED, truth, captions, facts, metrics_of))
    scores = by_row(results, {run.row: run.zero_shot for run in runs}, params.decoding.maximum_tokens)
    found = differences(results, SEED)
    with atomic_folder(OUT) as out:
        write_json(out / "scores.json", {"images": len(test), "rows": scores})
        write_json(out / "significance.json", found)
        pq.write_table(pa.table(image_scores(results)), out / "by-image.parquet", compression="zstd")
    write_json(Path("metrics/scores.json"), metrics(scores, found["rows"]))


def features(train: list[str], test: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """`image_feature` of the training and of the test images, in their order."""
    wanted = {*train, *test}
    found = {one.id: image_feature(one.image) for one in stream_images(IMAGES) if one.id in wanted}
    return np.stack([found[id_] for id_ in train]), np.stack([found[id_] for id_ in test])


if __name__ == "__main__":
    main()
