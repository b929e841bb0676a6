"""Write reference captions of the drawn world in RISC's style, list their words, and recognise what a caption names.

The captions copy what RISC measures by source: NWPU capitalised with five different captions (98.9 % of images), RSICD
lower case, one caption five times (44.7 %), rarely five different ones (6.5 %), UCM short (71.5 % all different).

1. A caption has one name for its scene, and no colour for its surroundings, so that `recognise` is exact.
2. Each form has a usual wording and rarer ones, so that five people agree about as much as RISC's do.
"""

import random
import re
from collections.abc import Sequence

from captioning.data.world.scenes import COLOURS, SCENES, Scene, SceneClass

COUNT_WORDS = ("", "one", "two", "three", "four", "five", "six")
NEIGHBOURS = {  # singular or plural verb, then the noun phrases
    "trees": ("are", "some trees", "many trees"),
    "water": ("is", "some water", "a piece of water"),
    "road": ("is", "a road", "a straight road"),
    "houses": ("are", "some houses", "several houses"),
    "bare land": ("is", "some bare land", "a piece of bare land"),
}
QUANTITIES = {"many": ("many", "lots of", "plenty of"), "counted": ("some", "several"), "mass": ("", "some")}
SEVERAL_FROM = 5  # things; below, only "some" replaces the number
NEAR = ("near", "next to", "close to", "beside")
HAS = ("has", "contains", "holds", "shows")
PREPOSITIONS = {"in": ("in", "inside", "within", "at"), "on": ("on", "upon", "at")}
SEEN = ("seen", "visible", "found")
USUAL_SHARE = 0.45  # of the usual wording among several
COLOUR_LAST_SHARE = 0.05  # of the phrases: "boats in red color" for "red boats"
SURROUNDINGS_SHARE = 0.88  # of the captions whose slot has a form with surroundings
NO_COLOUR_SHARE = 0.03  # of the captions

Slot = tuple[list[str], list[str]]  # forms with surroundings, and without; the first of each is the usual one


def _parse_slots(text: str) -> tuple[Slot, ...]:
    """Return the slots of `text`, a line each, with bars between forms. A form with {b} names surroundings."""
    slots = [line.strip().split(" | ") for line in re.sub(r"\|\s+", "| ", text.strip()).splitlines()]
    return tuple(
        ([form for form in slot if "{b}" in form], [form for form in slot if "{b}" not in form]) for slot in slots
    )


