"""WordNet 3.0's files -> `assets/pascal_class_words.json`: run once; needed neither to train nor to evaluate.

    apt-get install wordnet-base
    python -m clipseg.tools.class_words /usr/share/wordnet clipseg/assets/pascal_class_words.json

For every Pascal class the file holds each lemma of its synset and of all synsets below it. "Below" follows hyponym pointers
("~"), not those to instances ("~i": the Mayflower, a ship), as `hyponyms()` of NLTK does. Also in it is what the lemmatiser
must know to map a word onto one of these lemmas, or not to: see `_lemmatiser_data`.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipseg.data.classes import PASCAL_SYNSETS, PERSON_WORDS
from clipseg.data.lemmas import ENDINGS, Lemmatiser, words_of
from clipseg.errors import ClipSegError
from clipseg.files import atomic_write

ORIGIN = "WordNet 3.0 Copyright 2006 by Princeton University; see pascal_class_words.LICENSE"


@dataclass(frozen=True, slots=True)
class Synset:
    """A line of `data.noun`, as far as needed: its lemmas as spelled there, and the offsets of its hyponyms."""

    lemmas: tuple[str, ...]
    hyponyms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Nouns:
    """The nouns of WordNet: lemma (lower case, "_" between words) -> offsets of its senses in order; offset -> synset."""

    senses: Mapping[str, tuple[str, ...]]
    synsets: Mapping[str, Synset]
    exceptions: Mapping[str, tuple[str, ...]]


def read_nouns(folder: Path) -> Nouns:
    """Read `index.noun`, `data.noun` and `noun.exc`. Source of the format: WordNet 3.0, wndb(5WN).

    Raises:
        ClipSegError: a file is missing.
    """
    senses = {}
    for fields in _lines(folder / "index.noun"):
        # lemma, part of speech, count of senses, count of kinds of pointers, those, two more counts, the offsets
        senses[fields[0]] = tuple(fields[6 + int(fields[3]) :])
    synsets = {}
    for fields in _lines(folder / "data.noun"):
        # offset, file, part of speech, count of words (hexadecimal), (word, id) each, count of pointers, (symbol, offset, …)
        after_words = 4 + 2 * int(fields[3], 16)
        pointers = fields[after_words + 1 : after_words + 1 + 4 * int(fields[after_words])]
        hyponyms = tuple(offset for symbol, offset in zip(pointers[::4], pointers[1::4], strict=True) if symbol == "~")
        synsets[fields[0]] = Synset(tuple(fields[4:after_words:2]), hyponyms)
    exceptions = {fields[0]: tuple(fields[1:]) for fields in _lines(folder / "noun.exc")}
    return Nouns(senses, synsets, exceptions)


def _lines(path: Path) -> Iterator[list[str]]:
    """The fields of each line but those of the licence, which begin with a space."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line.split() for line in file if not line.startswith(" "))
    except OSError as error:
        raise ClipSegError(f"{path}: {error.strerror}; expected WordNet 3.0's files: apt-get install wordnet-base") from error


def lemmas_below(nouns: Nouns, name: str) -> set[str]:
    """Every lemma of a synset such as "cat.n.01" and of all its hyponyms, in lower case, with spaces between words.

    Raises:
        ClipSegError: there is no such synset.
    """
    lemma, _, number = name.rsplit(".", 2)
    senses = nouns.senses.get(lemma, ())
    if not 1 <= int(number) <= len(senses):
        raise ClipSegError(f"synset {name}: '{lemma}' has {len(senses)} senses; expected the files of WordNet 3.0")
    found: set[str] = set()
    seen = set()
    waiting = [senses[int(number) - 1]]
    while waiting:
        offset = waiting.pop()
        if offset not in seen:
            seen.add(offset)
            found.update(" ".join(words_of(spelled)) for spelled in nouns.synsets[offset].lemmas)
            waiting.extend(nouns.synsets[offset].hyponyms)
    return found


def class_words(nouns: Nouns) -> dict[str, Any]:
    """The content of the shipped file."""
    classes = {
        # Deviation: the class's own name too. It matters for the potted plant, whose synset has the one lemma "pot plant".
        name: sorted(lemmas_below(nouns, synset) | {name}) if name != "person" else sorted(PERSON_WORDS)
        for name, synset in PASCAL_SYNSETS.items()
    }
    return {"origin": ORIGIN, "classes": classes, **_lemmatiser_data(nouns, classes.values())}


def _lemmatiser_data(nouns: Nouns, classes: Iterable[Iterable[str]]) -> dict[str, Any]:
    """The part of WordNet's nouns and exceptions that decides about the words of the classes.

    A word of text matters if it is one of theirs, or could be the plural of one. Of what it may be a form of, all nouns are
    kept: a shorter noun than the class's word wins over it. With these the lemmatiser answers as with all of WordNet.
    """
    lemmas = {lemma for words in classes for lemma in words}
    single = _texts(nouns, {lemma for lemma in lemmas if " " not in lemma})
    lemmatiser = Lemmatiser(nouns.senses.keys(), nouns.exceptions)
    kept = {form for text in single for form in lemmatiser.candidates(text) if form in nouns.senses}
    texts = _texts(nouns, {word for lemma in lemmas for word in lemma.split()})
    exceptions = {text: list(nouns.exceptions[text]) for text in sorted(texts & nouns.exceptions.keys())}
    return {"nouns": sorted(kept), "exceptions": exceptions}


def _texts(nouns: Nouns, words: set[str]) -> set[str]:
    """The words, and whatever could be the plural of one."""
    regular = {word[: len(word) - len(new)] + old for word in words for old, new in ENDINGS if word.endswith(new)}
    irregular = {plural for plural, singulars in nouns.exceptions.items() if not words.isdisjoint(singulars)}
    return words | regular | irregular


def main(arguments: list[str] | None = None) -> None:
    """Write the file, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wordnet", type=Path, metavar="WORDNET", help="the folder of data.noun, index.noun and noun.exc")
    parser.add_argument("out", type=Path, metavar="OUT", help="the JSON file to write")
    parsed = parser.parse_args(arguments)
    with atomic_write(parsed.out, "w") as file:
        json.dump(class_words(read_nouns(parsed.wordnet)), file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")
    print(f"{parsed.out}: {parsed.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    try:
        main()
    except ClipSegError as error:
        sys.exit(f"error: {error}")
