"""The page is complete in itself, escapes what it shows, repeats byte for byte and follows params alone."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from captioning.report.page import Picture, key_figures, notice
from stages import report as stage
from tests.helpers.invented_run import write_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of invented values in an empty folder, which is also the working directory."""
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    told = ("Rank sweep: no pair", "Checkpoint comparison: no pair", "training: the 500-image study",
            "+8.0 (+6.0 to +11.0)", "PTB|refs:caption_1", "Protocol of validation: CIDEr-D|validation")  # fmt: skip
    for words in told:
        assert words in text
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
    (run / "params.yaml").write_text(
        params.replace("mix, cococap, rsvqa-lr, rslora]   #", "mix, rsvqa-lr, rslora]   #")
    )
    (run / "plots/steps/cococap-1.csv").write_text("not a table")
    stage.main()
    assert "\ncococap," not in (run / "plots/scores.csv").read_text()


def test_a_single_baseline_and_other_variants_are_enough(run: Path) -> None:
    params = (run / "params.yaml").read_text()
    params = params.replace("baselines: [greedy, leave-one-out]", "baselines: [leave-one-out]")
    (run / "params.yaml").write_text(params.replace("base-r4, base-r8, base-r16, mix", "mix"))
    stage.main()
    text = (run / "plots/report.html").read_text().replace("&#8209;", "-")  # hyphens that do not break a header
    assert "mix, leave-one-out" in text and "mix, greedy" not in text
    assert "Checkpoint comparison" in text and "Rank sweep" not in text


def test_a_row_without_scores_is_one_clear_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = json.loads((run / "data/scores/scores.json").read_text())
    del scores["rows"]["mix"]
    (run / "data/scores/scores.json").write_text(json.dumps(scores))
    with pytest.raises(SystemExit):
        stage.main()
    assert capsys.readouterr().err.startswith("error: data/scores/scores.json: no row 'mix'; run the stage evaluate")


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
