"""Table II has the paper's rows and order, exact scores with intervals, and the paper's numbers for its own rows."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from captioning.base.errors import UserError
from captioning.data.outputs import CaptionStatistics
from captioning.evaluation.outputs import Evaluation, PartScores, ProtocolScores, RowScores, RowTest, Significance
from captioning.evaluation.significance import Difference
from captioning.params.recipe import AnyRecipe
from captioning.report.table import PAPER, RunOutputs, ScoreTable, Training, build_table
from captioning.report.table_text import (
    SCORES,
    caption_1_cells,
    caption_1_note,
    format_count,
    format_files,
    format_tables,
    protocol_cells,
    protocol_note,
    source_cells,
    source_note,
    table_cells,
    table_notes,
)
from tests.helpers.invented_run import MANIFEST, SPLITS
from tests.helpers.small_recipes import scst_recipe, variant_recipe

VARIANTS = {"full-adapter": ("base", 8), "base-r4": ("base", 4), "base-r8": ("base", 8), "base-r16": ("base", 16)}
VARIANTS |= {name: (name, 16) for name in ("mix", "cococap", "rsvqa-lr")}
ZERO_SHOT = ("base", "mix", "cococap", "rsvqa-lr")
SCST = ("scst-mix-greedy", "scst-mix-leave-one-out")
YARDSTICKS = ("constant-caption", "human-caption", "nearest-image")
EXACT = 83.04567890123456
MEAN = {"CIDEr": EXACT, "BLEU-4": 20.0, "METEOR": 22.0, "ROUGE-L": 44.0, "length": 11.5, "ended": 0.987}
MEAN |= {"distinct": 0.654, "Self-CIDEr": 58.25}
PROTOCOLS = {"Table II": EXACT, "no PTB tokens": 70.5, "one reference": 61.5}
ALONE = {"CIDEr caption_1": 61.5, "BLEU-4 caption_1": 7.0, "METEOR caption_1": 12.0, "ROUGE-L caption_1": 31.0}


def table(
    variants: dict[str, tuple[str, int]] = VARIANTS,
    zero_shot: tuple[str, ...] = ZERO_SHOT,
    profile: str = "paper",
    seeds: tuple[int, ...] = (1,),
    method: str = "ratio",
    **facts: float,
) -> ScoreTable:
    recipes: dict[str, AnyRecipe] = {
        variant: variant_recipe(name=name, rank=rank) for variant, (name, rank) in variants.items()
    }
    recipes |= {row: scst_recipe(baseline=row.removeprefix("scst-mix-")) for row in SCST}
    mean = MEAN | ALONE | facts
    entry = RowScores(
        kind="adapted",
        signature="PTB | refs:5",
        signature_alone="PTB | refs:caption_1",
        seeds={str(seed): mean for seed in seeds},
        mean=mean,
        deviation=dict.fromkeys(mean, 0.5) if len(seeds) > 1 else None,
        sources={},
        vocabulary={},
        protocols=protocols(PROTOCOLS, len(seeds)),
    )
    rows = dict.fromkeys([*recipes, *YARDSTICKS, *(f"zero-shot-{name}" for name in zero_shot)], entry)
    human = {"mean": MEAN | facts, "signature": "PTB | refs:4", "signature_alone": None}
    human["protocols"] = protocols({name: PROTOCOLS[name] for name in ("Table II", "no PTB tokens")}, len(seeds))
    rows["human-caption"] = entry.model_copy(update=human)
    tests = {row: RowTest(low=80.25, high=86.0, letters=None if row == "human-caption" else "ab") for row in rows}
    training = Training(trainable_parameters=22_597_632, all_parameters=2_946_000_000, share=0.76704)
    run = make_run(rows, tests, dict.fromkeys(recipes, (training,)), recipes)
    run = replace(run, splits=run.splits.model_copy(update={"method": method}))
    return build_table(run, zero_shot, profile, seeds)


def make_run(
    rows: dict[str, RowScores],
    tests: dict[str, RowTest],
    training: Mapping[str, Sequence[Training]],
    recipes: dict[str, AnyRecipe],
    pairs: Sequence[Difference] = (),
) -> RunOutputs:
    """Make a run of 8904 test images, with the split's statistics and the manifest of an invented run."""
    settings = {"measure": "CIDEr", "resamples": 10_000, "seed": 1, "level": 0.95}
    significance = Significance(**settings, rows=tests, pairs=tuple(pairs))
    described = CaptionStatistics.model_construct()
    return RunOutputs(
        Evaluation(images=8904, rows=rows), significance, training, recipes, SPLITS, described, MANIFEST, ""
    )


def protocols(ciders: dict[str, float], seeds: int) -> ProtocolScores:
    """Return CIDEr under other protocols."""
    deviation = dict.fromkeys(ciders, 0.5) if seeds > 1 else None
    signatures = {name: f"signature of {name}" for name in ciders}
    return ProtocolScores(signatures=signatures, seeds={"1": ciders}, mean=ciders, deviation=deviation)


