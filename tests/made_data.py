"""Tiny data sets in the exact official formats: Pascal VOC 2012, COCO, LVIS v1. What is in them is returned as arrays."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipseg.data.classes import COCO_CLASSES, LVIS_PROMPTS, PASCAL_CLASSES
from clipseg.data.mini import layouts

Box = tuple[int, int, int, int]  # (x0, y0, x1, y1), ends not included
SIZE = (24, 32)
# A training of seconds, for the entry points.
SMALL_TRAINING = [
    "experiment=mini_random",
    "model.extract_layers=[1,2]",
    "model.reduce_dim=16",
    "model.image_size=64",
    "training.steps=2",
    "training.batch_size=4",
    "training.phrases_per_image=1",
    "training.validate_every=2",
    "training.log_every=1",
    "data.workers=0",
    "evaluate_splits=[]",
]
MORE_CATEGORIES = {"bow_(weapon)", "bow_(decorative)", "zebra"}


def photo(path: Path, size: tuple[int, int] = SIZE, *, gray: bool = False, shade: int = 90) -> None:
    """A plain JPEG; some of COCO's are gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if gray else "RGB", size[::-1], shade if gray else (shade, 20, 200)).save(path, quality=95)


def box_mask(box: Box, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    mask = np.zeros(size, dtype=np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 1
    return mask


def write_voc(root: Path, images: Mapping[str, Mapping[str, Box]], *, split: str = "val") -> dict[str, NDArray[np.uint8]]:
    """VOCdevkit/VOC2012 with palette PNGs; later boxes lie on earlier ones, and each has a border of 255. -> label maps."""
    folder = root / "VOCdevkit" / "VOC2012"
    labels = {}
    for number, (image_id, boxes) in enumerate(images.items()):
        size = SIZE if number % 2 else SIZE[::-1]
        photo(folder / "JPEGImages" / f"{image_id}.jpg", size, gray=number == 1)
        label_map = np.zeros(size, dtype=np.uint8)
        for name, (x0, y0, x1, y1) in boxes.items():
            label_map[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 255
            label_map[y0:y1, x0:x1] = PASCAL_CLASSES.index(name) + 1
        write_labels(folder / "SegmentationClass" / f"{image_id}.png", label_map)
        labels[image_id] = label_map
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in images))
    return labels


def write_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    image.putpalette(layouts.pascal_palette())
    image.save(path)


def polygon(box: Box) -> list[list[float]]:
    """A box as COCO writes polygons. pycocotools colours the pixels whose centres lie inside."""
    x0, y0, x1, y1 = box
    return [[float(value) for value in (x0, y0, x1, y0, x1, y1, x0, y1)]]


def run_lengths(box: Box, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """A box as COCO writes crowds."""
    return layouts.run_lengths(box_mask(box, size).astype(bool))


def compressed(box: Box, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """A box as text, by COCO's rule: five bits a character, from the third count on as differences to the one before last."""
    counts, text = run_lengths(box, size)["counts"], ""
    for place, value in enumerate(counts):
        left = value - counts[place - 2] if place > 2 else value
        more = True
        while more:
            bits, left = left & 0x1F, left >> 5
            more = left != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | (0x20 if more else 0)))
    return {"size": list(size), "counts": text}


def instances(
    images: Mapping[int, Sequence[tuple[str, Any]]], categories: Mapping[str, int], photos: Mapping[int, Mapping[str, str]]
) -> dict[str, Any]:
    """The content of an annotation file: image id -> (category, segmentation) in turn."""
    annotations = [
        {
            "id": 100 * image_id + number,
            "image_id": image_id,
            "category_id": categories[name],
            "segmentation": segmentation,
            "iscrowd": int(isinstance(segmentation, dict) and isinstance(segmentation["counts"], list)),
            "area": 1.0,
            "bbox": [0, 0, 1, 1],
        }
        for image_id, objects in images.items()
        for number, (name, segmentation) in enumerate(objects)
    ]
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1], **photos[i]} for i in images],
        "categories": [{"id": number, "name": name, "supercategory": "x"} for name, number in categories.items()],
        "annotations": annotations,
    }


def write_coco(root: Path, images: Mapping[int, Sequence[tuple[str, Any]]], *, split: str = "val2014") -> Path:
    """`annotations/instances_<split>.json` with 80 categories of ids with gaps, and photos in `<split>`, every third gray."""
    prefix = f"COCO_{split}_" if split.endswith("2014") else ""
    names = {image_id: f"{prefix}{image_id:012d}.jpg" for image_id in images}
    for image_id, name in names.items():
        photo(root / split / name, gray=image_id % 3 == 0, shade=image_id % 200)
    categories = dict(zip(COCO_CLASSES, layouts.COCO_IDS, strict=True))
    content = instances(images, categories, {image_id: {"file_name": name} for image_id, name in names.items()})
    content["annotations"].reverse()  # the order of annotations in the file is not that of its images
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_lvis(root: Path, images: Mapping[int, Sequence[tuple[str, Any]]], *, split: str = "val") -> Path:
    """`lvis_v1_<split>.json` with all categories of the prompts and a few more; photos of odd ids in train2017."""
    known = {name for prompts in LVIS_PROMPTS.values() for names in prompts.values() for name in names}
    categories = {name: 3 * number + 1 for number, name in enumerate(sorted(known | MORE_CATEGORIES))}
    places = {i: f"{'train' if i % 2 else 'val'}2017/{i:012d}.jpg" for i in images}
    for place in places.values():
        photo(root / place)
    urls = {i: {"coco_url": f"http://images.cocodataset.org/{place}"} for i, place in places.items()}
    path = root / f"lvis_v1_{split}.json"
    path.write_text(json.dumps(instances(images, categories, urls)))
    return path


def change(path: Path, edit: Any) -> None:
    """Read a JSON file, edit its content in place, write it back."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def add_noise(root: Path) -> None:
    """Photos with something on them."""
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        width, height = Image.open(path).size
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.NEAREST).save(path, quality=95)


def write_folder(root: Path, splits=("test",)) -> list[tuple[str, str, tuple[int, int, int, int]]]:
    lines = [
        ("1", "a dog", (2, 3, 9, 12)),
        ("1", "sky", (11, 1, 30, 8)),
        ("2", "sky", (0, 0, 32, 9)),
        ("2", "a dog", (5, 9, 20, 22)),
    ]
    for name in ("1", "2"):
        (root / "photos").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(root / "photos" / f"{name}.jpg")
    (root / "masks").mkdir()
    tasks = []
    for number, (name, phrase, box) in enumerate(lines):
        Image.fromarray(255 * box_mask(box)).save(root / "masks" / f"{number}.png")
        tasks.append(json.dumps({"image": f"photos/{name}.jpg", "phrase": phrase, "mask": f"masks/{number}.png"}))
    for split in splits:
        (root / f"{split}.jsonl").write_text("\n".join(tasks))
    add_noise(root)
    return lines
