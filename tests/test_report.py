"""The page is complete in itself, escapes what it shows, repeats byte for byte and follows params alone."""

import base64
import io
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captioning.report import Picture, draw_examples, key_figures, notice, scene_or_source
from captioning.runlog import write_records
from stages import report as stage

ROOT = Path(__file__).parents[1]
VARIANTS = {"full-adapter": ("base", 8), "base-r4": ("base", 4), "base-r8": ("base", 8), "base-r16": ("base", 16),
            "mix": ("mix", 16), "cococap": ("cococap", 16), "rsvqa-lr": ("rsvqa-lr", 16)}  # fmt: skip
ZERO_SHOT = ("base", "mix", "cococap", "rsvqa-lr")
HOSTILE = "<script>alert('a & b')</script> $x$"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of invented values in an empty folder, which is also the working directory."""
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_run(folder: Path, images: int = 12, steps: int = 8) -> None:
    """Everything that the stage reads, with the committed params.yaml."""
    shutil.copy(ROOT / "params.yaml", folder)
    draw = random.Random(1)
    write_images(folder, images)
    for figure in ("figure-1", "figure-2"):
        write(folder / f"plots/{figure}.svg", "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 1'/>")
    for name in [*(f"zero-shot-{name}" for name in ZERO_SHOT), *(f"{name}-1" for name in [*VARIANTS, "scst"])]:
        lines = [json.dumps({"id": f"d_{k}", "caption": HOSTILE, "tokens": [1], "ended": True}) for k in range(images)]
        write(folder / f"data/predictions/{name}.jsonl", "\n".join(lines) + "\n")
    for name, (checkpoint, rank) in VARIANTS.items():
        write(folder / f"data/recipes/{name}.json", json.dumps(recipe(name, checkpoint, rank)))
        records = [{"step": k, "epoch": k / steps, "loss": 3 / k + draw.random() / 5, "learning_rate": 1e-3,
                    "validation_loss": 2 / k if k % (steps // 2) == 0 else None}
                   for k in range(1, steps + 1)]  # fmt: skip
        write_records(folder / f"plots/steps/{name}-1.csv", records, list(records[0]))
        write(
            folder / f"metrics/training/{name}-1.json",
            json.dumps(counts(rank) | {"best_epoch": 2, "validation_loss": 1.0}),
        )
    write_scst(folder, steps, draw)
    rows = {name: row("zero-shot", draw, 9) for name in (f"zero-shot-{name}" for name in ZERO_SHOT)}
    rows |= {name: row("adapted", draw, 95) for name in VARIANTS} | {"scst": row("scst", draw, 130)}
    rows |= {name: row("yardstick", draw, 60) for name in ("constant-caption", "human-caption", "nearest-image")}
    scores = {"signature": "pycocoevalcap 1.2, PTB, five references", "images": images, "rows": rows}
    write(folder / "data/scores/scores.json", json.dumps(scores))
    write(folder / "metrics/splits.json", json.dumps({"sizes": {"train": 720, "test": 240}, "leakage": {"text": 0.57}}))
    write(folder / "metrics/captions.json", json.dumps({"captions": 6000, "mean_words": 12.1, "histogram": [1] * 50}))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_images(folder: Path, number: int) -> None:
    rows = []
    for k in range(number):
        data = io.BytesIO()
        Image.effect_noise((48, 48), 60).convert("RGB").point(lambda level, k=k: (level + 20 * k) % 256).save(
            data, "PNG"
        )
        facts = json.dumps({"scene": f"scene {k % 5}", "colour": "red", "count": 1, "beside": ""})
        rows.append({"id": f"d_{k}", "source": "overhead", "split": "", "image": {"bytes": data.getvalue(), "path": ""},
                     "captions": ["a red barn stands beside a road ."] * 5, "facts": facts})  # fmt: skip
    (folder / "data/captions").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/captions/images.parquet")
    write(folder / "data/splits/test.txt", "".join(f"{row['id']}\n" for row in rows))


def write_scst(folder: Path, steps: int, draw: random.Random) -> None:
    columns = ["step", "loss", "reward", "baseline", "advantage", "length", "ended", "distinct", "validation_cider"]
    records = [{"step": k, "loss": 0.1, "reward": 0.8 + k / 9 + draw.random() / 5, "baseline": 1.1 + k / 9,
                "advantage": -0.1,
                "length": 15 - k / 3, "ended": 0.9, "distinct": 0.9 - k / 60,
                "validation_cider": 100.0 + k if k % 4 == 0 else None} for k in range(steps + 1)]  # fmt: skip
    write_records(folder / "plots/steps/scst-1.csv", records, columns)
    settings = {"start": "mix", "baseline": "greedy", "samples": 5, "temperature": 1.0, "learning_rate": 5e-4,
                "images": 500,
                "epochs": 1, "batch": 16, "prompt": "caption en"}  # fmt: skip
    start = {key: value for key, value in recipe("mix", "mix", 16).items() if key != "finetune"}
    write(folder / "data/recipes/scst.json", json.dumps(start | {"variant": "scst", "scst": settings}))
    write(folder / "metrics/training/scst-1.json", json.dumps(counts(12) | {"best_step": 8}))


def recipe(name: str, checkpoint: str, rank: int) -> dict[str, Any]:
    return {"variant": name, "checkpoint": {"name": checkpoint, "files": {}},
            "lora": {"rank": rank, "alpha": 16, "dropout": 0.0, "rslora": False,
                     "targets": "all-linear" if name == "full-adapter" else "table2"},
            "finetune": {"prompt": "caption en", "captions": "first", "batch": 4, "accumulation": 4, "epochs": 2,
                         "learning_rate": 3e-3}}  # fmt: skip


def counts(rank: int) -> dict[str, float]:
    return {"trainable_parameters": 4096 * rank, "all_parameters": 1_900_000, "share": 100 * 4096 * rank / 1_900_000}


def row(kind: str, draw: random.Random, cider: float) -> dict[str, Any]:
    scores = {
        "CIDEr": cider + 5 * draw.random(),
        "BLEU-1": 50.0,
        "BLEU-2": 40.0,
        "BLEU-3": 30.0,
        "BLEU-4": 20 + draw.random(),
        "METEOR": 22.0,
        "ROUGE-L": 44.0,
        "length": 11.5,
        "ended": 0.98,
        "distinct": 0.5,
        "scene": 0.9,
        "colour": 0.8,
    }
    vocabulary: dict[str, Any] = {"infrastructure": {"share": 0.4, "terms": 3, "gain": 0.2}}
    vocabulary |= {"land use": {"share": 0.1, "terms": 3, "gain": None}}
    return {"kind": kind, "seeds": {"1": scores}, "mean": scores, "deviation": None, "vocabulary": vocabulary}


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str | None] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.alts += [dict(attrs).get("alt")] if tag == "img" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_fetches_nothing_names_every_picture_and_escapes_captions(run: Path) -> None:
    stage.main()
    text = (run / "plots/report.html").read_text()
    page = Page(text)
    assert page.open == [] and "script" not in page.tags
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert len(page.alts) == 9 and all(page.alts)  # Figures 1-7 and two sets of curves
    assert not re.search(
        r"url\(|@import|https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).replace("www.w3.org", "")
    )
    assert "&lt;script&gt;" in text and "This is not PaliGemma-3B" in text
    assert str(run) not in text


def test_a_second_run_writes_the_same_bytes(run: Path) -> None:
    stage.main()
    first = {path: path.read_bytes() for path in sorted((run / "plots").iterdir()) if path.is_file()}
    figures = {f"{name}.{suffix}" for name in ("table-2", "figure-3", "figure-7") for suffix in ("png", "svg")}
    texts = {"table-2.md", "table-2.csv", "table-2.json", "scores.csv", "report.html"}
    assert {path.name for path in first} >= figures | texts
    stage.main()
    assert first == {path: path.read_bytes() for path in first}


def test_files_of_a_removed_variant_stay_unread(run: Path) -> None:
    params = (run / "params.yaml").read_text()
    (run / "params.yaml").write_text(re.sub(r"\n  cococap: \{checkpoint: cococap\}", "", params, count=1))
    (run / "plots/steps/cococap-1.csv").write_text("not a table")
    stage.main()
    assert "\ncococap," not in (run / "plots/scores.csv").read_text()


def test_a_row_without_scores_is_one_clear_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = json.loads((run / "data/scores/scores.json").read_text())
    del scores["rows"]["mix"]
    (run / "data/scores/scores.json").write_text(json.dumps(scores))
    with pytest.raises(SystemExit):
        stage.main()
    assert capsys.readouterr().err.startswith("error: data/scores/scores.json: no row 'mix'; run the stage evaluate")


def test_examples_come_from_different_groups_whatever_the_order() -> None:
    groups = {"a": ["a1", "a2", "a3"], "b": ["b1", "b2"], "c": ["c1"]}
    chosen = draw_examples(groups)
    assert {id_[0] for id_ in chosen[:3]} == {"a", "b", "c"} and len(set(chosen)) == 4
    assert chosen == draw_examples({name: ids[::-1] for name, ids in reversed(groups.items())})
    assert draw_examples({"a": ["a1"]}) == ["a1"] and draw_examples({}) == []


def test_scene_of_a_drawn_image_source_of_a_real_one() -> None:
    assert scene_or_source({"facts": '{"scene": "harbor"}', "source": "overhead"}) == "harbor"
    assert scene_or_source({"facts": "", "source": "UCM"}) == "UCM"


def test_key_figures_join_nested_names_and_leave_long_lists_out() -> None:
    metrics = {
        "sizes": {"train": 26712, "test": 8904},
        "share": 0.57183,
        "modes": [11, 12],
        "histogram": list(range(50)),
    }
    assert key_figures(metrics) == [
        ("sizes: train", "26,712"),
        ("sizes: test", "8,904"),
        ("share", "0.5718"),
        ("modes", "11, 12"),
    ]


def test_only_the_paper_profile_goes_without_notice() -> None:
    assert notice("paper", 2_946_064_112, drawn=False) == ""
    assert "1.9M parameters" in notice("miniature", 1_900_000, drawn=True)
    assert "tested on drawn scenes" in notice("miniature", 1_900_000, drawn=True)
    assert "tested on the images of a folder" in notice("miniature", 1_900_000, drawn=False)


def test_a_picture_travels_inside_the_page() -> None:
    uri = Picture(b"<svg/>", "title", "caption").uri
    assert base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")) == b"<svg/>"
