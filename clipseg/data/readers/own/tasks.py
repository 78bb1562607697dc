"""Tasks of a folder of the user's own, in whichever form it is kept: an image, a class, and where the mask is."""

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg.data.annotations import is_text, polygon_points
from clipseg.data.layout import check_inside
from clipseg.data.rasterise import rasterise
from clipseg.errors import ClipSegError
from clipseg.image_io import read_labels, read_mask

Problems = list[str] | None


@dataclass(frozen=True, slots=True)
class OwnTask:
    """One thing to segment.

    Attributes:
        number: unique in its split, and the same whenever it is read.
        image: path of the photo, relative to the folder.
        name: the class: its phrase, or its entry in the table of phrases.
        target: a value of JSON, which `draw` makes a mask of: "mask" (a path), "polygons" (of [x, y] points), "labels" (the
            path of a label map) and "value", or "segmentations" (COCO's) and "size".
        where: how errors call the task.
    """

    number: int
    image: str
    name: str
    target: Mapping[str, Any]
    where: str


def draw(target: Mapping[str, Any], root: Path, height: int, width: int, *, where: str) -> NDArray[np.uint8]:
    """Return the mask of a task, uint8 `[height, width]` of 0 and 1.

    Args:
        target: of an `OwnTask`.
        root: the folder.
        height: of the photo, in pixels.
        width: of the photo, in pixels.
        where: how errors call the task.

    Raises:
        ClipSegError: a file that cannot be read, or of another size than its photo.
    """
    if "polygons" in target:
        return rasterise([polygon_points(polygon, where) for polygon in target["polygons"]], height, width)
    if "segmentations" in target:
        from clipseg.data.readers.segmentation import decode_segmentation

        shape, called = tuple(target["size"]), "the annotated image"
        pieces = [decode_segmentation(piece, *shape, where=where) for piece in target["segmentations"]]
        mask = np.logical_or.reduce(pieces).astype(np.uint8)
    elif "mask" in target:
        mask = read_mask(root / target["mask"], exif=False).byte().numpy()
        called = f"mask {target['mask']}"
    else:
        mask = (read_labels(root / target["labels"]) == target["value"]).astype(np.uint8)
        called = f"label map {target['labels']}"
    if mask.shape != (height, width):
        size = f"{mask.shape[1]}x{mask.shape[0]}"
        raise ClipSegError(f"{where}: {called} has {size} pixels, its image {width}x{height}; draw it at that size")
    return mask


def check_name(name: Any, where: str) -> str:
    """Return the name of a class or a phrase, once it is text that is not empty.

    Raises:
        ClipSegError: something else.
    """
    if not is_text(name) or not name.strip():
        raise ClipSegError(f"{where} is {reprlib.repr(name)}; expected text")
    return name


def check_path(text: Any, root: Path, where: str) -> None:
    """Refuse what is no file inside `root`, whichever way one might try to leave it.

    Raises:
        ClipSegError: no path, one that leaves the folder, or no such file.
    """
    if not is_text(text) or not text or "\0" in text:
        raise ClipSegError(f"{where} is {reprlib.repr(text)}; expected a path relative to {root}")
    paths = PurePosixPath(text), PureWindowsPath(text)
    if any(path.anchor or ".." in path.parts for path in paths):
        raise ClipSegError(f"{where} {text!r} leaves {root}; put the file inside and name it relative to that folder")
    try:
        check_inside(root / text, root)
    except ClipSegError as error:
        raise ClipSegError(f"{where} {text!r} is a symbolic link that leaves {root}; put the file itself there") from error
    if not os.path.isfile(root / text):
        raise ClipSegError(f"{where} {text!r}: no such file in {root}")
