"""What the bundled CLIP learns from: scenes with captions, true and with a wrong word, words of patches, and a phrase."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from clipseg.data.mini.phrases import OTHER_THAN, PART_OF, RANKS, Description, Phrase, true_phrases
from clipseg.data.mini.scenes import RELATIONS, SIZES, Kind, Scene, SceneObject, draw_scene, relation
from clipseg.data.mini.shapes import PARTS
from clipseg.network.mini_clip import VISION_CONFIG
from clipseg.prompts.text import TEMPLATES
from clipseg.tools.mini_clip_accuracy import SIDE, WORDS, scene_pixels

TEMPLATES_OF_CAPTIONS = TEMPLATES["extended"]
SAID = (1.0, 0.7, 0.25, 0.4)  # how often a caption says each of `WORDS`
SLOTS = 3  # objects a caption can name
UNSAID, ABSENT = -1, -2
PATCH = VISION_CONFIG["patch_size"]
CAPTIONS = 2  # of an image that are true, and as many that are true but for one word
CLEARLY_LARGER = 1.4  # times the area, from which on it is seen which of two things is the first

# The words of a patch: of the thing there, and how it lies to the largest other thing.
PATCH_WORDS = (*WORDS, RELATIONS)
# The words of a phrase, by their places in it. Each place can also be empty.
PHRASE_WORDS = (
    (*WORDS[0], *(part.name for part in PARTS.values())),
    *WORDS[1:],
    tuple(RANKS),
    (*RELATIONS, OTHER_THAN, PART_OF),
    *WORDS[:2],
)

Claims = NDArray[
    np.int64
]  # [SLOTS * len(WORDS) + 1]: the words of each thing, largest first; the relation of the first to the second


class Drawing(NamedTuple):
    """A captioned scene.

    Attributes:
        image: uint8 `[3, SIDE, SIDE]`.
        captions: 2 * `CAPTIONS`, each true one followed by one with a wrong word.
        claims: what they claim, int64 `[2 * CAPTIONS, K]`.
        facts: what is so, int64 `[K]`.
        patches: the `PATCH_WORDS` of the thing that covers most of each patch, int64 `[P, len(PATCH_WORDS)]`, or `ABSENT`.
        phrase: one of the mini data's about the scene.
        said: its `PHRASE_WORDS`, int64 `[len(PHRASE_WORDS)]`; where it says none, the number of choices.
    """

    image: Tensor
    captions: list[str]
    claims: Tensor
    facts: Tensor
    patches: Tensor
    phrase: str
    said: Tensor


class Drawings(Dataset[Drawing]):
    """Scenes of one to three things, after `crowded` ones of three to five. Item i is a pure function of (seed, i)."""

    def __init__(self, seed: int, *, count: int, crowded: int = 0) -> None:
        self.seed = seed
        self.count = count
        self.crowded = crowded

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> tuple[Scene, np.random.Generator]:
        """The scene of item `index`, and the generator that the rest of the item comes from."""
        rng = np.random.default_rng([self.seed, index])
        return draw_scene(rng, _some_kinds(rng, 2 if index < self.crowded else 0), side=SIDE), rng

    def __getitem__(self, index: int) -> Drawing:
        scene, rng = self.scene(index)
        # As people do, a caption names the main thing first: so the embedding of "a flag left of a board" is about the flag.
        things = sorted(scene.objects, key=lambda thing: -int(thing.mask.sum()))
        words = np.array([_word_indices(thing.kind) for thing in things])
        facts = np.full((SLOTS, len(WORDS)), ABSENT)
        facts[: len(things)] = words[:SLOTS]
        is_clear = (
            len(things) > 1
            and things[0].kind.category != things[1].kind.category
            and things[0].mask.sum() >= CLEARLY_LARGER * things[1].mask.sum()
        )
        known = np.append(facts, _relation_index(things[0], things[1]) if is_clear else ABSENT)
        claims = []
        for _ in range(CAPTIONS):
            claims.append(_some_claims(rng, known))
            claims.append(_with_a_wrong_word(rng, claims[-1]))
        patches = np.full((SIDE // PATCH, SIDE // PATCH, len(PATCH_WORDS)), ABSENT)
        for place, thing in enumerate(things):
            how_it_lies = _relation_index(thing, things[place == 0]) if len(things) > 1 else ABSENT
            covered = thing.mask.reshape(SIDE // PATCH, PATCH, -1, PATCH).mean((1, 3)) > 0.5
            patches[covered] = [*words[place], how_it_lies]
        phrase = _some_phrase(rng, list(dict.fromkeys(true_phrases(scene))))
        return Drawing(
            scene_pixels(scene),
            [_caption(rng, claim) for claim in claims],
            torch.from_numpy(np.stack(claims)),
            torch.from_numpy(known),
            torch.from_numpy(patches.reshape(-1, len(PATCH_WORDS))),
            phrase.text,
            torch.tensor(said_words(phrase)),
        )


def _some_kinds(rng: np.random.Generator, more: int) -> list[Kind]:
    """Kinds to draw; of several, most often the first is larger than the others."""
    count = more + int(rng.choice([1, 2, 3], p=[0.4, 0.45, 0.15]))
    sizes = list(SIZES) if count == 1 else ["small", "medium"]
    words = (WORDS[0], WORDS[1], sizes, WORDS[3])
    kinds = [Kind(*(str(rng.choice(choices)) for choices in words)) for _ in range(count)]
    if count > 1 and rng.random() < 0.7:
        kinds = [kind._replace(size="small" if place else "medium") for place, kind in enumerate(kinds)]
    # Often a second thing of the same category or the same colour: neither word alone then tells them apart.
    if count > 1 and rng.random() < 0.4:
        shared = {"category": kinds[0].category} if rng.random() < 0.5 else {"colour": kinds[0].colour}
        kinds[1] = kinds[1]._replace(**shared)
    return kinds


def _word_indices(kind: Kind) -> list[int]:
    return [words.index(word) for words, word in zip(WORDS, kind, strict=True)]


def _relation_index(thing: SceneObject, other: SceneObject) -> int:
    word = relation(thing, other)
    return RELATIONS.index(word) if word else ABSENT


def _some_phrase(rng: np.random.Generator, phrases: Sequence[Phrase]) -> Phrase:
    sorts = sorted({phrase.sort for phrase in phrases})
    sort = sorts[rng.integers(len(sorts))]
    candidates = [phrase for phrase in phrases if phrase.sort == sort]
    return candidates[rng.integers(len(candidates))]


def said_words(phrase: Phrase) -> list[int]:
    """The numbers of a phrase's words among `PHRASE_WORDS`; where it says none, the number of choices."""
    subject, other = phrase.subject, phrase.reference
    said = [subject.category, subject.colour, subject.size, subject.pattern, subject.rank, phrase.relation]
    said += [other.category, other.colour] if other else [None, None]
    return [words.index(word) if word else len(words) for words, word in zip(PHRASE_WORDS, said, strict=True)]


