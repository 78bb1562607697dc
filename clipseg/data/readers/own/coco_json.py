"""A COCO JSON of the user's own, as label tools write it: polygons, run lengths, or boxes alone.

It lies in the folder or its `annotations`, or is a split's `<split>/_annotations.coco.json`. Each image and each category it
shows is a task, the mask the union of the category's objects.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from clipseg.data.readers.instances import InstanceTable, read_instances
from clipseg.data.readers.own.tasks import OwnTask, Problems, check_name, check_path
from clipseg.data.readers.segmentation import require_pycocotools
from clipseg.errors import ClipSegError, collecting
from clipseg.files import read_text

_IN_FOLDERS = "_annotations.coco.json"


def find_coco_json(root: Path) -> dict[str, Path]:
    """Return the splits: name -> file; the name is the file's, without `instances_`, or its folder's."""
    found = {path.stem.removeprefix("instances_"): path for path in (*root.glob("*.json"), *root.glob("annotations/*.json"))}
    found |= {path.parent.name: path for path in root.glob(f"*/{_IN_FOLDERS}")}
    return {name: found[name] for name in sorted(found) if _looks_like_coco(found[name])}


def _looks_like_coco(path: Path) -> bool:
    try:
        text = read_text(path)
    except ClipSegError:
        return False
    return sum(f'"{key}"' in text for key in ("images", "categories", "annotations")) > 1


def read_coco_json(root: Path, path: Path, problems: Problems = None) -> list[OwnTask]:
    """Read a file; what has only a box is drawn as that box, with one warning.

    Arguments and errors as in `read_lines`.
    """
    require_pycocotools()
    split = path.parent.name if path.name == _IN_FOLDERS else path.stem.removeprefix("instances_")
    bases = ("", "images/", "photos/", f"{split}/", f"images/{split}/", f"{path.parent.relative_to(root).as_posix()}/")

    def find_photo(entry: Any, path: Path) -> str:
        name = entry.get("file_name")
        found = (base + name for base in bases if isinstance(name, str) and "\0" not in name and (root / base / name).is_file())
        return next(found, name if isinstance(name, str) else "")

    boxes: list[int] = []
    table = read_instances(path, photo=find_photo, boxes=boxes)
    if boxes:
        drawn = f"{len(boxes):,} of {len(table.annotation_ids):,} annotations"
        warnings.warn(f"{path}: {drawn} have a box and no outline; they are drawn as boxes", stacklevel=2)
    tasks: list[OwnTask] = []
    for image in range(len(table.image_ids)):
        with collecting(problems):
            tasks += _tasks(table, image, root, first=len(tasks) + 1)
    return tasks


def _tasks(table: InstanceTable, image: int, root: Path, *, first: int) -> list[OwnTask]:
    """The tasks of one image."""
    where, photo = f"{table.path}: image {table.image_ids[image]}", table.photos[image]
    rows = np.arange(table.starts[image], table.starts[image + 1])
    check_path(photo, root, f"{where}: file_name")
    size = table.sizes[image].tolist()
    tasks: list[OwnTask] = []
    for category in np.unique(table.category[rows]).tolist():
        pieces = [json.loads(table.segmentations[row]) for row in rows[table.category[rows] == category].tolist()]
        name = check_name(table.categories[category], f"{table.path}: a category")
        tasks.append(OwnTask(first + len(tasks), photo, name, {"segmentations": pieces, "size": size}, where))
    return tasks
