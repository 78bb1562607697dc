"""`phrases.yaml`: several phrases for a class of a user's folder, `crack: [a crack, a crack in a wall]`."""

import reprlib
from collections.abc import Iterable
from pathlib import Path

import yaml

from clipseg.data.readers.own.tasks import check_name
from clipseg.errors import ClipSegError, one_line
from clipseg.files import read_text

PHRASES = "phrases.yaml"


def read_phrases(root: Path, classes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the phrases of each class: those of the table; its name where there is no table.

    Raises:
        ClipSegError: the table is malformed, or has no phrase for a class; file and class are named.
    """
    path = root / PHRASES
    if not path.exists():
        return {name: (name,) for name in classes}
    try:
        table = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ClipSegError(f"{path}: not valid YAML ({one_line(error)[:120]})") from error
    if not isinstance(table, dict):
        raise ClipSegError(f"{path}: {reprlib.repr(table)}; expected a table of classes, as in 'crack: [a crack, a fissure]'")
    found = {}
    for name in classes:
        phrases = table.get(name)
        if not phrases:
            raise ClipSegError(f"{path}: class {name!r} has no phrase; add it, as in '{name}: [{name}, ...]'")
        listed = phrases if isinstance(phrases, list) else [phrases]
        found[name] = tuple(check_name(phrase, f"{path}: a phrase of {name!r}") for phrase in listed)
    return found
