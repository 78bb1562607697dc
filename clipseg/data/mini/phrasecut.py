"""A synthetic PhraseCut: scenes, phrases and masks in the official layout, written once into a cache folder.

It is read by the reader of the real data set; nothing downstream knows that its photos are drawings. The split `unseen` holds
pairs of a colour and a category that occur in no other split, neither drawn nor named, and pairs of a category and a relation
that no other split names; each of its tasks names one.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipseg.data.layout import find_layouts
from clipseg.data.mini import phrases as phrase_rules
from clipseg.data.mini import scenes as scene_rules
from clipseg.data.mini import shapes
from clipseg.data.mini.phrases import Phrase, choose_phrases
from clipseg.data.mini.scenes import COLOURS, RELATIONS, SIZES, Kind, Scene, bounding_box, draw_scene
from clipseg.data.mini.shapes import CATEGORIES, PATTERNS
from clipseg.errors import ClipSegError
from clipseg.files import read_text, user_cache

SPLITS: dict[str, int] = {"train": 1200, "val": 100, "test": 200, "unseen": 200}  # images
SEED = 20220618
SIDE = 176
OBJECTS = (2, 6)
JPEG_QUALITY = 92
CHECKSUMS = "checksums.txt"  # as of sha256sum

# Each category and each colour is in one pair.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    zip(CATEGORIES, ("green", "blue", "red", "pink", "yellow", "purple", "cyan", "orange"), strict=True)
)
# Each category with one relation, each relation with two categories.
HELD_OUT_RELATIONS: frozenset[tuple[str, str]] = frozenset(zip(CATEGORIES, RELATIONS * 2, strict=True))


def materialize(root: Path | None = None) -> Path:
    """Write the data set where it is not there yet (some seconds), and tell where it is.

    Args:
        root: its folder; None for `default_root`.

    Returns:
        The folder, in the official PhraseCut layout. It appears as a whole or not at all; the same code gives the same bytes.

    Raises:
        ClipSegError: the folder holds something else, or cannot be written.
    """
    return write_once(root or default_root(), "phrasecut", _write)


def default_root() -> Path:
    """Where the data lies that `materialize` writes unasked."""
    return cache_folder("mini", phrase_rules.__file__)


def cache_folder(name: str, *sources: str) -> Path:
    """`clipseg/<name>-<version>` in the user's cache; the version is of the code that draws, so that no stale copy is read.

    Args:
        name: of the data.
        sources: files with code that decides what is drawn, besides this one and that of the scenes.
    """
    paths = map(Path, (__file__, scene_rules.__file__, shapes.__file__, *sources))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:10]
    return user_cache() / f"{name}-{version}"


def write_once(root: Path, layout: str, write: Callable[[Path], None]) -> Path:
    """Have `write` fill a new folder, and rename it to `root` when it is whole; a `root` of that layout is left as it is.

    With the data come their checksums: what was written here and is damaged is written anew.

    Raises:
        ClipSegError: the folder holds something else, or cannot be written.
    """
    is_ours = (root / CHECKSUMS).is_file()
    if _is_whole(root) if is_ours else _is_there(root, layout):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
            new = Path(folder) / "mini"
            write(new)
            lines = [f"{_checksum(path)}  {path.relative_to(new)}\n" for path in sorted(new.rglob("*")) if path.is_file()]
            (new / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
            if is_ours:
                warnings.warn(f"{root}: damaged; written anew", stacklevel=2)
                with contextlib.suppress(FileNotFoundError):  # another process does the same
                    os.rename(root, Path(folder) / "damaged")
            os.rename(new, root)
    except OSError as error:
        # Another process may have been faster: what it wrote is the same.
        if not _is_there(root, layout):
            raise ClipSegError(
                f"{root}: the mini data cannot be written ({error.strerror}); choose an empty folder by data.root"
            ) from error
    return root


def _is_there(root: Path, layout: str) -> bool:
    return root.is_dir() and layout in find_layouts(root)


def _is_whole(root: Path) -> bool:
    try:
        lines = [line.split("  ", 1) for line in read_text(root / CHECKSUMS).splitlines()]
        return all((root / name).is_file() and _checksum(root / name) == checksum for checksum, name in lines)
    except (ClipSegError, OSError, ValueError):
        return False


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    counts: dict[str, Counter[str]] = {"cat": Counter(), "att": Counter(), "rel": Counter()}
    first_id, first_annotation = 1, 1
    for split, count in SPLITS.items():
        tasks: list[dict[str, Any]] = []
        for image_id in range(first_id, first_id + count):
            scene, phrases = draw_image(split, image_id - first_id)
            Image.fromarray(scene.image).save(root / "images" / f"{image_id}.jpg", quality=JPEG_QUALITY)
            images.append({"image_id": image_id, "width": SIDE, "height": SIDE, "split": split, "url": ""})
            tasks += _records(scene, phrases, image_id=image_id, first_annotation=first_annotation)
            first_annotation += 2 * len(scene.objects)
            for phrase in phrases:
                counts["cat"][phrase.subject.category] += 1
                counts["att"].update(phrase.subject.attributes)
                counts["rel"].update([phrase.relation] if phrase.relation else [])
        first_id += count
        _write_json(root / f"refer_{split}.json", tasks)
        _write_json(root / f"refer_input_{split}.json", [_without_truth(task) for task in tasks])
    _write_json(root / "name_att_rel_count.json", {key: _ranked(counter) for key, counter in counts.items()})
    _write_json(root / "image_data_split.json", images)


def _ranked(counter: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, ties by name."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _write_json(path: Path, value: Any) -> None:
    # Compact, and without a sync a file: the folder is renamed into its place only when all is written.
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def _without_truth(task: dict[str, Any]) -> dict[str, Any]:
    structure = {key: task["phrase_structure"][key] for key in ("name", "attributes", "relation_descriptions")}
    return {"task_id": task["task_id"], "image_id": task["image_id"], "phrase": task["phrase"], "phrase_structure": structure}


def _records(scene: Scene, phrases: list[Phrase], *, image_id: int, first_annotation: int) -> list[dict[str, Any]]:
    """The entries of `refer_<split>.json` for one image."""
    matches = [phrase.masks(scene) for phrase in phrases]
    masks = {index: mask for found in matches for index, mask in found.items()}
    outlines = {index: trace_outline(mask) for index, mask in masks.items()}
    corners = {index: bounding_box(mask) for index, mask in masks.items()}
    boxes = {index: [x0, y0, x1 - x0 + 1, y1 - y0 + 1] for index, (x0, y0, x1, y1) in corners.items()}
    records = []
    for number, (phrase, found) in enumerate(zip(phrases, matches, strict=True)):
        records.append(
            {
                "task_id": f"{image_id}__{number}",
                "image_id": image_id,
                "ann_ids": [first_annotation + index for index in found],
                "instance_boxes": [boxes[index] for index in found],
                "Polygons": [[outlines[index]] for index in found],
                "phrase": phrase.text,
                "phrase_structure": phrase.structure(image_id * 10 + number),
            }
        )
    return records


def trace_outline(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The border pixels of a mask that is in one piece, as a polygon: (x, y) corners, clockwise, straight runs merged.

    Drawn by Pillow with outline and fill it gives the mask back. Moore-neighbour tracing; at least two pixels.
    """
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded)
    start = (int(rows[0]), int(columns[0]))
    # The eight neighbours (row, column), clockwise from the west. The first pixel in reading order has none there.
    ring = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))
    corners: list[tuple[int, int]] = []
    position, look, first_step, last_step = start, 0, -1, -1
    while True:
        around = ((look + turn) % 8 for turn in range(8))
        step = next(side for side in around if padded[position[0] + ring[side][0], position[1] + ring[side][1]])
        if position == start and step == first_step:
            return corners
        first_step = step if first_step < 0 else first_step
        if step != last_step:
            corners.append((position[1] - 1, position[0] - 1))
        position, last_step = (position[0] + ring[step][0], position[1] + ring[step][1]), step
        # Look around from the background pixel that was seen last: it lies two sides back, three where the step was diagonal.
        look = (step - 2 - step % 2) % 8


