"""File names from prompts and photos that every file system takes and that never collide."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

# Windows takes these for devices, whatever follows the first dot.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def slug(text: str, empty: str, length: int) -> str:
    """ASCII letters, digits, "_" and "-" that resemble a text, at most `length` of them; `empty` where nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    short = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_text).strip("-")[:length].rstrip("-")
    return f"{short}_" if short.lower() in _DEVICES else short or empty


def unique_stems(paths: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Return a name for each photo, in order; those that would share one, upper and lower case aside, are numbered.

    Args:
        paths: of the photos.
        known: the names that are given already, by path; they stay, and nobody else gets them.
    """
    taken = {stem.lower() for stem in known.values()}
    stems = []
    for path in paths:
        base = stem = known.get(path, slug(Path(path).stem, "image", 80))
        number = 1
        while path not in known and stem.lower() in taken:
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems
