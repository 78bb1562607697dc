"""The authors' choice of LVIS objects for their study of visual prompts (Tab. 2), read from LVIS's own annotation file.

The list names 1,600 objects as pairs of numbers (16 repeat others, and count once here). The second is a category id of LVIS
v1: 1202 is the zebra, 422 the elephant. The first is no image id, of which LVIS has none as small as 0, but a position among
the images of that category: in each it stays below the number of training images that show it.

Which list of a category's images the authors counted in is not published (few pairs show small things, so it was probably
shortened by size). Here it is the plain one, in the order of the annotation file. Categories and their shares are thus the
authors'; whether the photos are the same cannot be told.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipseg.data.readers.instances import InstanceSource, InstanceTable, annotation_file, photo_path, read_instances
from clipseg.data.readers.lvis import natural_name
from clipseg.errors import ClipSegError
from clipseg.files import read_json
from clipseg.studies.visual_prompts.objects import LEAST_NAMES, NamedObject

PAIRS_PATH = Path(__file__).parents[2] / "assets" / "lvis_prompt_pairs.json"

Pair = tuple[int, int]


def published_pairs() -> list[Pair]:
    """The authors' pairs (position, category id), each once."""
    return list(dict.fromkeys((position, category) for position, category in read_json(PAIRS_PATH)["pairs"]))


class LVISPairs:
    """Objects of LVIS v1 by (position, category id) pairs; the mask is the largest object of its category in the image.

    Args:
        root: the folder that holds `lvis_v1_<split>.json`, itself or in `annotations`, and COCO's photos in `train2017` and
            `val2017`.
        split: of the annotations; the authors' pairs are of train.
        pairs: None for the authors'.
        allow_missing: leave out photos that are not there, with a warning.

    Raises:
        ClipSegError: another layout, no such split, malformed annotations, pycocotools is missing, or no pair leads to an image
            with at least three names.
    """

    def __init__(
        self, root: str | Path, *, split: str = "train", pairs: Sequence[Pair] | None = None, allow_missing: bool = False
    ):
        self.split = split
        self._table = read_instances(annotation_file(root, "lvis", split=split))
        self._source = InstanceSource(self._table, Path(root), {})
        chosen = _choose(self._table, published_pairs() if pairs is None else pairs)
        present = {
            image: categories
            for image, categories in chosen.items()
            if not allow_missing or photo_path(Path(root), self._table.photos[image]).is_file()
        }
        if len(present) < len(chosen):
            missing = len(chosen) - len(present)
            warnings.warn(f"{root}: {missing} of {len(chosen)} photos are missing; they are left out", stacklevel=2)
        if not present:
            raise ClipSegError(
                f"{self._table.path}: no pair leads to an image with {LEAST_NAMES} names; the authors' are of train"
            )
        self._items = list(present.items())

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int) -> list[NamedObject]:
        """The objects of one image."""
        image, categories = self._items[item]
        image_id = str(self._table.image_ids[image])
        pixels = self._source.read_image(image_id)
        objects = [
            NamedObject(
                key=f"{self.split}/{image_id}__{category + 1}",
                image_key=image_id,
                image=pixels,
                mask=torch.from_numpy(_largest_mask(self._table, image, category)),
                name=natural_name(self._table.categories[category]),
                names=_names_in(self._table, image),
            )
            for category in categories
        ]
        # A polygon that encloses no pixel leaves nothing to show.
        return [thing for thing in objects if thing.mask.any()]


def _choose(table: InstanceTable, pairs: Sequence[Pair]) -> dict[int, list[int]]:
    """The images that the pairs lead to and that have enough names, with the categories asked about, as places in the table."""
    image_of = np.repeat(np.arange(len(table.image_ids)), np.diff(table.starts))
    images = {number: np.unique(image_of[table.category == number - 1]).tolist() for number in {number for _, number in pairs}}
    chosen: dict[int, list[int]] = {}
    beyond = 0
    for position, number in pairs:
        if not 1 <= number <= len(table.categories):
            raise ClipSegError(f"{table.path}: no category {number}, which the pairs name; LVIS v1 has those from 1 to 1203")
        if position >= len(images[number]):
            beyond += 1
        elif len(_names_in(table, images[number][position])) >= LEAST_NAMES:
            categories = chosen.setdefault(images[number][position], [])
            if number - 1 not in categories:
                categories.append(number - 1)
    if beyond:
        warnings.warn(f"{table.path}: {beyond} of {len(pairs)} pairs point beyond their category's images", stacklevel=3)
    return chosen


def _names_in(table: InstanceTable, image: int) -> tuple[str, ...]:
    """Return what is annotated in an image, each once."""
    present = np.unique(table.category[table.starts[image] : table.starts[image + 1]])
    return tuple(sorted({natural_name(table.categories[category]) for category in present.tolist()}))


def _largest_mask(table: InstanceTable, image: int, category: int) -> NDArray[np.uint8]:
    """uint8 `[H, W]`, the object of a category with most pixels."""
    own = range(int(table.starts[image]), int(table.starts[image + 1]))
    masks = [table.mask(annotation, image) for annotation in own if table.category[annotation] == category]
    return max(masks, key=lambda mask: int(mask.sum()))
