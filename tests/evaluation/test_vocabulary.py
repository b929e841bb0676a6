"""Terms count as whole words, singular or plural; the lists contain the paper's examples."""

import pytest

from captioning.evaluation.outputs import Usage
from captioning.evaluation.vocabulary import TERMS, add_gain, term_usage


@pytest.mark.parametrize(
    ("caption", "group", "terms"),
    [
        ("two runways near a terminal building", "infrastructure", 3),
        ("churches and an important thing", "infrastructure", 1),
        ("some buildings in dense residential areas", "land use", 1),
        ("a parkway", "land use", 0),
        ("mountain ranges by the sea", "geographical features", 3),
        ("a nearby lake surrounded by trees", "spatial relationships", 1),
        ("", "infrastructure", 0),
    ],
)
def test_terms_by_hand(caption: str, group: str, terms: int) -> None:
    assert term_usage([caption])[group] == Usage(share=float(terms > 0), terms=terms)


def test_the_lists_contain_the_papers_examples() -> None:
    assert {"runway", "taxiway", "terminal building"} <= set(TERMS["infrastructure"])
    assert {"residential area", "agricultural field", "industrial complex"} <= set(TERMS["land use"])
    assert {"river delta", "coastal region", "mountain range"} <= set(TERMS["geographical features"])
    assert {"adjacent to", "surrounded by", "intersecting with"} <= set(TERMS["spatial relationships"])


def test_share_distinct_terms_and_gain_over_zero_shot() -> None:
    usage = term_usage(["a port", "ports and a pier", "a lake"])
    assert usage["infrastructure"] == Usage(share=2 / 3, terms=2)
    zero_shot = term_usage(["a view", "a view"])
    assert add_gain(usage, zero_shot)["infrastructure"] == Usage(share=2 / 3, terms=2, gain=2 / 3)
    assert add_gain(usage, None)["infrastructure"].gain is None
