"""Verification passes what another machine may change, and fails what it may not."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioning.base.errors import UserError
from tools.verify import (
    ROUNDING,
    TOLERANCES,
    UNTRAINED_NAMING,
    check_lock,
    checkpoint_hashes,
    differences,
    limited,
    table,
    tolerance,
    values,
)

SCORES = {"mix": {"CIDEr": 120.0, "scene": 0.9}, "human-caption": {"CIDEr": 170.0}}
TRAINING = {"trainable_parameters": 176128, "share": 9.5, "best_epoch": 1, "validation_loss": 1.5}
LOCK = """
schema: "2.0"
stages:
  download: {cmd: a, outs: [{path: data/captions, md5: aaa}]}
  split: {cmd: b, outs: [{path: data/splits, md5: bbb}]}
  checkpoint@base: {cmd: c, outs: [{path: models/checkpoints/base.json, md5: ccc}]}
  recipes:
    cmd: d
    deps: [{path: models/checkpoints/base.json, md5: ccc}, {path: stages/recipes.py, md5: ddd}]
    params: {params.yaml: {lora: {rank: 16}}}
    outs: [{path: data/recipes, md5: eee}]
  generate@mix-1: {cmd: e, outs: [{path: data/predictions/mix-1.jsonl, md5: fff}]}
