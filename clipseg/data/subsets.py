"""PhraseCut's named subsets: which of them a task belongs to, as the data set's own evaluator has it (docs/paper.md).

A name says what it goes by: c category, a attribute, p phrase, i number of instances, s size, t type. Most ask about
`phrase_structure`. Ranks need `name_att_rel_count.json`. The evaluator's lists of words, for stuff (t) and for kinds of
attributes (`a_color` and so on), carry no licence and are not ours to copy: they are read, never run, from its file
`utils/subset.py` where that lies beside the annotations as `subset.py`.
"""

import ast
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipseg.data.classes import COCO_CLASSES
from clipseg.errors import ClipSegError, one_line
from clipseg.files import read_json

COUNTS_FILE = "name_att_rel_count.json"
WORDS_FILE = "subset.py"
WORDS_PAGE = "https://github.com/ChenyunWu/PhraseCutDataset (utils/subset.py)"

_CATEGORY_RANKS = {"c20": (0, 20), "c100": (0, 100), "c500": (0, 500), "c21-100": (20, 100), "c101-500": (100, 500)}
_ATTRIBUTE_RANKS = {"a20": (0, 20), "a100": (0, 100), "a200": (0, 200), "a21-100": (20, 100), "a101-200": (100, 200)}
_TYPES = {"name": "p_name", "attribute": "p_att+", "relation": "p_rel+", "verbose": "p_verbose"}
_KINDS = ("color", "shape", "material", "texture", "state", "adj", "noun", "loc", "count", "bad")

SUBSETS: tuple[str, ...] = (
    *("c_coco", *_CATEGORY_RANKS, "c500+"),
    *("i_single", "i_multi", "i_many"),
    *("p_name", "p_att", "p_att+", "p_rel", "p_rel+", "p_verbose", "p_attm", "p_relm", "p_att_rel"),
    *("t_stuff", "t_obj"),
    *("s_small", "s_mid", "s_large"),
    *(*_ATTRIBUTE_RANKS, "a200+"),
    *(f"a_{kind}" for kind in _KINDS),
)
_COUNTED = (*_CATEGORY_RANKS, "c500+", *_ATTRIBUTE_RANKS, "a200+")
_LISTED = ("t_stuff", "t_obj", *(f"a_{kind}" for kind in _KINDS))


@dataclass(frozen=True)
class Vocabulary:
    """The words that subsets go by.

    Attributes:
        category_ranks, attribute_ranks: word -> place by frequency, from 0; None: unknown.
        stuff: a category that contains one of these is stuff; None: unknown.
        kinds: subset -> its attributes; empty: unknown.
    """

    category_ranks: Mapping[str, int] | None = None
    attribute_ranks: Mapping[str, int] | None = None
    stuff: tuple[str, ...] | None = None
    kinds: Mapping[str, frozenset[str]] | None = None

    @property
    def missing(self) -> dict[str, list[str]]:
        """The subsets that cannot be told, by what they need."""
        missing = {}
        if self.category_ranks is None:
            missing[f"{COUNTS_FILE} beside the annotations"] = list(_COUNTED)
        if self.stuff is None:
            missing[f"{WORDS_FILE} of PhraseCut's evaluator, {WORDS_PAGE}, beside the annotations"] = list(_LISTED)
        return missing


def read_vocabulary(root: Path) -> Vocabulary:
    """Read what a data root says about words; what it lacks is None.

    Raises:
        ClipSegError: a file is there and is not what it should be.
    """
    words: dict[str, Any] = {}
    if (root / COUNTS_FILE).is_file():
        counts = read_json(root / COUNTS_FILE)
        for ranks, entry in (("category_ranks", "cat"), ("attribute_ranks", "att")):
            words[ranks] = _ranks(counts, entry, root / COUNTS_FILE)
    if (root / WORDS_FILE).is_file():
        lists = _word_lists(root / WORDS_FILE)
        words["stuff"] = tuple(lists["stuff_names"])
        words["kinds"] = {f"a_{kind}": frozenset(lists[f"att_{kind}"]) for kind in _KINDS}
    return Vocabulary(**words)


