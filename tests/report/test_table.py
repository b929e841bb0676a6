"""Table II keeps the paper's rows and order, our numbers unrounded, their intervals, and the paper's where they
belong."""

import csv
import io
import json
from typing import Any

import pytest

from captioning.base.errors import UserError
from captioning.report.table import PAPER, build_table
from captioning.report.table_text import (
    count,
    csv_text,
    display,
    display_alone,
    files,
    json_text,
    markdown,
    note_alone,
    notes,
    scores_csv,
)

VARIANTS = {"full-adapter": ("base", 8), "base-r4": ("base", 4), "base-r8": ("base", 8), "base-r16": ("base", 16),
            "mix": ("mix", 16), "cococap": ("cococap", 16), "rsvqa-lr": ("rsvqa-lr", 16)}  # fmt: skip
EXACT = 83.04567890123456
SCST = ("scst-mix-greedy", "scst-mix-leave-one-out")


def recipes(variants: dict[str, tuple[str, int]]) -> dict[str, Any]:
    made: dict[str, Any] = {name: {"checkpoint": {"name": checkpoint}, "lora": {"rank": rank}}
                            for name, (checkpoint, rank) in variants.items()}  # fmt: skip
    start = {"checkpoint": {"name": "mix"}, "lora": {"rank": 16}}
    return made | {row: start | {"scst": {"start": "mix", "baseline": row.removeprefix("scst-mix-")}} for row in SCST}


def table(variants: dict[str, tuple[str, int]] = VARIANTS, profile: str = "paper", seeds: tuple[int, ...] = (1,),
          zero_shot: tuple[str, ...] = ("base", "mix", "cococap", "rsvqa-lr"), facts: bool = False) -> Any:  # fmt: skip
    mean = {"CIDEr": EXACT, "BLEU-4": 20.0, "METEOR": 22.0, "ROUGE-L": 44.0, "length": 11.5, "ended": 0.987}
    mean |= {"CIDEr caption_1": 61.5, "BLEU-4 caption_1": 7.0, "METEOR caption_1": 12.0, "ROUGE-L caption_1": 31.0}
    mean |= {"scene": 0.9, "colour": 0.81} if facts else {}
    deviation = dict.fromkeys(mean, 0.5) if len(seeds) > 1 else None
    entry = {"kind": "adapted", "seeds": {str(seed): mean for seed in seeds}, "mean": mean, "deviation": deviation,
             "signature": "PTB | refs:5", "signature caption_1": "PTB | refs:caption_1"}  # fmt: skip
    human = {"signature": "PTB | refs:4", "mean": {name: mean[name] for name in mean if "caption_1" not in name}}
    names = [*variants, *SCST, "constant-caption", "nearest-image", *(f"zero-shot-{k}" for k in zero_shot)]
    rows = {**dict.fromkeys(names, entry),
            "human-caption": {key: entry[key] for key in ("kind", "seeds", "deviation")} | human}  # fmt: skip
    found = {row: {"low": 80.25, "high": 86.0, "letters": "ab"} for row in rows}
    found["human-caption"] = found["human-caption"] | {"letters": None}
    training = {name: {"trainable_parameters": 22_597_632, "share": 0.76704} for name in [*variants, *SCST]}
    return build_table({"images": 8904, "rows": rows}, {"resamples": 10_000, "rows": found}, training,
                       recipes(variants), zero_shot, profile, seeds)  # fmt: skip


def test_rows_stand_in_the_papers_order_and_groups() -> None:
    _, rows = display(table())
    assert [row[0] for row in rows] == [
        "PaliGemma (zero-shot)", "PaliGemma Mix (zero-shot)",
        "PaliGemma COCOCap (zero-shot)", "PaliGemma RSVQA/lr (zero-shot)", "Full-Adapter",
        "Base PaliGemma + QLoRA", "QLoRA-r4", "QLoRA-r8", "QLoRA-r16",
        "Pre-trained checkpoints + QLoRA-r16", "Mix + QLoRA-r16", "COCOCap + QLoRA-r16", "RSVQA/lr + QLoRA-r16",
        "Beyond the paper", "Mix + QLoRA-r16 + SCST, greedy", "Mix + QLoRA-r16 + SCST, leave-one-out",
        "Yardsticks, no model", "One constant caption", "Reference C1 against the others",
        "Caption of the nearest training image",
    ]  # fmt: skip


def test_constants_are_those_printed_in_the_paper() -> None:
    printed = """zero-shot-base 15.2, zero-shot-mix 11.4, full-adapter 60.3 14.2M 0.48, base-r4 81.9 5.65M 0.19,
        base-r8 82.9 11.3M 0.38, base-r16 83.0 22.6M 0.76, mix 113.2 22.6M 0.76, cococap 88.3 22.6M 0.76,
        rsvqa-lr 75.1 22.6M 0.76"""
    ours = [" ".join(f"{name} {row.CIDEr} {row.parameters} {row.share}".split()) for name, row in PAPER.items()]
    assert ours == [" ".join(row.split()) for row in printed.split(",")]


def test_papers_numbers_stand_only_beside_the_papers_configuration() -> None:
    def beside(**changes: Any) -> dict[str, Any]:
        return {row.key: row.paper for row in table(**changes).rows if row.paper}

    assert list(beside()) == list(PAPER)
    assert "mix" not in beside(variants=VARIANTS | {"mix": ("mix", 4)})
    assert beside(profile="miniature") == {}
    assert "CIDEr, paper" in display(table())[0] and "CIDEr, paper" not in display(table(profile="miniature"))[0]


