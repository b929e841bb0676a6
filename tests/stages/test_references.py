"""Images with one reference each, or with unequal numbers, pass all stages from the data to the scores."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from captioning.evaluation.scores import Scorer
from stages import caption_stats, download, evaluate, split
from tests.evaluation.test_scores import NoMeteor
from tests.helpers.owned_data import jpeg, save

ROOT = Path(__file__).parents[2]
IMAGES = 60


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], int]], dict[str, Any]]:
    """Run the stages on images with so many references, and on invented captions of two rows; return the scores."""

    def run(references: Callable[[int], int]) -> dict[str, Any]:
        lines = []
        for number in range(IMAGES):
            save(tmp_path / f"raw/{number}.jpg", jpeg(str(number)))
            texts = [f"There are {number % 7 + way} boats at port number {way} ." for way in range(references(number))]
            lines.append(json.dumps({"file_name": f"{number}.jpg", "captions": texts}))
        save(tmp_path / "raw/metadata.jsonl", "\n".join(lines))
        yaml = YAML(typ="safe")
        params = yaml.load(ROOT / "params.yaml") | {"rows": ["mix"], "zero_shot": ["base"]}
        params["scst"]["baselines"] = ["greedy"]
        params["profiles"]["miniature"]["data"] |= {"source": "folder", "path": "raw"}
        yaml.dump(params, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(evaluate, "open_scorer", lambda: nullcontext(Scorer(NoMeteor())))
        for stage in (download, split, caption_stats):
            stage.main()
        ids = Path("data/splits/test.txt").read_text(encoding="utf-8").split()
        for name in ("zero-shot-base", "mix-1", "scst-mix-greedy-1"):
            rows = [{"id": id_, "caption": f"There are {len(id_)} boats .", "tokens": 5, "ended": True} for id_ in ids]
            save(Path(f"data/predictions/{name}.jsonl"), "\n".join(map(json.dumps, rows)))
        evaluate.main()
        return json.loads(Path("data/scores/scores.json").read_text(encoding="utf-8"))["rows"]

    return run


def test_one_reference_is_scored_without_a_human_row(score: Callable[..., dict[str, Any]]) -> None:
    rows = score(lambda _: 1)
    assert "human-caption" not in rows and {"constant-caption", "nearest-image"} < rows.keys()
    assert "|refs:1|" in rows["mix"]["signature"]


def test_unequal_numbers_of_references_are_scored(score: Callable[..., dict[str, Any]]) -> None:
    rows = score(lambda number: number % 20 + 1)
    assert "|refs:" in rows["mix"]["signature"] and "-" in rows["mix"]["signature"].split("|refs:")[1].split("|")[0]
    assert rows["human-caption"]["mean"]["CIDEr"] > 0
