"""Labels that are pictures: one label map an image, or one mask an image and class.

Photos lie in `images` (or `photos`), labels of the same name in `labels`, `masks` or `annotations`. A folder in both is a
split; without any the split is called "all". With `names.txt`, lines of "VALUE NAME", labels are label maps: 0 is background,
255 is not counted, unless they have a name. Else they are masks: `<image>__<class>.png`, `<class>/<image>.png`; "_" is a space.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from clipseg.data.readers.own.tasks import OwnTask, Problems, check_name, check_path
from clipseg.errors import ClipSegError, collecting, listed
from clipseg.files import read_text
from clipseg.image_io import SUFFIXES, read_labels

PHOTOS, LABELS, NAMES = ("images", "photos"), ("labels", "masks", "annotations"), "names.txt"
BACKGROUND, OPEN = 0, 255
WITHOUT_VALUES = ("background", "_background_", "unlabeled", "unlabelled")  # a first name that is surely that of value 0


def find_label_maps(root: Path) -> dict[str, Path]:
    """Return the splits of label maps: name -> folder of photos."""
    return _splits(root) if (root / NAMES).is_file() else {}


def find_masks(root: Path) -> dict[str, Path]:
    """Return the splits of masks: name -> folder of photos."""
    return {} if (root / NAMES).is_file() else _splits(root)


def _splits(root: Path) -> dict[str, Path]:
    photos, labels = find_folder(root, PHOTOS), find_folder(root, LABELS)
    if photos is None or labels is None:
        return {}
    if any(map(is_picture, photos.iterdir())):
        return {"all": photos}
    return {path.name: path for path in sorted(photos.iterdir()) if path.is_dir() and any(map(is_picture, path.iterdir()))}


def find_folder(root: Path, names: Iterable[str]) -> Path | None:
    """Return the first of some folders that holds a picture, in itself or further down."""
    return next((root / name for name in names if any(map(is_picture, (root / name).rglob("*")))), None)


def is_picture(path: Path) -> bool:
    """Tell by its name whether a file may be a picture."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_label_maps(root: Path, photos: Path, problems: Problems = None) -> list[OwnTask]:
    """Read which classes each label map shows: each is a task.

    Arguments as in `read_lines`, `photos` a folder.

    Raises:
        ClipSegError: names that cannot be told, a photo without a label map or the reverse, or a value without a name.
    """
    names = read_names(root / NAMES)
    images, labels = _pictures(photos), _pictures(_labels_of(root, photos))
    _check_pairs(photos, images.keys(), labels.keys(), [labels[stem] for stem in labels if stem not in images], problems)
    tasks: list[OwnTask] = []
    for stem in (stem for stem in images if stem in labels):
        image, path = (places[stem].relative_to(root).as_posix() for places in (images, labels))
        with collecting(problems):
            for text in (image, path):
                check_path(text, root, f"{root}:")
            values = np.unique(read_labels(labels[stem])).tolist()
            unnamed = [value for value in values if value not in names and value not in (BACKGROUND, OPEN)]
            if unnamed:
                raise ClipSegError(f"{labels[stem]}: label value {unnamed[0]} has no name; add it to {root / NAMES}")
            for value in (value for value in values if value in names):
                target = {"labels": path, "value": value, "open": OPEN not in names}
                tasks.append(OwnTask(len(tasks) + 1, image, names[value], target, str(root)))
    return tasks


