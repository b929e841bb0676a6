"""Reference captions of the drawn world in RISC's style, the words they can use, and what a caption names.

The captions keep what RISC measures by source: NWPU capitalised with five different captions (98.9 % of images), RSICD
lower case, one caption five times (44.7 %), rarely five different ones (6.5 %), UCM short (71.5 % all different).

1. A caption names its scene by one name only, and surroundings bear no colour, so that `recognise` is exact.
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
SEVERAL_FROM = 5  # things; below, "some" is the only word for an unsaid number
NEAR = ("near", "next to", "close to", "beside")
HAS = ("has", "contains", "holds", "shows")
PLACES = {"in": ("in", "inside", "within", "at"), "on": ("on", "upon", "at")}
SEEN = ("seen", "visible", "found")
USUAL = 0.45  # share of the usual one among several wordings
COLOUR_LAST = 0.05  # of the phrases: "boats in red color" for "red boats"
NAMES_BESIDE = 0.88  # of the captions whose template has a form with surroundings
NAMES_NO_COLOUR = 0.03  # of the captions

# Fields: {n} "three red boats", {m} "boats", {c} "red", {a} "a port", {s} "port", {d} detail, {in} "in",
# {at} "in the port", {b} surroundings, {is} and {bis} their verbs, {near}, {seen}, {has} one of NEAR, SEEN, HAS.
# Each slot: forms with surroundings, then forms without; the first form of each is the usual one.
Slot = tuple[tuple[str, ...], tuple[str, ...]]
NWPU: tuple[Slot, ...] = (
    (
        (
            "the {s} with {n} is {near} {b}",
            "the {s} {has} {n} {d} and {b} {bis} {near} the {s}",
            "the {s} is {near} {b} and {has} {n}",
            "the {s} {has} {n} while {b} {bis} around",
        ),
        ("the {s} {has} {n}", "the {s} {has} {n} {d}", "the {s} consists of {n}", "the {s} is marked by {n}"),
    ),
    (
        ("there {is} {n} {in} the {s} {near} {b}", "there {is} {n} and {b} around the {s}"),
        ("there {is} {n} {in} the {s}", "there {is} {n} {seen} {in} the {s}", "there {is} {n} {d}{at}"),
    ),
    (
        (
            "{a} with {n} {near} {b}",
            "{a} {near} {b} {has} {n}",
            "{a} with {n} and {b} on one side",
            "{b} {bis} {near} {a} which {has} {n}",
        ),
        ("{a} with {n}", "{a} with {n} in the picture", "{a} which {has} {n}"),
    ),
    (
        (
            "{n} {is} {near} {b}{at}",
            "{n} {is} {d} {near} {b}{at}",
            "{n} and {b} are {seen}{at}",
            "{n} {is} {in} {a} and {b} {bis} around",
        ),
        ("{n} {is} {seen}{at}", "{n} {is} {d}{at}", "{n} can be {seen}{at}"),
    ),
    ((), ("the {m} {in} the {s} {is} {c}", "the {c} {m} of the {s} {is} {d}", "the {s} is full of {c} {m}")),
)
RSICD: tuple[Slot, ...] = (
    (("{n} {is} {in} {a} {near} {b}", "{n} {is} {near} {b}{at}"), ("{n} {is} {in} {a}", "{n} can be {seen}{at}")),
    (("{a} with {n} {near} {b}", "{a} {has} {n} {near} {b}"), ("{a} with {n} {d}", "{a} {has} {n}")),
    (("{b} {bis} {near} {a} with {n}", "{b} {bis} at one side of {a} with {n}"), ("we can see {n} in this {s}",)),
    ((), ("{n} {is} {d}{at}", "the {c} {m} {is} {d}{at}", "the {m} of this {s} {is} {c}")),
    (("the {s} with {n} is {near} {b}",), ("the {s} with {n} {d}",)),
)
UCM: tuple[Slot, ...] = (
    (("there is {a} with {n} {near} {b}",), ("there is {a} with {n}",)),
    ((), ("it is {a} with {n}", "it is {a} which {has} {n}")),
    ((), ("here is {a} with {n}", "here {is} {n}{at}")),
    (("this is {a} {near} {b} with {n}",), ("this is {a} with {n}",)),
    (("there {is} {n} {in} the {s} {near} {b}",), ("there {is} {n} {in} the {s}",)),
)
PLAIN = ("there is {a}", "this is {a} in the picture", "{a} is {seen} here")
# Share of images with 1, 2, .. 5 different captions, from RISC; what lies between its published ends is interpolated.
STYLES: dict[str, tuple[tuple[Slot, ...], tuple[float, ...]]] = {
    "NWPU": (NWPU, (0.0, 0.0, 0.0, 0.011, 0.989)),
    "RSICD": (RSICD, (0.447, 0.25, 0.15, 0.088, 0.065)),
    "UCM": (UCM, (0.02, 0.03, 0.065, 0.17, 0.715)),
}


def add_article(phrase: str) -> str:
    """`phrase` after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def choose_verb(scene: Scene) -> str:
    """ "is" or "are", as the coloured thing takes it."""
    return "is" if scene.kind.number in ("mass", "one") or scene.count == 1 else "are"


def choose_noun(scene: Scene) -> str:
    """The coloured thing in the number in which the scene has it."""
    return scene.kind.thing if choose_verb(scene) == "is" else scene.kind.things


