"""A folder of the user's own, listed in JSON Lines -> `Sample`s, for training and evaluation.

`<split>.jsonl` holds one task a line, `{"image": "photos/1.jpg", "phrase": "a dog", "mask": "masks/1.png"}`, or with
`"polygons": [[[x, y], ...], ...]` instead of the mask. Paths are relative to the folder and stay inside it.
"""

import json
import reprlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg.data.annotations import LONGEST_PHRASE, PackedStrings, is_text, polygon_points
from clipseg.data.layout import check_inside, wrong_layout
from clipseg.data.phrase_tasks import EVALUATION, PhraseTasks, ReaderOptions
from clipseg.data.rasterise import rasterise
from clipseg.errors import ClipSegError
from clipseg.files import read_text
from clipseg.image_io import read_image, read_mask


class FolderData(PhraseTasks):
    """The tasks of a folder's `<split>.jsonl`; items as in `PhraseTasks`, so as PhraseCut's. The class of a task is its phrase.

    Args:
        root: the folder.
        options: how items are made of the tasks.
        split: the name of a JSON Lines file in it, without its ending.

    Raises:
        ClipSegError: the folder, the split or a file is missing, a line is malformed, or a path leaves the folder.
    """

    def __init__(self, root: str | Path, options: ReaderOptions = EVALUATION, *, split: str = "train") -> None:
        self.root = Path(root)
        path = folder_splits(self.root).get(split)
        if path is None:
            known = ", ".join(folder_splits(self.root))
            raise ClipSegError(f"data.root={root}: split {split!r} unknown; expected one of {known}")
        lines = read_lines(path)
        phrases = PackedStrings(line["phrase"] for line in lines)
        self._targets = PackedStrings(json.dumps(line.get("mask", line.get("polygons"))) for line in lines)
        self._numbers = [line["line"] for line in lines]
        self._path = path
        super().__init__(
            options,
            keys=PackedStrings(f"{split}/{line['line']:06d}" for line in lines),
            phrases=phrases,
            images=np.array([line["image"] for line in lines], dtype=np.str_),
            task_rows=np.arange(len(lines)),
            groups=phrases,
            where=f"{path}:",
        )

    def _read_image(self, number: int) -> torch.Tensor:
        return read_image(self.root / str(self.image_ids[number]), exif=False)

    def _read_mask(self, row: int, height: int, width: int) -> NDArray[np.uint8]:
        target = json.loads(self._targets[row])
        where = f"{self._path}: line {self._numbers[row]}"
        if isinstance(target, list):
            return rasterise([polygon_points(polygon, where) for polygon in target], height, width)
        mask = read_mask(self.root / target, exif=False).byte().numpy()
        if mask.shape != (height, width):
            size = f"{mask.shape[1]}x{mask.shape[0]}"
            raise ClipSegError(f"{where}: mask {target} has {size} pixels, its image {width}x{height}; draw it at that size")
        return mask


def folder_splits(root: Path) -> dict[str, Path]:
    """The splits a folder holds: name -> `<name>.jsonl`.

    Raises:
        ClipSegError: no such folder, or a folder of another layout.
    """
    splits = {path.stem: path for path in sorted(root.glob("*.jsonl"))}
    if not splits:
        raise wrong_layout(root, "folder")
    return splits


def read_lines(path: Path, *, problems: list[str] | None = None) -> list[dict[str, Any]]:
    """Read a JSON Lines file and check every task but for the content of its pictures; empty lines are passed over.

    Args:
        path: the file; its paths are relative to its folder.
        problems: where given, a malformed line is left out and described there instead of raised.

    Returns:
        the tasks, each with "line", its number from 1 on.

    Raises:
        ClipSegError: the file cannot be read, or a line is malformed; file and line are named.
    """
    lines = read_text(path).splitlines()
    tasks = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                tasks.append(_read_task(line, path.parent, f"{path}: line {number}") | {"line": number})
            except ClipSegError as error:
                if problems is None:
                    raise
                problems.append(str(error))
    return tasks


def _read_task(line: str, root: Path, where: str) -> dict[str, Any]:
    try:
        task = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ClipSegError(f"{where}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(task, dict) or ("mask" in task) == ("polygons" in task):
        raise ClipSegError(f"{where}: expected an object of image, phrase, and either mask or polygons")
    phrase, polygons = task.get("phrase"), task.get("polygons")
    if not is_text(phrase) or not phrase.strip():
        raise ClipSegError(f"{where}: phrase is {reprlib.repr(phrase)}; expected text, of at most {LONGEST_PHRASE} letters")
    _check_path(task.get("image"), root, f"{where}: image")
    if "mask" in task:
        _check_path(task["mask"], root, f"{where}: mask")
    elif not isinstance(polygons, list) or any(len(polygon_points(polygon, where)) < 3 for polygon in polygons):
        raise ClipSegError(f"{where}: polygons is {reprlib.repr(polygons)}; expected a list of polygons of at least 3 [x, y]")
    return task


def _check_path(text: Any, root: Path, where: str) -> None:
    """A file inside `root`, whichever way one might try to leave it."""
    if not is_text(text) or not text or "\0" in text:
        raise ClipSegError(f"{where} is {reprlib.repr(text)}; expected a path relative to {root}")
    paths = PurePosixPath(text), PureWindowsPath(text)
    if any(path.anchor or ".." in path.parts for path in paths):
        raise ClipSegError(f"{where} {text!r} leaves {root}; put the file inside and name it relative to that folder")
    try:
        check_inside(root / text, root)
    except ClipSegError as error:
        raise ClipSegError(f"{where} {text!r} is a symbolic link that leaves {root}; put the file itself there") from error
    if not (root / text).is_file():
        raise ClipSegError(f"{where} {text!r}: no such file in {root}")
