"""Pascal VOC 2012 as published (VOCdevkit) -> one-shot and text tasks of Pascal-5i, and label maps for zero-shot.

Source: the paper, Sec. 4.2 and 4.3, Tab. 4, 5 and 7; docs/paper.md, Sec. 5, for what was run.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from clipseg.data.classes import PASCAL_CLASSES, VOC_NAMES, pascal5i_fold
from clipseg.data.layout import check_inside, voc_folder, wrong_layout
from clipseg.data.readers.episodes import LEAST_PIXELS, Episode, EpisodeReader, read_episodes, too_few
from clipseg.data.readers.label_maps import read_label_map
from clipseg.data.sampling import split_index
from clipseg.errors import ClipSegError
from clipseg.files import read_text
from clipseg.image_io import read_image

IGNORED = 255  # the label of the border around each object, and of what is hard to say
RELEASED_SEED = 123


class PascalSplit:
    """The photos and label maps of one split; a `MaskSource` whose names are `VOC_NAMES`.

    Args:
        root: the folder that holds VOC2012, or VOC2012 itself.
        split: train, val or trainval: a list under `ImageSets/Segmentation`.
        augmented: take the labels of SegmentationClassAug, where there are any, and not VOC's own.

    Attributes:
        image_ids: in the order of the list.
        label_folder: the name of the folder of label maps.

    Raises:
        ClipSegError: another layout, no such split, or a list that is malformed.
    """

    def __init__(self, root: str | Path, split: str, *, augmented: bool = False) -> None:
        self.root = Path(root)
        folder = voc_folder(self.root)
        if folder is None:
            raise wrong_layout(self.root, "pascal")
        self.folder = folder
        self.image_ids = _read_split(folder, split)
        there = augmented and (folder / "SegmentationClassAug").is_dir()
        self.label_folder = "SegmentationClassAug" if there else "SegmentationClass"

    def read_image(self, image_id: str) -> Tensor:
        """uint8 RGB `[3, H, W]`."""
        path = self.photo_path(image_id)
        check_inside(path, self.root)
        return read_image(path, exif=False)

    def photo_path(self, image_id: str) -> Path:
        """Where a photo lies."""
        return self.folder / "JPEGImages" / f"{image_id}.jpg"

    def read_labels(self, image_id: str) -> Tensor:
        """A label map, uint8 `[H, W]` of the photo's size: 0 background, 1 to 20 classes, 255 ignored.

        Raises:
            ClipSegError: as `read_label_map`.
        """
        path = self.folder / self.label_folder / f"{image_id}.png"
        return read_label_map(path, self.root, self.photo_path(image_id), most=len(PASCAL_CLASSES), also=(IGNORED,))

    def read_masks(self, image_id: str, names: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        """A mask for each class, uint8 `[H, W]`, and where pixels count."""
        labels = self.read_labels(image_id)
        masks = [(labels == VOC_NAMES.index(name) + 1).byte() for name in names]
        return masks, (labels != IGNORED).byte()

    def pixels_of_class(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Image -> the names it shows, in their order, and the pixels of each; from all label maps, which takes some seconds.

        Raises:
            ClipSegError: a label map cannot be read.
        """
        labels = [VOC_NAMES.index(name) + 1 for name in names]
        found = {}
        for image_id in self.image_ids:
            pixels = np.bincount(self.read_labels(image_id).numpy().ravel(), minlength=256)
            found[image_id] = {name: int(pixels[label]) for name, label in zip(names, labels, strict=True) if pixels[label]}
        return found


def _read_split(folder: Path, split: str) -> list[str]:
    lists = folder / "ImageSets" / "Segmentation"
    known = sorted(path.stem for path in lists.glob("*.txt"))
    if split not in known:
        raise ClipSegError(f"{lists}: split {split!r} unknown; expected one of {', '.join(known) or 'none: it is empty'}")
    path = lists / f"{split}.txt"
    image_ids = read_text(path).split()
    for image_id in image_ids:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", image_id):
            raise ClipSegError(f"{path}: image {image_id!r}; expected names such as 2007_000033")
    if not image_ids or len(set(image_ids)) != len(image_ids):
        raise ClipSegError(f"{path}: no image, or one twice; fetch it again")
    return image_ids