def test_miniature_is_nowhere_called_paligemma() -> None:
    assert "PaliGemma" not in markdown(table(profile="miniature"))


def test_further_variants_and_other_ranks_get_rows() -> None:
    made = table(variants={**VARIANTS, "mix": ("mix", 4), "wide": ("mix", 64)})
    labels = {row.key: (row.group, row.label) for row in made.rows}
    assert labels["wide"] == ("Beyond the paper", "wide: Mix + QLoRA-r64")
    # ranks differ, so the title names none
    assert labels["mix"] == ("Pre-trained checkpoints + QLoRA", "Mix + QLoRA-r4")
    assert next(row.key for row in made.rows if row.group == "Beyond the paper") == "scst-mix-greedy"


def test_removed_variants_leave_no_trace() -> None:
    made = table(variants={"mix": ("mix", 16)}, zero_shot=())
    assert [row.key for row in made.rows] == ["mix", *SCST, "constant-caption", "human-caption", "nearest-image"]


def test_deviation_shows_with_several_seeds_and_noise_is_stated() -> None:
    one, three = table(), table(seeds=(1, 2, 3))
    assert "83.0 ± 0.5" in markdown(three) and "over 3 seeds" in markdown(three)
    assert "±" not in markdown(one) and "no claim that one recipe beats another stands" in markdown(one)
    assert "t tests over them" in markdown(three) and "t tests" not in markdown(one)


def test_scene_and_colour_stand_only_where_something_was_drawn() -> None:
    assert "scene %" not in display(table())[0]
    header, rows = display(table(facts=True))
    assert rows[0][header.index("scene %")] == "90.0" and rows[0][header.index("colour %")] == "81.0"


def test_markdown_is_aligned_and_names_its_protocol() -> None:
    text = markdown(table())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({(len(line), line.count("|")) for line in lines}) == 2  # Table II, and that of caption_1 alone
    assert "Protocol: PTB | refs:5; 8,904 test images" in text and "Protocol: PTB | refs:caption_1." in text


def test_interval_and_letters_stand_in_every_form() -> None:
    made = table()
    header, rows = display(made)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows if len(row) > 1}
    assert cells["Full-Adapter"]["95 % interval"] == "80.2 to 86.0" and cells["Full-Adapter"]["differs"] == "ab"
    assert cells["Reference C1 against the others"]["differs"] == "–"
    assert "95 % interval" in markdown(made) and "10,000 resamples" in notes(made)[1]
    by_row = {line["row"]: line for line in csv.DictReader(io.StringIO(csv_text(made)))}
    assert [by_row["mix"][name] for name in ("CIDEr low", "CIDEr high", "differs")] == ["80.25", "86.0", "ab"]
    assert by_row["human-caption"]["differs"] == ""
    first = json.loads(json_text(made))["rows"][0]
    assert first["interval"] == [80.25, 86.0] and first["letters"] == "ab"


def test_scores_against_caption_1_alone_are_a_table_of_their_own_without_the_human_row() -> None:
    header, rows = display_alone(table())
    assert header == ["Model", "CIDEr", "BLEU-4", "METEOR", "ROUGE-L"]
    assert rows[0] == ["PaliGemma (zero-shot)", "61.5", "7.0", "12.0", "31.0"]
    labels = [row[0] for row in rows]
    assert "One constant caption" in labels and "Reference C1 against the others" not in labels
    assert "61.5 ± 0.5" in display_alone(table(seeds=(1, 2)))[1][0]
    assert "does not say how many" in note_alone(table())
    assert set(files(table())) == {"table-2.md", "table-2.csv", "table-2.json", "scores.csv"}


def test_csv_and_json_keep_every_digit_and_the_protocol() -> None:
    made = table()
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(csv_text(made)))}
    first = lines["zero-shot-base"]
    assert float(first["CIDEr"]) == EXACT and first["protocol"] == "PTB | refs:5" and first["seeds"] == "1"
    assert first["protocol caption_1"] == "PTB | refs:caption_1" and first["CIDEr caption_1"] == "61.5"
    assert lines["human-caption"]["protocol"] == "PTB | refs:4" and lines["human-caption"]["protocol caption_1"] == ""
    loaded = json.loads(json_text(made))["rows"][0]
    assert loaded["scores"]["CIDEr"] == EXACT and loaded["signature"] == "PTB | refs:5"
    assert next(csv.DictReader(io.StringIO(scores_csv(made))))["CIDEr"] == "83.0457"


@pytest.mark.parametrize(("parameters", "text"), [
    (5_649_408, "5.65M"), (11_298_816, "11.3M"), (22_597_632, "22.6M"), (14_179_072, "14.2M"),  # peft's counts
    (49_152, "49,152"), (None, "–"),
])  # fmt: skip
def test_counts_read_as_in_the_paper(parameters: int | None, text: str) -> None:
    assert count(parameters) == text


@pytest.mark.parametrize(("rows", "file"), [({}, "scores"), ({"zero-shot-base": {}}, "significance")])
def test_missing_row_names_the_remedy(rows: dict[str, Any], file: str) -> None:
    with pytest.raises(UserError, match=rf"{file}\.json: no row 'zero-shot-base'; run the stage evaluate again"):
        build_table({"images": 1, "rows": rows}, {"resamples": 1, "rows": {}}, {}, {}, ["base"], "paper", [1])
