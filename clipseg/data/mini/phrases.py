"""Phrases about a scene as PhraseCut's, each with all things of which it is true.

Category ("flag"), attribute + category ("large striped flag", "leftmost flag"), category + relation ("flag left of a red
board"), and both ("red flag above a kite").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipseg.data.mini.scenes import MIN_DISTANCE, Kind, Scene, SceneObject, relation

# How many phrases of these types an image gets at most.
PHRASES: dict[tuple[str, ...], int] = {("name",): 2, ("attribute",): 2, ("relation", "verbose"): 1}
# Which of several things a word means: the first along an axis of their centres, x or y, forwards or backwards.
EXTREMES: dict[str, tuple[int, int]] = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "lowest": (1, -1)}


@dataclass(frozen=True, slots=True)
class Description:
    """A category, with or without a colour, a size, a pattern and a word of `EXTREMES`: "leftmost large striped red flag"."""

    category: str
    colour: str | None = None
    size: str | None = None
    pattern: str | None = None
    extreme: str | None = None

    @property
    def attributes(self) -> list[str]:
        """Its adjectives, in the order they are said."""
        return [word for word in (self.extreme, self.size, self.pattern, self.colour) if word]

    @property
    def text(self) -> str:
        """Its words."""
        return " ".join([*self.attributes, self.category])

    def fits(self, thing: SceneObject, scene: Scene) -> bool:
        """Whether a thing of a scene can be called so; what is extreme is so by far among all that fit the other words."""
        if not self._fits(thing.kind):
            return False
        if self.extreme is None:
            return True
        axis, sign = EXTREMES[self.extreme]
        others = [sign * other.centre[axis] for other in scene.objects if other is not thing and self._fits(other.kind)]
        return bool(others) and sign * thing.centre[axis] + MIN_DISTANCE <= min(others)

    def _fits(self, kind: Kind) -> bool:
        said = (self.category, self.colour, self.size, self.pattern)
        return all(word in (None, of_kind) for word, of_kind in zip(said, kind, strict=True))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A task's target: a description, and where the thing lies as seen from another: "red flag left of a kite"."""

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
        """Whether the phrase is true of this thing of this scene."""
        if not self.subject.fits(thing, scene) or self.reference is None:
            return self.subject.fits(thing, scene)
        others = (other for other in scene.objects if other is not thing and self.reference.fits(other, scene))
        return any(relation(thing, other) == self.relation for other in others)

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
        rng: chooses, at most `PHRASES` of each type.
        scene: what is talked about.
        unseen: only phrases that are held out; False: only others.
        pairs: a phrase is held out whose subject is named by one of these (category, colour) pairs,
        relations: or whose subject and relation are one of these (category, relation) pairs.
    """

    def is_held_out(phrase: Phrase) -> bool:
        category = phrase.subject.category
        return (category, phrase.subject.colour) in pairs or (category, phrase.relation) in relations

    phrases = dict.fromkeys(phrase for phrase in _true_phrases(scene) if is_held_out(phrase) == unseen)
    chosen: list[Phrase] = []
    for types, limit in PHRASES.items():
        candidates = [phrase for phrase in phrases if phrase.type in types]
        chosen += [candidates[index] for index in rng.permutation(len(candidates))[:limit]]
    return chosen


def _true_phrases(scene: Scene) -> Iterator[Phrase]:
    """Every phrase that is true of something in the scene, with repetitions."""
    for thing in scene.objects:
        category, colour, size, pattern = thing.kind
        plain, coloured = Description(category), Description(category, colour)
        yield from (Phrase(plain), Phrase(coloured), Phrase(Description(category, pattern=pattern)))
        yield Phrase(Description(category, colour, pattern=pattern))
        if size != "medium":
            yield from (Phrase(Description(category, None, size)), Phrase(Description(category, colour, size)))
        for extreme in EXTREMES:
            described = Description(category, extreme=extreme)
            if described.fits(thing, scene):
                yield Phrase(described)
        for other in scene.objects:
            word = relation(thing, other) if other is not thing else None
            for reference in (Description(other.kind.category), Description(other.kind.category, other.kind.colour)):
                # "a kite left of a kite" says nothing.
                if word and not reference.fits(thing, scene):
                    yield from (Phrase(plain, word, reference), Phrase(coloured, word, reference))