def _ranks(counts: Any, entry: str, path: Path) -> dict[str, int]:
    pairs = counts.get(entry) if isinstance(counts, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise ClipSegError(f"{path}: {entry!r} is {reprlib.repr(pairs)}; expected [word, count] pairs: fetch the file again")
    ranks: dict[str, int] = {}
    for rank, (word, _) in enumerate(pairs):
        ranks.setdefault(word, rank)
    return ranks


def _word_lists(path: Path) -> dict[str, list[str]]:
    """The lists of words in a Python file, by name; the file is parsed, not run."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
        raise ClipSegError(f"{path}: not Python ({one_line(error)[:100]}); fetch it from {WORDS_PAGE} again") from error
    lists: dict[str, list[str]] = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List):
            words = [item.value for item in node.value.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            lists[node.targets[0].id] = words
    for name in ("stuff_names", *(f"att_{kind}" for kind in _KINDS)):
        if not lists.get(name):
            raise ClipSegError(f"{path}: no list of words {name}; fetch it from {WORDS_PAGE} again")
    return lists


def subsets_of(structure: Any, instances: int, vocabulary: Vocabulary) -> set[str]:
    """The subsets a task belongs to by its annotation, but for those by size.

    As in the evaluator, a phrase without attributes is `a200+`, and stuff is what contains a word for stuff ("rug" in "drugs").
    `i_multi` is more than one instance, as the evaluator documents it; its code leaves out those of `i_many`.

    Args:
        structure: the entry's `phrase_structure`; where it is none of PhraseCut's, subsets that ask about it do not hold.
        instances: how many the phrase describes.
        vocabulary: of `read_vocabulary`.
    """
    found = {name for name, holds in _instance_subsets(instances) if holds}
    if not isinstance(structure, Mapping) or not isinstance(structure.get("name"), str):
        return found
    name, attributes, relations = structure["name"], _strings(structure, "attributes"), structure.get("relation_descriptions")
    related = len(relations) if isinstance(relations, list) else 0
    found |= {subset for subset, holds in _phrase_subsets(name, len(attributes), related) if holds}
    found |= {subset for kind, subset in _TYPES.items() if structure.get("type") == kind}
    if vocabulary.category_ranks is not None:
        found |= _rank_subsets([name], vocabulary.category_ranks, _CATEGORY_RANKS, "c500+")
    if vocabulary.attribute_ranks is not None:
        found |= _rank_subsets(attributes, vocabulary.attribute_ranks, _ATTRIBUTE_RANKS, "a200+")
    if vocabulary.stuff is not None:
        found.add("t_stuff" if any(word in name for word in vocabulary.stuff) else "t_obj")
    kinds = (vocabulary.kinds or {}).items()
    return found | {subset for subset, words in kinds if not words.isdisjoint(attributes)}


def _instance_subsets(instances: int) -> Iterable[tuple[str, bool]]:
    return ("i_single", instances == 1), ("i_multi", instances > 1), ("i_many", instances > 4)


def _strings(structure: Mapping[str, Any], key: str) -> list[str]:
    values = structure.get(key)
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _phrase_subsets(name: str, attributes: int, relations: int) -> Iterable[tuple[str, bool]]:
    return (
        ("c_coco", name in COCO_CLASSES),
        ("p_att", attributes > 0),
        ("p_attm", attributes > 1),
        ("p_rel", relations > 0),
        ("p_relm", relations > 1),
        ("p_att_rel", attributes > 0 and relations > 0),
    )


def _rank_subsets(
    words: Iterable[str], ranks: Mapping[str, int], spans: Mapping[str, tuple[int, int]], beyond: str
) -> set[str]:
    """The subsets of the most frequent of some words; unknown ones are beyond all ranks."""
    last = max(end for _, end in spans.values())
    best = min((ranks.get(word, last) for word in words), default=last)
    return {subset for subset, (first, end) in spans.items() if first <= best < end} or {beyond}


def size_subset(share: float) -> str:
    """The subset of a target that covers this share of its image: under 2%, 2 to 20%, over 20%."""
    return "s_small" if share < 0.02 else "s_mid" if share <= 0.2 else "s_large"


def to_bits(subsets: Iterable[str]) -> int:
    """Subsets as one number, bit k the k-th of `SUBSETS`: what hundreds of thousands of tasks are kept as."""
    return sum(1 << _PLACES[subset] for subset in subsets)


def from_bits(bits: int) -> tuple[str, ...]:
    """The subsets of `to_bits`, in the order of `SUBSETS`."""
    return tuple(subset for place, subset in enumerate(SUBSETS) if bits >> place & 1)


_PLACES = {subset: place for place, subset in enumerate(SUBSETS)}
