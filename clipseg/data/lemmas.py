"""A phrase -> its words -> their dictionary forms: WordNet's rules for nouns, so that "buses" is a bus and "catalog" no cat.

Knows the rules, not the words: those come from WordNet's files (`wordnet.py`) or from what is shipped of them
(`class_words.py`).
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

# An ending of a plural -> the ending of its singular. Source: WordNet 3.0, morphy(7WN), the rules for nouns.
ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)

_possessive = re.compile(r"['’]s(?![^\W_])")
_word = re.compile(r"[^\W_]+")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a phrase or of a lemma, in lower case: hyphens and underscores separate them, a possessive 's is dropped."""
    return tuple(_word.findall(_possessive.sub("", text.lower())))


@dataclass(frozen=True)
class Lemmatiser:
    """Finds the dictionary form of a noun.

    Attributes:
        nouns: the words that are nouns. A word none of whose forms is among them is its own lemma.
        exceptions: irregular plural -> its singulars.
    """

    nouns: Set[str]
    exceptions: Mapping[str, Sequence[str]]

    def candidates(self, word: str) -> list[str]:
        """All that `word`, in lower case, could be a form of by the rules: itself first."""
        if word in self.exceptions:
            return [word, *self.exceptions[word]]
        return [word, *(word[: -len(old)] + new for old, new in ENDINGS if word.endswith(old))]

    def __call__(self, word: str) -> str:
        """The lemma of `word`: the shortest of its candidates that is a noun, as NLTK's lemmatiser chooses.

        Deviation: of two as short as each other it is the singular. To NLTK "men" is a noun of its own, and no form of "man".
        """
        nouns = (form for form in self.candidates(word) if form in self.nouns)
        return min(nouns, key=lambda form: (len(form), form == word), default=word)
