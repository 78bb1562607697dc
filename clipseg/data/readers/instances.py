"""`instances_*.json` (COCO) and `lvis_v1_*.json` (LVIS) -> packed annotations, and a source of photos and masks by class.

A million annotations as Python objects would fill gigabytes and be copied into every worker, so they are packed into arrays;
a segmentation stays the text it was until its mask is asked for.
"""

import json
import re
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg.data.annotations import PackedStrings
from clipseg.data.layout import annotation_files, check_inside, wrong_layout
from clipseg.data.readers.segmentation import decode_segmentation, require_pycocotools
from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.image_io import read_image

LONGEST_SIDE = 10_000  # pixels; the data sets' own is 640, and a mask as large as a typing error must not fill the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTable:
    """C categories, I images in the order of the file, A annotations ordered by image.

    Attributes:
        path: the file.
        categories: C names, by id.
        image_ids: int64 `[I]`.
        sizes: int64 `[I, 2]`, height and width in pixels as annotated.
        photos: I paths such as "val2014/COCO_val2014_000000000042.jpg".
        annotation_ids: int64 `[A]`.
        category: int64 `[A]`, index into `categories`.
        areas: float64 `[A]`, pixels of each as annotated.
        segmentations: A pieces of JSON.
        starts: int64 `[I + 1]`: the annotations of image i are those from `starts[i]` to `starts[i + 1]`.
    """

    path: Path
    categories: tuple[str, ...]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    photos: PackedStrings
    annotation_ids: NDArray[np.int64]
    category: NDArray[np.int64]
    areas: NDArray[np.float64]
    segmentations: PackedStrings
    starts: NDArray[np.int64]

    def mask(self, annotation: int, image: int) -> NDArray[np.uint8]:
        """The mask of one annotation of an image, uint8 `[H, W]`."""
        where = f"{self.path}: annotation {self.annotation_ids[annotation]} of image {self.image_ids[image]}"
        height, width = self.sizes[image].tolist()
        return decode_segmentation(json.loads(self.segmentations[annotation]), height, width, where=where)


def annotation_file(root: str | Path, layout: str, *, split: str) -> Path:
    """The annotation file of a split of COCO or LVIS.

    Raises:
        ClipSegError: another layout, or no such split.
    """
    files = annotation_files(Path(root), {"coco": "instances_", "lvis": "lvis_v1_"}[layout])
    if not files:
        raise wrong_layout(Path(root), layout)
    unlabelled = annotation_files(Path(root), {"coco": "image_info_", "lvis": "lvis_v1_image_info_"}[layout])
    if split not in files and split in unlabelled:
        raise ClipSegError(f"{unlabelled[split]}: split {split!r} has no ground truth; choose one of {', '.join(files)}")
    if split not in files:
        raise ClipSegError(f"data.root={root}: split {split!r} unknown; expected one of {', '.join(files)}")
    return files[split]


