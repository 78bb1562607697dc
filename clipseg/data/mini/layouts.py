"""Synthetic scenes in the other layouts: Pascal VOC 2012, COCO and LVIS v1 as published, a user's folder; 60 to 240 photos.

A thing stands in for a class: class number k of a data set is always drawn as the same category and colour (`stand_in`).
Nothing here shows a dog; it is the protocols that are small, not the words, which mean nothing to the bundled CLIP. By
example, though, a class can be found.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from clipseg.data import classes
from clipseg.data.classes import COCO_CLASSES, LVIS_PROMPTS, PASCAL_CLASSES
from clipseg.data.mini import phrases as phrase_rules
from clipseg.data.mini.phrasecut import JPEG_QUALITY, SEED, SIDE, cache_folder, draw_image, trace_outline, write_once
from clipseg.data.mini.scenes import COLOURS, Kind, draw_scene
from clipseg.data.mini.shapes import CATEGORIES, PATTERNS

# Split -> images. Where a class is asked for by example there are two to each class: one to ask about, one to show it by.
PASCAL_SPLITS = {"train": 20, "val": 40}
COCO_SPLITS = {"train2014": 160, "val2014": 160}
LVIS_SPLITS = {"train": 60, "val": 60}
FOLDER_SPLITS = {"train": 60, "val": 20, "test": 20}

SHORT_SIDE = 132  # pixels of a photo, beside SIDE: in portrait or landscape, as photos come; enlarged when it is written
ENLARGED = 3  # times: few-shot protocols ask for 2,048 pixels of a class
SMALLEST = 60  # pixels of what is annotated; less remains of some things at the edge of a photo

# The ids of COCO's categories are those from 1 to 90 without these.
COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_IDS = tuple(number for number in range(1, 91) if number not in COCO_GAPS)
# What the generalised prompts are true of, and three more: two whose names training leaves out, one that no prompt is about.
# LVIS numbers its categories in the order of their names too, but has 1,203 of them.
_PROMPTED = {name for prompts in LVIS_PROMPTS.values() for names in prompts.values() for name in names}
LVIS_CATEGORIES = tuple(sorted(_PROMPTED | {"wheel", "steering_wheel", "zebra"}))


@dataclass(frozen=True, slots=True)
class Photo:
    """A synthetic photo: uint8 RGB `[H, W, 3]`, and (number of the class, bool mask `[H, W]`) of each thing, back to front."""

    image: NDArray[np.uint8]
    things: tuple[tuple[int, NDArray[np.bool_]], ...]


def materialize_layout(layout: str, root: Path | None = None) -> Path:
    """Write the data in a layout where it is not there yet (a second or two), and tell where it is.

    Args:
        layout: pascal, coco, lvis or folder, as in `layout.LAYOUTS`.
        root: its folder; None for one in the user's cache, as for `mini.materialize`.

    Returns:
        The folder. It appears as a whole or not at all; the same code gives the same bytes.

    Raises:
        ClipSegError: the folder holds something else, or cannot be written.
    """
    root = root or cache_folder(f"mini-{layout}", __file__, classes.__file__, phrase_rules.__file__)
    return write_once(root, layout, _WRITERS[layout])


def stand_in(number: int) -> tuple[str, str]:
    """The (category, colour) that stands in for class `number`; from class 64 on the same again, drawn small."""
    categories, colours = list(CATEGORIES), list(COLOURS)
    row, column = divmod(number % (len(categories) * len(colours)), len(categories))
    # Neighbours differ in both: a fold is a run of classes, or every fourth.
    return categories[column], colours[(row + column) % len(colours)]


def draw_photo(stream: tuple[int, ...], number: int, *, class_count: int) -> Photo:
    """A photo that shows class `number`, and up to three more things; a pure function of its arguments.

    Args:
        stream: what tells photos of the same class apart.
        number: of the class.
        class_count: of the data set.
    """
    rng = np.random.default_rng([SEED, *stream])
    numbers = [number]
    for _ in range(rng.integers(4)):
        numbers.append(number if rng.random() < 0.25 else int(rng.integers(class_count)))
    kinds = [_kind(rng, of_class) for of_class in numbers]
    scene = draw_scene(rng, kinds, side=SIDE)
    class_of = dict(zip(kinds, numbers, strict=True))
    # A band of the square scene around the first thing, which finds room in it.
    axis = int(rng.integers(2))
    middle = round(scene.objects[0].centre[1 - axis])
    start = min(max(middle - SHORT_SIDE // 2, 0), SIDE - SHORT_SIDE)
    band = np.arange(start, start + SHORT_SIDE)
    things = [(class_of[thing.kind], thing.mask.take(band, axis)) for thing in scene.objects]
    return Photo(scene.image.take(band, axis), tuple((of_class, mask) for of_class, mask in things if mask.sum() >= SMALLEST))


def _kind(rng: np.random.Generator, number: int) -> Kind:
    is_small = number >= len(CATEGORIES) * len(COLOURS)
    size = "small" if is_small else str(rng.choice(["medium", "large"]))
    return Kind(*stand_in(number), size, str(rng.choice(list(PATTERNS))))


def _photos(splits: Mapping[str, int], class_count: int) -> Iterator[tuple[str, int, Photo]]:
    """(split, id, photo), where image i of a split shows class i, modulo their number."""
    image_id = 0
    for rank, (split, count) in enumerate(splits.items()):
        for index in range(count):
            image_id += 1
            photo = draw_photo((class_count, rank, index), index % class_count, class_count=class_count)
            yield split, image_id, _enlarged(photo)


def _enlarged(photo: Photo) -> Photo:
    """Each pixel a square of `ENLARGED` times `ENLARGED`."""

    def larger(pixels: NDArray[Any]) -> NDArray[Any]:
        return pixels.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)

    return Photo(larger(photo.image), tuple((of_class, larger(mask)) for of_class, mask in photo.things))


def _save_photo(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def _write_pascal(root: Path) -> None:
    """`VOCdevkit/VOC2012`: photos, label maps as palette PNGs, lists of images."""
    folder = root / "VOCdevkit" / "VOC2012"
    names: dict[str, list[str]] = {split: [] for split in (*PASCAL_SPLITS, "trainval")}
    (folder / "SegmentationClass").mkdir(parents=True)
    for split, image_id, photo in _photos(PASCAL_SPLITS, len(PASCAL_CLASSES)):
        name = f"2012_{image_id:06d}"
        _save_photo(folder / "JPEGImages" / f"{name}.jpg", photo.image)
        labels = Image.fromarray(label_map(photo))
        labels.putpalette(pascal_palette())
        labels.save(folder / "SegmentationClass" / f"{name}.png")
        names[split].append(name)
        names["trainval"].append(name)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, listed in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")


def label_map(photo: Photo) -> NDArray[np.uint8]:
    """uint8 `[H, W]` as VOC's: 0 background, class number + 1, and 255 along the border of each thing, two pixels wide."""
    owner = np.zeros(photo.image.shape[:2], dtype=np.uint8)
    for index, (_, mask) in enumerate(photo.things, start=1):
        owner[mask] = index
    label_of = np.array([0, *(of_class + 1 for of_class, _ in photo.things)], dtype=np.uint8)
    is_border = ndimage.maximum_filter(owner, 3) != ndimage.minimum_filter(owner, 3)
    return np.where(is_border, np.uint8(255), label_of[owner])


