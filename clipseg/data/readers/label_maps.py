"""A picture whose values are labels, as VOC's and HSNet's: read, and compared with its photo."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipseg.data.layout import check_inside
from clipseg.errors import ClipSegError
from clipseg.image_io import open_pil, read_labels


def read_label_map(path: Path, root: Path, photo: Path, *, most: int, also: Collection[int] = ()) -> Tensor:
    """Read a label map of a photo.

    Args:
        path: a palette or gray PNG.
        root: the data's folder, which no link may leave.
        photo: has the same size.
        most: the largest label.
        also: values beyond it that are none the less expected.

    Returns:
        uint8 `[H, W]`.

    Raises:
        ClipSegError: missing or damaged, in colours, with other values, not of the photo's size, or a link that leaves `root`.
    """
    check_inside(path, root)
    if not path.exists():
        raise ClipSegError(f"{path}: no such label map; fetch it, or choose another split (VOC's and COCO's test have none)")
    labels = read_labels(path)
    wrong = labels[(labels > most) & ~np.isin(labels, list(also))]
    if len(wrong):
        expected = " and ".join([f"0 to {most}", *map(str, also)])
        raise ClipSegError(f"{path}: label value {wrong[0]}; expected {expected}")
    with open_pil(photo) as image:
        width, height = image.size
    if labels.shape != (height, width):
        size = f"{labels.shape[1]}x{labels.shape[0]}"
        raise ClipSegError(f"{path}: {size} pixels, but its photo has {width}x{height}; fetch both again")
    return torch.from_numpy(labels)
