"""Figures 4 to 7: a seed draws images from different groups; the rows are the paper's and one of SCST."""

import io
from typing import Any

from PIL import Image

from captioning.images.table import CaptionedImage
from captioning.report.examples import choose_rows, draw_examples, group_images, make_examples
from captioning.report.table import ScoreRow


def rows(*keys: str) -> list[ScoreRow]:
    trained = {key: None if key.startswith(("zero-shot", "constant")) else 1.0 for key in keys}
    shared: Any = ("", {}, None, (0.0, 1.0), "a", "", None, 1, 9)
    return [ScoreRow(key, f"Name {key}", key, *shared, share) for key, share in trained.items()]


def image(id_: str) -> CaptionedImage:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return CaptionedImage(id_, "UCM", "", buffer.getvalue(), f"{id_}.png", ("a first one", "another"))


def test_examples_come_from_different_groups_in_any_order() -> None:
    groups = {"a": ["a1", "a2", "a3"], "b": ["b1", "b2"], "c": ["c1"]}
    ids = draw_examples(groups)
    assert {id_[0] for id_ in ids[:3]} == {"a", "b", "c"} and len(set(ids)) == 4
    assert ids == draw_examples({name: ids[::-1] for name, ids in reversed(groups.items())})
    assert draw_examples({"a": ["a1"]}) == ["a1"] and draw_examples({}) == []


def test_drawn_images_are_grouped_by_scene_and_real_ones_by_source() -> None:
    facts = ["", '{"scene": "harbor"}', ""]
    assert group_images("abc", ["UCM"] * 3, facts) == {"UCM": ["a", "c"], "harbor": ["b"]}


def test_figures_show_the_papers_rows_and_one_of_scst() -> None:
    keys = [
        "zero-shot-base",
        "full-adapter",
        "base-r16",
        "mix",
        "scst-mix-greedy",
        "scst-mix-leave-one-out",
        "constant",
    ]
    assert [row.key for row in choose_rows(4, rows(*keys))] == keys[:2]
    assert [row.key for row in choose_rows(5, rows(*keys))] == [keys[0], *keys[2:5]]
    assert [row.key for row in choose_rows(5, rows("mix", keys[5]))] == ["mix", keys[5]]
    assert [row.key for row in choose_rows(4, rows("mix", "second", "third", "fourth"))] == ["mix", "second", "third"]


def test_a_figure_has_each_rows_caption_and_the_first_reference() -> None:
    captions = {"zero-shot-base": {"i": "nothing", "j": "less"}, "full-adapter": {"i": "much", "j": "more"}}
    examples = make_examples([image("i"), image("j")], rows(*captions), lambda row: captions[row.key])
    assert list(examples) == ["figure-4", "figure-5"]
    example = examples["figure-4"]
    models = ("Name zero-shot-base", "nothing"), ("Name full-adapter", "much")
    assert example.captions == (*models, ("Reference C1", "a first one"))
    assert example.heading == "Figure 4. Image i (UCM)"
    assert example.text.startswith("Name zero-shot-base: “nothing”; ")
