"""Domain vocabulary of captions: the paper's section VII.C as numbers.

The paper lists four kinds of terms that adapted models "acquire", with two or three examples each, and counts none.
Here each kind is a written list: the paper's examples first, then terms that occur in RISC's captions and mean the
same kind of thing.

1. A term counts in the singular and in the plural, as whole words, in PTB tokens.
2. Longer terms do not hide shorter ones: "terminal building" uses "terminal" too.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache

TERMS: Mapping[str, tuple[str, ...]] = {
    "infrastructure": (
        "runway", "taxiway", "terminal building", "terminal", "airport", "apron", "bridge", "viaduct", "overpass",
        "road", "highway", "railway", "railway station", "platform", "port", "harbor", "pier", "dock", "parking lot",
        "roundabout", "storage tank", "oil depot", "stadium", "dam", "church", "palace", "tennis court",
        "tennis club", "football field", "baseball field",
    ),
    "land use": (
        "residential area", "agricultural field", "industrial complex", "industrial area", "commercial area",
        "farmland", "cropland", "meadow", "orchard", "resort", "school", "park", "square", "center", "golf course",
        "mobile home park", "bare land", "terrace", "wetland", "lawn",
    ),
    "geographical features": (
        "river delta", "coastal region", "mountain range", "river", "lake", "sea", "ocean", "beach", "coast",
        "island", "mountain", "hill", "ridge", "valley", "forest", "desert", "dune", "glacier", "iceberg", "snowberg",
        "pond", "shore", "wave",
    ),
    "spatial relationships": (
        "adjacent to", "surrounded by", "intersecting with", "next to", "close to", "near", "beside", "between",
        "along", "around", "in the middle of", "on both sides of", "on one side", "at one side of", "in two sides of",
        "across", "located in", "opposite", "crossing", "arranged",
    ),
}  # fmt: skip
FIXED = "spatial relationships"  # prepositions have no plural


def usage(captions: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each group: `share` of tokenised captions with a term of it (0 to 1), and `terms`, distinct terms used."""
    return {group: _usage(group, captions) for group in TERMS}


def with_gain(
    mine: Mapping[str, Mapping[str, float]], zero_shot: Mapping[str, Mapping[str, float]] | None
) -> dict[str, dict[str, float | None]]:
    """`usage` with `gain`, its share less that of the zero-shot row; None where there is no such row."""
    return {
        group: {**entry, "gain": None if zero_shot is None else entry["share"] - zero_shot[group]["share"]}
        for group, entry in mine.items()
    }


def _usage(group: str, captions: Sequence[str]) -> dict[str, float]:
    patterns = _patterns(group)
    used = [{term for term, pattern in patterns.items() if pattern.search(caption)} for caption in captions]
    return {"share": sum(map(bool, used)) / max(1, len(used)), "terms": len(set().union(*used))}


@cache
def _patterns(group: str) -> dict[str, re.Pattern[str]]:
    ending = "" if group == FIXED else "(?:es|s)?"
    return {term: re.compile(rf"(?<![^ ]){re.escape(term)}{ending}(?![^ ])") for term in TERMS[group]}
