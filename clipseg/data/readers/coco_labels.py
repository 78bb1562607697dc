"""COCO's photos with one class for each pixel, and the images of each class.

Source: docs/paper.md, Sec. 5: the labels of HSNet, and its lists of images.
"""

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipseg.data.classes import COCO_CLASSES
from clipseg.data.layout import check_inside
from clipseg.data.readers.episodes import as_image_id
from clipseg.data.readers.instances import annotation_file, photo_path, read_instances, read_photo
from clipseg.data.readers.label_maps import read_label_map
from clipseg.data.readers.segmentation import require_pycocotools
from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.image_io import read_image


class CocoLabels(ABC):
    """The photos of a split and their label maps; a `MaskSource` whose names are `COCO_CLASSES`.

    Attributes:
        image_ids: the names of the photos, without their ending.
        labels: where the labels are from, in words.
        where: how errors call the data.
    """

    image_ids: Collection[str]
    labels: str
    where: str

    @abstractmethod
    def read_image(self, image_id: str) -> Tensor:
        """uint8 RGB `[3, H, W]`."""

    @abstractmethod
    def read_labels(self, image_id: str) -> Tensor:
        """uint8 `[H, W]`: the number of the class + 1, 0 where there is none."""

    @abstractmethod
    def _areas(self) -> Iterator[tuple[str, dict[int, float]]]:
        """Yield each image with the pixels of each class it shows."""

    def read_masks(self, image_id: str, names: Sequence[str]) -> tuple[list[Tensor], None]:
        """A mask for each class, uint8 `[H, W]`; all pixels count."""
        labels = self.read_labels(image_id)
        return [(labels == label_of(name)).byte() for name in names], None

    def images_by_class(self, names: Collection[str], least: int) -> dict[str, list[str]]:
        """Class -> the images in which it has at least `least` pixels."""
        found: dict[str, list[str]] = {name: [] for name in names}
        for image_id, areas in self._areas():
            for name in (COCO_CLASSES[number] for number, area in areas.items() if area >= least):
                if name in found:
                    found[name].append(image_id)
        return found


def label_of(name: str) -> int:
    """The label of one of `COCO_CLASSES`."""
    return COCO_CLASSES.index(name) + 1


def coco_labels(root: str | Path, split: str) -> CocoLabels:
    """The labels of a split: HSNet's pictures `annotations/<split>/<photo>.png`, where there are any, else painted ones.

    Args:
        root: the folder that holds `annotations`, and the photos in `<split>` or `images/<split>`.
        split: such as val2014.

    Raises:
        ClipSegError: another layout, no such split, malformed annotations, or pycocotools is missing.
    """
    drawn = Path(root) / "annotations" / split
    return _Pictures(Path(root), split) if any(drawn.glob("*.png")) else _Painted(Path(root), split)


class _Pictures(CocoLabels):
    """Label maps as pictures; to list the images of each class, all of them are read, which takes minutes."""

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._split = root, split
        self._folder = root / "annotations" / split
        self.image_ids = dict.fromkeys(sorted(path.stem for path in self._folder.glob("*.png")))
        self.labels = f"annotations/{split}/*.png"
        self.where = str(self._folder)

    def _photo(self, image_id: str) -> Path:
        return photo_path(self._root, f"{self._split}/{image_id}.jpg")

    def read_image(self, image_id: str) -> Tensor:
        path = self._photo(image_id)
        check_inside(path, self._root)
        return read_image(path, exif=False)

    def read_labels(self, image_id: str) -> Tensor:
        path = self._folder / f"{image_id}.png"
        return read_label_map(path, self._root, self._photo(image_id), most=len(COCO_CLASSES))

    def _areas(self) -> Iterator[tuple[str, dict[int, float]]]:
        for image_id in self.image_ids:
            labels, pixels = self.read_labels(image_id).unique(return_counts=True)
            yield image_id, {n - 1: area for n, area in zip(labels.tolist(), pixels.tolist(), strict=True) if n}


class _Painted(CocoLabels):
    """Label maps painted from `instances_<split>.json`, smaller objects over larger ones, crowds left out."""

    def __init__(self, root: Path, split: str) -> None:
        require_pycocotools()
        self._root = root
        path = annotation_file(root, "coco", split=split)
        self._table = table = read_instances(path, wanted=COCO_CLASSES, crowds=False)
        for name in COCO_CLASSES:
            if name not in table.categories:
                raise ClipSegError(f"{path}: category {name!r} does not exist in this file; fetch the published one")
        self._class_of = np.array([COCO_CLASSES.index(n) if n in COCO_CLASSES else -1 for n in table.categories])
        self._number = {Path(photo).stem: number for number, photo in enumerate(table.photos)}
        self.image_ids = self._number
        self.labels = f"painted from {path.name}"
        self.where = str(path)

    def read_image(self, image_id: str) -> Tensor:
        return read_photo(self._table, self._number[image_id], self._root)

    def read_labels(self, image_id: str) -> Tensor:
        number, table = self._number[image_id], self._table
        labels = np.zeros(table.sizes[number], dtype=np.uint8)
        own = range(table.starts[number], table.starts[number + 1])
        masks = [(self._class_of[table.category[n]], table.mask(n, number).astype(bool)) for n in own]
        for of_class, mask in sorted(masks, key=lambda pair: -int(pair[1].sum())):
            labels[mask] = of_class + 1
        return torch.from_numpy(labels)

    def _areas(self) -> Iterator[tuple[str, dict[int, float]]]:
        table = self._table
        for image_id, number in self._number.items():
            own = slice(table.starts[number], table.starts[number + 1])
            areas: dict[int, float] = {}
            for of_class, area in zip(self._class_of[table.category[own]].tolist(), table.areas[own].tolist(), strict=True):
                areas[of_class] = areas.get(of_class, 0) + area
            yield image_id, areas


def read_class_lists(path: str | Path, source: CocoLabels) -> dict[str, list[str]]:
    """Read the images of each class: `{class: [image, ...]}` in JSON.

    Args:
        path: the file. A class is named, or numbered from 0 to 79; an image is named with or without folder and ending.
        source: must hold the images.

    Raises:
        ClipSegError: missing, cut off, or it names a class or an image that is not there, or one twice.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise ClipSegError(f"{path}: not a file of class lists; expected an object, class -> names of images")
    lists: dict[str, list[str]] = {}
    for key, names in content.items():
        number = int(key) if key.isascii() and key.isdigit() and len(key) < 3 else -1
        name = COCO_CLASSES[number] if 0 <= number < len(COCO_CLASSES) else key
        if name not in COCO_CLASSES or name in lists:
            raise ClipSegError(
                f"{path}: class {reprlib.repr(key)}; expected COCO's names, or 0 to {len(COCO_CLASSES) - 1}, each once"
            )
        if not isinstance(names, list):
            raise ClipSegError(f"{path}: class {key!r} has {reprlib.repr(names)}; expected a list of names of images")
        lists[name] = [as_image_id(image) for image in names]
        for image, image_id in zip(names, lists[name], strict=True):
            if image_id not in source.image_ids:
                raise ClipSegError(f"{path}: class {key!r} lists {reprlib.repr(image)}, which is not in {source.where}")
        if len(set(lists[name])) < len(names):
            raise ClipSegError(f"{path}: class {key!r} lists an image twice; list each once")
    return lists