def _some_claims(rng: np.random.Generator, known: Claims) -> Claims:
    """Some of what is so: of the first thing, of all, or how the first lies to the second."""
    claims = np.full_like(known, UNSAID)
    count = int((known[: -1 : len(WORDS)] != ABSENT).sum())
    relates = count > 1 and known[-1] != ABSENT and rng.random() < 0.6
    named = 2 if relates else 1 if rng.random() < 0.3 else count
    said = np.append((rng.random((SLOTS, len(WORDS))) < SAID) & (np.arange(SLOTS) < named)[:, None], relates)
    claims[said] = known[said]
    return claims


def _with_a_wrong_word(rng: np.random.Generator, claims: Claims) -> Claims:
    """The same but for one word; a relation is turned round half the time that there is one."""
    wrong, said = claims.copy(), np.flatnonzero(claims != UNSAID)
    place = int(said[-1]) if claims[-1] != UNSAID and rng.random() < 0.5 else int(rng.choice(said))
    choices = RELATIONS if place == len(claims) - 1 else WORDS[place % len(WORDS)]
    # Relations lie in pairs: left and right, above and below.
    wrong[place] = claims[place] ^ 1 if choices is RELATIONS else (claims[place] + rng.integers(1, len(choices))) % len(choices)
    return wrong


def _caption(rng: np.random.Generator, claims: Claims) -> str:
    """What says so, alone or in a template."""
    names = [_name(words) for words in claims[:-1].reshape(SLOTS, len(WORDS)) if words[0] != UNSAID]
    phrase = " and a ".join(names) if claims[-1] == UNSAID else f"{names[0]} {RELATIONS[claims[-1]]} a {names[1]}"
    template = "{}" if rng.random() < 0.4 else str(rng.choice(TEMPLATES_OF_CAPTIONS))
    return template.format(phrase)


def _name(indices: Claims) -> str:
    category, *others = (None if i == UNSAID else words[i] for i, words in zip(indices, WORDS, strict=True))
    assert category is not None, "a thing has its name"
    return Description(category, *others).text