def pascal_palette() -> list[int]:
    """VOC's colours, 256 triples: a label's bits, in threes from the lowest on, are its colour's bits from the highest on."""
    return [
        sum((label >> (3 * place + channel) & 1) << (7 - place) for place in range(8))
        for label in range(256)
        for channel in range(3)
    ]


def _write_coco(root: Path) -> None:
    """`annotations/instances_<split>.json`, photos in `<split>`; of several things of a class, all but one are a crowd."""
    categories = [{"id": number, "name": name} for number, name in zip(COCO_IDS, COCO_CLASSES, strict=True)]
    contents = {split: _Instances(categories) for split in COCO_SPLITS}
    for split, image_id, photo in _photos(COCO_SPLITS, len(COCO_CLASSES)):
        name = f"COCO_{split}_{image_id:012d}.jpg"
        _save_photo(root / split / name, photo.image)
        contents[split].add(image_id, photo, crowds=True, file_name=name)
    for split, content in contents.items():
        _write_json(root / "annotations" / f"instances_{split}.json", content.as_json())


def _write_lvis(root: Path) -> None:
    """`lvis_v1_<split>.json`; the photos of train in `train2017`, those of val there and in `val2017`, as COCO's are."""
    categories = [{"id": number, "name": name} for number, name in enumerate(LVIS_CATEGORIES, start=1)]
    contents = {split: _Instances(categories) for split in LVIS_SPLITS}
    for split, image_id, photo in _photos(LVIS_SPLITS, len(LVIS_CATEGORIES)):
        place = f"{'val2017' if split == 'val' and image_id % 2 else 'train2017'}/{image_id:012d}.jpg"
        _save_photo(root / place, photo.image)
        url = f"http://images.cocodataset.org/{place}"
        contents[split].add(image_id, photo, crowds=False, coco_url=url, neg_category_ids=[], not_exhaustive_category_ids=[])
    for split, content in contents.items():
        _write_json(root / f"lvis_v1_{split}.json", content.as_json())