def csv_lines(result: ScoreTable) -> dict[str, dict[str, str]]:
    return {line["row"]: line for line in csv.DictReader(io.StringIO(format_files(result)["table-2.csv"]))}


def test_rows_have_the_papers_order_and_groups() -> None:
    zero_shot = [f"PaliGemma{name} (zero-shot)" for name in ("", " Mix", " COCOCap", " RSVQA/lr")]
    base = ["Base PaliGemma + QLoRA", "QLoRA-r4", "QLoRA-r8", "QLoRA-r16"]
    pretrained = [f"{name} + QLoRA-r16" for name in ("Pre-trained checkpoints", "Mix", "COCOCap", "RSVQA/lr")]
    scst = [f"Mix + QLoRA-r16 + SCST, {baseline}" for baseline in ("greedy", "leave-one-out")]
    yardsticks = ["One constant caption", "Reference C1 against the others", "Caption of the nearest training image"]
    expected = [*zero_shot, "Full-Adapter", *base, *pretrained, "Beyond the paper", *scst, "Yardsticks, no model"]
    assert [row[0] for row in table_cells(table())[1]] == [*expected, *yardsticks]


def test_the_papers_numbers_are_only_next_to_its_configuration() -> None:
    assert [row.key for row in table().rows if row.paper] == list(PAPER)
    changed = table(variants=VARIANTS | {"mix": ("mix", 4)})
    assert "mix" not in {row.key for row in changed.rows if row.paper}
    miniature = table(profile="miniature")
    assert not any(row.paper for row in miniature.rows) and "PaliGemma" not in format_tables(miniature)
    assert "CIDEr, paper" in table_cells(table())[0] and "CIDEr, paper" not in table_cells(miniature)[0]


def test_with_the_own_split_the_papers_scores_of_other_test_images_are_left_out() -> None:
    own = table(method="own")
    assert [row.key for row in own.rows if row.paper] == list(PAPER)
    assert all(row.paper.CIDEr is None for row in own.rows if row.paper)
    header = table_cells(own)[0]
    assert "CIDEr, paper" not in header and "trainable, paper" in header


def test_other_variants_and_ranks_get_rows_and_removed_ones_do_not() -> None:
    rows = table(variants={**VARIANTS, "mix": ("mix", 4), "wide": ("mix", 64)}).rows
    labels = {row.key: (row.group, row.label) for row in rows}
    assert labels["wide"] == ("Beyond the paper", "wide: Mix + QLoRA-r64")
    assert labels["mix"] == ("Pre-trained checkpoints + QLoRA", "Mix + QLoRA-r4")  # ranks differ: no rank in the title
    assert [row.key for row in rows if row.group == "Beyond the paper"] == [*SCST, "wide"]
    small = table(variants={"mix": ("mix", 16)}, zero_shot=())
    assert [row.key for row in small.rows] == ["mix", *SCST, *YARDSTICKS]


def test_deviations_appear_with_several_seeds_and_the_note_names_the_noise() -> None:
    single, several = format_tables(table()), format_tables(table(seeds=(1, 2, 3)))
    assert "83.0 ± 0.5" in several and "over 3 seeds" in several and "t tests over them" in several
    assert "±" not in single and "noise between runs is not measured" in single and "t tests" not in single


def test_scene_and_colour_are_columns_only_for_drawn_images() -> None:
    assert "scene %" not in table_cells(table())[0]
    header, rows = table_cells(table(scene=0.9, colour=0.81))
    assert rows[0][header.index("scene %")] == "90.0" and rows[0][header.index("colour %")] == "81.0"


def test_diversity_is_beside_each_row() -> None:
    header, rows = table_cells(table())
    assert {row[header.index("distinct %")] for row in rows if len(row) > 1} == {"65.4"}
    assert {row[header.index("Self-CIDEr")] for row in rows if len(row) > 1} == {"58.2"}
    assert float(csv_lines(table())["mix"]["Self-CIDEr"]) == 58.25
    assert "100 if no two share an n-gram" in format_tables(table())


def test_other_protocols_have_a_table_with_their_signatures() -> None:
    header, rows = protocol_cells(table())
    assert header == ["Model", *PROTOCOLS]
    cells = {row[0]: row[1:] for row in rows if len(row) > 1}
    assert cells["Mix + QLoRA-r16"] == ["83.0", "70.5", "61.5"]
    assert cells["Reference C1 against the others"] == ["83.0", "70.5", "–"]
    assert "70.5 ± 0.5" in protocol_cells(table(seeds=(1, 2)))[1][0]
    assert all(f"{name}: signature of {name}" in protocol_note(table()) for name in PROTOCOLS)
    assert "220.7" in protocol_note(table()) and "220.7" not in protocol_note(table(profile="miniature"))
    assert "## Under other protocols" in format_tables(table())


