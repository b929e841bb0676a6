"""Count the domain vocabulary of captions: section VII.C of the paper in numbers.

The paper names four kinds of terms that adapted models "acquire", with two or three examples each, and counts none.
Here each kind is a list: the paper's examples, then terms of the same kind from RISC's captions.

1. A term counts as whole words in PTB tokens, singular or plural.
2. A longer term does not hide a shorter one: "terminal building" also uses "terminal".
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from captioning.evaluation.outputs import Usage

_LISTS = {
    "infrastructure": """
        runway, taxiway, terminal building, terminal, airport, apron, bridge, viaduct, overpass, road, highway,
        railway, railway station, platform, port, harbor, pier, dock, parking lot, roundabout, storage tank, oil
        depot, stadium, dam, church, palace, tennis court, tennis club, football field, baseball field""",
    "land use": """
        residential area, agricultural field, industrial complex, industrial area, commercial area, farmland,
        cropland, meadow, orchard, resort, school, park, square, center, golf course, mobile home park, bare land,
        terrace, wetland, lawn""",
    "geographical features": """
        river delta, coastal region, mountain range, river, lake, sea, ocean, beach, coast, island, mountain, hill,
        ridge, valley, forest, desert, dune, glacier, iceberg, snowberg, pond, shore, wave""",
    "spatial relationships": """
        adjacent to, surrounded by, intersecting with, next to, close to, near, beside, between, along, around, in
        the middle of, on both sides of, on one side, at one side of, in two sides of, across, located in, opposite,
        crossing, arranged""",
}
TERMS = {group: tuple(" ".join(terms.split()).split(", ")) for group, terms in _LISTS.items()}
WITHOUT_PLURAL = "spatial relationships"  # prepositions


def term_usage(captions: Sequence[str]) -> dict[str, Usage]:
    """Return how tokenised captions use each group of terms, without a gain."""
    return {group: _group_usage(group, captions) for group in TERMS}


def _group_usage(group: str, captions: Sequence[str]) -> Usage:
    patterns = _patterns(group)
    used = [{term for term, pattern in patterns.items() if pattern.search(caption)} for caption in captions]
    return Usage(share=sum(map(bool, used)) / max(1, len(used)), terms=len(set().union(*used)))


@cache
def _patterns(group: str) -> dict[str, re.Pattern[str]]:
    ending = "" if group == WITHOUT_PLURAL else "(?:es|s)?"
    return {term: re.compile(rf"(?<![^ ]){re.escape(term)}{ending}(?![^ ])") for term in TERMS[group]}


def add_gain(usage: Mapping[str, Usage], zero_shot: Mapping[str, Usage] | None) -> dict[str, Usage]:
    """Add the gain to each group of `usage`: its share minus that of the zero-shot row; None without such a row."""
    gains = {group: zero_shot and entry.share - zero_shot[group].share for group, entry in usage.items()}
    return {group: entry.model_copy(update={"gain": gains[group]}) for group, entry in usage.items()}
