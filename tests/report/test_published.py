"""Published scores stand beside a run's only if both are of the same images, and docs and data agree."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from captioning.evaluation.outputs import PartScores, RowTest
from captioning.report.published.comparison import PublishedComparison, compare_published
from captioning.report.published.systems import (
    DETAILS,
    MEASURES,
    System,
    describe_source,
    group_systems,
    read_published,
)
from captioning.report.table import ScoreTable
from tests.report.test_table import make_run
from tests.report.test_table import table as make_table

DOCS = Path(__file__).parents[2] / "docs/scores.md"
RISC = {"NWPU": 3150, "RSICD": 1094, "RSICD validation part": 1093, "UCM": 210}
CIDERS = {"NWPU": 190.0, "RSICD": 255.0, "RSICD validation part": 101.0, "UCM": 330.0}


def compare(images: dict[str, int], method: str = "own", **facts: float) -> PublishedComparison:
    """Compare a run whose parts have so many images."""
    scores = {"BLEU-4": 60.0, "METEOR": 40.0, "ROUGE-L": 70.0}
    sources = {
        name: PartScores(images=number, signature="", seeds={}, mean=scores | {"CIDEr": CIDERS[name]}, deviation=None)
        for name, number in images.items()
    }
    whole: ScoreTable = make_table(**facts)
    rows = tuple(replace(row, sources=sources) for row in whole.rows)
    bounds = {name: (value - 5, value + 6) for name, value in CIDERS.items()}
    tests = {row.key: RowTest(low=80.25, high=86.0, letters="ab", sources=bounds) for row in rows}
    run = make_run({}, tests, {}, {})
    run = replace(run, splits=run.splits.model_copy(update={"method": method}))
    return compare_published(replace(whole, rows=rows), run)


def test_a_run_on_the_official_tests_stands_beside_published_systems() -> None:
    comparison = compare(RISC)
    header, rows = comparison.tables["CIDEr"]
    assert header == ["System", "NWPU", "RSICD, set A", "RSICD, set B", "UCM", "read in"]
    lines = {row[0]: row[1:] for row in rows}
    ours = ["190.0 (185.0 to 196.0)", "255.0 (250.0 to 261.0)", "101.0 (96.0 to 107.0)", "330.0 (325.0 to 336.0)"]
    assert lines["Mix + QLoRA-r16"][:4] == ours
    assert lines["RS-CapRet (2024)"][:5] == ["192.0", "260.0?", "–", "342.0", "another paper's table"]
    assert lines["EfficientNetV2 + Pegasus (2021)"][:4] == ["–", "293.2", "–", "–"], "its set is proven"
    assert "Reference C1 against the others" not in lines, "its references are fewer"
    groups = [row[0] for row in rows if len(row) == 1]
    assert groups == ["This run", *groups[1:]] and groups[1].startswith("One model") and len(groups) == 4
    assert comparison.tables["BLEU-4"][0] == header and comparison.origins
    (origin,) = (row for row in comparison.origins[1] if row[0] == "MGTN, Mask-CE (2022)")
    assert origin[1:] == ["the authors' own", "beam of 3, PTB tokens", "doi.org/10.3390/rs14122939, Tables 1 and 3"]
    assert {row[0]: row[1:] for row in comparison.tables["BLEU-4"][1]}["PCSFTr (2024)"][0] == "69.0"


def test_two_sentences_say_what_may_be_compared() -> None:
    fair, best = compare(RISC).sentences
    assert "fair mark is RS-CapRet: CIDEr 192.0 (NWPU), 260.0? (RSICD, set A), 342.0 (UCM)" in fair
    assert "203.6 on NWPU (PCSFTr, " in best and "398.7 on UCM (PCSFTr, " in best
    assert "must not be compared with each other" in best


def test_without_the_held_out_part_set_b_is_no_column() -> None:
    comparison = compare({name: number for name, number in RISC.items() if "part" not in name})
    header, rows = comparison.tables["CIDEr"]
    assert header[1:4] == ["NWPU", "RSICD, set A", "UCM"] and "split.held_out: [RSICD]" in comparison.sentences[-1]
    assert "BLIP-2 + LoRA (2025)" not in {row[0] for row in rows}, "it has a score on set B alone"


def test_the_official_split_of_rsicd_itself_is_set_b() -> None:
    header, _ = compare({"RSICD": 1093, "UCM": 210}).tables["CIDEr"]
    assert header[1:3] == ["RSICD, set B", "UCM"]


@pytest.mark.parametrize(
    ("images", "method", "facts", "reason"),
    [
        (RISC, "ratio", {}, "the images were split anew"),
        (RISC, "own", {"scene": 0.9}, "the images are drawn. "),
        ({"NWPU": 226, "UCM": 15}, "ratio", {"scene": 0.9}, "the images are drawn; the images were split anew"),
        ({"NWPU": 315, "UCM": 21}, "own", {}, "here: NWPU 315, UCM 21; official: NWPU 3,150"),
        ({}, "own", {}, "here: one source"),
    ],
)
def test_other_images_have_no_published_number(
    images: dict[str, int], method: str, facts: dict[str, float], reason: str
) -> None:
    comparison = compare(images, method, **facts)
    (sentence,) = comparison.sentences
    assert sentence.startswith("No published score may stand beside those of this run: ") and reason in sentence
    assert comparison.tables == {}


def docs_cells(system: System, names: list[str]) -> list[str]:
    """Return the cells of docs/scores.md: the measures of a set in one."""
    scores = [[system.format_score(name, measure) for measure in MEASURES] for name in names]
    return ["–" if set(texts) == {"–"} else " / ".join(texts) for texts in scores] + describe_source(system)


def test_docs_show_the_published_scores_of_the_data_file() -> None:
    text = DOCS.read_text(encoding="utf-8").partition("\n## Published scores\n")[2].partition("\n## ")[0]
    lines = [re.split(r" *\| *", line.strip("| \n")) for line in text.splitlines() if line.startswith("|")]
    sets = (published := read_published()).sets
    rows = group_systems(published, list(sets), lambda system: docs_cells(system, list(sets)))
    header = ["System", *(entry.title for entry in sets.values()), *DETAILS]
    expected = [header, *([f"**{row[0]}**"] if len(row) == 1 else row for row in rows)]
    assert [line for line in lines if not line[0].startswith("--")] == expected


def test_each_system_has_a_score_and_a_source() -> None:
    published = read_published()
    names = [system.name for system in published.systems]
    assert len(set(names)) == len(names) > 20
    for system in published.systems:
        assert system.source.startswith("https://") and system.scores.keys() <= published.sets.keys()
        assert all("CIDEr" in scores for scores in system.scores.values()), system.name
