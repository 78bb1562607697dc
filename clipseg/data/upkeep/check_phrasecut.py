"""Is a folder in PhraseCut's layout whole?"""

from pathlib import Path

import numpy as np

from clipseg.data.annotations import ImageRecord, TaskTable, read_images, read_tasks
from clipseg.data.layout import KNOWN_BAD_IMAGES, find_splits, locate_images
from clipseg.data.upkeep.findings import Report, photo_size
from clipseg.errors import listed

# Tasks and images of each split. Source: the PhraseCut paper and data set.
PUBLISHED_COUNTS = {"train": (310_816, 71_746), "val": (20_316, 2_971), "test": (14_354, 2_545), "miniv": (821, 100)}


def check_phrasecut(report: Report, decode: bool) -> None:
    """Add what is wrong with annotations and photos of every split that the report's folder holds."""
    root, used = report.root, set[int]()
    with report.reading():  # without the list of images or a folder of photos the rest cannot be judged
        images = read_images(root)
        files = find_splits(root)
        for split, path in files.items():
            problems: list[str] = []
            with report.reading():
                tasks = read_tasks({split: path}, image_ids=images.keys(), problems=problems)
                for problem in problems:
                    report.error(problem)
                counts = (len(tasks), len(np.unique(tasks.image_ids)))
                text = f"{split}: {counts[0]:,} tasks on {counts[1]:,} images"
                report.count(text, counts, PUBLISHED_COUNTS.get(split), "PhraseCut")
                _count_points_outside(report, split, tasks, images)
                used.update(tasks.image_ids.tolist())
        known = sorted(used & KNOWN_BAD_IMAGES)
        if known:
            names = ", ".join(map(str, known))
            text = "images of known wrong size are annotated, and left out of runs by default"
            report.info(f"{len(known)} of the {len(KNOWN_BAD_IMAGES)} {text}: {names}")
        found = locate_images(root, images)
        for split in sorted({record.split for record in images.values()} - files.keys() - {""}):
            own = [image_id for image_id, record in images.items() if record.split == split]
            # Who fetches one split alone has the list of all images, and photos of that split.
            add = report.error if found.keys() & own else report.info
            add(f"refer_{split}.json is missing, and with it the tasks of {len(own):,} images")
        report.missing(sorted(used - found.keys()), len(used))
        for image_id in sorted(used & found.keys()):
            _check_photo(report, root / found[image_id] / f"{image_id}.jpg", images[image_id], decode)


def _count_points_outside(report: Report, split: str, tasks: TaskTable, images: dict[int, ImageRecord]) -> None:
    """Points over a pixel outside their image; the mask is cut off at the border, as PhraseCut's evaluator does."""
    records = [images[image_id] for image_id in tasks.image_ids.tolist()]
    sizes = np.array([(record.width, record.height) for record in records], dtype=np.int64).reshape(-1, 2)
    points_of_task = np.diff(tasks.polygon_starts[tasks.task_starts])
    limits = np.repeat(sizes, points_of_task, axis=0)
    is_outside = ((tasks.points < 0) | (tasks.points > limits)).any(axis=1)
    rows = np.unique(np.repeat(np.arange(len(tasks)), points_of_task)[is_outside])
    if len(rows):
        first = listed([tasks.keys[row] for row in rows.tolist()])
        text = f"{is_outside.sum():,} points of {len(rows):,} tasks lie outside their image and are cut off"
        report.info(f"{split}: {text}: {first}")


def _check_photo(report: Report, path: Path, record: ImageRecord, decode: bool) -> None:
    with report.reading():
        width, height = photo_size(path, decode=decode)
        if (width, height) != (record.width, record.height):
            add = report.info if record.image_id in KNOWN_BAD_IMAGES else report.error
            add(f"{path}: {width}x{height} pixels, annotated as {record.width}x{record.height}")
