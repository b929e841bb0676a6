"""The miniature's world as facts: scene classes, what is coloured and counted in them, what may lie beside them.

Stands in for RISC (NWPU-Captions, RSICD, UCM-Captions): the class names are those data sets' own where a class is a
place.

1. A scene has one coloured thing, so that "is the colour right" has one answer.
2. What lies beside a scene is never named by a word that names a scene.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from captioning.base.errors import UserError

Number = Literal["counted", "many", "one", "mass"]

COLOURS: dict[str, tuple[int, int, int]] = {  # sRGB, 0..255
    "red": (205, 30, 35),
    "orange": (245, 135, 20),
    "yellow": (245, 225, 50),
    "green": (35, 150, 50),
    "blue": (40, 85, 230),
    "white": (248, 248, 248),
    "brown": (110, 62, 28),
    "gray": (128, 130, 134),
}
BESIDE = ("trees", "water", "road", "houses", "bare land")
KINDS_OF_NUMBER: dict[str, Number] = {"many": "many", "one": "one", "mass": "mass"}
ON = ("beach", "bridge", "church", "island", "mountain", "viaduct")  # classes whose thing is on, not in, them
RURAL = (
    "beach", "desert", "farmland", "forest", "island", "lake", "meadow", "mountain", "river", "sparse residential area",
)  # fmt: skip


@dataclass(frozen=True)
class SceneClass:
    """One kind of place.

    `thing`/`things` is the coloured thing, singular and plural (the same where it is a mass). `number` says how it is
    numbered: counted (1..`most`), many, one, or a mass. `beside` lists what may lie in the strip; "" (nothing) always
    may. `detail` is a participle phrase true of every picture of the class, `on` the preposition between thing and
    scene. `urban` answers RSVQA's "rural or urban".
    """

    name: str
    plural: str
    thing: str
    things: str
    number: Number
    colours: tuple[str, ...]
    beside: tuple[str, ...]
    detail: str
    on: str
    urban: bool
    max_count: int


def _class(name: str, thing: str, number: str, colours: str, not_beside: str, detail: str) -> SceneClass:
    """A row of `SCENES`. `thing` is "singular plural" or one word; a digit for `number` is how many can be counted."""
    words = thing.split()
    return SceneClass(
        name=name,
        plural=name + ("es" if name.endswith("ch") else "s"),
        thing=words[0],
        things=words[-1],
        number=KINDS_OF_NUMBER.get(number, "counted"),
        colours=tuple(colours.split()),
        beside=tuple(place for place in BESIDE if place not in not_beside.split(",")),
        detail=detail,
        on="on" if name in ON else "in",
        urban=name not in RURAL,
        max_count=int(number) if number.isdigit() else 0,
    )


# fmt: off
SCENES: tuple[SceneClass, ...] = (
    _class("airport", "plane planes", "6", "white red blue yellow orange", "", "parked on the apron by the runway"),
    _class("baseball field", "soil", "mass", "orange brown red", "trees", "shaped like a fan"),
    _class("beach", "sand", "mass", "yellow white orange brown", "water,bare land", "washed by the waves"),
    _class("bridge", "deck decks", "one", "red white orange yellow", "water", "stretching over the waves"),
    _class("church", "roof roofs", "one", "red blue white orange", "houses", "shaped like a cross"),
    _class("dense residential area", "roof roofs", "many", "red blue white orange", "houses", "packed closely in rows"),
    _class("desert", "sand", "mass", "yellow orange brown white", "bare land", "blown into long dunes"),
    _class("farmland", "field fields", "many", "green yellow brown orange", "", "divided into narrow strips"),
    _class("football field", "track tracks", "one", "red blue orange gray", "trees", "winding around the lawn"),
    _class("forest", "tree trees", "many", "green yellow orange red", "trees", "growing thickly together"),
    _class("industrial area", "workshop workshops", "6", "blue red white orange", "houses", "lined up on the concrete"),
    _class("island", "land", "mass", "green yellow brown white", "water", "surrounded by the waves"),
    _class("lake", "water", "mass", "blue green brown", "water", "lying inside a curved shore"),
    _class("meadow", "flower flowers", "many", "red yellow white blue", "trees", "blooming everywhere in the grass"),
    _class("mountain", "rock rocks", "many", "brown gray red white", "", "folded into steep ridges"),
    _class("oil depot", "tank tanks", "6", "white red blue green yellow", "", "standing on the bare floor"),
    _class("parking lot", "car cars", "many", "red blue white yellow", "road", "parked neatly in rows"),
    _class("port", "boat boats", "6", "white red yellow orange", "water", "docked neatly at the pier"),
    _class("railway station", "train trains", "4", "red blue white yellow green", "", "stopped along the platform"),
    _class("river", "water", "mass", "blue green brown", "water", "flowing slowly through the plain"),
    _class("roundabout", "garden gardens", "one", "red yellow white orange", "road", "placed in the middle"),
    _class("sparse residential area", "cottage cottages", "6", "red blue white orange", "houses", "scattered on grass"),
    _class("tennis club", "court courts", "6", "green blue red orange", "", "marked with clear lines"),
    _class("viaduct", "lane lanes", "many", "gray white yellow", "road", "crossing each other"),
)
# fmt: on
CLASSES: dict[str, SceneClass] = {kind.name: kind for kind in SCENES}


@dataclass(frozen=True)
class Scene:
    """What one picture shows. `count` is 0 where nothing is counted, `beside` is "" where nothing lies beside."""

    scene: str
    colour: str
    count: int
    beside: str

    @property
    def kind(self) -> SceneClass:
        return CLASSES[self.scene]


def sample_scene(rng: random.Random) -> Scene:
    """A scene with class, colour, count and surroundings drawn uniformly and independently of one another."""
    kind = rng.choice(SCENES)
    count = rng.randint(1, kind.max_count) if kind.number == "counted" else 0
    return Scene(kind.name, rng.choice(kind.colours), count, rng.choice((*kind.beside, "")))


def scene_to_facts(scene: Scene) -> dict[str, str | int]:
    """The scene as a JSON-ready mapping: keys `scene`, `colour`, `count`, `beside`."""
    return asdict(scene)


def scene_from_facts(record: Mapping[str, str | int]) -> Scene:
    """The inverse of `facts`. Raises `UserError` where a key is missing or a value is none of this world's."""
    try:
        scene = Scene(str(record["scene"]), str(record["colour"]), int(record["count"]), str(record["beside"]))
        kind = scene.kind
    except (KeyError, ValueError) as error:
        raise UserError(f"facts {dict(record)!r}: {error} is missing or unknown; draw the data set again") from error
    counted = min(1, kind.max_count) <= scene.count <= kind.max_count
    if scene.colour not in kind.colours or scene.beside not in (*kind.beside, "") or not counted:
        raise UserError(f"facts {dict(record)!r}: not a scene this world can draw; draw the data set again")
    return scene
