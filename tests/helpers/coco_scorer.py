"""Scores of the files in COCO's format, by pycocoevalcap's own evaluation."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pycocoevalcap.eval import COCOEvalCap
from pycocoevalcap.meteor.meteor import Meteor
from pycocotools.coco import COCO

from captioning.evaluation.scores import java_on_path

NAMES = {"CIDEr": "CIDEr", "BLEU-4": "Bleu_4", "METEOR": "METEOR", "ROUGE-L": "ROUGE_L"}


class NoSpice:
    """Replaces SPICE, which needs an old JDK and downloads models."""

    def method(self) -> str:
        return "no SPICE"

    def compute_score(self, truth: dict[int, Any], captions: object) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(truth)


def coco_scores(folder: Path, run: str, meteor: Callable[[], Any] = Meteor) -> dict[str, float]:
    """Return the scores, times 100, of the results of `run` in `folder`. `meteor` saves the start of its process."""
    others = folder / f"{run}-references.json"
    quiet, no_spice = contextlib.redirect_stdout(io.StringIO()), patch("pycocoevalcap.eval.Spice", NoSpice)
    with java_on_path(), quiet, no_spice, patch("pycocoevalcap.eval.Meteor", meteor):
        references = COCO(str(others if others.exists() else folder / "references.json"))
        evaluation = COCOEvalCap(references, references.loadRes(str(folder / f"{run}.json")))
        evaluation.evaluate()
    return {name: 100 * float(evaluation.eval[key]) for name, key in NAMES.items()}
