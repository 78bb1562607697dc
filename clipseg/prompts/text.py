"""Phrases as CLIP likes to read them: templates such as "a photo of a {}." around a phrase, in named sets.

Strings in, strings out: nothing here embeds a text.
"""

from collections.abc import Sequence

import numpy as np
from open_clip import OPENAI_IMAGENET_TEMPLATES

from clipseg.errors import ClipSegError

_COMMON = ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "fixed": ("a photo of a {}.",),
    "shuffled": _COMMON,
    # Those that PhraseCut+ trains with.
    "extended": (
        *_COMMON,
        "a cropped photo of a {}.",
        "a good photo of a {}.",
        "a photo of one {}.",
        "a bad photo of a {}.",
        "a photo of the {}.",
    ),
    # The 80 of CLIP's own ImageNet evaluation (Radford et al. 2021).
    "imagenet": tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES),
}


def templates(choice: str | Sequence[str]) -> tuple[str, ...]:
    """The templates that a choice means, checked.

    Args:
        choice: the name of a set (plain, fixed, shuffled, extended, imagenet), one template, or a list of templates. A template
            holds "{}" exactly once, where the phrase goes.

    Raises:
        ClipSegError: an unknown name, no template, or one without its "{}".
    """
    if isinstance(choice, str):
        if choice in TEMPLATES:
            return TEMPLATES[choice]
        if "{}" not in choice:
            raise ClipSegError(
                f"templates={choice!r} unknown; expected one of {', '.join(TEMPLATES)}, or a text with {{}} for the phrase"
            )
        choice = [choice]
    if not choice or not isinstance(choice, Sequence):
        raise ClipSegError(f"no template; name a set ({', '.join(TEMPLATES)}), or list texts with {{}} for the phrase")
    for template in choice:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ClipSegError(f"template {template!r} must be a text that holds {{}} exactly once, where the phrase goes")
    return tuple(choice)


def fill(template: str, phrase: str) -> str:
    """Put a phrase where a template says; the phrase is taken as it is, braces of its own included."""
    return template.replace("{}", phrase, 1)


def choose(templates: Sequence[str], seed: int) -> str:
    """One of the templates, all equally likely, as a function of a non-negative seed alone."""
    return templates[int(np.random.default_rng(seed).integers(len(templates)))]


TRIES = 20


class AbsentPhrases:
    """For each image one phrase of another, which shares no word with any of its own.

    By annotation it is absent: nobody wrote it or a word of it; on a photo it may be true all the same.

    Args:
        phrases: all that are asked anywhere.
    """

    def __init__(self, phrases: Sequence[str]):
        self._phrases = sorted(set(phrases))

    def of(self, phrases: Sequence[str], seed: int) -> str | None:
        """One drawn by `seed` for an image with these phrases; None where `TRIES` drawn ones all share a word."""
        said = {word for phrase in phrases for word in phrase.lower().split()}
        rng = np.random.default_rng((seed, 5))
        drawn = (self._phrases[number] for number in rng.integers(len(self._phrases), size=TRIES).tolist())
        return next((phrase for phrase in drawn if said.isdisjoint(phrase.lower().split())), None)