def choose_form(forms: Sequence[str], rng: random.Random) -> str:
    """The first form most times, else any other."""
    return forms[0] if len(forms) == 1 or rng.random() < USUAL else rng.choice(forms[1:])


def _quantity(scene: Scene, noun: str, rng: random.Random) -> str:
    number = scene.kind.number
    if number == "one":
        return add_article(noun).split()[0]
    if number != "counted":
        return choose_form(QUANTITIES[number], rng)
    if scene.count == 1 or rng.random() < (USUAL if scene.count >= SEVERAL_FROM else 0.87):
        return COUNT_WORDS[scene.count]
    return rng.choice(QUANTITIES["counted"][: 2 if scene.count >= SEVERAL_FROM else 1])


def noun_phrase(scene: Scene, rng: random.Random) -> str:
    """ "three red boats", "several boats in red color", "yellow sand", "a white roof"."""
    last = rng.random() < COLOUR_LAST
    noun = f"{choose_noun(scene)} in {scene.colour} color" if last else f"{scene.colour} {choose_noun(scene)}"
    return f"{_quantity(scene, noun, rng)} {noun}".strip()


def _form(scene: Scene, slot: Slot, rng: random.Random) -> str:
    with_beside, without = slot
    if rng.random() < NAMES_NO_COLOUR:
        return choose_form(PLAIN, rng)
    return choose_form(with_beside if scene.beside and with_beside and rng.random() < NAMES_BESIDE else without, rng)


def _sentence(scene: Scene, slot: Slot, rng: random.Random) -> str:
    neighbour_verb, *neighbours = NEIGHBOURS.get(scene.beside, ("", ""))
    place = choose_form(PLACES[scene.kind.on], rng)
    fields = {
        "n": noun_phrase(scene, rng),
        "m": choose_noun(scene),
        "c": scene.colour,
        "a": add_article(scene.scene),
        "s": scene.scene,
        "d": scene.kind.detail,
        "in": place,
        "at": f" {place} the {scene.scene}",
        "b": choose_form(neighbours, rng),
        "is": choose_verb(scene),
        "bis": neighbour_verb,
        "near": choose_form(NEAR, rng),
        "has": choose_form(HAS, rng),
        "seen": choose_form(SEEN, rng),
    }
    return _form(scene, slot, rng).format(**fields)


def write_captions(scene: Scene, source: str, rng: random.Random) -> list[str]:
    """Five reference captions in the style of `source` ("NWPU", "RSICD" or "UCM"), each ending in " ."."""
    slots, shares = STYLES[source]
    distinct = rng.choices(range(1, 6), shares)[0]
    order = list(slots) if source == "NWPU" or rng.random() < USUAL else rng.sample(slots, len(slots))
    found: list[str] = []
    while len(found) < distinct:
        text = _sentence(scene, order[len(found) % len(order)], rng)
        if text in found:
            order = order[1:] + order[:1]
        else:
            found.append(text)
    five = found + [rng.choice(found) for _ in range(5 - distinct)]
    if source != "NWPU":
        rng.shuffle(five)
    return [f"{text if source == 'RSICD' else text[0].upper() + text[1:]} ." for text in five]


def _openers(kind: SceneClass) -> list[str]:
    """Words with which a caption can begin its noun phrase or name, lower case."""
    number = {
        "counted": COUNT_WORDS[1 : kind.max_count + 1],
        "one": ("a",),
        "many": (),
        "mass": (*kind.colours, kind.thing),
    }
    return [*number[kind.number], add_article(kind.name).split()[0]]


def lexicon() -> list[str]:
    """Every word that `captions` can emit, as written, and its lower-case form; sorted."""
    fixed = [form for slots, _ in STYLES.values() for slot in slots for forms in slot for form in forms] + list(PLAIN)
    quantities = [phrase for phrases in QUANTITIES.values() for phrase in phrases if phrase]
    phrases = [phrase for row in NEIGHBOURS.values() for phrase in row]
    places = [place for row in PLACES.values() for place in row]
    said = [*fixed, *quantities, *phrases, *places, *NEAR, *SEEN, *HAS, *COUNT_WORDS]
    words = {".", "color", *(word for word in " ".join(said).split() if "{" not in word)}
    openers = [form.split()[0] for slots in (NWPU, UCM) for slot in slots for forms in slot for form in forms]
    openers += [phrase.split()[0] for phrase in (*quantities, *phrases, *PLAIN) if phrase not in ("is", "are")]
    for kind in SCENES:
        nouns = {"many": kind.things, "counted": f"{kind.thing} {kind.things}"}.get(kind.number, kind.thing)
        words.update(f"{add_article(kind.name)} {kind.detail} {nouns}".split(), kind.colours)
        openers += _openers(kind)
    words.update(word.capitalize() for word in openers if "{" not in word)
    return sorted(words | {word.lower() for word in words})


_NAMES = {name: kind.name for kind in SCENES for name in (kind.name, kind.plural)}
_NAME = re.compile(r"\b(?:" + "|".join(sorted(_NAMES, key=lambda name: (-len(name), name))) + r")\b")


def recognise(caption: str) -> dict[str, set[str]]:
    """The scenes (longest names first, plurals included) and colours that a caption names, raw or PTB-tokenised."""
    text = " ".join(caption.lower().split())
    colours = set(re.findall(r"[a-z]+", text)) & set(COLOURS)
    return {"scene": {_NAMES[match] for match in _NAME.findall(text)}, "colour": colours}
