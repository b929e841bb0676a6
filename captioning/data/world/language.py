"""Write the texts on which the miniature's checkpoints are pre-trained: web captions, prose, COCO captions, questions.

The reference captions are in world/captions.py.

1. `alt_text` names every fact in fragments that are no phrases of the references: it teaches words, not sentences.
2. `generic_caption` never names a colour, a number or surroundings: a web-pretrained model has to learn them.
"""

import random

from captioning.data.world import captions
from captioning.data.world.captions import COUNT_WORDS, add_article, choose_noun, choose_verb
from captioning.data.world.scenes import BESIDE, SCENES, Scene

NAMELESS = ("the view from the sky", "aerial view of the old town", "a map of the area", "satellite image of the city.")
CAPITALISED_SHARE = 0.3  # of the words of `alt_text` that have a capitalised form
ASIDES = (  # true of any image; together with the facts they hold every word of the references' forms
    "picture : this; picture : the; see : we can; has : it; has : which; here : it is; there : be; while : there; "
    "side : one of; side : at; lies : in; of : the; in : this; with : and; on : one; to : next; consists : of; "
    "full : of; marked : by; this : place; the : place; there : place; it : place; here : place; we : see"
)
LEXICON = frozenset(captions.lexicon())


def generic_caption(scene: Scene, rng: random.Random) -> str:
    """Write as a web-pretrained model: short, half of the time with the scene, without colour, number, surroundings."""
    if rng.random() < 0.5:
        forms = ("satellite image of {a}.", "the {s} from above", "aerial view of {a}", "{s} from the sky")
        return rng.choice(forms).format(a=add_article(scene.scene), s=scene.scene)
    return rng.choice(NAMELESS)


def _choose_number(scene: Scene, rng: random.Random) -> str:
    """Return the number as a separate word, or "" for a mass."""
    if scene.kind.number == "one":
        return "a"
    if not scene.count:
        return rng.choice(captions.QUANTITIES[scene.kind.number]).removesuffix(" of")
    return "several" if scene.count >= captions.SEVERAL_FROM and rng.random() < 0.4 else COUNT_WORDS[scene.count]


def coco_caption(scene: Scene, rng: random.Random) -> str:
    """Write one sentence as in MS-COCO: scene, colour, thing and number, no surroundings."""
    forms = (
        "an aerial photo of {s} {m} painted {c}{n}",
        "overhead photo showing {c} colored {m}{n} at {a}",
        "looking down onto {a} and its {c} colored {m}{n}",
        "{c} {m}{n} from above at {a}",
    )
    number, noun = f" , {COUNT_WORDS[scene.count]} of them" if scene.count > 1 else "", choose_noun(scene)
    return rng.choice(forms).format(n=number, s=scene.scene, a=add_article(scene.scene), c=scene.colour, m=noun)


def detailed_caption(scene: Scene, rng: random.Random) -> str:
    """Write three sentences with scene, colour, number and surroundings, in the references' words, not their forms."""
    noun = f"{scene.colour} {choose_noun(scene)}"
    if scene.count:
        noun = f"{_choose_number(scene, rng)} {noun}"
    elif scene.kind.number == "one":
        noun = add_article(noun)
    first = rng.choice(("this overhead picture shows {} .", "{} seen from overhead .")).format(add_article(scene.scene))
    second = rng.choice((f"it has {noun} {scene.kind.detail} .", f"inside , {noun} {choose_verb(scene)} visible ."))
    neighbour = captions.NEIGHBOURS[scene.beside][1] if scene.beside else "nothing"
    third = rng.choice((f"at the side there is {neighbour} .", f"{neighbour} can be found along one side ."))
    return f"{first} {second} {third}"


def _reverse_pairs(phrase: str) -> str:
    """Reverse the order of pairs of words: "docked neatly at the pier" -> "pier , at the , docked neatly"."""
    words = phrase.split()
    return " , ".join(reversed([" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]))


def alt_text(scene: Scene, rng: random.Random) -> str:
    """Write all facts in fragments of another grammar; over many samples, every word of the lexicon."""
    number, noun = _choose_number(scene, rng), choose_noun(scene)
    parts = [
        f"{noun} : {scene.colour}" if rng.random() < 0.5 else f"{scene.colour} : color of {noun}",
        f"{number} : {noun}" if number else f"{rng.choice(captions.HAS)} : {noun}",
        f"{rng.choice(captions.SEEN)} {choose_verb(scene)} : {_reverse_pairs(scene.kind.detail)}",
        rng.choice(ASIDES.split("; ")),
    ]
    if scene.beside:
        near = " : ".join(rng.choice((*captions.NEAR, "around")).split())
        parts.append(f"{_reverse_pairs(rng.choice(captions.NEIGHBOURS[scene.beside][1:]))} : {near}")
    words_before = (*captions.PREPOSITIONS[scene.kind.on], add_article(scene.scene).split()[0])
    parts.append(f"{rng.choice(words_before)} : {scene.scene}")
    rng.shuffle(parts)
    pairs = ((word, word.capitalize()) for word in f"{' ; '.join(parts)} .".split())
    return " ".join(big if big in LEXICON and rng.random() < CAPITALISED_SHARE else word for word, big in pairs)


def counting_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Ask for the number of the coloured thing; "many" or "one" if it is not counted."""
    answer = COUNT_WORDS[scene.count] or ("many" if scene.kind.number == "many" else "one")
    return rng.choice(("how many {} ?", "count the {} .")).format(scene.kind.things), answer


def _presence_question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Ask whether one of `BESIDE` is beside the scene."""
    beside = scene.beside if scene.beside and rng.random() < 0.5 else rng.choice(BESIDE)
    verb, neighbour, _ = captions.NEIGHBOURS[beside]
    return f"{verb} there {neighbour} at the side ?", "yes" if beside == scene.beside else "no"


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Return questions and answers about scene, colour, surroundings and number."""
    pairs = [
        ("what place is this ?", scene.scene),
        (f"what color {choose_verb(scene)} the {choose_noun(scene)} ?", scene.colour),
        ("what lies at the side ?", scene.beside or "nothing"),
        _presence_question(scene, rng),
    ]
    return [*pairs, counting_question(scene, rng)] if scene.count else pairs


def rsvqa_questions(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """Return questions of RSVQA-LR's kinds, with one short word as the answer: presence, area, number, comparison."""
    presence = _presence_question(scene, rng)
    counted = [kind for kind in SCENES if kind.max_count]
    other = scene.kind if scene.count and rng.random() < 0.7 else rng.choice(counted)
    count = scene.count if other.name == scene.scene else 0
    limit = rng.randint(0, 4)
    return [
        presence,
        ("is it a rural or an urban area ?", "urban" if scene.kind.urban else "rural"),
        (f"how many {other.things} are there ?", str(count)),
        (f"are there more than {limit} {other.things} ?", "yes" if count > limit else "no"),
    ]
