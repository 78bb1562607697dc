"""Which arguments of a command are photos and which are prompts; file names for both, sane and never the same."""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clipseg.commands.prediction_lines import image_key
from clipseg.errors import ClipSegError
from clipseg.image_io import SUFFIXES

# The last two cannot be read, which is to be told.
PHOTOS = SUFFIXES | {".heic", ".heif"}

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


def split_inputs(inputs: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Return the photos, of folders too, by what their lines call them, and the prompts after them.

    Raises:
        ClipSegError: a photo that is not there or comes late, or what may be either.
    """
    sources: list[str] = []
    texts: list[str] = []
    for text in inputs:
        looks_like_path = "/" in text or os.path.splitext(text)[1].lower() in PHOTOS
        if os.path.exists(text) or looks_like_path or not sources:
            if not os.path.lexists(text):
                raise ClipSegError(
                    f"{text}: no such image or folder; they come first, then the prompts (--prompt {text!r} if it is one)"
                )
            if texts:
                raise ClipSegError(f"{text}: images and folders come before the prompts (--prompt {text!r} if it is one)")
            if sources and not looks_like_path:
                raise ClipSegError(f"{text}: is there as a file or folder; write ./{text} to mean it, or --prompt {text!r}")
            sources.append(text)
        else:
            texts.append(text)
    images = [image for source in map(Path, sources) for image in (_photos_in(source) if source.is_dir() else [source])]
    return {image_key(image): image for image in images}, texts


def _photos_in(folder: Path) -> list[Path]:
    found = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in PHOTOS and path.name[0] != "." and not path.is_dir()
    )
    if not found:
        raise ClipSegError(f"{folder}: no photos in this folder; its own folders are not searched")
    return found
