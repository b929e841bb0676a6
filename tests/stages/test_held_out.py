"""RSICD is scored twice: on RISC's test split, and on its validation images, which then choose nothing."""

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from ruamel.yaml import YAML

from captioning.evaluation.scores import Scorer, java_on_path
from captioning.images.table import read_ids
from stages import caption_stats, download, evaluate, split
from tests.evaluation.test_scores import NoMeteor
from tests.helpers.owned_data import jpeg, save, save_csv

ROOT = Path(__file__).parents[2]
SPLITS = {"train": 8, "val": 4, "test": 4}  # images of each source
WORDS = ("Planes", "many boats", "a road", "trees", "the river", "two courts", "roofs", "a field")
PARTS = {"NWPU": ("NWPU", "test"), "RSICD": ("RSICD", "test"), "UCM": ("UCM", "test")}
PARTS |= {"RSICD validation part": ("RSICD", "val")}
Captions = dict[tuple[str, str], dict[str, list[str]]]  # by source and split, then by image


def write_world(folder: Path) -> Captions:
    """Write three sources in RISC's layout. RSICD's last validation image is the first one of its test, too."""
    rng, captions, rows = random.Random(1), Captions(), []
    for source in ("NWPU", "RSICD", "UCM"):
        for part, number in SPLITS.items():
            for index in range(number):
                name = f"{source}_{part}_{index}"
                texts = [f"There are {' and '.join(rng.sample(WORDS, 3))} near {rng.choice(WORDS)}." for _ in range(5)]
                captions.setdefault((source, part), {})[name] = texts
                rows.append([source, part, f"{name}.jpg", *texts])
                pixels = "RSICD_test_0" if name == "RSICD_val_3" else name
                save(folder / f"resized/{name}.jpg", jpeg(pixels))
    header = ["source", "split", "image", *(f"caption_{number}" for number in range(1, 6))]
    save_csv(folder / "captions.csv", [header, *rows])
    return captions


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Captions:
    """Split the world as published, with RSICD held out, in the working directory."""
    captions, yaml = write_world(tmp_path / "raw"), YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml") | {"rows": ["mix"], "zero_shot": []}
    params["scst"]["baselines"] = ["greedy"]
    params["split"] |= {"method": "own", "held_out": ["RSICD"], "hash_distance": 0}
    params["profiles"]["miniature"]["data"] |= {"source": "folder", "path": "raw"}
    yaml.dump(params, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for stage in (download, split, caption_stats):
        stage.main()
    return captions


def score_independently(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> float:
    """Return CIDEr of the raw strings, by pycocoevalcap's tokenizer and scorer alone."""
    texts = {id_: [{"caption": text} for text in captions] for id_, captions in references.items()}
    lone = {id_: [{"caption": hypotheses[id_]}] for id_ in references}
    with java_on_path():
        tokenizer = PTBTokenizer()
        score, _ = Cider().compute_score(tokenizer.tokenize(texts), tokenizer.tokenize(lone))
    return 100 * float(score)


def test_held_out_images_are_captioned_and_choose_nothing(world: Captions) -> None:
    names = {name: read_ids(Path(f"data/splits/{name}.txt")) for name in ("train", "validation", "test", "captioned")}
    assert not any(id_.startswith("RSICD_val") for name in ("train", "validation") for id_ in names[name])
    assert {id_.rsplit("_", 1)[0] for id_ in names["validation"]} == {"NWPU_val", "UCM_val"}
    assert names["captioned"][: len(names["test"])] == names["test"]
    held_out = [f"RSICD_val_{index}" for index in range(4)]
    assert names["captioned"][len(names["test"]) :] == held_out[:3] and held_out[3] in names["test"]


def test_both_sets_of_rsicd_are_scored_as_pycocoevalcap_does(world: Captions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "open_scorer", lambda: nullcontext(Scorer(NoMeteor())))
    rng, hypotheses = random.Random(2), dict[str, str]()
    for id_ in read_ids(Path("data/splits/captioned.txt")):
        hypotheses[id_] = f"There are {rng.choice(WORDS)} and {rng.choice(WORDS)} near the river ."
    for name in ("mix-1", "scst-mix-greedy-1"):
        lines = [{"id": id_, "caption": text, "tokens": 9, "ended": True} for id_, text in hypotheses.items()]
        save(Path(f"data/predictions/{name}.jsonl"), "".join(f"{json.dumps(line)}\n" for line in lines))
    evaluate.main()
    row: dict[str, Any] = json.loads(Path("data/scores/scores.json").read_text(encoding="utf-8"))["rows"]["mix"]
    assert list(row["sources"]) == sorted(PARTS)
    for name, key in PARTS.items():
        expected = score_independently(world[key], hypotheses)
        assert row["sources"][name]["images"] == 4
        assert row["sources"][name]["mean"]["CIDEr"] == pytest.approx(expected, abs=1e-6) and expected > 1
    assert "|df:validation:RSICD|greedy|" in row["sources"]["RSICD validation part"]["signature"]
    test = read_ids(Path("data/splits/test.txt"))
    references = {id_: texts for group in world.values() for id_, texts in group.items() if id_ in test}
    assert row["mean"]["CIDEr"] == pytest.approx(score_independently(references, hypotheses), abs=1e-6)
    assert row["signature"].endswith("|split:test|n:13"), "12, and the copy of a test image"
