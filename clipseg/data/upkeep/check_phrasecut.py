"""Is a folder in PhraseCut's layout whole? Every deviation as one line, nothing changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clipseg.data.annotations import ImageRecord, TaskTable, read_images, read_tasks
from clipseg.data.layout import KNOWN_BAD_IMAGES, find_splits, locate_images
from clipseg.errors import ClipSegError
from clipseg.image_io import open_pil, read_image

# Tasks and images of each split. Source: the PhraseCut paper and data set.
PUBLISHED_COUNTS = {"train": (310_816, 71_746), "val": (20_316, 2_971), "test": (14_354, 2_545), "miniv": (821, 100)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report: errors stop a run or spoil its data, information does not."""

    level: Literal["error", "info"]
    kind: Literal["annotations", "count", "known", "missing", "unreadable", "size", "outside"]
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a data folder."""

    root: Path
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True where there is no error."""
        return not any(finding.level == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """One line a finding, then a summary."""
        errors = sum(finding.level == "error" for finding in self.findings)
        summary = f"{self.root}: " + ("no error" if self.ok else f"{errors:,} error{'s' * (errors != 1)}")
        return [*(f"{finding.level}: {finding.text}" for finding in self.findings), summary]


def check_phrasecut(root: str | Path, *, decode: bool = False) -> Report:
    """Check annotations and photos of every split a folder holds.

    Args:
        root: folder in PhraseCut's layout.
        decode: decode every photo instead of reading its header only: finds truncated files, at some milliseconds each.

    Raises:
        ClipSegError: there is no such folder, or it has another layout.
    """
    root = Path(root)
    splits = find_splits(root)
    findings: list[Finding] = []
    try:
        findings.extend(_findings(root, splits, read_images(root), decode=decode))
    except ClipSegError as error:  # without the list of images or a folder of photos the rest cannot be judged
        findings.append(Finding("error", "annotations", str(error)))
    return Report(root, tuple(findings))


def _findings(root: Path, splits: dict[str, Path], images: dict[int, ImageRecord], *, decode: bool) -> Iterator[Finding]:
    used: set[int] = set()
    for split, path in splits.items():
        problems: list[str] = []
        try:
            tasks = read_tasks({split: path}, image_ids=images.keys(), problems=problems)
        except ClipSegError as error:
            yield Finding("error", "annotations", str(error))
            continue
        yield from (Finding("error", "annotations", problem) for problem in problems)
        yield from _counts(split, tasks)
        yield from _points_outside(split, tasks, images)
        used.update(tasks.image_ids.tolist())
    known = sorted(used & KNOWN_BAD_IMAGES)
    if known:
        names = ", ".join(map(str, known))
        text = f"{len(known)} of the 17 images of known wrong size are annotated, and left out of runs by default: {names}"
        yield Finding("info", "known", text)
    found = locate_images(root, used)
    missing = sorted(used - found.keys())
    if missing:
        first = ", ".join(map(str, missing[:10])) + " ..." * (len(missing) > 10)
        yield Finding("error", "missing", f"{len(missing):,} of {len(used):,} images are missing: {first}")
    for image_id in sorted(found):
        yield from _photo(root / found[image_id] / f"{image_id}.jpg", images[image_id], decode=decode)


def _counts(split: str, tasks: TaskTable) -> Iterator[Finding]:
    counts = (len(tasks), len(np.unique(tasks.image_ids)))
    text = f"{split}: {counts[0]:,} tasks on {counts[1]:,} images"
    if split in PUBLISHED_COUNTS:
        published = PUBLISHED_COUNTS[split]
        text += ", as published" if counts == published else f" (PhraseCut as published: {published[0]:,} on {published[1]:,})"
    yield Finding("info", "count", text)


def _points_outside(split: str, tasks: TaskTable, images: dict[int, ImageRecord]) -> Iterator[Finding]:
    """Points over a pixel outside their image; the mask is cut off at the border, as PhraseCut's evaluator does."""
    records = [images[image_id] for image_id in tasks.image_ids.tolist()]
    sizes = np.array([(record.width, record.height) for record in records], dtype=np.int64).reshape(-1, 2)
    points_of_task = np.diff(tasks.polygon_starts[tasks.task_starts])
    limits = np.repeat(sizes, points_of_task, axis=0)
    is_outside = ((tasks.points < 0) | (tasks.points > limits)).any(axis=1)
    rows = np.unique(np.repeat(np.arange(len(tasks)), points_of_task)[is_outside])
    if len(rows):
        first = ", ".join(tasks.keys[row] for row in rows[:10].tolist()) + " ..." * (len(rows) > 10)
        text = f"{split}: {is_outside.sum():,} points of {len(rows):,} tasks lie outside their image and are cut off: {first}"
        yield Finding("info", "outside", text)


def _photo(path: Path, record: ImageRecord, *, decode: bool) -> Iterator[Finding]:
    try:
        width, height = photo_size(path, decode=decode)
    except ClipSegError as error:
        yield Finding("error", "unreadable", str(error))
        return
    if (width, height) != (record.width, record.height):
        is_known = record.image_id in KNOWN_BAD_IMAGES
        text = f"{path}: {width}x{height} pixels, annotated as {record.width}x{record.height}"
        yield Finding("info" if is_known else "error", "size", text)


def photo_size(path: Path, *, decode: bool) -> tuple[int, int]:
    """Width and height of a photo in pixels; with `decode` only of a photo that is whole.

    Raises:
        ClipSegError: missing, no image, or damaged.
    """
    if decode:
        height, width = read_image(path, exif=False).shape[1:]
        return width, height
    with open_pil(path) as image:
        return image.size
