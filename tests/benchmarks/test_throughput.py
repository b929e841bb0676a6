"""Images per second by batch: all that a GPU runs, on a miniature and a CPU; only the device's name is another."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import throughput
from benchmarks.planning import IMAGES
from benchmarks.throughput import Speed, chosen, hours, measured, page, sweep
from captioning.limits.memory import Need
from captioning.params.load import load_params

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
GB = 10**9


def test_everything_is_measured_on_a_miniature(checkpoint: Path) -> None:
    text = throughput.main(checkpoint, "cpu", sizes=(1, 2), threads=1)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == ["training", "training", "captioning", "captioning", "SCST", "SCST"]
    told = json.loads(text.splitlines()[-1])["cpu"]
    names = {*(f"zero-shot-{name}" for name in PARAMS.zero_shot), *PARAMS.rows}
    names |= {f"scst-{start}-{baseline}" for start in PARAMS.scst.starts for baseline in PARAMS.scst.baselines}
    assert told.keys() == names
    assert all(row["hours"] > 0 for row in told.values())


def test_batches_end_where_the_next_is_predicted_not_to_fit() -> None:
    """Half a gigabyte of libraries, a margin of a tenth."""
    need = Need("k", 1, "images", {}, lambda items: items * GB, "cuda")
    tried: list[int] = []

    def work(items: int) -> Any:
        tried.append(items)
        return lambda: None

    found = sweep(work, need, 5 * GB, (1, 2, 4, 8), "cpu")
    assert tried == [1, 2, 4] and [speed.items for speed in found] == [1, 2, 4]
    assert sweep(work, need, GB, (1, 2), "cpu") == []


def test_the_first_step_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 100.0, 0.0, 2.0, 0.0, 4.0, 0.0, 3.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(moments))
    assert measured(lambda: None, 6, "cpu") == Speed(6, 2.0, 0)


def test_hours_of_a_row_are_its_images_at_its_speed() -> None:
    speeds = {
        "training": Speed(16, 40.0, 30 * GB),
        "captioning": Speed(64, 100.0, 12 * GB),
        "SCST": Speed(32, 10.0, 70 * GB),
    }
    found = hours(PARAMS, speeds)
    test = IMAGES["test"] / 100
    trained = (2 * IMAGES["train"] + 2 * IMAGES["validation"] / 3) / 40
    assert found["base-r4"] == {"hours": round((trained + test) / 3600, 3), "gigabytes": 30.0}
    assert found["zero-shot-mix"] == {"hours": round(test / 3600, 3), "gigabytes": 12.0}
    assert found["scst-mix-greedy"] == {"hours": round((2 * IMAGES["train"] / 10 + test) / 3600, 3), "gigabytes": 70.0}
    rows = PARAMS.model_copy(update={"rows": ["mix-all"]})
    more = hours(rows, speeds)["mix-all"]["hours"] - found["mix"]["hours"]
    assert math.isclose(more, 4 * 2 * IMAGES["train"] / 40 / 3600, abs_tol=0.002), "five captions an image"


def test_the_profiles_own_batch_is_chosen_or_the_largest_below() -> None:
    speeds = [Speed(items, 1.0 * items, 0) for items in (1, 2, 4, 8)]
    assert chosen(speeds, 4).items == 4
    assert chosen(speeds, 64).items == 8


def test_a_device_that_is_too_small_is_told() -> None:
    one = [Speed(1, 1.0, GB)]
    text = page(PARAMS, {"training": [], "captioning": one, "SCST": one}, "T4")
    assert text.endswith("T4: not even one image at a time fits for training")
    whole = page(PARAMS, {"training": one, "captioning": one, "SCST": one}, "T4")
    assert json.loads(whole.splitlines()[-1]).keys() == {"T4"}
    assert dataclasses.asdict(one[0])["items"] == 1
