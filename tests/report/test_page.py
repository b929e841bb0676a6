"""The page is complete in itself, escapes captions, is the same in each run, and follows the parameters."""

import json
import re
from pathlib import Path

import matplotlib
import pytest

from benchmarks.copies import set_values
from captioning.report.page import describe_model, list_key_figures
from captioning.report.table import ScoreRow, ScoreTable
from stages import report as stage
from tests.helpers.invented_run import write_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a complete run of invented values, and make its folder the working directory."""
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_users_style_changes_no_figure(run: Path) -> None:
    stage.main()
    figures = {path: path.read_bytes() for path in (run / "plots").rglob("*.svg")}
    with matplotlib.rc_context({"xtick.direction": "in", "legend.fontsize": 12, "lines.linestyle": ":"}):
        stage.main()
    assert figures and {path: path.read_bytes() for path in figures} == figures


def test_page_fetches_nothing_escapes_captions_and_is_the_same_in_each_run(run: Path) -> None:
    stage.main()
    text = (run / "plots/report.html").read_text()
    addresses = re.findall(r'(?:src|href|srcset|data|action)="([^"]*)"', text)
    assert addresses and all(address.startswith(("data:", "#")) or address == "captions.html" for address in addresses)
    assert (
        len(re.findall(r'<img [^>]*alt="[^"]+"', text)) == text.count("<img ") == 9
    )  # Figures 1-7 and two sets of curves
    code = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).replace("www.w3.org", "")
    assert not re.search(r"url\(|@import|https?://", code)
    assert "&lt;script&gt;" in text and "<script" not in text and "This is not PaliGemma-3B" in text
    contents = ["Rank sweep: no pair", "Checkpoint comparison: no pair", "training: the 500-image study"]
    contents += [
        "+8.0 (+6.0 to +11.0)",
        "PTB|refs:caption_1",
        "no PTB tokens: raw|refs:5",
        "Protocol of validation: CIDEr-D|validation",
    ]
    counts = ("set aside in all", 3), ("no such file", 2), ("a caption is nearly empty", 1)
    contents += [f"<dt>{name}</dt><dd>{number}</dd>" for name, number in counts]
    assert [content for content in contents if content not in text] == []
    assert str(run) not in text
    files = {path: path.read_bytes() for path in sorted((run / "plots").rglob("*")) if path.is_file()}
    figures = {f"{name}.{suffix}" for name in ("table-2", "figure-3", "figure-7") for suffix in ("png", "svg")}
    texts = {"table-2.md", "table-2.csv", "table-2.json", "scores.csv", "report.html"}
    assert {path.name for path in files} >= figures | texts
    stage.main()
    assert files == {path: path.read_bytes() for path in files}


def test_page_follows_the_parameters_not_the_files(run: Path) -> None:
    rows = ["full-adapter", "mix", "rsvqa-lr", "rslora"]
    set_values(run / "params.yaml", {"rows": rows, "scst.baselines": ["leave-one-out"]})
    (run / "plots/steps/cococap-1.csv").write_text("not a table")
    stage.main()
    text = (run / "plots/report.html").read_text().replace("&#8209;", "-")  # hyphens that do not break a header
    assert "mix, leave-one-out" in text and "mix, greedy" not in text
    assert "Checkpoint comparison" in text and "Rank sweep" not in text
    assert "\ncococap," not in (run / "plots/scores.csv").read_text()


def test_page_of_one_reference_an_image_has_no_human_row(run: Path) -> None:
    for name in ("scores", "significance"):
        path = run / f"data/scores/{name}.json"
        record = json.loads(path.read_text())
        del record["rows"]["human-caption"]
        path.write_text(json.dumps(record).replace("refs:5", "refs:1"))
    stage.main()
    text = (run / "plots/report.html").read_text()
    assert "Reference C1 against" not in text and "PTB|refs:1;" in text and "One constant caption" in text


def test_key_figures_join_nested_names_and_omit_long_lists() -> None:
    sizes = {"train": 26712, "test": 8904}
    figures = list_key_figures({"sizes": sizes, "share": 0.57183, "modes": [11, 12], "histogram": list(range(50))})
    expected = {"sizes: train": "26,712", "sizes: test": "8,904", "share": "0.5718", "modes": "11, 12"}
    assert figures == list(expected.items())


@pytest.mark.parametrize(
    ("profile", "scores", "notice"),
    [
        ("paper", {}, None),
        ("miniature", {"scene": 0.9}, "a model of 1.9M parameters.* tested on drawn scenes"),
        ("miniature", {}, "tested on the images of a folder"),
    ],
)
def test_only_the_paper_profile_has_no_notice(profile: str, scores: dict[str, float], notice: str | None) -> None:
    row = ScoreRow("mix", "Mix", "Mix", "", scores, None, (0.0, 1.0), "a", "", None, 1)
    text = describe_model(ScoreTable((row,), profile, 1, (1,), 1), 1_900_000)
    assert bool(re.search(notice, text)) if notice else text == ""
