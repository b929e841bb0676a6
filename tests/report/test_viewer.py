"""Captions are marked as CIDEr compares them, and the page holds them as text, in one file that asks for nothing."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.base.errors import UserError
from captioning.evaluation.predictions import Run
from captioning.metrics.ptb import tokenize
from captioning.report.viewer.content import encode_webp
from captioning.report.viewer.marks import mark_caption, shared_lengths, unshared_words
from captioning.report.viewer.page import render_page
from captioning.report.viewer.rows import read_rows
from stages import viewer as stage
from tests.helpers.invented_run import HOSTILE as HOSTILE_CAPTION
from tests.helpers.invented_run import SCST, VARIANTS, ZERO_SHOT, write_run
from tests.helpers.shown_captions import ARABIC, EMOJI, HOSTILE, PAIR, shown_rows

WORDS = st.lists(st.sampled_from("abc"), max_size=7)
REAL_IMAGES = Path(__file__).parents[3] / "shared/risc-sample/resized"


def test_an_n_gram_of_a_reference_is_marked_as_a_whole_and_no_further() -> None:
    references = [["two", "red", "boats", "near", "a", "pier"], ["boats", "dock"]]
    caption = "Two red boats, near the pier , dock boats !"
    pieces = mark_caption(caption, ["two", "red", "boats", "near", "the", "pier", "dock", "boats"], references, ["the"])
    assert pieces == [("Two red boats, near", 4), (" the pier , dock boats !", 1)]
    pieces = mark_caption("A pier (colour)", ["a", "pier", "-lrb-", "color"], references)
    assert pieces == [("A pier", 2), (" (", 1), ("colour", 0), (")", 1)]
    assert unshared_words(["two", "cats", "on", "cats"], references, ["on"]) == ["cats"]


@given(WORDS, st.lists(WORDS, max_size=3))
def test_marks_are_the_longest_shared_n_grams(tokens: list[str], references: list[list[str]]) -> None:
    """The reference looks for each n-gram as a text within the texts."""
    texts = "|".join(f" {' '.join(reference)} " for reference in references)
    expected = [0] * len(tokens)
    for start, end in combinations(range(len(tokens) + 1), 2):
        if end - start <= 4 and f" {' '.join(tokens[start:end])} " in texts:
            expected[start:end] = [max(length, end - start) for length in expected[start:end]]
    assert shared_lengths(tokens, references) == expected


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=6), max_size=5))
def test_pieces_joined_are_the_caption(caption: str, tokens: list[str]) -> None:
    assert "".join(text for text, _ in mark_caption(caption, tokens, [tokens])) == caption


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("The school's colour (grey) cannot match .", "The school 's colour  grey  can not match"),
        ("½ of 3 semi-detached houses, 5 € each; don't .", "½ of 3 semi-detached houses 5  each do n't"),
    ],
)
def test_tokens_of_ptb_are_aligned_with_their_words(caption: str, words: str) -> None:
    """Each token in turn is in no reference, and its word alone is marked."""
    tokens = tokenize([caption])[0].split()
    for token, word in zip(tokens, words.split(" "), strict=True):
        others = [[other] for other in tokens if other != token]
        assert [piece for piece, level in mark_caption(caption, tokens, others) if not level] == [word] * bool(word)


class Page(HTMLParser):
    """The page as a browser's parser divides it: elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open = ""  # id or tag of the element whose text is read
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = str(dict(attrs).get("id", tag))

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.open] = self.texts.get(self.open, "") + data


def test_the_page_holds_all_texts_and_allows_nothing_but_itself() -> None:
    rows, images = shown_rows()
    text = render_page(rows, images, PAIR, "miniature", 60)
    assert text == render_page(*shown_rows(), PAIR, "miniature", 60)
    page = Page(text)
    data = json.loads(page.texts["data"])
    captions = ["".join(piece for piece, _ in caption["pieces"]) for caption in data["images"][0]["captions"]]
    assert captions == [HOSTILE] * 3
    assert "".join(piece for piece, _ in data["images"][1]["captions"][0]["pieces"]) == ARABIC
    assert "".join(piece for piece, _ in data["images"][2]["captions"][0]["pieces"]) == EMOJI
    assert [image["id"] for image in data["images"]] == [image.id for image in images]
    assert base64.b64decode(page.texts["webp-44"].strip()) == images[44].webp
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    hashes = [
        base64.b64encode(hashlib.sha256(page.texts[tag].encode()).digest()).decode() for tag in ("style", "script")
    ]
    style, script = (f"'sha256-{value}'" for value in hashes)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; "
        "base-uri 'none'; form-action 'none'"
    )
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses == ["data:,", "#captions"]
    assert not re.search(r"https?://|url\(|@import", re.sub(r"[A-Za-z0-9+/=]{200,}", "", text))
    assert sum(tag == "script" for tag, _ in page.elements) == 2 + len(images)


