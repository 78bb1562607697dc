"""`predictions.jsonl`: a line a photo, appended as soon as its masks are written, and kept from call to call."""

import json
import os
from pathlib import Path
from typing import Any

from clipseg.errors import ClipSegError
from clipseg.files import append_line, atomic_write, read_text

NAME = "predictions.jsonl"


class PredictionLines:
    """The lines of a folder by their image, of which the last counts. One process at a time may write them.

    Raises:
        ClipSegError: the folder's file is none of these, or cannot be read or written.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME
        # A crash may have cut off the last line.
        *whole, rest = read_text(self.path).split("\n") if self.path.exists() else [""]
        parsed = [_parsed(line, number, self.path) for number, line in enumerate(whole, 1)]
        self._lines: dict[str, dict[str, Any]] = {line["image"]: line for line in parsed}
        self._spare = len(parsed) - len(self._lines) + len(rest)
        self.tidy()

    def stems(self) -> dict[str, str]:
        """Return how the files of each image begin."""
        return {image: str(line["overlay"]).removesuffix(".overlay.png") for image, line in self._lines.items()}

    def answers(self, image: str, question: str) -> bool:
        """Return whether the image was asked this question, and all files of the answer are there."""
        line = self._lines.get(image, {})
        if line.get("question") != question:
            return False
        files = [
            line["overlay"],
            line.get("labels", line["overlay"]),
            *(found.get(key, "") for found in line["prompts"] for key in ("probabilities", "mask")),
        ]
        return all((self.folder / name).is_file() for name in files)

    def add(self, line: dict[str, Any]) -> None:
        """Append an image's line; one that it has already counts no more."""
        append_line(self.path, json.dumps(line, allow_nan=False))
        self._spare += line["image"] in self._lines
        self._lines[line["image"]] = line

    def tidy(self) -> None:
        """Write the file anew where it holds lines that count no more."""
        if self._spare:
            with atomic_write(self.path, "w") as file:
                file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in self._lines.values())
            self._spare = 0


def _parsed(text: str, number: int, path: Path) -> dict[str, Any]:
    try:
        line = json.loads(text)
        # A name with folders in it could have us write outside of ours.
        if isinstance(line["image"], str) and "/" not in line["overlay"] and all(isinstance(x, dict) for x in line["prompts"]):
            return dict(line)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ClipSegError(f"{path}, line {number}: not written by clipseg predict; move the file away, or choose another --out")


def image_key(path: Path) -> str:
    """Return how lines name an image, wherever the command is called from."""
    return os.path.abspath(path)
