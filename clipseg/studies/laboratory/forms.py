"""The same said otherwise: forms of a phrase that mean what it means, and controls that do not. Strings in, strings out."""

from collections.abc import Callable, Mapping

import numpy as np

from clipseg.studies.laboratory.statements import Statement, with_article

# Nouns that WordNet 3.0 puts into one synset; of the words at hand (assets/pascal_class_words.json), those of Pascal's classes.
# fmt: off
SYNSETS = (
    ("aeroplane", "airplane", "plane"), ("bicycle", "bike"), ("bus", "autobus", "coach"), ("car", "automobile", "auto"),
    ("sofa", "couch", "lounge"), ("motorbike", "motorcycle"), ("potted plant", "pot plant"), ("television", "tv"),
)
IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice",
    "goose": "geese", "leaf": "leaves", "shelf": "shelves", "knife": "knives",
}
# fmt: on
UNCOUNTED = ("sheep", "deer", "fish")


def plural(name: str) -> str | None:
    """Return a noun's plural; None where it has none of its own, or seems to be one."""
    rest, _, last = name.rpartition(" ")
    if last in UNCOUNTED or (last.endswith("s") and not last.endswith("ss")):
        return None
    many = IRREGULAR.get(last)
    if many is None and last.endswith(("s", "x", "z", "ch", "sh")):
        many = f"{last}es"
    elif many is None and last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        many = f"{last[:-1]}ies"
    return f"{rest} {many or f'{last}s'}".strip()


def synonym(name: str) -> str | None:
    """Return another noun of the same synset; None where none is at hand."""
    synset = next((nouns for nouns in SYNSETS if name in nouns), ())
    return next((noun for noun in synset if noun != name), None)


def _plural(statement: Statement, rng: np.random.Generator) -> str | None:
    many = plural(statement.name)
    return many and statement.text.replace(statement.name, many, 1)


def _synonym(statement: Statement, rng: np.random.Generator) -> str | None:
    other = synonym(statement.name)
    return other and statement.text.replace(statement.name, other, 1)


def _word_order(statement: Statement, rng: np.random.Generator) -> str | None:
    """ "The cat that is red"."""
    if not statement.attributes and not statement.relations:
        return None
    if not statement.text.startswith(statement.subject):
        return None
    said = " and ".join(statement.attributes) + statement.text[len(statement.subject) :]
    return f"the {statement.name} that is {said.strip()}"


def _typing_error(statement: Statement, rng: np.random.Generator) -> str | None:
    """Two neighbouring letters of the longest word exchanged, not its first."""
    word = max(statement.text.split(), key=len, default="")
    places = [place for place in range(1, len(word) - 1) if word[place] != word[place + 1]]
    if not places:
        return None
    place = places[int(rng.integers(len(places)))]
    return statement.text.replace(word, word[:place] + word[place + 1] + word[place] + word[place + 2 :], 1)


FORMS: Mapping[str, Callable[[Statement, np.random.Generator], str | None]] = {
    "article": lambda statement, rng: with_article(statement.text),
    "plural": _plural,
    "template": lambda statement, rng: f"a photo of {with_article(statement.text)}.",
    "word_order": _word_order,
    "synonym": _synonym,
    "lower_case": lambda statement, rng: statement.text.lower(),
    "upper_case": lambda statement, rng: statement.text.upper(),
    "typing_error": _typing_error,
    "full_stop": lambda statement, rng: f"{statement.text}.",
}


def shuffled(text: str, rng: np.random.Generator) -> str:
    """Return the words in another order; a single word, or one repeated, has none."""
    words = text.split()
    if len(set(words)) < 2:
        return text
    while True:
        other = " ".join(words[place] for place in rng.permutation(len(words)))
        if other != " ".join(words):
            return other


CONTROLS = ("shuffled", "empty", "random")


def control(name: str, text: str, phrases: tuple[Statement, ...], rng: np.random.Generator) -> str:
    """Return what stands in the place of a prompt: its words shuffled, nothing, or another phrase at random.

    Args:
        name: one of `CONTROLS`.
        text: of the prompt.
        phrases: of the split, at least two.
        rng: of the draw.
    """
    if name == "shuffled":
        return shuffled(text, rng)
    if name == "empty":
        return ""
    others = [phrases[place].text for place in rng.integers(len(phrases), size=8).tolist()]
    return next((other for other in others if other != text), others[0])
