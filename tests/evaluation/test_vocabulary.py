"""Terms count as whole words, singular or plural; the paper's own examples are in the lists."""

import pytest

from captioning.evaluation.vocabulary import TERMS, usage, with_gain


@pytest.mark.parametrize(
    ("caption", "group", "terms"),
    [
        ("two runways near a terminal building", "infrastructure", 3),
        ("churches and an important thing", "infrastructure", 1),
        ("some buildings in dense residential areas", "land use", 1),
        ("a parkway", "land use", 0),
        ("mountain ranges by the sea", "geographical features", 3),
        ("it is surrounded by trees", "spatial relationships", 1),
        ("a nearby lake", "spatial relationships", 0),
        ("", "infrastructure", 0),
    ],
)
def test_terms_by_hand(caption: str, group: str, terms: int) -> None:
    assert usage([caption])[group] == {"share": float(terms > 0), "terms": terms}


def test_share_and_distinct_terms() -> None:
    assert usage(["a port", "ports and a pier", "a lake"])["infrastructure"] == {"share": 2 / 3, "terms": 2}


def test_the_papers_examples_are_listed() -> None:
    assert {"runway", "taxiway", "terminal building"} <= set(TERMS["infrastructure"])
    assert {"residential area", "agricultural field", "industrial complex"} <= set(TERMS["land use"])
    assert {"river delta", "coastal region", "mountain range"} <= set(TERMS["geographical features"])
    assert {"adjacent to", "surrounded by", "intersecting with"} <= set(TERMS["spatial relationships"])
    assert all(len(set(terms)) == len(terms) for terms in TERMS.values())


def test_gain_over_zero_shot() -> None:
    mine, base = usage(["a port", "a port"]), usage(["a port", "a view"])
    assert with_gain(mine, base)["infrastructure"] == {"share": 1.0, "terms": 1, "gain": 0.5}
    assert with_gain(mine, None)["infrastructure"]["gain"] is None
