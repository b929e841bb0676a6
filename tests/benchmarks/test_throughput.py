"""Images per second by batch: everything that a GPU runs, on a miniature and a CPU."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import throughput
from benchmarks.planning import IMAGES
from benchmarks.throughput import Speed, choose_speed, hours, make_page, measure, shorten, sweep
from captioning.limits.memory import Need
from captioning.params.load import load_params

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
GB = 10**9


def test_everything_is_measured_on_a_miniature(checkpoint: Path) -> None:
    text = throughput.main(checkpoint, "cpu", sizes=(1, 2), threads=1)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == ["training", "training", "captioning", "captioning", "SCST", "SCST"]
    entry = json.loads(text.splitlines()[-1])["cpu"]
    assert [(step["what"], step["batch"]) for step in entry["steps"][:3]] == [
        ("training", 1),
        ("training", 2),
        ("captioning", 1),
    ]
    rows_by_name = entry["rows"]
    names = {*(f"zero-shot-{name}" for name in PARAMS.zero_shot), *PARAMS.rows}
    names |= {f"scst-{start}-{baseline}" for start in PARAMS.scst.starts for baseline in PARAMS.scst.baselines}
    assert rows_by_name.keys() == names
    assert all(row["hours"] > 0 for row in rows_by_name.values())


def test_batches_end_before_one_that_does_not_fit() -> None:
    """Libraries take half a gigabyte, the margin is a tenth."""
    need = Need("k", 1, "images", {}, lambda items: items * GB, "cuda")
    tried: list[int] = []

    def make_step(items: int) -> Any:
        tried.append(items)
        return lambda: None

    speeds = sweep(make_step, need, 5 * GB, (1, 2, 4, 8), "cpu")
    assert tried == [1, 2, 4] and [speed.items for speed in speeds] == [1, 2, 4]
    assert sweep(make_step, need, GB, (1, 2), "cpu") == []


def test_the_first_step_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 100.0, 0.0, 2.0, 0.0, 4.0, 0.0, 3.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(moments))
    assert measure(lambda: None, 6, "cpu") == Speed(6, 2.0, 0)


def test_hours_of_a_row_are_its_images_at_its_speed() -> None:
    speeds = {
        "training": Speed(16, 40.0, 30 * GB),
        "captioning": Speed(64, 100.0, 12 * GB),
        "SCST": Speed(32, 10.0, 70 * GB),
    }
    rows = hours(PARAMS, speeds)
    test = IMAGES["test"] / 100
    trained = (2 * IMAGES["train"] + 2 * IMAGES["validation"] / 3) / 40
    assert rows["base-r4"] == {"hours": round((trained + test) / 3600, 3), "gigabytes": 30.0}
    assert rows["zero-shot-mix"] == {"hours": round(test / 3600, 3), "gigabytes": 12.0}
    assert rows["scst-mix-greedy"] == {"hours": round((2 * IMAGES["train"] / 10 + test) / 3600, 3), "gigabytes": 70.0}
    params = PARAMS.model_copy(update={"rows": ["mix-all"]})
    more = hours(params, speeds)["mix-all"]["hours"] - rows["mix"]["hours"]
    assert math.isclose(more, 4 * 2 * IMAGES["train"] / 40 / 3600, abs_tol=0.002), "five captions per image"


def test_the_profiles_batch_or_the_next_smaller_one_is_chosen() -> None:
    speeds = [Speed(items, 1.0 * items, 0) for items in (1, 2, 4, 8)]
    assert choose_speed(speeds, 4).items == 4
    assert choose_speed(speeds, 64).items == 8


def test_a_device_that_is_too_small_is_reported() -> None:
    speeds = [Speed(1, 1.0, GB)]
    text = make_page(PARAMS, {"training": [], "captioning": speeds, "SCST": speeds}, "T4")
    assert text.endswith("T4: not even one image at a time fits for training")
    text = make_page(PARAMS, dict.fromkeys(("training", "captioning", "SCST"), speeds), "T4")
    assert json.loads(text.splitlines()[-1]).keys() == {"T4"}


def test_captions_of_training_have_a_typical_length(processor: Any) -> None:
    text = "a red plane parked near the terminal . a red plane parked near the terminal ."
    short = shorten(processor.tokenizer, text, 10)
    assert text.startswith(f"{short} ")
    longer = text[: len(short)] + " " + text[len(short) :].split()[0]
    assert len(processor.tokenizer.encode(short, add_special_tokens=False)) < 10
    assert len(processor.tokenizer.encode(longer, add_special_tokens=False)) >= 10