def pascal5i(
    root: str | Path,
    *,
    split: str = "val",
    fold: int,
    visual_support: bool,
    seed: int = 0,
    episodes: str | Path | None = None,
) -> EpisodeReader:
    """Pascal-5i: each image with classes of the fold is asked for one of them, by another image (Tab. 5) or by name (Tab. 7).

    Args:
        root: the folder that holds VOC2012.
        split: of queries and supports.
        fold: 0 to 3.
        visual_support: give each task its support (one-shot) or not (text): the same draws.
        seed: of the draws; 0 gives the released ones.
        episodes: a file of `EpisodeReader.save`, whose episodes are used instead.

    Raises:
        ClipSegError: another layout, no such split or fold, a class with one image, damaged label maps, or episodes that do
            not fit.
    """
    source = PascalSplit(root, split, augmented=True)
    names = [VOC_NAMES[PASCAL_CLASSES.index(name)] for name in pascal5i_fold(fold)]
    about: dict[str, str | int] = {"benchmark": "pascal5i", "split": split, "fold": fold}
    if episodes is not None:
        drawn = read_episodes(episodes, source, names, about)
        about["drawn"] = f"by others: {Path(episodes).name}"
    else:
        where = f"{source.folder}, split {split}"
        drawn = draw_as_released(source.pixels_of_class(names), names, random.Random(RELEASED_SEED + seed), where=where)
        about["drawn"] = f"from classes of at least {LEAST_PIXELS} pixels"
    about["labels"] = source.label_folder
    return EpisodeReader(source, drawn, about=about, seed=seed, visual_support=visual_support)


def draw_as_released(
    pixels: Mapping[str, Mapping[str, int]], names: Sequence[str], rng: random.Random, *, where: str
) -> list[Episode]:
    """Draw an episode for each image in which a class has `LEAST_PIXELS`, in the order of the images.

    The class is one of those present, of any size. One number is drawn for nothing, as released.

    Args:
        pixels: image -> the names it shows, in the order of `names`, and the pixels of each.
        names: of the fold.
        rng: source of the draws.
        where: how errors call the data.

    Raises:
        ClipSegError: a class that is drawn can be shown by no other image.
    """
    supports = {name: [i for i, shown in pixels.items() if shown.get(name, 0) >= LEAST_PIXELS] for name in names}
    episodes = []
    for query in (image_id for image_id, shown in pixels.items() if max(shown.values(), default=0) >= LEAST_PIXELS):
        present = list(pixels[query])
        name = present[rng.randint(1, len(present)) - 1]
        if not set(supports[name]) - {query}:
            raise too_few(name, where)
        rng.randint(1, len(supports[name]))
        support = query
        while support == query:
            support = supports[name][rng.randint(1, len(supports[name])) - 1]
        episodes.append(Episode(query=query, name=name, support=support))
    return episodes


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image with what each pixel shows.

    Attributes:
        image_key: its name, such as "2007_000033".
        image: uint8 RGB `[3, H, W]`.
        labels: uint8 `[H, W]`: 0 background, 1 to 20 `PASCAL_CLASSES`, 255 ignored.
    """

    image_key: str
    image: Tensor
    labels: Tensor


class PascalZeroShot(Dataset[LabelledImage]):
    """Every image of a split with its label map: what generalised zero-shot segmentation is measured on (Tab. 4).

    Args:
        root: the folder that holds VOC2012.
        split: of the images.

    Attributes:
        image_ids: str `[I]`.

    Raises:
        ClipSegError: another layout, or no such split.
    """

    def __init__(self, root: str | Path, *, split: str = "val") -> None:
        self._source = PascalSplit(root, split)
        self.image_ids = np.array(self._source.image_ids)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: tuple[int, int] | int) -> LabelledImage:
        """Read one image; `index` is the item, or `(epoch, item)`.

        Raises:
            ClipSegError: a file is missing, damaged, or of another size than its photo, or a label is none of VOC's.
        """
        _, item = split_index(index, len(self))
        image_id = str(self.image_ids[item])
        return LabelledImage(
            image_key=image_id, image=self._source.read_image(image_id), labels=self._source.read_labels(image_id)
        )