"""
LOCK = re.sub(r"md5: ([a-f])\1\1", lambda found: f"md5: {found[1] * 32}", LOCK)  # as long as hashes are


def files(scores: Any = SCORES, training: Any = TRAINING, lock: str = LOCK) -> dict[str, str]:
    metrics = {"metrics/scores.json": scores, "metrics/training/mix-1.json": training}
    return {"dvc.lock": lock, **{path: json.dumps(content) for path, content in metrics.items()}}


def wrong(found: dict[str, str], agree: bool = True, exact: bool = False) -> list[str]:
    committed, here = (values(one, agree, exact) for one in (files(), found))
    return [".".join(one.key[1:]) for one in differences(committed, here, exact)]


def changed(content: dict[str, Any], value: Any, *keys: str) -> dict[str, Any]:
    content = copy.deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


def test_identical_is_right() -> None:
    assert wrong(files()) == []


def test_a_missing_and_an_added_row_are_wrong() -> None:
    assert wrong(files(scores={"human-caption": SCORES["human-caption"]})) == ["mix.CIDEr", "mix.scene"]
    assert wrong(files(scores=SCORES | {"scst": {"CIDEr": 1.0}})) == ["scst.CIDEr"]


@pytest.mark.parametrize("count", [176127, 176129])
def test_a_count_is_exact(count: int) -> None:
    assert wrong(files(training=TRAINING | {"trainable_parameters": count})) == ["trainable_parameters"]


@pytest.mark.parametrize(("name", "sign"), [("CIDEr", 1), ("CIDEr", -1), ("scene", 1), ("scene", -1)])
def test_a_score_may_move_as_far_as_its_tolerance(name: str, sign: int) -> None:
    committed, allowed = SCORES["mix"][name], sign * TOLERANCES[name]
    within, beyond = (changed(SCORES, committed + factor * allowed, "mix", name) for factor in (0.99, 1.01))
    assert wrong(files(scores=within)) == []
    assert wrong(files(scores=beyond)) == [f"mix.{name}"]


def test_a_yardstick_may_not_move() -> None:
    assert wrong(files(scores=changed(SCORES, 170.5, "human-caption", "CIDEr"))) == ["human-caption.CIDEr"]


def test_a_loss_that_is_no_number_is_wrong() -> None:
    assert wrong(files(training=TRAINING | {"validation_loss": float("nan")})) == ["validation_loss"]
    assert wrong(files(training=TRAINING | {"validation_loss": 1.6})) == []


def test_the_best_epoch_may_differ() -> None:
    assert wrong(files(training=TRAINING | {"best_epoch": 2})) == []


def test_the_data_are_compared_by_hash() -> None:
    assert wrong(files(lock=LOCK.replace("md5: b", "md5: x"))) == ["split.data/splits"]


def test_recipes_are_compared_by_hash_where_the_checkpoints_agree_and_by_their_making_where_not() -> None:
    other = LOCK.replace("md5: c", "md5: x").replace("md5: e", "md5: y")
    assert wrong(files(lock=other), agree=True) == ["recipes.data/recipes"]
    assert wrong(files(lock=other), agree=False) == []
    rank, code = other.replace("rank: 16", "rank: 8"), other.replace("md5: d", "md5: z")
    assert wrong(files(lock=rank), agree=False) == ["recipes.params.params.yaml.lora.rank"]
    assert wrong(files(lock=code), agree=False) == ["recipes.deps.stages/recipes.py"]


def test_under_avx2_every_output_is_compared_by_hash() -> None:
    other = files(lock=LOCK.replace("md5: f", "md5: x").replace("md5: c", "md5: y"))
    assert wrong(other) == []
    assert wrong(other, exact=True) == [
        "checkpoint@base.models/checkpoints/base.json", "generate@mix-1.data/predictions/mix-1.jsonl"
    ]  # fmt: skip


@pytest.mark.parametrize("exact", [False, True])
def test_what_only_one_lock_names_is_wrong(exact: bool) -> None:
    less = LOCK[: LOCK.index("  generate@mix-1")]
    lost = ["generate@mix-1", "generate@mix-1.data/predictions/mix-1.jsonl"]
    assert wrong(files(lock=less), exact=exact) == lost
    assert wrong(files(lock=LOCK + "  more: {cmd: g}\n"), exact=exact) == ["more"]
    assert wrong(files(lock=LOCK.replace("mix-1.jsonl", "1")), exact=exact)[0] == "generate@mix-1.data/predictions/1"


def test_what_an_accident_tore_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^metrics/scores\.json: no JSON, or cut short; .*$"):
        values(files() | {"metrics/scores.json": '{"mix": {"CID'}, True)
    for lock in ("", LOCK[:70], f"<<<<<<< HEAD\n{LOCK}=======\n{LOCK}>>>>>>> other\n"):
        with pytest.raises(UserError, match=r"^dvc\.lock: torn in HEAD, by a merge or a kill; settle .*$"):
            check_lock("HEAD", files(lock=lock))
    check_lock("HEAD", files())
    assert values(files(lock="schema: '2.0'\n"), True).keys() < values(files(), True).keys()


def test_checkpoints_are_told_apart_by_their_hashes() -> None:
    lock = {"stages": {"checkpoint@base": {"outs": [{"path": "a", "md5": "b"}]}, "split": {}}}
    assert checkpoint_hashes(lock) == {"a": "b"}


def test_the_table_says_what_differs_and_by_how_much() -> None:
    found = files(scores=changed(SCORES, 70.5, "mix", "CIDEr"))
    header, row = table(differences(values(files(), True), values(found, True))).splitlines()
    assert header.split()[:3] == ["what", "committed", "here"]
    assert row.split() == ["metrics/scores.json:", "mix.CIDEr", "120.0", "70.5", "49.5", "45"]


def test_the_command_compares_with_head(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, env=environment)

    for path, text in (files() | {"params.yaml": "profile: miniature\n"}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    verify = (sys.executable, "-m", "tools.verify")
    assert command(*verify).returncode == 1
    command("git", "init", "--quiet")
    command("git", "add", "--all")
    command("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "results")
    same = command(*verify)
    assert same.returncode == 0 and "identical bytes" in same.stdout
    (tmp_path / "metrics/scores.json").write_text(json.dumps(changed(SCORES, 119.0, "mix", "CIDEr")))
    near = command(*verify)
    assert near.returncode == 0 and "within tolerance" in near.stdout
    (tmp_path / "metrics/scores.json").write_text(json.dumps(changed(SCORES, 0.0, "mix", "CIDEr")))
    far = command(*verify)
    assert far.returncode == 1 and "mix.CIDEr" in far.stdout
    (tmp_path / "params.yaml").write_text("profile: paper\n")
    other = command(*verify)
    assert other.returncode == 1 and other.stderr.startswith("error: params.yaml: differs from HEAD")


@pytest.mark.parametrize("name", ["CIDEr", "CIDEr low", "CIDEr high", "CIDEr caption_1"])
def test_every_form_of_a_score_has_its_tolerance(name: str) -> None:
    assert tolerance(("metrics/scores.json", "mix", name)) == TOLERANCES["CIDEr"]
    assert tolerance(("metrics/scores.json", "nearest-image", name)) == ROUNDING
    assert tolerance(("metrics/scores.json", "mix", "signature")) == 0


def test_what_a_checkpoint_names_unasked_is_luck() -> None:
    assert tolerance(("metrics/scores.json", "zero-shot-base", "colour")) == UNTRAINED_NAMING
    assert tolerance(("metrics/scores.json", "base-r4", "colour")) == TOLERANCES["colour"]


def test_under_avx2_nothing_may_differ() -> None:
    key = ("metrics/scores.json", "mix", "CIDEr")
    assert differences({key: 279.0}, {key: 279.1}) == []
    assert [one.key for one in differences({key: 279.0}, {key: 279.1}, exact=True)] == [key]
    machine = {"device": "cpu", "instructions": "avx2"}
    of = {"profile": "small", "profiles": {"small": {"machine": machine}}}
    assert limited(of, "x86_64")
    assert not limited(of, "aarch64")
    machine["device"] = "cuda"
    assert not limited(of, "x86_64")
