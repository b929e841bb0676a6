"""COCO's own evaluation reads the files and gives the same scores; CIDEr under other protocols, by pycocoevalcap."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from captioning.evaluation.exchange import protocols
from captioning.evaluation.exchange.coco_format import write_coco
from captioning.evaluation.exchange.protocols import add_protocols
from captioning.evaluation.exchange.texts import Texts, restore_texts
from captioning.evaluation.predictions import Prediction, Run, yardstick_run
from captioning.evaluation.rows import Result, ScoredImages, evaluate, score_rows, yardsticks
from captioning.evaluation.scores import Scorer, open_scorer
from captioning.metrics.ptb import tokenize
from tests.evaluation.test_scores import NoMeteor
from tests.helpers.coco_scorer import NAMES, coco_scores

WORDS = ["Many", "trees,", "a", "T-shaped", "the airport's", "port", "(grey)", "lake", "near", "two", "1,000", "cannot"]
TEST, TRAIN = [f"x {number:02}" for number in range(24)], [f"t{number}" for number in range(6)]


def _caption(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(4, 9))) + rng.choice([" .", ".", "", " boats ."])


@pytest.fixture(scope="module")
def captions() -> dict[str, list[str]]:
    rng = random.Random(3)
    return {id_: [_caption(rng) for _ in range(rng.randint(2, 5))] for id_ in (*TEST, *TRAIN)}


@pytest.fixture(scope="module")
def predictions(captions: dict[str, list[str]]) -> dict[str, list[Prediction]]:
    """Return captions of two seeds of a row: references with a word less. METEOR reads no empty caption as it is."""
    rng, seeds = random.Random(4), {}
    for run in ("mix-1", "mix-2"):
        texts = [rng.choice(captions[id_]).partition(" ")[2] for id_ in TEST]
        records = [
            Prediction(id=id_, caption=text, tokens=9, ended=True) for id_, text in zip(TEST, texts, strict=True)
        ]
        seeds[run] = records
    return seeds


def _evaluate(
    captions: dict[str, list[str]], predictions: dict[str, list[Prediction]], scorer: Scorer
) -> tuple[list[Result], list[Texts]]:
    tokens = {id_: tokenize(texts) for id_, texts in captions.items()}
    images = ScoredImages({id_: tokens[id_] for id_ in TEST}, dict.fromkeys(TEST, ""))
    results = []
    for name, records in predictions.items():
        row, _, seed = name.partition("-")
        hypotheses = dict(zip(TEST, tokenize([record.caption for record in records]), strict=True))
        results.append(evaluate(Run(row, "adapted", int(seed), None), images, hypotheses, scorer))
    features = np.array([[4.0 * number] for number in range(len(TRAIN))]), np.array([[float(k)] for k in range(24)])
    for row, (others, hypotheses) in yardsticks(tokens, TRAIN, TEST, *features).items():
        results.append(evaluate(yardstick_run(row), replace(images, references=others), hypotheses, scorer))
    return results, restore_texts(results, list(predictions.values()), tokens, captions)


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with open_scorer() as scorer:
        yield scorer


@pytest.fixture(scope="module")
def scored(
    captions: dict[str, list[str]], predictions: dict[str, list[Prediction]], scorer: Scorer
) -> tuple[list[Result], list[Texts]]:
    return _evaluate(captions, predictions, scorer)


def test_cocos_own_evaluation_gives_the_scores(
    scored: tuple[list[Result], list[Texts]], scorer: Scorer, tmp_path: Path
) -> None:
    """All rows and seeds, within 1e-9 of a score; Table II prints one decimal. The first has a METEOR of its own."""
    results, texts = scored
    write_coco(tmp_path / "coco", texts)
    names = ["mix-1", "mix-2", "constant-caption", "human-caption", "nearest-image"]
    assert [result.run.name for result in results] == names
    for result in results:
        meteor = (lambda: scorer._peer,) if result is not results[0] else ()
        expected = pytest.approx({name: result.measures[name] for name in NAMES}, rel=1e-9)
        assert coco_scores(tmp_path / "coco", result.run.name, *meteor) == expected, result.run.name
    files = {"references.json", "human-caption-references.json", *(f"{name}.json" for name in names)}
    assert {path.name for path in (tmp_path / "coco").iterdir()} == files


def test_files_hold_captions_as_they_are_written(
    scored: tuple[list[Result], list[Texts]], captions: dict[str, list[str]], tmp_path: Path
) -> None:
    write_coco(tmp_path / "coco", scored[1])
    content = json.loads((tmp_path / "coco/references.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    assert list(names) == [*range(1, 25)] and list(names.values()) == TEST
    pairs = [(id_, caption) for id_ in TEST for caption in captions[id_]]
    assert [(names[line["image_id"]], line["caption"]) for line in content["annotations"]] == pairs
    human = json.loads((tmp_path / "coco/human-caption.json").read_text())
    assert [line["caption"] for line in human] == [captions[id_][0] for id_ in TEST]
    [constant] = {line["caption"] for line in json.loads((tmp_path / "coco/constant-caption.json").read_text())}
    assert constant in [caption for id_ in TRAIN for caption in captions[id_]]


def _cider(references: dict[str, list[str]], hypotheses: dict[str, str]) -> float:
    return 100 * Cider().compute_score(references, {id_: [hypotheses[id_]] for id_ in references})[0]


@pytest.mark.parametrize("subset", [24, 10])
def test_each_protocol_is_scored_alone(
    subset: int,
    captions: dict[str, list[str]],
    predictions: dict[str, list[Prediction]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protocols with fewer images exist if there are more images than that."""
    monkeypatch.setattr(protocols, "SUBSET", subset)
    results, texts = _evaluate(captions, predictions, Scorer(NoMeteor()))
    rows = add_protocols(score_rows(results, 40), results, texts, 40)
    row = rows["mix"].protocols
    raw = {record.id: record.caption for record in predictions["mix-2"]}
    first = {id_: captions[id_][:1] for id_ in TEST}
    values = row.seeds["2"]
    assert values["Table II"] == rows["mix"].seeds["2"]["CIDEr"]
    assert values["one reference"] == rows["mix"].seeds["2"]["CIDEr caption_1"]
    assert values["no PTB tokens"] == pytest.approx(_cider({id_: captions[id_] for id_ in TEST}, raw))
    assert values["no PTB tokens, one reference"] == pytest.approx(_cider(first, raw))
    assert row.mean["no PTB tokens"] == (row.seeds["1"]["no PTB tokens"] + values["no PTB tokens"]) / 2
    assert row.signatures["no PTB tokens, one reference"].endswith(
        "|raw|refs:caption_1|df:test|greedy|max_tokens:40|split:test|n:24"
    )
    assert len(values) == (4 if subset == 24 else 6)
    assert list(rows["human-caption"].protocols.mean) == [name for name in values if "one reference" not in name]
    if subset == 10:
        drawn = sorted(random.Random(protocols.SEED).sample(TEST, 10))
        assert values["no PTB tokens, 500 images"] == pytest.approx(_cider({id_: captions[id_] for id_ in drawn}, raw))
        tokens = {id_: tokenize(captions[id_]) for id_ in drawn}
        assert values["500 images"] == pytest.approx(_cider(tokens, results[1].captions))
        assert "|PTB|refs:2-5|df:test:drawn|greedy|max_tokens:40|split:test:drawn|n:10" in row.signatures["500 images"]
