"""Which phrases speak of a held-out class: the words that each rule forbids, and where they stand in a phrase.

A phrase is removed when one of its words, or the word's lemma, is forbidden, or when it holds a lemma of several words, each as
it is or in the plural: "two tabbies" is a cat, "motor cars" is a car, "a catalog" is neither.

Deviation: the authors compare lemmas only (which loses "puss", the plural of "pus" to a lemmatiser), and look for lemmas of
several words as strings of characters, which finds the "pot plant" in "a pot planter".
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.data.classes import AFFORDANCE_WORDS, FOLDS, PASCAL_CLASSES, UNSEEN_SETS, pascal5i_fold, unseen_classes
from clipseg.data.lemmas import Lemmatiser, words_of
from clipseg.errors import ClipSegError
from clipseg.files import read_json

ASSET = Path(__file__).parents[1] / "assets" / "pascal_class_words.json"

# Rule -> the Pascal classes it holds out. COCO-20i has none: it trains on COCO itself, where classes are ids and not words.
_CLASSES_OF_RULE = {f"unseen{count}": unseen_classes(count) for count in UNSEEN_SETS} | {
    f"pascal5i_fold{fold}": pascal5i_fold(fold) for fold in range(FOLDS)
}
RULES = (*_CLASSES_OF_RULE, "affordances")


def class_words(name: str) -> frozenset[str]:
    """The words of a Pascal class: every lemma of its synset and of the synset's hyponyms, in lower case.

    Raises:
        ClipSegError: Pascal VOC has no such class.
    """
    if name not in PASCAL_CLASSES:
        raise ClipSegError(f"class {name!r} unknown; expected one of {', '.join(PASCAL_CLASSES)}")
    return frozenset(_asset()["classes"][name])


@cache
def _asset() -> Mapping[str, Any]:
    return dict(read_json(ASSET))


def excluded_words(rule: str) -> frozenset[str]:
    """The words that a rule forbids in training phrases.

    Args:
        rule: one of `RULES`: unseen2, 4, 6, 8, 10 (Tab. 4), pascal5i_fold0 to 3 (Tab. 5 and 7), affordances (Tab. 8).

    Raises:
        ClipSegError: there is no such rule.
    """
    if rule not in RULES:
        raise ClipSegError(f"rule {rule!r} unknown; expected one of {', '.join(RULES)}")
    if rule == "affordances":
        return frozenset(AFFORDANCE_WORDS)
    return frozenset().union(*map(class_words, _CLASSES_OF_RULE[rule]))


def mentions(phrase: str, words: frozenset[str]) -> str | None:
    """The first forbidden word in a phrase, as it stands in `words`; None where there is none.

    Args:
        phrase: as annotated, of any case.
        words: single words, and lemmas of several words apart by spaces.
    """
    starting_with = _by_first_word(words)
    found = words_of(phrase)
    for start, word in enumerate(found):
        for first in _candidates(word):
            for lemma in starting_with.get(first, ()):
                if _is_lemma_of(lemma.split(), found[start:]):
                    return lemma
    return None


@cache
def _by_first_word(words: frozenset[str]) -> Mapping[str, list[str]]:
    index = defaultdict(list)
    for lemma in sorted(words):
        index[lemma.split()[0]].append(lemma)
    return dict(index)


def _is_lemma_of(parts: list[str], found: Sequence[str]) -> bool:
    """Whether a text begins with a lemma. Of a single word we ask what it is a form of; several words need no such care."""
    if len(parts) == 1:
        return parts[0] in (found[0], _lemma(found[0]))
    return len(parts) <= len(found) and all(part in _candidates(word) for part, word in zip(parts, found, strict=False))


@cache
def _candidates(word: str) -> tuple[str, ...]:
    return tuple(_lemmatiser().candidates(word))


@cache
def _lemma(word: str) -> str:
    return _lemmatiser()(word)


@cache
def _lemmatiser() -> Lemmatiser:
    return Lemmatiser(frozenset(_asset()["nouns"]), _asset()["exceptions"])


def forbidden_word(rule: str) -> Callable[[str], str | None]:
    """A function that finds the word for which a rule removes a phrase; None for a phrase that stays.

    Raises:
        ClipSegError: there is no such rule.
    """
    words = excluded_words(rule)
    if rule == "affordances":
        return lambda phrase: next((word for word in phrase.split(" ") if word in words), None)
    return lambda phrase: mentions(phrase, words)


def phrase_filter(rule: str) -> Callable[[Sequence[str]], NDArray[np.bool_]]:
    """A function that finds the phrases a rule removes: T phrases -> bool `[T]`, True where the phrase must go.

    Raises:
        ClipSegError: there is no such rule.
    """
    find = forbidden_word(rule)

    def is_excluded(phrases: Sequence[str]) -> NDArray[np.bool_]:
        phrases = list(phrases)
        # PhraseCut's phrases come several times each.
        found = {phrase: find(phrase) is not None for phrase in set(phrases)}
        return np.fromiter((found[phrase] for phrase in phrases), dtype=np.bool_, count=len(phrases))

    return is_excluded
