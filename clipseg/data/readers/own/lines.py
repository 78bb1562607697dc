"""JSON Lines: `<split>.jsonl`, one task a line.

`{"image": "photos/1.jpg", "phrase": "a dog", "mask": "masks/1.png"}`, or `"polygons": [[[x, y], ...], ...]` instead of the
mask. Paths are relative to the folder and stay inside it.
"""

import json
import reprlib
from pathlib import Path

from clipseg.data.annotations import LONGEST_PHRASE, is_text, polygon_points
from clipseg.data.readers.own.tasks import OwnTask, Problems, check_path
from clipseg.errors import ClipSegError, collecting
from clipseg.files import read_text


def find_lines(root: Path) -> dict[str, Path]:
    """Return the splits: name -> file."""
    return {path.stem: path for path in sorted(root.glob("*.jsonl"))}


def read_lines(root: Path, path: Path, problems: Problems = None) -> list[OwnTask]:
    """Read a file and check every task but for the content of its pictures; empty lines are passed over.

    Args:
        root: the folder that paths are relative to.
        path: the file.
        problems: where given, a malformed line is left out and described there instead of raised.

    Raises:
        ClipSegError: the file cannot be read, or a line is malformed; file and line are named.
    """
    tasks = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            with collecting(problems):
                tasks.append(_read_task(line, number, root, f"{path}: line {number}"))
    return tasks


def _read_task(line: str, number: int, root: Path, where: str) -> OwnTask:
    try:
        task = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ClipSegError(f"{where}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(task, dict) or ("mask" in task) == ("polygons" in task):
        raise ClipSegError(f"{where}: expected an object of image, phrase, and either mask or polygons")
    phrase, polygons = task.get("phrase"), task.get("polygons")
    if not is_text(phrase) or not phrase.strip():
        raise ClipSegError(f"{where}: phrase is {reprlib.repr(phrase)}; expected text, of at most {LONGEST_PHRASE} letters")
    check_path(task.get("image"), root, f"{where}: image")
    if "mask" in task:
        check_path(task["mask"], root, f"{where}: mask")
    elif not isinstance(polygons, list) or any(len(polygon_points(polygon, where)) < 3 for polygon in polygons):
        raise ClipSegError(f"{where}: polygons is {reprlib.repr(polygons)}; expected a list of polygons of at least 3 [x, y]")
    target = {key: task[key] for key in ("mask", "polygons") if key in task}
    return OwnTask(number, task["image"], phrase, target, where)
