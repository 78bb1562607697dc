"""Phrases about an image, in parts, and what could be said instead: one attribute, the noun or the relation exchanged.

The parts come from PhraseCut's `phrase_structure`. By annotation alone a phrase is absent where nobody wrote it: PhraseCut does
not name every attribute of everything, so some "absent" phrases are true. Of drawn scenes the truth is known exactly.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.data.json_entries import iterate_entries
from clipseg.data.layout import is_own_folder, split_files
from clipseg.errors import ClipSegError

# Turned round these say the same.
_SYMMETRIC = "along among and around beside between by close facing near next together touching with"
SYMMETRIC = frozenset(_SYMMETRIC.split())

DRAWS = 200  # of phrases, until one names what is not on the image


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A phrase and its parts.

    Attributes:
        text: the phrase.
        name: its noun; all of it where nothing tells the parts.
        attributes: what the thing is like, in the order of the phrase.
        relations: (relation, the other thing's words), in the order of the phrase.
    """

    text: str
    name: str
    attributes: tuple[str, ...] = ()
    relations: tuple[tuple[str, str], ...] = ()

    @property
    def subject(self) -> str:
        """The phrase without its relations."""
        return " ".join([*self.attributes, self.name])

    def changed(self, **parts: Any) -> "Statement":
        """Return this statement with other parts, its text composed as this one's: with articles where it has them."""
        values = {"name": self.name, "attributes": self.attributes, "relations": self.relations} | parts
        words = [*values["attributes"], values["name"]]
        for relation, thing in values["relations"]:
            words += [relation, with_article(thing) if self._has_articles else thing]
        return Statement(text=" ".join(words), **values)

    @property
    def _has_articles(self) -> bool:
        return any(re.search(rf"\ban? {re.escape(thing)}$", self.text) for _, thing in self.relations)

    def turned(self) -> "Statement | None":
        """Return the statement with its one relation turned round; None where it has not one, or it says the same."""
        if len(self.relations) != 1 or not SYMMETRIC.isdisjoint(self.relations[0][0].lower().split()):
            return None
        relation, thing = self.relations[0]
        return self.changed(name=thing, attributes=(), relations=((relation, self.subject),))


def with_article(words: str) -> str:
    """Return "a red flag", "an orange kite"."""
    return f"{'an' if words[:1].lower() in tuple('aeiou') else 'a'} {words}"


def same_noun(one: str, two: str) -> bool:
    """Whether two nouns are the same, in singular or plural."""
    return one.lower().removesuffix("s") == two.lower().removesuffix("s")


class Statements:
    """All that is said of the images of a split, and what follows of other phrases by the annotations.

    Args:
        said: task key -> (image key, statement).
        where: how errors call the data.
    """

    def __init__(self, said: Mapping[str, tuple[str, Statement]], *, where: str):
        self.where = where
        self.of_task = {key: statement for key, (_, statement) in said.items()}
        self.of_image: dict[str, list[Statement]] = defaultdict(list)
        attributes: dict[str, dict[str, None]] = defaultdict(dict)
        for image, statement in said.values():
            self.of_image[image].append(statement)
            attributes[statement.name.lower()] |= dict.fromkeys(statement.attributes)
        self.attributes = {name: tuple(words) for name, words in attributes.items()}
        self.phrases = tuple({statement.text: statement for statement in self.of_task.values()}.values())
        if len(self.attributes) < 2:
            raise ClipSegError(f"{where}: fewer than two nouns; choose a split whose phrases name different things")

    def noun_is_here(self, image: str, name: str) -> bool:
        """Whether something of this name is on the image."""
        return any(same_noun(name, statement.name) for statement in self.of_image[image])

    def is_true(self, image: str, statement: Statement) -> bool:
        """Whether the annotations say of something on the image all that the statement says."""
        return any(
            same_noun(said.name, statement.name)
            and set(statement.attributes) <= set(said.attributes)
            and set(statement.relations) <= set(said.relations)
            for said in self.of_image[image]
        )

    def swaps(self, image: str, key: str, masks: Mapping[str, NDArray[np.bool_]]) -> Iterator[tuple[str, Statement, Any]]:
        """Yield (kind, statement, its mask bool `[H, W]`) of what differs from a task in one part and holds here.

        Args:
            image: its key.
            key: the task's.
            masks: of the image's tasks, by key.
        """
        before = self.of_task[key]
        for other, mask in masks.items():
            kind = swapped_part(before, self.of_task[other])
            if kind:
                yield kind, self.of_task[other], mask


