"""A complete run of invented values: all files that the stage `report` reads."""

import io
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from captioning.base.files import write_records
from captioning.data.outputs import CaptionStatistics, Leakage, LeakedShares, Lengths, Manifest, SplitStatistics
from captioning.evaluation.significance import compare_rows
from captioning.params.load import load_params
from captioning.params.recipe import VariantRecipe
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
CHANGES = {name: PARAMS.variants[name] for name in PARAMS.rows}
VARIANTS = {name: (variant.checkpoint, variant.rank or PARAMS.lora.rank) for name, variant in CHANGES.items()}
SCST = ("scst-mix-greedy", "scst-mix-leave-one-out")
ZERO_SHOT = ("base", "mix")
SHARES = LeakedShares(captions=0.1423, equal_images=0.0, near_images=0.0)
SPLITS = SplitStatistics(
    method="ratio",
    images={"train": 700, "validation": 250, "test": 257},
    images_by_source={"NWPU": {"train": 660, "validation": 236, "test": 236}, "UCM": {"train": 40}},
    near_equal_groups=3,
    images_in_groups=6,
    largest_group=2,
    leakage={"ratio": Leakage(images_apart=SHARES, groups_whole=SHARES), "own": None},
)
MANIFEST = Manifest(
    source={"kind": "overhead"},
    declared=None,
    rows=1210,
    captions=6050,
    rows_read=1210,
    images={"NWPU": 1132, "UCM": 75},
    images_by_captions_kept={"5": 1207},
    cleaning_rules_fired={},
    set_aside=3,
    set_aside_by_reason={},
    sha256={"images.parquet": "ab" * 32},
)
HOSTILE = "<script>alert('a & b')</script> $x$"


