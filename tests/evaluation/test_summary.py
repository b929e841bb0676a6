"""DVC's metrics are few: scores of each row, gains of SCST's rows, leakage of the split that was used."""

from captioning.data.outputs import Leakage, LeakedShares, SplitStatistics
from captioning.evaluation.outputs import RowScores
from captioning.evaluation.summary import cider_metrics, score_metrics

MEANS = {
    "mix": {"CIDEr": 200.004, "BLEU-1": 70.0, "BLEU-4": 40.0, "METEOR": 39.0, "ROUGE-L": 58.0, "length": 12.5},
    "scst-mix-greedy": {
        "CIDEr": 210.0,
        "BLEU-1": 71.0,
        "BLEU-4": 41.0,
        "METEOR": 38.0,
        "ROUGE-L": 59.0,
        "length": 10.25,
    },
}
ROWS = {row: RowScores.model_construct(mean=mean) for row, mean in MEANS.items()}
STARTS = {"scst-mix-greedy": "mix"}
APART = LeakedShares(captions=0.8, equal_images=0.8, near_images=0.8)
WHOLE = LeakedShares(captions=0.14, equal_images=0.02, near_images=0.03)
LEAKAGE = {"ratio": Leakage(images_apart=APART, groups_whole=APART)}
LEAKAGE |= {"own": Leakage(images_apart=APART, groups_whole=WHOLE)}
SPLITS = SplitStatistics.model_construct(method="own", leakage=LEAKAGE)


def test_ciders_have_a_file_of_their_own_by_row() -> None:
    assert cider_metrics(ROWS) == {"mix": 200.0, "scst-mix-greedy": 210.0}


def test_scores_are_those_that_a_person_compares() -> None:
    metrics = score_metrics(ROWS, STARTS, SPLITS)
    assert list(metrics) == ["BLEU-4", "METEOR", "ROUGE-L", "length", "SCST gain %", "leakage"]
    assert metrics["length"] == {"mix": 12.5, "scst-mix-greedy": 10.25}
    assert metrics["SCST gain %"] == {"scst-mix-greedy": 5.0}  # 9.996 of 200.004
    assert metrics["leakage"] == {"captions": 0.14, "images": 0.03}


def test_no_gain_over_a_start_that_scores_nothing() -> None:
    rows = ROWS | {"mix": RowScores.model_construct(mean=MEANS["mix"] | {"CIDEr": 0.0})}
    assert score_metrics(rows, STARTS, SPLITS)["SCST gain %"] == {}
