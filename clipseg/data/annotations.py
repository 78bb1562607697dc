"""The annotation files of PhraseCut's layout -> checked, packed records; and a task's polygons -> its mask.

310,816 tasks hold millions of points. As Python objects they would fill gigabytes and be copied into every worker that
touches them, so entries are parsed one at a time and packed into a few flat arrays. Knows nothing of pixels.
"""

import math
import re
import reprlib
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard, overload

import numpy as np
from numpy.typing import NDArray

from clipseg.data.json_entries import iterate_entries
from clipseg.data.layout import IMAGES_FILE
from clipseg.data.subsets import Vocabulary, subsets_of, to_bits
from clipseg.errors import ClipSegError, collecting
from clipseg.files import read_json

FARTHEST_COORDINATE = 1_000_000  # whole numbers this small are exact in Pillow's float32
LONGEST_PHRASE = 1000  # characters; results keep phrases in columns as wide as the longest one


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One entry of `image_data_split.json`: the size in pixels as annotated, the photo's web address and split ("" if none)."""

    image_id: int
    width: int
    height: int
    url: str
    split: str


class PackedStrings(Sequence[str]):
    """Many short strings in one block of bytes: no object each, so forked workers share them."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode() for string in strings]
        self._bytes = b"".join(encoded)
        self._starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._bytes[self._starts[i] : self._starts[i + 1]].decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTable:
    """T tasks in the order of their files, G polygons in all, P points in all.

    Attributes:
        keys: "<split>/<task_id>", unique.
        phrases: bare phrases; may be empty strings.
        image_ids: int64 `[T]`.
        points: float64 `[P, 2]`, x and y in pixels.
        polygon_starts: int64 `[G + 1]` into `points`.
        task_starts: int64 `[T + 1]` into `polygon_starts`.
        boxless: bool `[T]`, tasks whose `instance_boxes` have no area, all of them; False where there are none.
        subsets: uint64 `[T]`, PhraseCut's named subsets as `subsets.to_bits`; 0 where nobody asked for them.
    """

    keys: PackedStrings
    phrases: PackedStrings
    image_ids: NDArray[np.int64]
    points: NDArray[np.float64]
    polygon_starts: NDArray[np.int64]
    task_starts: NDArray[np.int64]
    boxless: NDArray[np.bool_]
    subsets: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.image_ids)

    def polygons(self, task: int) -> list[NDArray[np.float64]]:
        """The polygons of one task, each float64 `[points, 2]`."""
        starts = self.polygon_starts[self.task_starts[task] : self.task_starts[task + 1] + 1]
        return [self.points[a:b] for a, b in pairwise(starts)]


def read_images(root: Path) -> dict[int, ImageRecord]:
    """Read `image_data_split.json`: image id -> record.

    Raises:
        ClipSegError: missing, cut off, or an entry is malformed or there twice; file and entry are named.
    """
    path = root / IMAGES_FILE
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ClipSegError(f"{path}: expected a list of images, found {type(entries).__name__}; fetch the file again")
    images: dict[int, ImageRecord] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        record = ImageRecord(
            image_id=_whole_number(entry, "image_id", where, least=0),
            width=_whole_number(entry, "width", where, least=1),
            height=_whole_number(entry, "height", where, least=1),
            url=entry["url"] if isinstance(entry.get("url"), str) else "",
            split=entry["split"] if isinstance(entry.get("split"), str) else "",
        )
        if record.image_id in images:
            raise ClipSegError(f"{where}: image_id {record.image_id} is there twice; remove one entry")
        images[record.image_id] = record
    return images


def _whole_number(entry: Any, field: str, where: str, *, least: int) -> int:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**62:
        raise ClipSegError(f"{where}: {field} is {reprlib.repr(value)}; expected a whole number of at least {least}")
    return value


def read_tasks(
    files: Mapping[str, Path],
    *,
    image_ids: Collection[int],
    allow_degenerate: bool = False,
    problems: list[str] | None = None,
    vocabulary: Vocabulary | None = None,
) -> TaskTable:
    """Read `refer_<split>.json` files into one table.

    Args:
        files: split name -> file, in the order the tasks are wanted in.
        image_ids: the images there are; a task of another is malformed.
        allow_degenerate: take tasks without a polygon, and polygons of fewer than three points, as PhraseCut's evaluator does
            (two points are a line, fewer are nothing) instead of refusing them.
        problems: where given, a malformed entry is left out and described there instead of raised.
        vocabulary: where given, each task's named subsets are told by it.

    Raises:
        ClipSegError: a file is missing or cut off, or an entry is malformed; file and task are named.
    """
    packer = _Packer(vocabulary)
    for split, path in files.items():
        for number, entry in enumerate(iterate_entries(path)):
            with collecting(problems):
                packer.add(
                    split, entry, where=f"{path}: entry {number}", image_ids=image_ids, allow_degenerate=allow_degenerate
                )
    return packer.table()


class _Packer:
    """Checks entries and collects them, in flat arrays from the start."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self._keys: dict[str, None] = {}
        self._phrases: list[str] = []
        self._image_ids = array("q")
        self._points = array("d")
        self._polygon_starts = array("q", [0])
        self._task_starts = array("q", [0])
        self._boxless = array("b")
        self._subsets = array("Q")

    def add(self, split: str, entry: Any, *, where: str, image_ids: Collection[int], allow_degenerate: bool) -> None:
        """Check one entry whole, then add it: a bad one leaves nothing behind."""
        image_id = _whole_number(entry, "image_id", where, least=0)
        task_id, phrase = entry.get("task_id"), entry.get("phrase")
        # Predictions are saved under this name, so it must be one that stays in its folder.
        if not isinstance(task_id, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", task_id):
            raise ClipSegError(
                f"{where}: task_id is {reprlib.repr(task_id)}; expected letters, digits, '_', '-' and '.' as in '2335__1'"
            )
        where = f"{where}, task {task_id}"
        if not is_text(phrase):
            raise ClipSegError(f"{where}: phrase is {reprlib.repr(phrase)}; expected text, of at most {LONGEST_PHRASE} letters")
        if image_id not in image_ids:
            raise ClipSegError(f"{where}: image {image_id} is not in {IMAGES_FILE}; add it there or remove the task")
        if f"{split}/{task_id}" in self._keys:
            raise ClipSegError(f"{where}: this task_id is there twice; remove one of the entries")
        polygons = _polygons(entry.get("Polygons"), where, allow_degenerate=allow_degenerate)
        boxless = _is_boxless(entry.get("instance_boxes"), where)
        self._keys[f"{split}/{task_id}"] = None
        self._phrases.append(phrase)
        self._image_ids.append(image_id)
        for points in polygons:
            self._points.frombytes(points.tobytes())
            self._polygon_starts.append(len(self._points) // 2)
        self._task_starts.append(len(self._polygon_starts) - 1)
        self._boxless.append(boxless)
        named = subsets_of(entry.get("phrase_structure"), len(entry["Polygons"]), self._vocabulary) if self._vocabulary else ()
        self._subsets.append(to_bits(named))

    def table(self) -> TaskTable:
        """All entries so far."""
        return TaskTable(
            keys=PackedStrings(self._keys),
            phrases=PackedStrings(self._phrases),
            image_ids=np.array(self._image_ids, dtype=np.int64),
            points=np.array(self._points, dtype=np.float64).reshape(-1, 2),
            polygon_starts=np.array(self._polygon_starts, dtype=np.int64),
            task_starts=np.array(self._task_starts, dtype=np.int64),
            boxless=np.array(self._boxless, dtype=np.bool_),
            subsets=np.array(self._subsets, dtype=np.uint64),
        )


def _is_boxless(boxes: Any, where: str) -> bool:
    """Whether there are `instance_boxes`, `[x, y, width, height]` each, and none has an area."""
    try:
        return bool(boxes) and not any(width * height > 0 for _, _, width, height in boxes)
    except (TypeError, ValueError, OverflowError) as error:
        found = reprlib.repr(boxes)
        raise ClipSegError(f"{where}: instance_boxes is {found}; expected a list of [x, y, width, height]") from error


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value read from JSON is a phrase or a name: a string, not too long, without halves of surrogate pairs."""
    if not isinstance(value, str) or len(value) > LONGEST_PHRASE:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True


def _polygons(instances: Any, where: str, *, allow_degenerate: bool) -> list[NDArray[np.float64]]:
    """`Polygons` of an entry, a list of polygons for each instance. Together they are one target: the nesting is dropped."""
    if instances is None:
        raise ClipSegError(f"{where}: no Polygons, as in a split without ground truth; fetch the annotations that have them")
    if not isinstance(instances, list) or not all(isinstance(instance, list) for instance in instances):
        raise ClipSegError(f"{where}: Polygons is {reprlib.repr(instances)}; expected instances of polygons of [x, y] points")
    polygons = [polygon_points(polygon, where) for instance in instances for polygon in instance]
    if not allow_degenerate:
        remedy = "mend or remove the task, or take such polygons as PhraseCut's evaluator does with data.allow_degenerate=true"
        if not polygons:
            raise ClipSegError(f"{where}: no polygon; {remedy}")
        fewest = min(map(len, polygons))
        if fewest < 3:
            raise ClipSegError(f"{where}: a polygon of {fewest} point{'s' * (fewest != 1)}, expected at least 3; {remedy}")
    return polygons


def polygon_points(polygon: Any, where: str) -> NDArray[np.float64]:
    """A polygon as JSON spells it, `[[x, y], ...]` -> float64 `[points, 2]`.

    Raises:
        ClipSegError: something else, or coordinates that are not finite.
    """
    try:
        points = np.asarray(polygon)
    except (ValueError, OverflowError, RecursionError):  # rows of different lengths, or nested too deep
        points = np.asarray(None)
    if isinstance(polygon, list) and not polygon:
        return np.empty((0, 2), dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "if":
        raise ClipSegError(f"{where}: polygon {reprlib.repr(polygon)}; expected a list of [x, y] pairs of numbers")
    farthest = float(np.abs(points.astype(np.float64)).max())
    if not math.isfinite(farthest) or farthest > FARTHEST_COORDINATE:
        raise ClipSegError(f"{where}: a polygon with the coordinate {farthest}; expected finite pixel coordinates")
    return points.astype(np.float64)