def draw_image(split: str, index: int) -> tuple[Scene, list[Phrase]]:
    """Image `index` of a split and what is asked of it: a pure function of the two."""
    rng = np.random.default_rng([SEED, list(SPLITS).index(split), index])
    while True:
        scene = draw_scene(rng, _some_kinds(rng, unseen=split == "unseen"), side=SIDE)
        phrases = choose_phrases(rng, scene, unseen=split == "unseen", pairs=HELD_OUT, relations=HELD_OUT_RELATIONS)
        if len(scene.objects) >= OBJECTS[0] and phrases:
            return scene, phrases


def _some_kinds(rng: np.random.Generator, *, unseen: bool) -> list[Kind]:
    """Kinds to draw; often one shares its category or colour with the one before, so that one word does not tell them apart."""
    kinds: list[Kind] = []
    count = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    while len(kinds) < count:
        kind = Kind(*(str(rng.choice(list(words))) for words in (CATEGORIES, COLOURS, SIZES, PATTERNS)))
        if kinds and rng.random() < 0.4:
            kind = kind._replace(category=kinds[-1].category) if rng.random() < 0.5 else kind._replace(colour=kinds[-1].colour)
        if unseen or (kind.category, kind.colour) not in HELD_OUT:
            kinds.append(kind)
    if unseen:
        category, colour = sorted(HELD_OUT)[rng.integers(len(HELD_OUT))]
        where = int(rng.integers(count))
        kinds[where] = kinds[where]._replace(category=category, colour=colour)
    return kinds
