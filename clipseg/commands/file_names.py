"""File names from prompts and photos that every file system takes and that never collide."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

# Windows takes these for devices, whatever follows the first dot.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def slug(text: str, empty: str, length: int) -> str:
    """ASCII letters, digits, "_" and "-" that resemble a text, at most `length` of them; `empty` where nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    short = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_text).strip("-")[:length].rstrip("-")
    return f"{short}_" if short.lower() in _DEVICES else short or empty


def unique_stems(paths: Sequence[Path]) -> list[str]:
    """A name for each photo, in order; those that would share one, upper and lower case aside, are numbered."""
    taken: set[str] = set()
    stems = []
    for path in paths:
        base = stem = slug(path.stem, "image", 80)
        number = 1
        while stem.lower() in taken:
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems
