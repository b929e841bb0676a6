"""Verification accepts differences that another machine may cause, and no others."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioning.base.errors import UserError
from captioning.evaluation.summary import DVC_METRICS, GAIN
from tools.verify import (
    ROUNDING,
    TOLERANCES,
    X86_64,
    choose_tolerance,
    compared_values,
    is_exact,
    list_mismatches,
)

CIDERS = {"mix": 120.0, "human-caption": 170.0}
SCORES = {"METEOR": {"mix": 30.0, "human-caption": 40.0}, "leakage": {"images": 0.1}}
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
LOCK = re.sub(r"md5: ([a-f])\1\1", lambda match: f"md5: {match[1] * 32}", LOCK)  # as long as real hashes


def files(ciders: Any = CIDERS, scores: Any = SCORES, lock: str = LOCK) -> dict[str, str]:
    metrics = {"metrics/CIDEr.json": ciders, "metrics/scores.json": scores}
    return {"dvc.lock": lock, **{path: json.dumps(content) for path, content in metrics.items()}}


def different_keys(computed: dict[str, str], checkpoints_agree: bool = True, exact: bool = False) -> list[str]:
    before, after = (compared_values(content, checkpoints_agree, exact) for content in (files(), computed))
    return [".".join(difference.key[1:]) for difference in list_mismatches(before, after, exact)]


def replaced(content: dict[str, Any], value: Any, *keys: str) -> dict[str, Any]:
    """Return a copy of nested `content` with another value at `keys`."""
    first, *remaining = keys
    return content | {first: replaced(content[first], value, *remaining) if remaining else value}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"ciders": {"human-caption": 170.0}}, ["mix"]),
        ({"ciders": CIDERS | {"scst": 1.0}}, ["scst"]),
        ({"ciders": CIDERS | {"human-caption": 170.5}}, ["human-caption"]),
        ({"scores": replaced(SCORES, 40.5, "METEOR", "human-caption")}, ["METEOR.human-caption"]),
        ({"scores": replaced(SCORES, 0.1001, "leakage", "images")}, ["leakage.images"]),
        ({"lock": LOCK.replace("md5: b", "md5: x")}, ["split.data/splits"]),
    ],
)
def test_missing_added_and_distant_values_are_named(changes: dict[str, Any], expected: list[str]) -> None:
    assert different_keys(files(**changes)) == expected


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_may_differ_by_its_tolerance(sign: int) -> None:
    near, far = (CIDERS | {"mix": 120.0 + sign * factor * TOLERANCES["CIDEr"]} for factor in (0.99, 1.01))
    assert different_keys(files(ciders=near)) == []
    assert different_keys(files(ciders=far)) == ["mix"]
    near, far = (replaced(SCORES, 30.0 + sign * x * TOLERANCES["METEOR"], "METEOR", "mix") for x in (0.99, 1.01))
    assert different_keys(files(scores=near)) == []
    assert different_keys(files(scores=far)) == ["METEOR.mix"]


def test_recipes_are_compared_by_hash_if_checkpoints_agree_else_by_their_inputs() -> None:
    other = LOCK.replace("md5: c", "md5: x").replace("md5: e", "md5: y")
    assert different_keys(files(lock=other), checkpoints_agree=True) == ["recipes.data/recipes"]
    assert different_keys(files(lock=other), checkpoints_agree=False) == []
    rank, code = other.replace("rank: 16", "rank: 8"), other.replace("md5: d", "md5: z")
    assert different_keys(files(lock=rank), checkpoints_agree=False) == ["recipes.params.params.yaml.lora.rank"]
    assert different_keys(files(lock=code), checkpoints_agree=False) == ["recipes.deps.stages/recipes.py"]


@pytest.mark.parametrize("exact", [False, True])
def test_what_only_one_lock_names_is_a_difference(exact: bool) -> None:
    shorter = LOCK[: LOCK.index("  generate@mix-1")]
    prediction = "generate@mix-1.data/predictions/mix-1.jsonl"
    assert different_keys(files(lock=shorter), exact=exact) == ["generate@mix-1", prediction]
    assert different_keys(files(lock=LOCK + "  more: {cmd: g}\n"), exact=exact) == ["more"]
    renamed = files(lock=LOCK.replace("mix-1.jsonl", "1"))
    assert different_keys(renamed, exact=exact)[0] == "generate@mix-1.data/predictions/1"


def test_a_damaged_file_is_named_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^metrics/scores\.json: .*$"):
        compared_values(files() | {"metrics/scores.json": '{"mix": {"CID'}, True)
    with pytest.raises(UserError, match=r"^dvc\.lock: not YAML; .*$"):
        compared_values(files(lock=f"<<<<<<< HEAD\n{LOCK}=======\n{LOCK}>>>>>>> other\n"), True)
    for lock in (LOCK[: LOCK.index("outs:") + 5] + "\n", LOCK.rstrip("\n"), "[]\n"):
        with pytest.raises(UserError, match=r"^dvc\.lock: (damaged or incomplete|not YAML); .*$"):
            compared_values(files(lock=lock), True)


class Checkout:
    """A checkout whose one stage copies the scores from the folder `source`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": path}

    def run(self, *command: str) -> tuple[int, str]:
        process = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=self.environment)
        return process.returncode, process.stdout + process.stderr

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")

    def write_machine(self, instructions: str) -> None:
        machine = f"{{device: cpu, instructions: {instructions}}}"
        self.write("params.yaml", f"profile: small\nprofiles: {{small: {{machine: {machine}}}}}\n")

    def write_score(self, cider: float) -> None:
        for path, text in files(CIDERS | {"mix": cider}).items():
            self.write(f"source/{path}", text)

    def reproduce(self) -> None:
        assert self.run("dvc", "repro", "--quiet")[0] == 0

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "results")

    def verify(self) -> tuple[int, str]:
        return self.run(sys.executable, "-m", "tools.verify")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path)
    checkout.run("git", "init", "--quiet")
    checkout.run("dvc", "init", "--quiet")
    outputs = "[metrics/CIDEr.json: {cache: false}, metrics/scores.json: {cache: false}]"
    stage = f"{{cmd: cp -r source/metrics ., deps: [source], outs: {outputs}}}"
    checkout.write("dvc.yaml", f"stages: {{copy: {stage}}}\n")
    checkout.write_machine("native")
    checkout.write_score(120.0)
    checkout.reproduce()
    checkout.commit()
    return checkout


def test_the_command_compares_with_head(checkout: Checkout) -> None:
    for score, status, words in (
        (120.0, 0, "identical bytes"),
        (119.0, 0, "within tolerance"),
        (70.5, 1, r"mix +120\.0 +70\.5 +49\.5"),
    ):
        checkout.write_score(score)
        checkout.reproduce()
        result = checkout.verify()
        assert result[0] == status and re.search(words, result[1])
    checkout.write_machine("avx2")
    status, text = checkout.verify()
    assert status == 1 and "error: params.yaml: differs from HEAD" in text


@pytest.mark.skipif(platform.machine() not in X86_64, reason="bytes are compared on x86-64 alone")
def test_the_command_compares_bytes_at_the_default(checkout: Checkout) -> None:
    checkout.write_machine("avx2")
    checkout.commit()
    assert checkout.verify()[0] == 0
    checkout.write_score(119.9)
    checkout.reproduce()
    status, text = checkout.verify()
    assert status == 1 and re.search(r"mix +120\.0 +119\.9 +0\.1", text)


def test_what_did_not_run_is_not_compared(checkout: Checkout) -> None:
    checkout.write_score(119.0)
    status, text = checkout.verify()
    assert status == 1 and "1 stage(s) have not run with what is here (copy); run `make repro`" in text
    checkout.reproduce()
    (checkout.folder / "metrics/scores.json").unlink()
    status, text = checkout.verify()
    assert status == 1 and "(copy); run `make repro`" in text


def test_each_score_has_its_tolerance() -> None:
    assert choose_tolerance(("metrics/CIDEr.json", "mix")) == TOLERANCES["CIDEr"]
    assert choose_tolerance(("metrics/CIDEr.json", "nearest-image")) == ROUNDING
    for name in (*DVC_METRICS, GAIN):
        assert choose_tolerance(("metrics/scores.json", name, "mix")) == TOLERANCES[name] > 0
        assert choose_tolerance(("metrics/scores.json", name, "nearest-image")) == ROUNDING
    assert choose_tolerance(("metrics/scores.json", "leakage", "images")) == 0


def test_with_avx2_nothing_may_differ() -> None:
    key = ("metrics/CIDEr.json", "mix")
    assert list_mismatches({key: 279.0}, {key: 279.1}, exact=False) == []
    assert [difference.key for difference in list_mismatches({key: 279.0}, {key: 279.1}, exact=True)] == [key]
    lock = files(lock=LOCK.replace("md5: f", "md5: x").replace("md5: c", "md5: y"))
    assert different_keys(lock) == []
    changed = ["checkpoint@base.models/checkpoints/base.json", "generate@mix-1.data/predictions/mix-1.jsonl"]
    assert different_keys(lock, exact=True) == changed


@pytest.mark.parametrize(("device", "architecture"), [("cpu", "x86_64"), ("cpu", "aarch64"), ("cuda", "x86_64")])
def test_only_x86_64_with_avx2_on_a_cpu_is_exact(device: str, architecture: str) -> None:
    machine = {"device": device, "instructions": "avx2"}
    params = {"profile": "small", "profiles": {"small": {"machine": machine}}}
    assert is_exact(params, architecture) == (device == "cpu" and architecture == "x86_64")
