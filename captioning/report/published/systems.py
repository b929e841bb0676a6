"""Read the published scores of systems.toml, and group them as the lines of a table.

1. RSICD has two test sets under one name: set A, its official validation images, which are RISC's test, and set B, its
   official test, which is RISC's validation part. Their scores cannot be compared.
2. Left out are scores on splits of the authors' own, scores that are called CIDEr and are another formula, and those
   whose source is not known.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from captioning.report.table_text import NONE

Measure = Literal["CIDEr", "BLEU-4", "METEOR", "ROUGE-L"]
MEASURES: tuple[Measure, ...] = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")
TRAININGS = {
    "one": "One model for all data sets",
    "each": "Tuned on each data set alone",
    "unknown": "Not known which of the two",
}
READ = {"authors": "the authors' own", "another paper": "another paper's table", "second hand": "second hand"}
DETAILS = ("read in", "protocol", "source")


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedSet(Record):
    """The images of an official test: their source in RISC, their number, and the title of the column."""

    source: str
    images: int
    title: str


class System(Record):
    """A published system with its scores by set."""

    name: str
    training: Literal["one", "each", "unknown"]
    read: Literal["authors", "another paper", "second hand"]
    source: str
    scores: Mapping[str, Mapping[Measure, float]]
    year: int | None = None
    protocol: str = ""
    inferred: bool = False  # which set of RSICD was scored

    @property
    def title(self) -> str:
        return f"{self.name} ({self.year})" if self.year else self.name

    def format_score(self, name: str, measure: Measure) -> str:
        """Return a score on a set; a question mark says that the set of RSICD is inferred."""
        value = self.scores.get(name, {}).get(measure)
        return NONE if value is None else f"{value:.1f}{'?' if self.inferred and name.startswith('RSICD') else ''}"


class Published(Record):
    """The official test sets by name, and all systems."""

    sets: Mapping[str, PublishedSet]
    systems: Sequence[System]

    def find_best(self, name: str) -> System:
        """Return the system with the highest CIDEr on a set."""
        return max(self.systems, key=lambda system: system.scores.get(name, {}).get("CIDEr", 0.0))

    def find_system(self, name: str) -> System:
        return next(system for system in self.systems if system.name == name)


def read_published() -> Published:
    """Read systems.toml."""
    text = Path(__file__).with_name("systems.toml").read_text(encoding="utf-8")
    return Published.model_validate(tomllib.loads(text))


def group_systems(published: Published, names: Sequence[str], cells: Callable[[System], list[str]]) -> list[list[str]]:
    """Return a line for each system that has a score on one of the sets `names`, in groups by training."""
    lines: list[list[str]] = []
    for training, title in TRAININGS.items():
        systems = [system for system in published.systems if system.training == training]
        group = [[system.title, *cells(system)] for system in systems if system.scores.keys() & set(names)]
        lines += [[title], *group] if group else []
    return lines


def describe_source(system: System) -> list[str]:
    """Return the cells of `DETAILS`."""
    return [READ[system.read], system.protocol or NONE, system.source]
