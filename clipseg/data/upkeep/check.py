"""Is a data folder of any layout whole? Every deviation as one line, nothing changed."""

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from clipseg.data.layout import LAYOUTS, annotation_files, check_inside, find_layouts, voc_folder
from clipseg.data.readers.folder import find_format, folder_splits, read_tasks
from clipseg.data.readers.instances import InstanceTable, photo_path, read_instances
from clipseg.data.readers.own.phrases import read_phrases
from clipseg.data.readers.own.tasks import draw
from clipseg.data.readers.pascal import PascalSplit
from clipseg.data.readers.segmentation import require_pycocotools
from clipseg.data.upkeep.check_phrasecut import check_phrasecut
from clipseg.data.upkeep.findings import Report, photo_size
from clipseg.errors import ClipSegError

# Images of Pascal VOC 2012's segmentation lists; images and annotations of COCO and of LVIS v1. Source: the data sets.
PASCAL_COUNTS = {"train": 1_464, "val": 1_449, "trainval": 2_913}
COCO_COUNTS = {
    "train2014": (82_783, 604_907),
    "val2014": (40_504, 291_875),
    "train2017": (118_287, 860_001),
    "val2017": (5_000, 36_781),
}
LVIS_COUNTS = {"train": (100_170, 1_270_141), "val": (19_809, 244_707)}


def check_data(root: str | Path, *, decode: bool = False) -> Report:
    """Check annotations and photos of every split a folder holds, in each layout it has.

    Args:
        root: folder of PhraseCut, Pascal VOC 2012, COCO, LVIS v1 or of the user's own.
        decode: decode every photo, and every mask of COCO and LVIS, instead of reading headers only.

    Raises:
        ClipSegError: there is no such folder, or it has another layout.
    """
    root = Path(root)
    layouts = find_layouts(root)
    if not layouts:
        try:
            find_format(root)
        except ClipSegError as error:
            others = ", ".join(text for layout, text in LAYOUTS.items() if layout != "folder")
            raise ClipSegError(f"{error}; other layouts are {others}") from error
        layouts = ("folder",)
    report = Report(root)
    for layout in layouts:
        _CHECKS[layout](report, decode)
    return report


def _check_pascal(report: Report, decode: bool) -> None:
    folder = voc_folder(report.root)
    assert folder is not None  # the layout was found
    source_of: dict[str, PascalSplit] = {}
    for split in sorted(path.stem for path in (folder / "ImageSets" / "Segmentation").glob("*.txt")):
        with report.reading():
            source = PascalSplit(report.root, split)
            source_of |= dict.fromkeys(source.image_ids, source)
            images = len(source.image_ids)
            report.count(f"{split}: {images:,} images", images, PASCAL_COUNTS.get(split), "Pascal VOC 2012")
    photos = {image_id: source_of[image_id].photo_path(image_id) for image_id in sorted(source_of)}
    missing = [image_id for image_id, path in photos.items() if not path.is_file()]
    report.missing(missing, len(photos))
    for image_id in sorted(photos.keys() - set(missing)):
        with report.reading():
            check_inside(photos[image_id], report.root)
            photo_size(photos[image_id], decode=decode)
            source_of[image_id].read_labels(image_id)


def _check_coco(report: Report, decode: bool) -> None:
    _check_instances(report, annotation_files(report.root, "instances_"), COCO_COUNTS, "COCO", decode)


def _check_lvis(report: Report, decode: bool) -> None:
    _check_instances(report, annotation_files(report.root, "lvis_v1_"), LVIS_COUNTS, "LVIS v1", decode)


def _check_instances(
    report: Report, files: Mapping[str, Path], published: Mapping[str, tuple[int, int]], name: str, decode: bool
) -> None:
    if decode:
        require_pycocotools()
    for split, path in files.items():
        with report.reading():
            table = read_instances(path)
            counts = (len(table.image_ids), len(table.annotation_ids))
            text = f"{split}: {counts[0]:,} images, {counts[1]:,} annotations"
            report.count(text, counts, published.get(split), name)
            _check_photos(report, table, decode)
            if decode:
                _check_masks(report, table)


def _check_photos(report: Report, table: InstanceTable, decode: bool) -> None:
    # Asking for 120,000 files one by one takes minutes on a network disk.
    root, folders = report.root, {photo.split("/")[0] for photo in table.photos}
    there = {f"{folder}/{name}" for folder in folders for base in (root, root / "images") for name in _listing(base / folder)}
    report.missing(sorted(photo for photo in table.photos if photo not in there), len(table.photos))
    for photo, (annotated_height, annotated_width) in zip(table.photos, table.sizes.tolist(), strict=True):
        with report.reading():
            if photo not in there:
                continue
            path = photo_path(root, photo)
            check_inside(path, root)
            width, height = photo_size(path, decode=decode)
            if (width, height) != (annotated_width, annotated_height):
                report.error(f"{path}: {width}x{height} pixels, annotated as {annotated_width}x{annotated_height}")


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _check_masks(report: Report, table: InstanceTable) -> None:
    image_of = np.repeat(np.arange(len(table.image_ids)), np.diff(table.starts))
    for annotation, image in enumerate(image_of.tolist()):
        with report.reading():
            table.mask(annotation, image)


def _check_folder(report: Report, decode: bool) -> None:
    for split, path in folder_splits(report.root).items():
        problems: list[str] = []
        with report.reading(), warnings.catch_warnings(record=True) as warned:
            tasks = read_tasks(report.root, path, problems)
            for problem in problems:
                report.error(problem)
            images = sorted({task.image for task in tasks})
            report.info(f"{split}: {len(tasks):,} tasks on {len(images):,} images")
            for warning in warned:
                report.info(str(warning.message))
            read_phrases(report.root, sorted({task.name for task in tasks}))
            sizes: dict[str, tuple[int, int]] = {}
            for image in images:
                with report.reading():
                    sizes[image] = photo_size(report.root / image, decode=decode)
            for task in (task for task in tasks if task.image in sizes and "polygons" not in task.target):
                with report.reading():
                    width, height = sizes[task.image]
                    draw(task.target, report.root, height, width, where=task.where)


_CHECKS: dict[str, Callable[[Report, bool], None]] = {
    "phrasecut": check_phrasecut,
    "pascal": _check_pascal,
    "coco": _check_coco,
    "lvis": _check_lvis,
    "folder": _check_folder,
}