def read_instances(
    path: Path,
    *,
    wanted: Collection[str] | None = None,
    crowds: bool = True,
    photo: Callable[[Any, Path], str] | None = None,
    boxes: list[int] | None = None,
) -> InstanceTable:
    """Read an annotation file.

    Args:
        path: the file.
        wanted: keep only annotations of these categories; None: all.
        crowds: keep those of many objects at once.
        photo: (entry of an image, path) -> where the photo lies; by default as COCO and LVIS have it.
        boxes: where given, an annotation without outline is drawn as its box, and its id added here.

    Raises:
        ClipSegError: missing, cut off, or an entry is malformed; file and entry are named.
    """
    content = read_json(path)
    categories, images, annotations = (_entries(content, name, path) for name in ("categories", "images", "annotations"))
    name_of = {_whole(entry, "id", f"{path}: category {n}"): _name(entry, path) for n, entry in enumerate(categories)}
    image_ids = np.array([_whole(entry, "id", f"{path}: image {n}") for n, entry in enumerate(images)])
    if len(name_of) < len(categories) or len(np.unique(image_ids)) < len(image_ids):
        raise ClipSegError(f"{path}: a category or an image is there twice; fetch the file again")
    position = {image_id: number for number, image_id in enumerate(image_ids.tolist())}
    rank = {category_id: number for number, category_id in enumerate(sorted(name_of))}
    links = [_links(entry, position, rank, f"{path}: annotation entry {n}") for n, entry in enumerate(annotations)]
    ids, image_of, category = np.array(links, dtype=np.int64).T
    order = np.argsort(image_of, kind="stable")
    names = [name_of[category_id] for category_id in rank]
    if wanted is not None:
        kept = np.array([name in wanted for name in names])
        order = order[kept[category[order]]]
    if not crowds:
        order = np.array([i for i in order.tolist() if annotations[i].get("iscrowd") != 1], dtype=np.int64)
    return InstanceTable(
        path=path,
        categories=tuple(names),
        image_ids=image_ids,
        sizes=np.array([_size(entry, path) for entry in images]),
        photos=PackedStrings((photo or _photo)(entry, path) for entry in images),
        annotation_ids=ids[order],
        category=category[order],
        areas=np.array([_area(annotations[i], boxes is None, f"{path}: annotation {ids[i]}") for i in order.tolist()]),
        segmentations=PackedStrings(json.dumps(_segmentation(annotations[i], boxes, path)) for i in order.tolist()),
        starts=np.searchsorted(image_of[order], np.arange(len(images) + 1)),
    )


def _entries(content: Any, name: str, path: Path) -> list[Any]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ClipSegError(f"{path}: no list of {name}; expected an annotation file of COCO or LVIS: fetch or write it again")
    return entries


def _whole(entry: Any, field: str, where: str, least: int = 0, most: int = 2**62) -> int:
    value = entry.get(field) if isinstance(entry, dict) else None
    if type(value) is not int or not least <= value <= most:
        raise ClipSegError(f"{where}: {field} is {reprlib.repr(value)}; expected a whole number from {least} to {most}")
    return value


def _size(entry: Any, path: Path) -> list[int]:
    return [_whole(entry, side, f"{path}: image {entry['id']}", least=1, most=LONGEST_SIDE) for side in ("height", "width")]


def _name(entry: Any, path: Path) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name.isprintable():
        raise ClipSegError(f"{path}: a category named {reprlib.repr(name)}; expected text")
    return name


def _links(entry: Any, position: Mapping[int, int], rank: Mapping[int, int], where: str) -> tuple[int, int, int]:
    """An annotation's id, and the places of its image and its category."""
    annotation_id, image_id, category_id = (_whole(entry, field, where) for field in ("id", "image_id", "category_id"))
    if image_id not in position or category_id not in rank:
        raise ClipSegError(f"{where}: image {image_id} or category {category_id} is not in the file; fetch it again")
    return annotation_id, position[image_id], rank[category_id]


def _area(entry: Any, is_needed: bool, where: str) -> float:
    area = entry.get("area") if is_needed else 0
    if type(area) not in (int, float) or not 0 <= area <= LONGEST_SIDE**2:  # NaN fails too
        raise ClipSegError(f"{where}: area is {reprlib.repr(area)}; expected a number of pixels")
    return float(area)


def _segmentation(entry: Any, boxes: list[int] | None, path: Path) -> Any:
    """Polygons or run lengths of an annotation; where boxes are wanted and there is no more, the box as a polygon."""
    found, box = entry.get("segmentation"), entry.get("bbox")
    if found or boxes is None:
        return found
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        raise ClipSegError(f"{path}: annotation {entry['id']}: bbox is {reprlib.repr(box)}; expected [x, y, width, height]")
    boxes.append(entry["id"])
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _photo(entry: Any, path: Path) -> str:
    """Folder and name of a photo. COCO's file gives the name, and its own the folder; LVIS's gives an address with both."""
    name, url = entry.get("file_name"), entry.get("coco_url")
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+\.jpe?g", name) and path.stem.startswith("instances_"):
        return f"{path.stem.removeprefix('instances_')}/{name}"
    found = re.search(r"(?:^|/)([a-z]+\d{4}/[A-Za-z0-9_-]+\.jpe?g)$", url) if isinstance(url, str) else None
    if found is None:
        named = f"file_name {reprlib.repr(name)}, coco_url {reprlib.repr(url)}"
        raise ClipSegError(f"{path}: image {entry['id']} names no photo ({named}); fetch it again")
    return found[1]


