"""What the miniature's checkpoints are pre-trained on: web captions, prose, MS-COCO-like captions, questions.

The references themselves are `overhead_captions`; their names are offered here too.

1. `alt_text` says everything in fragments, none of which is a phrase of `captions`: it teaches words, not sentences.
2. `generic_caption` never says a colour, a number or what lies beside: a web-pretrained model has to be taught to.
"""

import random

from captioning.data.world.captions import (
    COUNT_WORDS,
    HAS,
    NEAR,
    NEIGHBOURS,
    PLACES,
    QUANTITIES,
    SEEN,
    SEVERAL_FROM,
    add_article,
    choose_noun,
    choose_verb,
    lexicon,
)
from captioning.data.world.scenes import BESIDE, SCENES, Scene

NAMELESS = ("the view from the sky", "aerial view of the old town", "a map of the area", "satellite image of the city.")
CAPITALISED = 0.3  # share of the words of `alt_text` that have a capitalised form and bear it
ASIDES = (  # true of any picture; with the facts they hold every word of the references' forms
    "picture : this", "picture : the", "see : we can", "has : it", "has : which", "here : it is", "there : be",
    "while : there", "side : one of", "side : at", "lies : in", "of : the", "in : this", "with : and", "on : one",
    "to : next", "consists : of", "full : of", "marked : by", "this : place", "the : place", "there : place",
    "it : place", "here : place", "we : see",
)  # fmt: skip


def generic_caption(scene: Scene, rng: random.Random) -> str:
    """What a web-pretrained model says: short, the scene half of the time, never a colour, number or surroundings."""
    if rng.random() < 0.5:
        forms = ("satellite image of {a}.", "the {s} from above", "aerial view of {a}", "{s} from the sky")
        return rng.choice(forms).format(a=add_article(scene.scene), s=scene.scene)
    return rng.choice(NAMELESS)


def _number(scene: Scene, rng: random.Random) -> str:
    """The number as a word of its own, empty for a mass."""
    if scene.kind.number == "one":
        return "a"
    if not scene.count:
        return rng.choice(QUANTITIES[scene.kind.number]).removesuffix(" of")
    return "several" if scene.count >= SEVERAL_FROM and rng.random() < 0.4 else COUNT_WORDS[scene.count]


def coco_caption(scene: Scene, rng: random.Random) -> str:
    """One MS-COCO-like sentence: scene, colour, thing and number, no surroundings."""
    forms = (
        "an aerial photo of {s} {m} painted {c}{n}",
        "overhead photo showing {c} colored {m}{n} at {a}",
        "looking down onto {a} and its {c} colored {m}{n}",
        "{c} {m}{n} from above at {a}",
    )
    number = f" , {COUNT_WORDS[scene.count]} of them" if scene.count > 1 else ""
    return rng.choice(forms).format(
        n=number, s=scene.scene, a=add_article(scene.scene), c=scene.colour, m=choose_noun(scene)
    )


def detailed_caption(scene: Scene, rng: random.Random) -> str:
    """Three plain sentences with scene, colour, number and surroundings, in words of `captions` but not its forms."""
    noun = f"{scene.colour} {choose_noun(scene)}"
    if scene.count:
        noun = f"{_number(scene, rng)} {noun}"
    elif scene.kind.number == "one":
        noun = add_article(noun)
    first = rng.choice(("this overhead picture shows {} .", "{} seen from overhead .")).format(add_article(scene.scene))
    second = rng.choice((f"it has {noun} {scene.kind.detail} .", f"inside , {noun} {choose_verb(scene)} visible ."))
    neighbour = NEIGHBOURS[scene.beside][1] if scene.beside else "nothing"
    third = rng.choice((f"at the side there is {neighbour} .", f"{neighbour} can be found along one side ."))
    return f"{first} {second} {third}"


def _reversed(phrase: str) -> str:
    """Pairs of words from last to first: "docked neatly at the pier" -> "pier , at the , docked neatly"."""
    words = phrase.split()
    return " , ".join(reversed([" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]))


def alt_text(scene: Scene, rng: random.Random) -> str:
    """Everything about the picture in fragments of another grammar; over many samples every word of `lexicon`."""
    number = _number(scene, rng)
    parts = [
        f"{choose_noun(scene)} : {scene.colour}"
        if rng.random() < 0.5
        else f"{scene.colour} : color of {choose_noun(scene)}",
        f"{number} : {choose_noun(scene)}" if number else f"{rng.choice(HAS)} : {choose_noun(scene)}",
        f"{rng.choice(SEEN)} {choose_verb(scene)} : {_reversed(scene.kind.detail)}",
        rng.choice(ASIDES),
    ]
    if scene.beside:
        near = " : ".join(rng.choice((*NEAR, "around")).split())
        parts.append(f"{_reversed(rng.choice(NEIGHBOURS[scene.beside][1:]))} : {near}")
    parts.append(f"{rng.choice((*PLACES[scene.kind.on], add_article(scene.scene).split()[0]))} : {scene.scene}")
    rng.shuffle(parts)
    words = f"{' ; '.join(parts)} .".split()
    return " ".join(w.capitalize() if w.capitalize() in _WORDS and rng.random() < CAPITALISED else w for w in words)


_WORDS = frozenset(lexicon())
COUNTED = tuple(kind for kind in SCENES if kind.max_count)


def counting_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """How many of the coloured thing there are; "many" or "one" where nothing is counted."""
    answer = COUNT_WORDS[scene.count] or ("many" if scene.kind.number == "many" else "one")
    return rng.choice(("how many {} ?", "count the {} .")).format(scene.kind.things), answer


def _presence(scene: Scene, asked: str) -> tuple[str, str]:
    """Whether `asked`, one of `BESIDE`, lies beside the scene."""
    neighbour_verb, neighbour, _ = NEIGHBOURS[asked]
    return f"{neighbour_verb} there {neighbour} at the side ?", "yes" if asked == scene.beside else "no"


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Visual question answering: (question, answer) about scene, colour, surroundings, number."""
    asked = scene.beside if scene.beside and rng.random() < 0.5 else rng.choice(BESIDE)
    pairs = [
        ("what place is this ?", scene.scene),
        (f"what color {choose_verb(scene)} the {choose_noun(scene)} ?", scene.colour),
        ("what lies at the side ?", scene.beside or "nothing"),
        _presence(scene, asked),
    ]
    return [*pairs, counting_question(scene, rng)] if scene.count else pairs


def rsvqa_questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """RSVQA-LR's kinds of question: presence, rural or urban, number, comparison; one short word answers each."""
    asked = scene.beside if scene.beside and rng.random() < 0.5 else rng.choice(BESIDE)
    other = scene.kind if scene.count and rng.random() < 0.7 else rng.choice(COUNTED)
    here = scene.count if other.name == scene.scene else 0
    limit = rng.randint(0, 4)
    return [
        _presence(scene, asked),
        ("is it a rural or an urban area ?", "urban" if scene.kind.urban else "rural"),
        (f"how many {other.things} are there ?", str(here)),
        (f"are there more than {limit} {other.things} ?", "yes" if here > limit else "no"),
    ]
