"""Define the drawn world: scene classes, what is coloured and counted in them, and what may be beside them.

It stands in for RISC (NWPU-Captions, RSICD, UCM-Captions). Class names are those of these data sets.

1. A scene has one coloured thing, so that "is the colour right" has one answer.
2. No word that names surroundings also names a scene.
"""

import random
from dataclasses import dataclass

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
ON = ("beach", "bridge", "church", "island", "mountain", "viaduct")  # the thing is on these, and in the others
RURAL = "beach, desert, farmland, forest, island, lake, meadow, mountain, river, sparse residential area"


@dataclass(frozen=True)
class SceneClass:
    """A kind of scene.

    `thing`/`things`: the coloured thing, singular and plural (the same for a mass); `beside`: what may be in the strip,
    besides nothing; `detail`: a participle phrase that is true of every image of the class.
    """

    name: str
    plural: str
    thing: str
    things: str
    number: str  # "counted", "many", "one", "mass"
    colours: tuple[str, ...]
    beside: tuple[str, ...]
    detail: str
    on: str  # the preposition between thing and scene
    urban: bool  # for RSVQA's "rural or urban"
    max_count: int  # 0 if things are not counted


def _class(name: str, thing: str, number: str, colours: str, not_beside: str, detail: str) -> SceneClass:
    """Make a row of `SCENES`. `thing` is "singular plural" or one word; a digit for `number` is the largest count."""
    words = thing.split()
    return SceneClass(
        name=name,
        plural=name + ("es" if name.endswith("ch") else "s"),
        thing=words[0],
        things=words[-1],
        number="counted" if number.isdigit() else number,
        colours=tuple(colours.split()),
        beside=tuple(neighbour for neighbour in BESIDE if neighbour not in not_beside.split(",")),
        detail=detail,
        on="on" if name in ON else "in",
        urban=name not in RURAL.split(", "),
        max_count=int(number) if number.isdigit() else 0,
    )


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
CLASSES: dict[str, SceneClass] = {kind.name: kind for kind in SCENES}


@dataclass(frozen=True)
class Scene:
    """What one image shows. `count` is 0 if nothing is counted, `beside` is "" if nothing is beside."""

    scene: str
    colour: str
    count: int
    beside: str

    @property
    def kind(self) -> SceneClass:
        return CLASSES[self.scene]


def sample_scene(rng: random.Random) -> Scene:
    """Draw class, colour, count and surroundings uniformly and independently."""
    kind = rng.choice(SCENES)
    count = rng.randint(1, kind.max_count) if kind.number == "counted" else 0
    return Scene(kind.name, rng.choice(kind.colours), count, rng.choice((*kind.beside, "")))