class InstanceSource:
    """Photos, and the union of the masks of some categories as the mask of a name; a `MaskSource`.

    A crowd, one annotation for many objects, counts as objects of its category.

    Args:
        table: the annotations.
        root: the folder that holds the photos' folders, itself or in `images`.
        names: name -> the categories it is true of.

    Raises:
        ClipSegError: pycocotools is missing, or the file has no such category.
    """

    def __init__(self, table: InstanceTable, root: Path, names: Mapping[str, Sequence[str]]) -> None:
        require_pycocotools()
        self.table = table
        self.root = root
        self.names = tuple(names)
        rank = {category: number for number, category in enumerate(table.categories)}
        for category in (category for categories in names.values() for category in categories):
            if category not in rank:
                raise ClipSegError(f"{table.path}: category {category!r} does not exist in this file; fetch the published one")
        self._ranks = {name: np.array([rank[category] for category in categories]) for name, categories in names.items()}
        self._position = {str(image_id): number for number, image_id in enumerate(table.image_ids.tolist())}
        self.image_ids = self._position

    def images_by_class(self) -> dict[str, list[str]]:
        """Name -> the images annotated with it."""
        image_of = np.repeat(np.arange(len(self.table.image_ids)), np.diff(self.table.starts))
        return {
            name: list(map(str, self.table.image_ids[np.unique(image_of[np.isin(self.table.category, ranks)])].tolist()))
            for name, ranks in self._ranks.items()
        }

    def read_image(self, image_id: str) -> Tensor:
        """uint8 RGB `[3, H, W]`.

        Raises:
            ClipSegError: the photo is missing, damaged, not of the annotated size, or a link that leaves the folder.
        """
        return read_photo(self.table, self._position[image_id], self.root)

    def read_mask(self, image_id: str, name: str) -> NDArray[np.uint8]:
        """The mask of a name, uint8 `[H, W]`."""
        number = self._position[image_id]
        mask = np.zeros(self.table.sizes[number], dtype=np.uint8)
        for annotation in range(self.table.starts[number], self.table.starts[number + 1]):
            if self.table.category[annotation] in self._ranks[name]:
                mask |= self.table.mask(annotation, number)
        return mask

    def read_masks(self, image_id: str, names: Sequence[str]) -> tuple[list[Tensor], None]:
        """A mask for each name, uint8 `[H, W]`; all pixels count."""
        return [torch.from_numpy(self.read_mask(image_id, name)) for name in names], None


def read_photo(table: InstanceTable, image: int, root: Path) -> Tensor:
    """Photo number `image` of a table, uint8 RGB `[3, H, W]`.

    Raises:
        ClipSegError: it is missing, damaged, not of the annotated size, or a link that leaves the folder.
    """
    path = photo_path(root, table.photos[image])
    check_inside(path, root)
    pixels = read_image(path, exif=False)
    height, width = table.sizes[image].tolist()
    if tuple(pixels.shape[1:]) != (height, width):
        size = f"{pixels.shape[2]}x{pixels.shape[1]}"
        raise ClipSegError(f"{path}: {size} pixels, but {table.path.name} says {width}x{height}; fetch the photo again")
    return pixels


def photo_path(root: Path, photo: str) -> Path:
    """Where a photo such as "val2017/000000000042.jpg" lies: under `root`, or its folder `images`."""
    inside = root / "images" / photo
    return inside if inside.is_file() else root / photo