def read_names(path: Path) -> dict[int, str]:
    """Read lines of "VALUE NAME"; or names alone, of the values from 0 on, where the first is that of the background.

    Raises:
        ClipSegError: no line, another, a value twice, or names of which it cannot be told whether they begin at 0 or 1.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    found = [re.fullmatch(r"(\d{1,3})\s*[:,;=\s]\s*(\S.*)", line) for line in lines]
    if lines and lines[0].lower() in WITHOUT_VALUES and not any(found):
        return {value: check_name(name, f"{path}: a name") for value, name in enumerate(lines) if value}
    names: dict[int, str] = {}
    for line, match in zip(lines, found, strict=True):
        if match is None or int(match[1]) > 255 or int(match[1]) in names:
            raise ClipSegError(f"{path}: line {line!r}; expected each value of the label maps once, as in '1 a crack'")
        names[int(match[1])] = check_name(match[2], f"{path}: a name")
    if not names:
        raise ClipSegError(f"{path}: no name; write the values of the label maps and their names, as in '1 a crack'")
    return names


def read_masks(root: Path, photos: Path, problems: Problems = None) -> list[OwnTask]:
    """Find the masks of each photo: each is a task, one without a pixel too.

    Arguments as in `read_lines`, `photos` a folder.

    Raises:
        ClipSegError: a photo without any mask, or a mask without a photo or a class.
    """
    images = _pictures(photos)
    found: list[tuple[str, str, Path]] = []
    strangers: list[Path] = []
    for path in sorted(path for path in _labels_of(root, photos).rglob("*") if is_picture(path)):
        stem, name = _stem_and_class(path, path.relative_to(_labels_of(root, photos)).parts, images.keys())
        if stem in images:
            found.append((stem, name, path))
        else:
            strangers.append(path)
    _check_pairs(photos, images.keys(), {stem for stem, _, _ in found}, strangers, problems)
    order = {stem: place for place, stem in enumerate(images)}
    tasks: list[OwnTask] = []
    for stem, name, path in sorted(found, key=lambda entry: order[entry[0]]):
        with collecting(problems):
            image, mask = images[stem].relative_to(root).as_posix(), path.relative_to(root).as_posix()
            for text in (image, mask):
                check_path(text, root, f"{root}:")
            name = check_name(name.replace("_", " ").strip(), f"{path}: its class")
            tasks.append(OwnTask(len(tasks) + 1, image, name, {"mask": mask}, str(root)))
    return tasks


def _stem_and_class(path: Path, parts: Sequence[str], stems: Iterable[str]) -> tuple[str, str]:
    """The photo and the class that a mask's path names; ("", "") where it names none."""
    if len(parts) == 2:
        return path.stem, parts[0]
    marks = [mark.start() for mark in re.finditer("__", path.stem)]
    return next(((path.stem[:at], path.stem[at + 2 :]) for at in reversed(marks) if path.stem[:at] in stems), ("", ""))


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures right in a folder, by name without ending."""
    paths = sorted(filter(is_picture, folder.iterdir())) if folder.is_dir() else []
    found = {path.stem: path for path in paths}
    if len(found) < len(paths):
        twice = next(path for path in paths if found[path.stem] != path)
        raise ClipSegError(f"{twice}: another picture there has this name too, {found[twice.stem].name}; rename one of them")
    return found


def _labels_of(root: Path, photos: Path) -> Path:
    """The folder of the labels of some photos."""
    folder, labels = find_folder(root, PHOTOS), find_folder(root, LABELS)
    assert folder is not None  # the splits were found
    assert labels is not None
    return labels / photos.relative_to(folder)


def _check_pairs(
    photos: Path, images: Iterable[str], labelled: Iterable[str], strangers: Sequence[Path], problems: Problems
) -> None:
    """Refuse photos without any label, and labels without a photo."""
    total, without = len(list(images)), sorted(set(images) - set(labelled))
    labels = "label" if len(strangers) == 1 else "labels"
    for what, some in (
        (f"{len(without):,} of {total:,} images without a label", without),
        (f"{len(strangers):,} {labels} without an image, or without a class", [path.name for path in strangers]),
    ):
        with collecting(problems):
            if some:
                forms = "<image>__<class>.png or <class>/<image>.png, or label maps with names.txt"
                raise ClipSegError(f"{photos}: {what}: {listed(some, most=5)}; name labels {forms}")
