"""Phrases about a scene as PhraseCut's, each with all things of which it is true.

Category ("flag"), attribute + category ("large striped flag", "second leftmost flag"), category + relation ("flag left of a red
board"), and both ("red flag above a kite"); the other ("flag other than a red flag"), and parts ("pole of a red flag").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.data.mini.scenes import MIN_DISTANCE, Kind, Scene, SceneObject, relation
from clipseg.data.mini.shapes import PARTS

# How many phrases of these sorts an image gets at most.
PHRASES: dict[str, int] = {"name": 2, "attribute": 2, "relation": 1, "other or part": 1}
# Which of several things a word means: its place along an axis of their centres, x or y, counted forwards or backwards.
RANKS: dict[str, tuple[int, int, int]] = {
    "leftmost": (0, 1, 0),
    "rightmost": (0, -1, 0),
    "topmost": (1, 1, 0),
    "lowest": (1, -1, 0),
    "second leftmost": (0, 1, 1),
    "second rightmost": (0, -1, 1),
    "second topmost": (1, 1, 1),
    "second lowest": (1, -1, 1),
}
OTHER_THAN, PART_OF = "other than", "of"


@dataclass(frozen=True, slots=True)
class Description:
    """A category, with or without a colour, a size, a pattern and a word of `RANKS`: "leftmost large striped red flag"."""

    category: str
    colour: str | None = None
    size: str | None = None
    pattern: str | None = None
    rank: str | None = None

    @property
    def attributes(self) -> list[str]:
        """Its adjectives, in the order they are said."""
        return [word for word in (self.rank, self.size, self.pattern, self.colour) if word]

    @property
    def text(self) -> str:
        """Its words."""
        return " ".join([*self.attributes, self.category])

    def fits(self, thing: SceneObject, scene: Scene) -> bool:
        """Whether a thing of a scene can be called so; its rank is clear if all others that fit the other words are far off."""
        if not self._fits(thing.kind):
            return False
        if self.rank is None:
            return True
        axis, sign, place = RANKS[self.rank]
        ahead = [
            sign * (thing.centre[axis] - other.centre[axis])
            for other in scene.objects
            if other is not thing and self._fits(other.kind)
        ]
        return bool(ahead) and min(map(abs, ahead)) >= MIN_DISTANCE and sum(gap > 0 for gap in ahead) == place

    def _fits(self, kind: Kind) -> bool:
        said = (self.category, self.colour, self.size, self.pattern)
        return all(word in (None, of_kind) for word, of_kind in zip(said, kind, strict=True))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A task's target: a description, and what relates the thing to another: one of `RELATIONS`, `OTHER_THAN` or `PART_OF`."""

    subject: Description
    relation: str | None = None
    reference: Description | None = None

    @property
    def text(self) -> str:
        """The phrase as it is asked."""
        if self.reference is None:
            return self.subject.text
        article = "an" if self.reference.text[0] in "aeiou" else "a"
        return f"{self.subject.text} {self.relation} {article} {self.reference.text}"

    def matches(self, thing: SceneObject, scene: Scene) -> bool:
        """Whether the phrase is true of this thing of this scene; for a part, of the thing that it is a part of."""
        if self.reference is None:
            return self.subject.fits(thing, scene)
        if self.relation == PART_OF:
            is_named = thing.part is not None and PARTS[thing.kind.category].name == self.subject.category
            return is_named and self.reference.fits(thing, scene)
        if not self.subject.fits(thing, scene):
            return False
        others = [other for other in scene.objects if other is not thing and self.reference.fits(other, scene)]
        if self.relation == OTHER_THAN:
            return bool(others) and not self.reference.fits(thing, scene)
        return any(relation(thing, other) == self.relation for other in others)

    def masks(self, scene: Scene) -> dict[int, NDArray[np.bool_]]:
        """The masks, bool `[H, W]`, of all things or parts of which the phrase is true, by their number among things and, after
        those, their parts."""
        found = {number: thing for number, thing in enumerate(scene.objects) if self.matches(thing, scene)}
        if self.relation == PART_OF:
            return {len(scene.objects) + number: thing.part for number, thing in found.items() if thing.part is not None}
        return {number: thing.mask for number, thing in found.items()}

    @property
    def sort(self) -> str:
        """Which of `PHRASES` it is."""
        if self.relation in (OTHER_THAN, PART_OF):
            return "other or part"
        return "relation" if self.relation else self.type

    @property
    def type(self) -> str:
        """PhraseCut's type: "name", "attribute", "relation", or "verbose" for an attribute and a relation."""
        if self.reference is None:
            return "attribute" if self.subject.attributes else "name"
        return "verbose" if self.subject.attributes else "relation"

    def structure(self, relation_id: int) -> dict[str, Any]:
        """PhraseCut's `phrase_structure`; a relation gets the number `relation_id`."""
        return {
            "name": self.subject.category,
            "attributes": self.subject.attributes,
            "relation_ids": [relation_id] if self.reference else [],
            "relation_descriptions": [[self.relation, self.reference.text]] if self.reference else [],
            "type": self.type,
        }


def choose_phrases(
    rng: np.random.Generator,
    scene: Scene,
    *,
    unseen: bool,
    pairs: frozenset[tuple[str, str]],
    relations: frozenset[tuple[str, str]],
) -> list[Phrase]:
    """About five different phrases that are true of something in the scene.

    Args:
        rng: chooses, at most `PHRASES` of each sort.
        scene: what is talked about.
        unseen: only phrases that are held out; False: only others.
        pairs: a phrase is held out whose subject is named by one of these (category, colour) pairs,
        relations: or whose subject and relation are one of these (category, relation) pairs.
    """

    def is_held_out(phrase: Phrase) -> bool:
        category = phrase.subject.category
        return (category, phrase.subject.colour) in pairs or (category, phrase.relation) in relations

    phrases = dict.fromkeys(phrase for phrase in true_phrases(scene) if is_held_out(phrase) == unseen)
    chosen: list[Phrase] = []
    for sort, limit in PHRASES.items():
        candidates = [phrase for phrase in phrases if phrase.sort == sort]
        chosen += [candidates[index] for index in rng.permutation(len(candidates))[:limit]]
    return chosen


def true_phrases(scene: Scene) -> Iterator[Phrase]:
    """Every phrase that is true of something in the scene, with repetitions."""
    for thing in scene.objects:
        category, colour, size, pattern = thing.kind
        plain, coloured = Description(category), Description(category, colour)
        yield from (Phrase(plain), Phrase(coloured), Phrase(Description(category, pattern=pattern)))
        yield Phrase(Description(category, colour, pattern=pattern))
        if size != "medium":
            yield from (Phrase(Description(category, None, size)), Phrase(Description(category, colour, size)))
        ranked = (Description(category, rank=rank) for rank in RANKS)
        yield from (Phrase(described) for described in ranked if described.fits(thing, scene))
        if thing.part is not None:
            part = Description(PARTS[category].name)
            yield from (Phrase(part, PART_OF, plain), Phrase(part, PART_OF, coloured))
        for other in scene.objects:
            if other.kind.category == category and other.kind.colour != colour:
                yield Phrase(plain, OTHER_THAN, Description(category, other.kind.colour))
            word = relation(thing, other) if other is not thing else None
            for reference in (Description(other.kind.category), Description(other.kind.category, other.kind.colour)):
                # "a kite left of a kite" says nothing.
                if word and not reference.fits(thing, scene):
                    yield from (Phrase(plain, word, reference), Phrase(coloured, word, reference))
