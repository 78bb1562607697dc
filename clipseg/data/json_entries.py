"""A JSON list read one entry at a time: PhraseCut's training annotations, as objects all at once, would take gigabytes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipseg.errors import ClipSegError
from clipseg.files import read_text

_space = re.compile(r"[ \t\r\n]*")


def iterate_entries(path: Path) -> Iterator[Any]:
    """Parse the entries of a JSON list file, one at a time.

    Raises:
        ClipSegError: missing, not UTF-8, not a JSON list, or cut off; entries before the damage have been given by then.
    """
    text = read_text(path)
    decoder = json.JSONDecoder()
    at = _skip_space(text, 0)
    if text[at : at + 1] != "[":
        raise ClipSegError(f"{path}: not a JSON list of entries; fetch or write it again")
    at = _skip_space(text, at + 1)
    if text[at : at + 1] != "]":
        at -= 1  # as if a comma stood before the first entry
        while True:
            try:
                entry, at = decoder.raw_decode(text, _skip_space(text, at + 1))
            except (ValueError, RecursionError) as error:
                raise _damaged(path, error) from error
            yield entry
            at = _skip_space(text, at)
            if text[at : at + 1] != ",":
                break
    if text[at : at + 1] != "]" or _skip_space(text, at + 1) != len(text):
        raise _damaged(path, f"at character {at}")


def _skip_space(text: str, at: int) -> int:
    match = _space.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def _damaged(path: Path, reason: object) -> ClipSegError:
    return ClipSegError(f"{path}: not valid JSON ({reason}); the file may be cut off: fetch or write it again")