def test_small_images_keep_each_pixel_and_large_ones_fit() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    for array, size in ((noise, (60, 48)), (np.tile(noise, (10, 10, 1)), (224, 179))):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        webp = encode_webp(buffer.getvalue())
        assert webp == encode_webp(buffer.getvalue())
        image = Image.open(io.BytesIO(webp))
        assert (image.format, image.size) == ("WEBP", size)
        assert np.array_equal(np.asarray(image.convert("RGB")), noise) == (size == (60, 48))


@pytest.mark.skipif(not REAL_IMAGES.exists(), reason="no real images beside the checkout")
def test_500_real_images_take_less_than_15_mb() -> None:
    files = sorted(REAL_IMAGES.iterdir())[::40]
    sizes = [len(encode_webp(file.read_bytes())) for file in files]
    assert 500 * np.mean(sizes) * 4 / 3 < 10e6, "the texts of 13 rows take up to 3 MB"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a run of invented values with scores by image, and make its folder the working directory."""
    write_run(tmp_path)
    ids = (tmp_path / "data/splits/test.txt").read_text().split()
    (tmp_path / "data/references").mkdir()
    tokens = {id_: ["a red barn stands beside a road"] * 5 for id_ in ids}
    (tmp_path / "data/references/tokens.json").write_text(json.dumps(tokens))
    names = {f"zero-shot-{name}": 0 for name in ZERO_SHOT} | dict.fromkeys([*VARIANTS, *SCST], 1) | {"human-caption": 0}
    records = [{"row": row, "seed": seed, "id": id_, "CIDEr": 10.0} for row, seed in names.items() for id_ in ids]
    (tmp_path / "data/scores").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "data/scores/by-image.parquet")
    rows = [{"key": row, "name": f"Name of {row}"} for row in [*names, "constant-caption"]]
    (tmp_path / "plots/table-2.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stage_shows_all_rows_with_captions_of_a_seeded_sample(run: Path) -> None:
    stage.main()
    first = (run / "plots/captions.html").read_bytes()
    data = json.loads(Page(first.decode()).texts["data"])
    assert [row["name"] for row in data["rows"]] == [
        f"Name of {row}" for row in [*(f"zero-shot-{name}" for name in ZERO_SHOT), *VARIANTS, *SCST, "human-caption"]
    ]
    assert data["pair"] == ["mix-1", "scst-mix-greedy-1"] and len(data["images"]) == 12
    model, human = data["images"][0]["captions"][0], data["images"][0]["captions"][-1]
    assert "".join(text for text, _ in model["pieces"]) == HOSTILE_CAPTION and model["unshared"]
    assert human["pieces"] == [["a red barn stands beside a road", 4], [" .", 1]] and human["cider"] == 10.0
    stage.main()
    assert (run / "plots/captions.html").read_bytes() == first
    params = (run / "params.yaml").read_text()
    (run / "params.yaml").write_text(re.sub(r"(?m)^(viewer:\n  images: )500", r"\g<1>5", params))
    stage.main()
    page = (run / "plots/captions.html").read_text()
    assert "5 of 12 test images, drawn by a seed" in page and len(json.loads(Page(page).texts["data"])["images"]) == 5


def test_rows_of_several_seeds_name_their_seed_and_a_missing_score_is_one_line(run: Path) -> None:
    ids = (run / "data/splits/test.txt").read_text().split()
    (run / "data/predictions/mix-2.jsonl").write_bytes((run / "data/predictions/mix-1.jsonl").read_bytes())
    scores = pq.read_table("data/scores/by-image.parquet").to_pylist()
    second = [record | {"seed": 2} for record in scores if record["row"] == "mix"]
    pq.write_table(pa.Table.from_pylist(scores + second), "data/scores/by-image.parquet")
    runs = [Run("mix", "adapted", seed, None) for seed in (1, 2)]
    names, references = {"mix": "Mix", "human-caption": "Human"}, dict.fromkeys(ids, ("a red barn .", "a barn ."))
    assert [row.name for row in read_rows(runs, names, ids, references)] == ["Mix, seed 1", "Mix, seed 2", "Human"]
    without_human = [record for record in scores + second if record["row"] != "human-caption"]  # as with one reference
    pq.write_table(pa.Table.from_pylist(without_human), "data/scores/by-image.parquet")
    single = references | {ids[0]: ("a red barn .",)}
    assert [row.name for row in read_rows(runs, {"mix": "Mix"}, ids, single)] == ["Mix, seed 1", "Mix, seed 2"]
    pq.write_table(pa.Table.from_pylist(scores + second[1:]), "data/scores/by-image.parquet")
    with pytest.raises(UserError, match=f"no CIDEr of mix for {ids[0]}; run the stage evaluate again"):
        read_rows(runs, names, ids, references)