def write_run(folder: Path, images: int = 12, steps: int = 8) -> None:
    """Write all files that the stage reads, with the committed params.yaml."""
    shutil.copy(ROOT / "params.yaml", folder)
    draw = random.Random(1)
    write_images(folder, images)
    words = {"lengths": [9, 11, 12], "without": [5, 6, 6], "counts": {"harbour": 2, "roof": 3}}
    write_json(folder / "data/caption-words.json", words)
    for name in [*(f"zero-shot-{name}" for name in ZERO_SHOT), *(f"{name}-1" for name in [*VARIANTS, *SCST])]:
        lines = [json.dumps({"id": f"d_{k}", "caption": HOSTILE, "tokens": 1, "ended": True}) for k in range(images)]
        write(folder / f"data/predictions/{name}.jsonl", "\n".join(lines) + "\n")
    for name, (checkpoint, rank) in VARIANTS.items():
        write_json(folder / f"data/recipes/{name}.json", recipe(name, checkpoint, rank).model_dump())
        records: list[dict[str, Any]] = []
        for k in range(1, steps + 1):
            records.append({"step": k, "epoch": k / steps, "loss": 3 / k + draw.random() / 5, "learning_rate": 1e-3})
            records[-1]["validation_loss"] = 2 / k if k % (steps // 2) == 0 else None
        write_records(folder / f"plots/steps/{name}-1.csv", records, list(records[0]))
        metrics = counts(rank) | {"best_epoch": 2, "validation_loss": 1.0}
        write_json(folder / f"data/training/{name}-1.json", metrics)
    for name in SCST:
        write_scst(folder, name, steps, draw)
    write_scores(folder, images, draw)
    write_json(folder / "data/splits/statistics.json", SPLITS.model_dump())
    lengths = Lengths(mean=12.1, median=12.0, mode=11, minimum=3, maximum=50)
    numbers = {name: 6000 for name, field in CaptionStatistics.model_fields.items() if field.annotation is int}
    numbers |= {name: lengths for name, field in CaptionStatistics.model_fields.items() if field.annotation is Lengths}
    described = CaptionStatistics(**numbers, near_duplicate_pairs=0.1, distinct_captions={"overhead": {"5": 1.0}})
    write_json(folder / "data/caption-statistics.json", described.model_dump())


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_json(path: Path, content: Any) -> None:
    write(path, json.dumps(content))


def write_images(folder: Path, number: int) -> None:
    rows = []
    for k in range(number):
        png, noise = io.BytesIO(), Image.effect_noise((48, 48), 60).convert("RGB")
        noise.point(lambda level, k=k: (level + 20 * k) % 256).save(png, "PNG")
        facts = json.dumps({"scene": f"scene {k % 5}", "colour": "red", "count": 1, "beside": ""})
        captions = ["a red barn stands beside a road ."] * 5
        row = {"id": f"d_{k}", "source": "overhead", "split": "", "captions": captions, "facts": facts}
        rows.append(row | {"image": {"bytes": png.getvalue(), "path": ""}})
    (folder / "data/captions").mkdir(parents=True)
    reasons = {"no such file": 2, "a caption is nearly empty": 1}
    write_json(folder / "data/captions/manifest.json", MANIFEST.model_dump() | {"set_aside_by_reason": reasons})
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/captions/images.parquet")
    for name in ("test", "captioned"):
        write(folder / f"data/splits/{name}.txt", "".join(f"{row['id']}\n" for row in rows))


def write_scores(folder: Path, images: int, draw: random.Random) -> None:
    """Write scores of each row, and the differences that evaluation/significance.py computes for invented images."""
    kinds = {f"zero-shot-{name}": ("zero-shot", 9.0) for name in ZERO_SHOT} | dict.fromkeys(VARIANTS, ("adapted", 95.0))
    kinds |= dict.fromkeys(SCST, ("scst", 130.0))
    kinds |= dict.fromkeys(("constant-caption", "human-caption", "nearest-image"), ("yardstick", 60.0))
    rows = {name: score_entry(kind, draw, cider) for name, (kind, cider) in kinds.items()}
    human = rows["human-caption"]
    del human["signature caption_1"]
    human["mean"] = {name: value for name, value in human["mean"].items() if "caption_1" not in name}
    write_json(folder / "data/scores/scores.json", {"images": images, "rows": rows})
    noise = np.random.default_rng(1)
    by_image = {name: entry["mean"]["CIDEr"] + noise.normal(0, 20, (1, images)) for name, entry in rows.items()}
    comparison = compare_rows({name: scores for name, scores in by_image.items() if name != "human-caption"}, 1, 200)
    bounds = dict(comparison.intervals) | {"human-caption": (50.0, 70.0)}
    entries = {name: {"low": low, "high": high} for name, (low, high) in bounds.items() if name in rows}
    for name, entry in entries.items():
        entry["letters"] = comparison.letters.get(name)
    significance = {"measure": "CIDEr", "resamples": 10_000, "seed": 1, "level": 0.95, "rows": entries}
    significance["pairs"] = [asdict(pair) for pair in comparison.differences]
    write_json(folder / "data/scores/significance.json", significance)


def write_scst(folder: Path, name: str, steps: int, draw: random.Random) -> None:
    trained = ("loss", "reward", "baseline", "advantage", "advantage_deviation", "length", "ended", "distinct")
    validated = ("validation_cider", "validation_length", "validation_ended", "gain", "gain_low", "gain_high")
    records: list[dict[str, Any]] = []
    for k in range(steps + 1):
        numbers = (0.1, 0.8 + k / 9 + draw.random() / 5, 1.1 + k / 9, -0.1, 0.7, 15 - k / 3, 0.9, 0.9 - k / 60)
        records.append({"step": k, **dict(zip(trained, numbers, strict=True))})
        if k % 4 == 0:
            numbers = (100.0 + k, 12 - k / 5, 0.95, float(k), k - 2.0 * (k > 0), k + 3.0 * (k > 0))
            records.append({"step": k, **dict(zip(validated, numbers, strict=True))})
    write_records(folder / f"plots/steps/{name}-1.csv", records, ["step", *trained, *validated])
    _, start, baseline = name.split("-", 2)
    refinement = scst_recipe(variant=name, start=start, baseline=baseline, images=500, batch=16, epochs=1)
    write_json(folder / f"data/recipes/{name}.json", change(refinement, learning_rate=5e-4, rank=16).model_dump())
    gain = {"gain_percent": 8.0, "gain_percent_low": 6.0, "gain_percent_high": 11.0, "signature": "CIDEr-D|validation"}
    gain |= {"best_step": 8, "start_validation_cider": 100.0, "validation_cider": 108.0}
    write_json(folder / f"data/training/{name}-1.json", counts(12) | gain)


def recipe(variant: str, checkpoint: str, rank: int) -> VariantRecipe:
    targets = "all-linear" if variant == "full-adapter" else "table2"
    settings = {"rank": rank, "alpha": 16.0, "batch": 4, "accumulation": 4, "learning_rate": 3e-3}
    return variant_recipe(variant=variant, name=checkpoint, targets=targets, **settings)


def counts(rank: int) -> dict[str, float]:
    return {"trainable_parameters": 4096 * rank, "all_parameters": 1_900_000, "share": 100 * 4096 * rank / 1_900_000}


def score_entry(kind: str, draw: random.Random, cider: float) -> dict[str, Any]:
    scores = {"CIDEr": cider + 5 * draw.random(), "BLEU-1": 50.0, "BLEU-2": 40.0, "BLEU-3": 30.0}
    scores |= {"BLEU-4": 20 + draw.random(), "METEOR": 22.0, "ROUGE-L": 44.0, "length": 11.5, "ended": 0.98}
    scores |= {"distinct": 0.5, "Self-CIDEr": 60.0, "scene": 0.9, "colour": 0.8}
    scores |= {f"{name} caption_1": 0.6 * scores[name] for name in ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")}
    vocabulary = {"infrastructure": {"share": 0.4, "terms": 3, "gain": 0.2}}
    vocabulary |= {"land use": {"share": 0.1, "terms": 3, "gain": None}}
    entry = {"kind": kind, "signature": "PTB|refs:5", "signature caption_1": "PTB|refs:caption_1"}
    ciders = {"Table II": scores["CIDEr"], "no PTB tokens": 0.8 * scores["CIDEr"]}
    signatures = {"Table II": "PTB|refs:5", "no PTB tokens": "raw|refs:5"}
    entry["protocols"] = {"signatures": signatures, "seeds": {"1": ciders}, "mean": ciders, "deviation": None}
    return entry | {"sources": {}, "seeds": {"1": scores}, "mean": scores, "deviation": None, "vocabulary": vocabulary}