def swapped_part(one: Statement, two: Statement) -> str | None:
    """Return which single part differs: "attribute", "noun" or "relation"; None where none does, or several."""
    same_name = same_noun(one.name, two.name)
    same_attributes, same_relations = set(one.attributes) == set(two.attributes), one.relations == two.relations
    if same_name and same_relations and len(one.attributes) == len(two.attributes):
        return "attribute" if len(set(one.attributes) - set(two.attributes)) == 1 else None
    if same_attributes and same_relations and not same_name:
        return "noun"
    return "relation" if same_name and same_attributes and len(one.relations) == len(two.relations) == 1 else None


def read_statements(root: Path, split: str, kind: type[Statements] = Statements) -> Statements:
    """Read what is said in a split, in PhraseCut's layout or of a folder of one's own, into one of `kind`.

    Raises:
        ClipSegError: another layout, a split that is not there, or one whose phrases name one thing.
    """
    where = f"{root}: split {split}"
    if is_own_folder(root):
        from clipseg.data.readers.folder import folder_splits, read_tasks
        from clipseg.data.readers.own.phrases import read_phrases

        tasks = read_tasks(root, folder_splits(root)[split])
        phrases = read_phrases(root, dict.fromkeys(task.name for task in tasks))
        said = {f"{split}/{task.number:06d}": (task.image, structured(phrases[task.name][0], None)) for task in tasks}
        return kind(said, where=where)
    said = {}
    for name, path in split_files(root, split).items():
        for entry in iterate_entries(path):
            said[f"{name}/{entry['task_id']}"] = (
                str(entry["image_id"]),
                structured(entry["phrase"], entry.get("phrase_structure")),
            )
    return kind(said, where=where)


def structured(phrase: str, structure: Any) -> Statement:
    """Return a phrase with the parts that its `phrase_structure` tells; one that is none of PhraseCut's tells nothing."""
    try:
        name, attributes = structure["name"], tuple(structure["attributes"])
        relations = tuple((str(relation), str(thing)) for relation, thing in structure["relation_descriptions"])
    except (KeyError, TypeError, ValueError):
        return Statement(text=phrase, name=phrase)
    if not isinstance(name, str) or not name or not all(isinstance(word, str) for word in attributes):
        return Statement(text=phrase, name=phrase)
    return Statement(text=phrase, name=name, attributes=attributes, relations=relations)


def absent(
    known: Statements, image: str, before: Statement, kinds: Sequence[str], rng: np.random.Generator
) -> dict[str, Statement]:
    """Return for each kind a statement near a true one that does not hold on the image, where there is one.

    Kinds: "other", another image's phrase whose noun is not here; "attribute", the noun with an attribute that no such thing
    has here; "relation", the relation turned round.
    """
    found: dict[str, Statement] = {}
    if "other" in kinds:
        drawn = (known.phrases[place] for place in rng.integers(len(known.phrases), size=DRAWS).tolist())
        other = next((each for each in drawn if not known.noun_is_here(image, each.name)), None)
        found |= {"other": other} if other else {}
    if "attribute" in kinds:
        words = known.attributes[before.name.lower()]
        candidates = [before.changed(attributes=(word,), relations=()) for word in words]
        candidates = [each for each in candidates if not known.is_true(image, each)]
        if candidates:
            found["attribute"] = candidates[int(rng.integers(len(candidates)))]
    turned = before.turned() if "relation" in kinds else None
    if turned and not known.is_true(image, turned):
        found["relation"] = turned
    return found
