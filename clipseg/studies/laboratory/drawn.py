"""The exact truth of the mini data's synthetic scenes: nothing is absent only because nobody wrote it down."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.data.mini.phrasecut import SPLITS, draw_image
from clipseg.data.mini.phrases import RANKS, Description, Phrase
from clipseg.data.mini.scenes import COLOURS, RELATIONS, SIZES, Scene
from clipseg.data.mini.shapes import CATEGORIES, PARTS, PATTERNS
from clipseg.studies.laboratory.statements import Statement, Statements

ADJECTIVES: tuple[Mapping[str, Any], ...] = (COLOURS, SIZES, PATTERNS, RANKS)  # in the order that `Description` takes them


@lru_cache(maxsize=4)
def scene_of(image: str) -> Scene:
    """Return the scene of an image of the mini data; images are numbered from 1 over its splits."""
    number = int(image) - 1
    for split, end in zip(SPLITS, accumulate(SPLITS.values()), strict=True):
        if number < end:
            return draw_image(split, number - end + SPLITS[split])[0]
    raise AssertionError(image)


def _description(words: str) -> Description:
    before, _, category = words.rpartition(" ")

    def said(known: Mapping[str, Any]) -> str | None:
        # The longest: "second leftmost" is not "leftmost".
        return max((word for word in known if f" {word} " in f" {before} "), key=len, default=None)

    return Description(category, *map(said, ADJECTIVES))


def truth(image: str, statement: Statement) -> NDArray[np.bool_]:
    """Return the pixels of all things of which a statement is true, bool `[H, W]`; empty where there are none."""
    scene = scene_of(image)
    relation, reference = statement.relations[0] if statement.relations else (None, None)
    phrase = Phrase(_description(statement.subject), relation, _description(reference) if reference else None)
    return np.logical_or.reduce([np.zeros(scene.image.shape[:2], dtype=bool), *phrase.masks(scene).values()])


class DrawnStatements(Statements):
    """`Statements` of the mini data, whose truth is that of its scenes."""

    def noun_is_here(self, image: str, name: str) -> bool:
        """Whether the scene has such a thing, named or not."""
        kinds = {thing.kind.category for thing in scene_of(image).objects}
        return name in kinds or any(PARTS[category].name == name for category in kinds & PARTS.keys())

    def is_true(self, image: str, statement: Statement) -> bool:
        """Whether the statement is true of a thing of the scene, said or not."""
        return bool(truth(image, statement).any())

    def swaps(self, image: str, key: str, masks: Mapping[str, NDArray[np.bool_]]) -> Iterator[tuple[str, Statement, Any]]:
        """Yield (kind, statement, its mask bool `[H, W]`) of all that differs from a task in one word and holds here."""
        before = self.of_task[key]
        for kind, after in _exchanged(before):
            mask = truth(image, after)
            if mask.any():
                yield kind, after, mask


def _exchanged(before: Statement) -> Iterator[tuple[str, Statement]]:
    for place, word in enumerate(before.attributes):
        for other in next(known for known in ADJECTIVES if word in known):
            if other != word:
                attributes = (*before.attributes[:place], other, *before.attributes[place + 1 :])
                yield "attribute", before.changed(attributes=attributes)
    yield from (("noun", before.changed(name=name)) for name in CATEGORIES if name != before.name)
    for relation, thing in before.relations:
        others: Sequence[str] = [other for other in RELATIONS if other != relation]
        yield from (("relation", before.changed(relations=((other, thing),))) for other in others)