def test_markdown_is_aligned_and_names_its_protocol() -> None:
    text = format_tables(table())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    # Table II, that of caption_1 alone, and that of other protocols
    assert len({(len(line), line.count("|")) for line in lines}) == 3
    assert "Protocol: PTB | refs:5; 8,904 test images" in text and "Protocol: PTB | refs:caption_1." in text


def test_all_forms_have_interval_letters_exact_scores_and_protocols() -> None:
    result = table()
    header, rows = table_cells(result)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows if len(row) > 1}
    assert cells["Full-Adapter"]["95 % interval"] == "80.2 to 86.0" and cells["Full-Adapter"]["differs"] == "ab"
    assert cells["Reference C1 against the others"]["differs"] == "–"
    assert "10,000 resamples" in table_notes(result)[1]
    lines = csv_lines(result)
    line, human = lines["mix"], lines["human-caption"]
    assert [line[name] for name in ("CIDEr low", "CIDEr high", "differs", "seeds")] == ["80.25", "86.0", "ab", "1"]
    assert float(line["CIDEr"]) == EXACT and line["CIDEr caption_1"] == "61.5"
    assert (line["protocol"], line["protocol caption_1"]) == ("PTB | refs:5", "PTB | refs:caption_1")
    assert (human["protocol"], human["protocol caption_1"], human["differs"]) == ("PTB | refs:4", "", "")
    files = format_files(result)
    first = json.loads(files["table-2.json"])["rows"][0]
    assert first["interval"] == [80.25, 86.0] and first["letters"] == "ab" and first["signature"] == "PTB | refs:5"
    assert first["scores"]["CIDEr"] == EXACT
    assert next(csv.DictReader(io.StringIO(files["scores.csv"])))["CIDEr"] == "83.0457"


def test_scores_against_caption_1_are_a_table_without_the_human_row() -> None:
    header, rows = caption_1_cells(table())
    assert header == ["Model", *SCORES[:-1]]
    assert rows[0] == ["PaliGemma (zero-shot)", *(str(ALONE[f"{name} caption_1"]) for name in SCORES[:-1])]
    labels = [row[0] for row in rows]
    assert "One constant caption" in labels and "Reference C1 against the others" not in labels
    assert "61.5 ± 0.5" in caption_1_cells(table(seeds=(1, 2)))[1][0]
    assert "does not say how many" in caption_1_note(table())


def test_scores_by_source_are_beside_the_total_and_not_repeated_for_one() -> None:
    result = table(seeds=(1, 2))
    assert source_cells(result) is None
    assert "By source" not in format_tables(result)
    mean, deviation = MEAN | {"CIDEr": 120.0}, dict.fromkeys(MEAN, 1.5)
    entry = PartScores(images=15, signature="", seeds={}, mean=mean, deviation=deviation)
    sources = {name: entry.model_copy(update={"signature": f"split:test:{name}"}) for name in ("NWPU", "UCM")}
    several = replace(result, rows=tuple(replace(row, sources=sources) for row in result.rows))
    header, rows = source_cells(several) or ([], [])
    assert header[:4] == ["Model", "CIDEr, all", "CIDEr, NWPU", "CIDEr, UCM"]
    assert len(header) == 1 + 3 * len(SCORES[:-1])
    assert rows[0][:4] == ["PaliGemma (zero-shot)", "83.0 ± 0.5", "120.0 ± 1.5", "120.0 ± 1.5"]
    assert "NWPU 15, UCM 15" in source_note(several)
    assert "## By source" in format_tables(several) and "held out" not in source_note(several)
    part = {"RSICD validation part": entry.model_copy(update={"signature": "split:validation:RSICD"})}
    first, *others = several.rows
    held_out = replace(several, rows=(replace(first, sources=sources | part), *others))
    header, rows = source_cells(held_out) or ([], [])
    assert header[4] == "CIDEr, RSICD validation part" and rows[0][4] == "120.0 ± 1.5" and rows[1][4] == "–"
    assert "RSICD validation part 15" in source_note(held_out) and "held out" in source_note(held_out)


def test_counts_have_the_papers_digits() -> None:
    counts = (5_649_408, 11_298_816, 22_597_632, 14_179_072, 49_152, None)  # the first four are peft's
    assert list(map(format_count, counts)) == ["5.65M", "11.3M", "22.6M", "14.2M", "49,152", "–"]


@pytest.mark.parametrize(
    ("rows", "file"), [({}, "scores"), ({"zero-shot-base": RowScores.model_construct()}, "significance")]
)
def test_a_row_without_scores_names_the_remedy(rows: dict[str, RowScores], file: str) -> None:
    run = make_run(rows, {}, {}, {})
    with pytest.raises(UserError, match=rf"{file}\.json: no row 'zero-shot-base'; run the stage evaluate again"):
        build_table(run, ["base"], "paper", [1])
