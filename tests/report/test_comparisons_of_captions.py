"""Rows that differ only in their choice of captions are compared, with steps and differences."""

from captioning.evaluation.significance import Difference
from captioning.params.recipe import AnyRecipe, VariantRecipe
from captioning.report.comparisons import make_choice_table
from captioning.report.table import ScoreRow
from tests.helpers.small_recipes import scst_recipe, variant_recipe


def recipe(captions: str, rate: float = 1e-3, checkpoint: str = "mix") -> VariantRecipe:
    return variant_recipe(captions=captions, learning_rate=rate, name=checkpoint)


def row(key: str, cider: float) -> ScoreRow:
    return ScoreRow(key, f"Name {key}", key, "", {"CIDEr": cider}, None, (cider - 5, cider + 5), "a", "", None, 1)


ROWS = [row("mix-all", 120.0), row("base", 80.0), row("mix", 110.0), row("mix-random", 112.5), row("human", 150.0)]
RECIPES: dict[str, AnyRecipe] = {"mix": recipe("first"), "mix-random": recipe("random"), "mix-all": recipe("all")}
RECIPES |= {"base": recipe("first", checkpoint="base"), "scst": scst_recipe()}
STEPS = {"mix": 120, "mix-random": 120, "mix-all": 600, "base": 120}
PAIRS = [
    Difference("mix", "mix-random", -2.5, -4.0, -1.0, -6.0, 1.0, None, False),
    Difference("mix-all", "mix", 10.0, 5.0, 15.0, 1.0, 19.0, None, True),
]


def test_table_by_hand() -> None:
    header, lines = make_choice_table(ROWS, RECIPES, STEPS, PAIRS) or ([], [])
    assert header == ["Model", "captions", "steps", "cost", "CIDEr", "95 % interval", "over the first"]
    assert lines == [
        ["Name mix", "first", "120", "1.0×", "110.0", "105.0 to 115.0", "–"],
        ["Name mix-random", "random", "120", "1.0×", "112.5", "107.5 to 117.5", "+2.5 (-1.0 to +6.0)"],
        ["Name mix-all", "all", "600", "5.0×", "120.0", "115.0 to 125.0", "+10.0 (+1.0 to +19.0)"],
    ]


def test_rows_with_other_differences_are_not_compared() -> None:
    recipes = RECIPES | {"mix-random": recipe("random", 2e-3), "mix-all": recipe("all", 3e-3)}
    assert make_choice_table(ROWS, recipes, STEPS, PAIRS) is None


def test_without_a_row_of_first_captions_no_difference_is_shown() -> None:
    _, lines = make_choice_table(ROWS[:1] + ROWS[3:4], RECIPES, STEPS, PAIRS) or ([], [])
    assert [line[3] for line in lines] == [line[-1] for line in lines] == ["–", "–"]