class _Instances:
    """The content of an annotation file of COCO or LVIS; class number k is the category k of `categories`."""

    def __init__(self, categories: list[dict[str, Any]]) -> None:
        self.categories = categories
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, image_id: int, photo: Photo, *, crowds: bool, **fields: Any) -> None:
        """Enter a photo; where `crowds`, further things of the same class in it are one annotation."""
        height, width = photo.image.shape[:2]
        self.images.append({"id": image_id, "height": height, "width": width, **fields})
        numbers = [of_class for of_class, _ in photo.things]
        for number in dict.fromkeys(numbers):
            masks = [mask for of_class, mask in photo.things if of_class == number]
            alone = masks[:1] if crowds else masks
            for mask in alone:
                self._annotate(image_id, number, mask, is_crowd=False)
            if masks[len(alone) :]:
                self._annotate(image_id, number, np.logical_or.reduce(masks[len(alone) :]), is_crowd=True)

    def _annotate(self, image_id: int, number: int, mask: NDArray[np.bool_], *, is_crowd: bool) -> None:
        rows, columns = np.flatnonzero(mask.any(axis=1)).tolist(), np.flatnonzero(mask.any(axis=0)).tolist()
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": self.categories[number]["id"],
                "segmentation": run_lengths(mask) if is_crowd else outlines(mask),
                "iscrowd": int(is_crowd),
                "area": int(mask.sum()),
                "bbox": [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1],
            }
        )

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {"images": self.images, "categories": self.categories, "annotations": self.annotations}


def outlines(mask: NDArray[np.bool_]) -> list[list[float]]:
    """A mask without holes as COCO's polygons, `[x0, y0, x1, y1, ...]` for each of its pieces; they are decoded to the mask."""
    pieces, count = ndimage.label(mask)
    polygons = []
    for piece in range(1, count + 1):
        # Traced at twice the size: the polygon runs a quarter of a pixel inside the mask, around the middle of every pixel.
        doubled = (pieces == piece).repeat(2, axis=0).repeat(2, axis=1)
        polygons.append([(value + 0.5) / 2 for corner in trace_outline(doubled) for value in corner])
    return polygons


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as COCO's run lengths: down the columns, what is outside first."""
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, mask.size]).tolist()}


def _write_folder(root: Path) -> None:
    """`<split>.jsonl` with the phrases of the mini data; every other mask a picture, the rest polygons."""
    (root / "masks").mkdir(parents=True)
    for split, count in FOLDER_SPLITS.items():
        lines = []
        for index in range(count):
            scene, phrases = draw_image(split, index)
            _save_photo(root / "photos" / f"{split}_{index}.jpg", scene.image)
            for number, phrase in enumerate(phrases):
                line: dict[str, Any] = {"image": f"photos/{split}_{index}.jpg", "phrase": phrase.text}
                masks = list(phrase.masks(scene).values())
                if number % 2:
                    line["polygons"] = [trace_outline(mask) for mask in masks]
                else:
                    line["mask"] = f"masks/{split}_{index}_{number}.png"
                    Image.fromarray(np.logical_or.reduce(masks)).save(root / line["mask"])
                lines.append(json.dumps(line) + "\n")
        (root / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


_WRITERS: Mapping[str, Callable[[Path], None]] = {
    "pascal": _write_pascal,
    "coco": _write_coco,
    "lvis": _write_lvis,
    "folder": _write_folder,
}
