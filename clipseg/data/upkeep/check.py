"""Is a data folder of any layout whole? Every deviation as one line, nothing changed."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from clipseg.data.layout import LAYOUTS, annotation_files, check_inside, find_layouts, voc_folder
from clipseg.data.readers.folder import folder_splits, read_lines
from clipseg.data.readers.instances import InstanceTable, photo_path, read_instances
from clipseg.data.readers.pascal import PascalSplit
from clipseg.data.readers.segmentation import require_pycocotools
from clipseg.data.upkeep.check_phrasecut import Finding, Report, check_phrasecut, photo_size
from clipseg.errors import ClipSegError
from clipseg.image_io import read_mask

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
        names = sorted(path.name for path in root.glob("*"))
        found = ", ".join(names[:8]) + " ..." * (len(names) > 8)
        raise ClipSegError(f"{root}: found {found or 'nothing'}; expected {', or '.join(LAYOUTS.values())}")
    findings: list[Finding] = []
    for layout in layouts:
        findings.extend(_CHECKS[layout](root, decode))
    return Report(root, tuple(findings))


def _phrasecut(root: Path, decode: bool) -> Iterator[Finding]:
    yield from check_phrasecut(root, decode=decode).findings


def _pascal(root: Path, decode: bool) -> Iterator[Finding]:
    folder = voc_folder(root)
    assert folder is not None  # the layout was found
    splits: dict[str, PascalSplit] = {}
    for split in sorted(path.stem for path in (folder / "ImageSets" / "Segmentation").glob("*.txt")):
        try:
            splits[split] = PascalSplit(root, split)
        except ClipSegError as error:
            yield Finding("error", "annotations", str(error))
            continue
        images = len(splits[split].image_ids)
        yield _count(f"{split}: {images:,} images", images, PASCAL_COUNTS.get(split), "Pascal VOC 2012")
    source_of = {image_id: source for source in splits.values() for image_id in source.image_ids}
    photos = {image_id: source.photo_path(image_id) for image_id, source in source_of.items()}
    missing = [image_id for image_id, path in photos.items() if not path.is_file()]
    yield from _missing(missing, len(photos))
    for image_id in sorted(photos.keys() - set(missing)):
        try:
            check_inside(photos[image_id], root)
            photo_size(photos[image_id], decode=decode)
            source_of[image_id].read_labels(image_id)
        except ClipSegError as error:
            yield Finding("error", "unreadable", str(error))


def _count(text: str, found: object, published: object, name: str) -> Finding:
    if published is not None:
        numbers = " and ".join(f"{n:,}" for n in (published if isinstance(published, tuple) else (published,)))
        text += ", as published" if found == published else f" ({name} as published: {numbers})"
    return Finding("info", "count", text)


def _missing(names: Iterable[str], total: int) -> Iterator[Finding]:
    missing = sorted(names)
    if missing:
        first = ", ".join(missing[:10]) + " ..." * (len(missing) > 10)
        yield Finding("error", "missing", f"{len(missing):,} of {total:,} images are missing: {first}")


def _coco(root: Path, decode: bool) -> Iterator[Finding]:
    return _instances(root, annotation_files(root, "instances_"), COCO_COUNTS, "COCO", decode)


def _lvis(root: Path, decode: bool) -> Iterator[Finding]:
    return _instances(root, annotation_files(root, "lvis_v1_"), LVIS_COUNTS, "LVIS v1", decode)


def _instances(
    root: Path, files: Mapping[str, Path], published: Mapping[str, tuple[int, int]], name: str, decode: bool
) -> Iterator[Finding]:
    for split, path in files.items():
        try:
            table = read_instances(path)
        except ClipSegError as error:
            yield Finding("error", "annotations", str(error))
            continue
        counts = (len(table.image_ids), len(table.annotation_ids))
        text = f"{split}: {counts[0]:,} images, {counts[1]:,} annotations"
        yield _count(text, counts, published.get(split), name)
        yield from _photos(root, table, decode)
        if decode:
            yield from _masks(table)


def _photos(root: Path, table: InstanceTable, decode: bool) -> Iterator[Finding]:
    # Asking for 120,000 files one by one takes minutes on a network disk.
    folders = {photo.split("/")[0] for photo in table.photos}
    there = {f"{folder}/{name}" for folder in folders for base in (root, root / "images") for name in _listing(base / folder)}
    yield from _missing((photo for photo in table.photos if photo not in there), len(table.photos))
    for number, photo in enumerate(table.photos):
        if photo in there:
            path = photo_path(root, photo)
            try:
                check_inside(path, root)
                width, height = photo_size(path, decode=decode)
            except ClipSegError as error:
                yield Finding("error", "unreadable", str(error))
                continue
            if [height, width] != table.sizes[number].tolist():
                annotated = "{1}x{0}".format(*table.sizes[number].tolist())
                yield Finding("error", "size", f"{path}: {width}x{height} pixels, annotated as {annotated}")


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _masks(table: InstanceTable) -> Iterator[Finding]:
    require_pycocotools()
    image_of = np.repeat(np.arange(len(table.image_ids)), np.diff(table.starts))
    for annotation, image in enumerate(image_of.tolist()):
        try:
            table.mask(annotation, image)
        except ClipSegError as error:
            yield Finding("error", "annotations", str(error))


def _folder(root: Path, decode: bool) -> Iterator[Finding]:
    for split, path in folder_splits(root).items():
        problems: list[str] = []
        try:
            lines = read_lines(path, problems=problems)
        except ClipSegError as error:
            yield Finding("error", "annotations", str(error))
            continue
        yield from (Finding("error", "annotations", problem) for problem in problems)
        images = sorted({line["image"] for line in lines})
        yield Finding("info", "count", f"{split}: {len(lines):,} tasks on {len(images):,} images")
        sizes: dict[str, tuple[int, int]] = {}
        for image in images:
            try:
                sizes[image] = photo_size(root / image, decode=decode)
            except ClipSegError as error:
                yield Finding("error", "unreadable", str(error))
        for line in (line for line in lines if "mask" in line and line["image"] in sizes):
            yield from _drawn_mask(root / line["mask"], sizes[line["image"]], f"{path}: line {line['line']}")


def _drawn_mask(path: Path, photo: tuple[int, int], where: str) -> Iterator[Finding]:
    try:
        height, width = read_mask(path, exif=False).shape
    except ClipSegError as error:
        yield Finding("error", "unreadable", f"{where}: {error}")
        return
    if (width, height) != photo:
        yield Finding("error", "size", f"{where}: mask {path} has {width}x{height} pixels, its image {photo[0]}x{photo[1]}")


_CHECKS: dict[str, Callable[[Path, bool], Iterator[Finding]]] = {
    "phrasecut": _phrasecut,
    "pascal": _pascal,
    "coco": _coco,
    "lvis": _lvis,
    "folder": _folder,
}
