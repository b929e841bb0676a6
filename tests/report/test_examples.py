"""Figures 4 to 7: images drawn by a seed from different groups, the paper's rows, SCST beside them."""

import io
from typing import Any

from PIL import Image

from captioning.report.examples import draw_examples, example_rows, examples, groups, scene_or_source
from captioning.report.table import Row


def rows(*keys: str) -> list[Row]:
    return [Row(key, f"Name {key}", key, "", {}, None, (0.0, 1.0), "a", "", None, 1, 9,
                None if key.startswith(("zero-shot", "constant")) else 1.0) for key in keys]  # fmt: skip


def image(id_: str, facts: str = "", source: str = "UCM") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return {"id": id_, "source": source, "facts": facts, "captions": ["a first one", "another"],
            "image": {"bytes": buffer.getvalue()}}  # fmt: skip


def test_examples_come_from_different_groups_whatever_the_order() -> None:
    kinds = {"a": ["a1", "a2", "a3"], "b": ["b1", "b2"], "c": ["c1"]}
    chosen = draw_examples(kinds)
    assert {id_[0] for id_ in chosen[:3]} == {"a", "b", "c"} and len(set(chosen)) == 4
    assert chosen == draw_examples({name: ids[::-1] for name, ids in reversed(kinds.items())})
    assert draw_examples({"a": ["a1"]}) == ["a1"] and draw_examples({}) == []


def test_scene_of_a_drawn_image_source_of_a_real_one() -> None:
    assert scene_or_source({"facts": '{"scene": "harbor"}', "source": "overhead"}) == "harbor"
    assert scene_or_source({"facts": "", "source": "UCM"}) == "UCM"
    drawn = [image("a"), image("b", '{"scene": "harbor"}'), image("c")]
    assert groups(drawn) == {"UCM": ["a", "c"], "harbor": ["b"]}


def test_figures_show_the_papers_rows_and_scst_against_its_baseline() -> None:
    every = rows(
        "zero-shot-base", "full-adapter", "base-r16", "mix", "scst-mix-greedy", "scst-mix-leave-one-out", "constant-x"
    )
    assert [row.key for row in example_rows(4, every)] == ["zero-shot-base", "full-adapter"]
    assert [row.key for row in example_rows(5, every)] == ["zero-shot-base", "base-r16", "mix", "scst-mix-greedy"]
    alone = rows("mix", "scst-mix-leave-one-out")
    assert [row.key for row in example_rows(5, alone)] == ["mix", "scst-mix-leave-one-out"]
    assert [row.key for row in example_rows(4, rows("mix", "own", "third", "fourth"))] == ["mix", "own", "third"]


def test_a_figure_holds_what_each_row_said_and_the_first_reference() -> None:
    said = {"zero-shot-base": {"i": "nothing", "j": "less"}, "full-adapter": {"i": "much", "j": "more"}}
    found = examples([image("i"), image("j")], rows(*said), lambda row: said[row.key])
    assert list(found) == ["figure-4", "figure-5"]
    shown = found["figure-4"]
    assert shown.lines == (("Name zero-shot-base", "nothing"), ("Name full-adapter", "much"),
                           ("Reference C1", "a first one"))  # fmt: skip
    assert shown.heading == "Figure 4. Image i (UCM)" and shown.picture.size == (8, 8)
    assert shown.text.startswith("Name zero-shot-base: “nothing”; ")