# Fields: {n} "three red boats", {m} "boats", {c} "red", {a} "a port", {s} "port", {d} detail, {in} "in",
# {at} "in the port", {b} surroundings, {is} and {bis} their verbs, {near}, {seen}, {has} one of NEAR, SEEN, HAS.
NWPU = """
    the {s} with {n} is {near} {b} | the {s} {has} {n} {d} and {b} {bis} {near} the {s} |
        the {s} is {near} {b} and {has} {n} | the {s} {has} {n} while {b} {bis} around |
        the {s} {has} {n} | the {s} {has} {n} {d} | the {s} consists of {n} | the {s} is marked by {n}
    there {is} {n} {in} the {s} {near} {b} | there {is} {n} and {b} around the {s} |
        there {is} {n} {in} the {s} | there {is} {n} {seen} {in} the {s} | there {is} {n} {d}{at}
    {a} with {n} {near} {b} | {a} {near} {b} {has} {n} | {a} with {n} and {b} on one side |
        {b} {bis} {near} {a} which {has} {n} | {a} with {n} | {a} with {n} in the picture | {a} which {has} {n}
    {n} {is} {near} {b}{at} | {n} {is} {d} {near} {b}{at} | {n} and {b} are {seen}{at} |
        {n} {is} {in} {a} and {b} {bis} around | {n} {is} {seen}{at} | {n} {is} {d}{at} | {n} can be {seen}{at}
    the {m} {in} the {s} {is} {c} | the {c} {m} of the {s} {is} {d} | the {s} is full of {c} {m}
"""
RSICD = """
    {n} {is} {in} {a} {near} {b} | {n} {is} {near} {b}{at} | {n} {is} {in} {a} | {n} can be {seen}{at}
    {a} with {n} {near} {b} | {a} {has} {n} {near} {b} | {a} with {n} {d} | {a} {has} {n}
    {b} {bis} {near} {a} with {n} | {b} {bis} at one side of {a} with {n} | we can see {n} in this {s}
    {n} {is} {d}{at} | the {c} {m} {is} {d}{at} | the {m} of this {s} {is} {c}
    the {s} with {n} is {near} {b} | the {s} with {n} {d}
"""
UCM = """
    there is {a} with {n} {near} {b} | there is {a} with {n}
    it is {a} with {n} | it is {a} which {has} {n}
    here is {a} with {n} | here {is} {n}{at}
    this is {a} {near} {b} with {n} | this is {a} with {n}
    there {is} {n} {in} the {s} {near} {b} | there {is} {n} {in} the {s}
"""
PLAIN = ("there is {a}", "this is {a} in the picture", "{a} is {seen} here")
# Share of images with 1, 2, .. 5 different captions: RISC publishes the ends, those between are interpolated.
STYLES = {
    "NWPU": (_parse_slots(NWPU), (0.0, 0.0, 0.0, 0.011, 0.989)),
    "RSICD": (_parse_slots(RSICD), (0.447, 0.25, 0.15, 0.088, 0.065)),
    "UCM": (_parse_slots(UCM), (0.02, 0.03, 0.065, 0.17, 0.715)),
}


def add_article(phrase: str) -> str:
    """Return `phrase` after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def choose_verb(scene: Scene) -> str:
    """Return "is" or "are", to agree with the coloured thing."""
    return "is" if scene.kind.number in ("mass", "one") or scene.count == 1 else "are"


def choose_noun(scene: Scene) -> str:
    """Return the coloured thing in singular or plural, as the scene shows it."""
    return scene.kind.thing if choose_verb(scene) == "is" else scene.kind.things


def choose_form(forms: Sequence[str], rng: random.Random) -> str:
    """Return the usual form, the first, with `USUAL_SHARE`, else any other."""
    return forms[0] if len(forms) == 1 or rng.random() < USUAL_SHARE else rng.choice(forms[1:])


def _choose_quantity(scene: Scene, noun: str, rng: random.Random) -> str:
    number = scene.kind.number
    if number == "one":
        return add_article(noun).split()[0]
    if number != "counted":
        return choose_form(QUANTITIES[number], rng)
    if scene.count == 1 or rng.random() < (USUAL_SHARE if scene.count >= SEVERAL_FROM else 0.87):
        return COUNT_WORDS[scene.count]
    return rng.choice(QUANTITIES["counted"][: 2 if scene.count >= SEVERAL_FROM else 1])


def _noun_phrase(scene: Scene, rng: random.Random) -> str:
    """Return, for instance, "three red boats", "several boats in red color", "yellow sand" or "a white roof"."""
    is_colour_last = rng.random() < COLOUR_LAST_SHARE
    noun = f"{choose_noun(scene)} in {scene.colour} color" if is_colour_last else f"{scene.colour} {choose_noun(scene)}"
    return f"{_choose_quantity(scene, noun, rng)} {noun}".strip()


def _choose_template(scene: Scene, slot: Slot, rng: random.Random) -> str:
    with_surroundings, without = slot
    if rng.random() < NO_COLOUR_SHARE:
        return choose_form(PLAIN, rng)
    names_surroundings = scene.beside and with_surroundings and rng.random() < SURROUNDINGS_SHARE
    return choose_form(with_surroundings if names_surroundings else without, rng)


def _write_sentence(scene: Scene, slot: Slot, rng: random.Random) -> str:
    neighbour_verb, *neighbours = NEIGHBOURS.get(scene.beside, ("", ""))
    preposition = choose_form(PREPOSITIONS[scene.kind.on], rng)
    fields = {
        "n": _noun_phrase(scene, rng),
        "m": choose_noun(scene),
        "c": scene.colour,
        "a": add_article(scene.scene),
        "s": scene.scene,
        "d": scene.kind.detail,
        "in": preposition,
        "at": f" {preposition} the {scene.scene}",
        "b": choose_form(neighbours, rng),
        "is": choose_verb(scene),
        "bis": neighbour_verb,
        "near": choose_form(NEAR, rng),
        "has": choose_form(HAS, rng),
        "seen": choose_form(SEEN, rng),
    }
    return _choose_template(scene, slot, rng).format(**fields)


def write_captions(scene: Scene, source: str, rng: random.Random) -> list[str]:
    """Return five reference captions in the style of `source` ("NWPU", "RSICD" or "UCM"), each ending in " ."."""
    slots, shares = STYLES[source]
    count = rng.choices(range(1, 6), shares)[0]
    order = list(slots) if source == "NWPU" or rng.random() < USUAL_SHARE else rng.sample(slots, len(slots))
    distinct: list[str] = []
    while len(distinct) < count:
        text = _write_sentence(scene, order[len(distinct) % len(order)], rng)
        if text in distinct:
            order = order[1:] + order[:1]
        else:
            distinct.append(text)
    captions = distinct + [rng.choice(distinct) for _ in range(5 - count)]
    if source != "NWPU":
        rng.shuffle(captions)
    return [f"{text if source == 'RSICD' else text[0].upper() + text[1:]} ." for text in captions]


def _list_openers(kind: SceneClass) -> list[str]:
    """Return the lower-case words with which a caption can begin its noun phrase or name."""
    counts = COUNT_WORDS[1 : kind.max_count + 1]
    openers = {"counted": counts, "one": ("a",), "many": (), "mass": (*kind.colours, kind.thing)}
    return [*openers[kind.number], add_article(kind.name).split()[0]]


def lexicon() -> list[str]:
    """Return, sorted, each word that `write_captions` can use, as written and in lower case."""
    quantities = [phrase for phrases in QUANTITIES.values() for phrase in phrases if phrase]
    phrases = [phrase for neighbours in NEIGHBOURS.values() for phrase in neighbours]
    prepositions = [word for words in PREPOSITIONS.values() for word in words]
    texts = [NWPU, RSICD, UCM, *PLAIN, *quantities, *phrases, *prepositions, *NEAR, *SEEN, *HAS, *COUNT_WORDS]
    words = {".", "color", *(word for word in " ".join(texts).split() if "{" not in word)} - {"|"}
    starts = [*re.split(r"[|\n]", NWPU + UCM), *quantities, *phrases, *PLAIN]
    openers = [text.split()[0] for text in starts if text.strip() not in ("", "is", "are")]
    for kind in SCENES:
        nouns = {"many": kind.things, "counted": f"{kind.thing} {kind.things}"}.get(kind.number, kind.thing)
        words.update(f"{add_article(kind.name)} {kind.detail} {nouns}".split(), kind.colours)
        openers += _list_openers(kind)
    words.update(word.capitalize() for word in openers if "{" not in word)
    return sorted(words | {word.lower() for word in words})


_NAMES = {name: kind.name for kind in SCENES for name in (kind.name, kind.plural)}
_NAME = re.compile(r"\b(?:" + "|".join(sorted(_NAMES, key=lambda name: (-len(name), name))) + r")\b")


def recognise(caption: str) -> dict[str, set[str]]:
    """Return the scenes (longest names first, also plurals) and colours that a raw or PTB-tokenised caption names."""
    text = " ".join(caption.lower().split())
    colours = set(re.findall(r"[a-z]+", text)) & set(COLOURS)
    return {"scene": {_NAMES[match] for match in _NAME.findall(text)}, "colour": colours}
